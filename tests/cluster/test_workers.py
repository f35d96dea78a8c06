"""The rendezvous of workers, and the launcher, which leaves no process behind."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from keras_vae.cluster import launcher, meeting, messages

ROOT = pathlib.Path(__file__).parents[2]
# Starts as the command does, without large imports. Ctrl-C works as in a terminal, because
# a shell ignores it in background processes, where tests may run.
START = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "keras-vae"
from keras_vae.cluster import launcher, meeting
"""


# The rendezvous.


def free_addresses(count):
    return [f"127.0.0.1:{port}" for port in launcher._free_ports(count)]


def run_together(*calls):
    """Runs the calls at the same time; returns the error of each, or None."""
    raised = [None] * len(calls)

    def run(place, call):
        try:
            call()
        except (ValueError, TimeoutError) as error:
            raised[place] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return raised


def make_worker(cluster, index, timeout=5, after=0, token=b"", **facts):
    def call():
        time.sleep(after)
        facts_ = {"data": "a", "code": "x"} | facts
        meeting.rendezvous(cluster, index, facts_, timeout, token)

    return call


def is_free(address):
    host, port = address.split(":")
    with contextlib.suppress(OSError), socket.create_server((host, int(port))):
        return True
    return False


def test_all_workers_meet_and_the_port_is_free_again():
    cluster = free_addresses(3)
    for _ in range(3):  # immediately: the last rendezvous does not block the port
        calls = [make_worker(cluster, i, after=0.2 * (i == 0)) for i in range(3)]
        assert run_together(*calls) == [None] * 3
        assert is_free(cluster[0])


def test_a_single_worker_does_not_wait():
    meeting.rendezvous(["a.invalid:1"], 0, {})


def test_different_facts_are_an_error_on_every_worker():
    cluster = free_addresses(3)
    raised = run_together(
        make_worker(cluster, 0),
        make_worker(cluster, 1, data="b"),
        make_worker(cluster, 2, seed="7"),
    )
    for error in raised:
        assert type(error) is ValueError
        assert f"worker 1 ({cluster[1]}) has `data` b; the chief has `data` a" in str(error)
        assert "worker 2" in str(error) and "`seed` 7; the chief has `seed` miss" in str(
            error
        )
        assert "`code`" not in str(error)


def test_different_clusters_are_an_error():
    cluster = free_addresses(3)
    raised = run_together(make_worker(cluster[:2], 0), make_worker(cluster, 1, timeout=3))
    assert all(type(error) is ValueError and "`cluster`" in str(error) for error in raised)


@pytest.mark.parametrize("missing", [0, 2])
def test_a_timeout_names_the_missing_worker(missing):
    cluster, start = free_addresses(3), time.monotonic()
    # The chief has the longer timeout: the rendezvous ends at the shortest one.
    raised = run_together(
        *(make_worker(cluster, i, 1 if i else 9) for i in range(3) if i != missing)
    )
    assert 1 <= time.monotonic() - start < 3
    for error in raised:
        assert type(error) is TimeoutError and "within" in str(error)
        assert f"worker {missing} ({cluster[missing]}) did not" in str(error)


@pytest.mark.parametrize("index", [0, 1])
def test_two_workers_with_the_same_index_are_an_error(index):
    cluster = free_addresses(3)
    raised = run_together(
        make_worker(cluster, 0),
        make_worker(cluster, index, after=0.3),
        make_worker(cluster, 1),
    )
    for error in raised:
        assert type(
            error
        ) is ValueError and f"two processes that are worker {index}" in str(error)


def test_a_worker_can_disconnect_and_connect_again():
    cluster = free_addresses(3)

    def disconnect():
        """Sends its index and disconnects before the others connect."""
        with contextlib.suppress(OSError):
            deadline = time.monotonic() + 5
            meeting._ask(cluster, 1, {}, deadline, time.monotonic() + 0.1, b"")

    calls = [
        make_worker(cluster, 0),
        make_worker(cluster, 1, after=0.6),
        make_worker(cluster, 2, after=1),
    ]
    assert run_together(*calls, lambda: (time.sleep(0.3), disconnect())) == [None] * 4


def test_a_chief_can_disconnect_and_listen_again():
    cluster = free_addresses(2)

    def disconnect():
        with meeting._listen(cluster[0]) as server:
            server.setblocking(True)
            server.accept()[0].close()

    calls = [disconnect, make_worker(cluster, 1), make_worker(cluster, 0, after=0.5)]
    assert run_together(*calls) == [None] * 3


def connect(address):
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), 5)


def hello(worker=1, facts=None, left=5, token=b""):
    message = {"worker": worker, "facts": {} if facts is None else facts, "left": left}
    return messages.seal(message, token)


KEY, OTHER = b"k" * 16, b"o" * 16
UNSIGNED = b'{"worker": 1, "facts": {}, "left": -1}\n'
MALFORMED = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", b"\n", b"[" * 10**5 + b"\n",
    b"\xff\xfe\n", b"{}\n", b"1\n", UNSIGNED, b"x" * (2**20 + 1), hello(worker="1"),
    hello(facts={"a": 1}), hello(facts=[1]), hello(left=float("nan")), hello(left=10**400),
    messages.seal([[]], b""), hello()[:-1],
]  # fmt: skip
FORGED = [
    UNSIGNED, hello(), hello(token=OTHER),
    hello(token=KEY).replace(b'"worker": 1', b'"worker": 2'),  # a copy, as another worker
    hello(token=KEY).replace(b'"left": 5', b'"left": -5'),
    messages.seal({"worker": 1, "facts": {}, "left": 5}, KEY, question=b"{}"),  # an answer
    messages.seal({"go": True}, KEY),
]  # fmt: skip


@pytest.mark.parametrize(("requests", "token"), [(MALFORMED, b""), (FORGED, KEY)])
def test_messages_of_others_are_dropped(requests, token):
    cluster = free_addresses(2)

    def disturb():
        for request in requests:
            with connect(cluster[0]) as client:
                with contextlib.suppress(OSError):  # the server may close it early
                    client.sendall(request)
                    client.shutdown(socket.SHUT_WR)
                    assert client.recv(10) == b""
        silent = connect(cluster[0])
        time.sleep(0.5)
        silent.close()

    chief, worker = (make_worker(cluster, i, after=0.5 * i, token=token) for i in (0, 1))
    with pytest.warns(UserWarning, match="not signed .* Received: one from 127.0.0.1") as w:
        assert (
            run_together(chief, lambda: (time.sleep(0.2), disturb()), worker) == [None] * 3
        )
    assert len(w) == 1


@pytest.mark.parametrize("tokens", [(KEY, OTHER), (KEY, b""), (b"", KEY)])
@pytest.mark.filterwarnings("ignore:Messages that are not signed")
def test_workers_with_different_tokens_do_not_meet(tokens):
    cluster = free_addresses(2)
    calls = [make_worker(cluster, i, timeout=1, token=tokens[i]) for i in (0, 1)]
    chief, worker = run_together(*calls)
    assert type(chief) is type(worker) is TimeoutError
    assert "did not connect within 1 seconds; messages with another token dropped: " in str(
        chief
    )
    assert "; it closed a connection, as it does after a wrong token" in str(worker)


@pytest.mark.parametrize(
    "answer",
    [
        b'{"refused": "no"}\n',
        messages.seal({"refused": "no"}, b""),
        messages.seal({"refused": "no"}, OTHER),
        messages.seal({"refused": "no"}, KEY, hello(token=KEY)),  # of another meeting
    ],
    ids=["unsigned", "no token", "another token", "a copy"],
)
def test_a_false_chief_is_ignored(answer):
    cluster = free_addresses(2)

    def refuse():
        with meeting._listen(cluster[0]) as server:
            server.settimeout(5)
            for _ in range(2):
                with server.accept()[0] as client:
                    client.recv(2**16)
                    client.sendall(answer)

    calls = [make_worker(cluster, i, after=0.3 - 0.2 * i, token=KEY) for i in (0, 1)]
    assert run_together(refuse, *calls) == [None] * 3


def test_a_flood_of_silent_connections_does_not_exhaust_the_files(tmp_path):
    cluster = free_addresses(2)
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)); "
        f"from keras_vae.cluster import meeting; meeting.rendezvous({cluster}, 0, {{}}, 20)"
    )
    chief = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    with contextlib.ExitStack() as stack:
        opened = 0
        while opened < 300:
            with contextlib.suppress(ConnectionError):  # it has not started
                stack.enter_context(connect(cluster[0]))
                opened += 1
        meeting.rendezvous(cluster, 1, {}, 10)
        assert chief.wait(10) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "[::1]"])
def test_workers_of_one_host_listen_only_there(host):
    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6")
    (address,) = free_addresses(1)
    address = address.replace("127.0.0.1", host)
    with (
        meeting._listen(address) as server,
        socket.create_connection(meeting._split(address), 5),
    ):
        assert server.getsockname()[0] in ("127.0.0.1", "127.0.0.2", "::1")


# The token.


def test_the_token_of_a_file_comes_before_that_of_the_launcher(tmp_path, monkeypatch):
    path = tmp_path / "token"
    path.write_bytes(KEY + b"\r\n")
    path.chmod(0o600)
    for file, expected in ((path, KEY), (None, b"from the launcher")):
        monkeypatch.setenv(messages.TOKEN, "from the launcher")
        assert messages.read_token(file) == expected
        assert messages.TOKEN not in os.environ
    assert messages.read_token() == b""


@pytest.mark.parametrize(
    ("content", "mode", "received"),
    [
        (b"", 0o600, "0 bytes"),
        (b"k" * 15 + b"\n", 0o600, "15 bytes"),
        (b"k" * 5000, 0o600, "4097 bytes"),
        (KEY, 0o644, "mode 644"),
        (KEY, 0o620, "mode 620"),
    ],
)
def test_a_weak_token_file_is_an_error(tmp_path, content, mode, received):
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(ValueError, match=f"`token_file` must be .* with {received}"):
        messages.read_token(path)


# Addresses.


def test_a_port_in_use_is_an_error():
    cluster = free_addresses(2)
    with meeting._listen(cluster[0]):
        (error,) = run_together(make_worker(cluster, 0, timeout=1))
    assert type(error) is TimeoutError and "did not get its port" in str(error)


TASK = {"type": "worker", "index": 1}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, ([], 0)),
        ({}, ([], 0)),
        ({"cluster": {"worker": ["a:1", "b:2"]}, "task": TASK}, (["a:1", "b:2"], 1)),
        (
            {"cluster": {"worker": ["a:1", "b:2"], "chief": ["c:3"]}, "task": TASK},
            (["c:3", "a:1", "b:2"], 2),
        ),
    ],
)
def test_tf_config_gives_the_cluster_and_the_index(config, expected):
    assert meeting.tf_config(config and json.dumps(config)) == expected


@pytest.mark.parametrize(
    "config",
    [
        "{", "[]", '{"cluster": 3}', '{"cluster": {"worker": ["a:1"]}}',
        json.dumps({"cluster": {"worker": ["a:1"]}, "task": TASK}),
        json.dumps({"cluster": {"worker": ["a:1", "b"]}, "task": TASK}),
        json.dumps({"cluster": {"worker": ["a:1", "b:99999"]}, "task": TASK}),
        json.dumps({"cluster": {"worker": ["a:1", "a:1"]}, "task": TASK}),
        json.dumps({"cluster": {"worker": ["a:1", "b:1"], "ps": ["c:1"]}, "task": TASK}),
        json.dumps(
            {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "ps", "index": 0}}
        ),
    ],
)  # fmt: skip
def test_a_wrong_tf_config_is_an_error(config):
    with pytest.raises(ValueError, match="`TF_CONFIG` must name .* Received: "):
        meeting.tf_config(config)


# The launcher, with workers that run a script instead of training.

WORKER_SCRIPT = (
    START
    + """
import json
launcher.end_with_launcher()
config = json.loads(os.environ["TF_CONFIG"])
cluster, index = config["cluster"]["worker"], config["task"]["index"]
# Listens on its port, as TensorFlow's server does, until the process ends.
server = meeting._listen(cluster[index])
folder = sys.argv[-1]
start = len([name for name in os.listdir(folder) if name.startswith(f"{index}-")])
with open(f"{folder}/{index}-{start}", "w") as file:
    json.dump([os.getpid(), cluster[index], sys.argv[1:]], file)
print(f"out of {index}", flush=True)
print(f"err of {index}", file=sys.stderr, flush=True)

def wait_for_all():
    while len([n for n in os.listdir(folder) if n.endswith(f"-{start}")]) < len(cluster):
        time.sleep(0.01)

"""
)


def is_alive(pid):
    """Returns True if the process runs. A zombie, not yet reaped by init, does not."""
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return not pathlib.Path("/proc/self").exists()  # a system without /proc
    except ProcessLookupError:
        return False


class Job:
    """A launcher in a new process, and the files that its workers write."""

    def __init__(self, folder, script, **options):
        (folder / "stub.py").write_text(WORKER_SCRIPT + script)
        self.team = folder / "team"
        self.team.mkdir()
        program = [sys.executable, str(folder / "stub.py")]
        command = ["train", "--epochs", "2", str(self.team)]
        options = {"workers": 2, "program": program, "grace": 5} | options
        self.process = subprocess.Popen(
            [sys.executable, "-c",
             START + f"sys.exit(launcher.launch({command}, **{options}))"],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def starts(self, index=None):
        """Returns (process, address, arguments) of each start of one worker, or of all."""
        names = sorted(self.team.glob("*" if index is None else f"{index}-*"))
        return [json.loads(text) for name in names if (text := name.read_text())]

    def wait_until(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.01)

    def assert_ends(self, code):
        """Waits for the launcher, asserts that no worker is left, returns the output."""
        output = self.process.communicate(timeout=30)
        assert self.process.returncode == code, output
        self.assert_no_process_left()
        return output

    def assert_no_process_left(self):
        assert self.starts()
        for pid, address, _ in self.starts():
            assert not is_alive(pid), f"process {pid} is left"
            assert is_free(address)


def test_the_launcher_ends_when_all_workers_finish(tmp_path):
    job = Job(tmp_path, "wait_for_all()")
    out, err = job.assert_ends(0)
    # The output of the chief is unchanged, that of the others has a prefix.
    assert out == "out of 0\n"
    assert sorted(err.splitlines()) == [
        "[worker 1] err of 1",
        "[worker 1] out of 1",
        "err of 0",
    ]
    assert [args for _, _, args in job.starts()] == [
        ["train", "--epochs", "2", str(job.team)]
    ] * 2


def test_all_workers_restart_when_one_dies(tmp_path):
    # The other worker ends slowly.
    job = Job(
        tmp_path,
        """
if index == 0 and start < 2:
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), sys.exit(75)))
wait_for_all()
if start < 2:
    if index == 1:
        os.kill(os.getpid(), signal.SIGKILL) if start else sys.exit(1)
    time.sleep(60)
""",
    )
    _, err = job.assert_ends(0)
    assert (
        "worker 1 ended with code 1: restarting all workers from the last backup (1 of 3)"
        in err
    )
    assert (
        "worker 1 ended with SIGKILL: restarting all workers" in err and "(2 of 3)" in err
    )
    for index in (0, 1):
        resumed = [args[1] == "--resume" for _, _, args in job.starts(index)]
        assert resumed == [False, True, True]
    assert len({address for _, address, _ in job.starts()}) == 6


def test_the_number_of_restarts_is_limited(tmp_path):
    job = Job(tmp_path, "wait_for_all()\nsys.exit('no luck' if index else 0)", restarts=1)
    _, err = job.assert_ends(1)
    assert len(job.starts(0)) == 2
    message = "worker 1 ended with code 1, after 1 restarts. Its last lines:\n"
    assert err.endswith(message + "out of 1\nerr of 1\nno luck\n")


@pytest.mark.parametrize("code", [2, 75, 130])
def test_some_exit_codes_cause_no_restart(tmp_path, code):
    job = Job(tmp_path, f"wait_for_all()\ntime.sleep(60) if index else sys.exit({code})")
    job.assert_ends(code)
    assert len(job.starts()) == 2


# Both workers, or one that the other notices first, as TensorFlow does.
@pytest.mark.parametrize(
    ("frozen", "other", "silence"),
    [
        ("True", "", 1.5),
        ("index == 1", "time.sleep(60)", 1.5),
        ("index == 0", "sys.exit(69)", 18),
    ],
    ids=["both", "one", "noticed"],
)
def test_all_workers_restart_when_one_is_stopped(tmp_path, frozen, other, silence):
    script = f"""
wait_for_all()
if start == 0:
    time.sleep({silence} / 60)  # one heartbeat
    if {frozen}:
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(2)
    {other}
"""
    _, err = Job(tmp_path, script, silence=silence).assert_ends(0)
    index = int(frozen == "index == 1")
    assert f"worker {index} did not respond for " in err
    assert " s: restarting all workers from the last backup (1 of 3)" in err


def test_a_stopped_launcher_restarts_no_worker(tmp_path):
    job = Job(tmp_path, "wait_for_all()\ntime.sleep(3)", silence=1)
    job.wait_until(lambda: len(job.starts()) == 2)
    job.process.send_signal(signal.SIGSTOP)
    time.sleep(2)
    job.process.send_signal(signal.SIGCONT)
    _, err = job.assert_ends(0)
    assert "restarting" not in err


# One worker ends at the signal. The other does not and is killed: after the grace period,
# or soon after the chief has ended.
@pytest.mark.parametrize(
    ("number", "code", "ending", "grace"),
    [(signal.SIGTERM, 75, 1, 1), (signal.SIGINT, 130, 0, 60)],
    ids=["SIGTERM", "SIGINT"],
)
def test_signals_are_passed_on(tmp_path, number, code, ending, grace):
    script = f"""
def handler(*_):
    open(f"{{folder}}/../handled-{{index}}", "w").close()
    if index == {ending}:
        sys.exit({code})
signal.signal({int(number)}, handler)
wait_for_all()
open(f"{{folder}}/../ready-{{index}}", "w").close()
while True:
    time.sleep(0.1)
"""
    job = Job(tmp_path, script, grace=grace)
    job.wait_until(lambda: len([*tmp_path.glob("ready-*")]) == 2)
    job.process.send_signal(number)
    job.assert_ends(code)
    assert len([*tmp_path.glob("handled-*")]) == 2
    assert len(job.starts()) == 2


def test_a_killed_launcher_leaves_no_worker_behind(tmp_path):
    job = Job(tmp_path, "wait_for_all()\ntime.sleep(60)")
    job.wait_until(lambda: len(job.starts()) == 2)
    time.sleep(0.1)
    job.process.kill()
    job.process.communicate(timeout=10)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(AssertionError):
            job.assert_no_process_left()
            return
        time.sleep(0.05)
    job.assert_no_process_left()
