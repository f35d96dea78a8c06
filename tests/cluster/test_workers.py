"""Workers meet, or say why not; a launcher brings them to an end and leaves nothing."""

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

from keras_vae.cluster import launcher, meeting

ROOT = pathlib.Path(__file__).parents[2]
# As the script does, so that nothing heavy is imported; and with Ctrl-C as in a terminal:
# a shell ignores it in what it starts in the background, where tests may run.
START = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "keras-vae"
from keras_vae.cluster import launcher, meeting
"""


# The meeting.


def ports(count):
    return [f"127.0.0.1:{port}" for port in launcher._free_ports(count)]


def together(*calls):
    """What each of the calls raised (or None), run at the same time."""
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


def comes(cluster, index, timeout=5, after=0, **facts):
    def call():
        time.sleep(after)
        meeting.rendezvous(cluster, index, {"data": "a", "code": "x"} | facts, timeout)

    return call


def is_free(address):
    host, port = address.split(":")
    with contextlib.suppress(OSError), socket.create_server((host, int(port))):
        return True
    return False


def test_all_meet_and_the_port_is_free_again():
    cluster = ports(3)
    for _ in range(3):  # at once: what is left of the last meeting is not in the way
        calls = [comes(cluster, i, after=0.2 * (i == 0)) for i in range(3)]
        assert together(*calls) == [None] * 3
        assert is_free(cluster[0])


def test_one_worker_meets_nobody():
    meeting.rendezvous(["a.invalid:1"], 0, {})


def test_other_facts_are_an_error_on_every_worker():
    cluster = ports(3)
    raised = together(
        comes(cluster, 0), comes(cluster, 1, data="b"), comes(cluster, 2, seed="7")
    )
    for error in raised:
        assert type(error) is ValueError
        assert f"worker 1 ({cluster[1]}) has `data` b; the chief has `data` a" in str(error)
        assert "worker 2" in str(error) and "`seed` 7; the chief has `seed` miss" in str(
            error
        )
        assert "`code`" not in str(error)


def test_another_cluster_is_an_error():
    cluster = ports(3)
    raised = together(comes(cluster[:2], 0), comes(cluster, 1, timeout=3))
    assert all(type(error) is ValueError and "`cluster`" in str(error) for error in raised)


@pytest.mark.parametrize("missing", [0, 2])
def test_a_worker_that_never_comes_is_named(missing):
    cluster, start = ports(3), time.monotonic()
    # The chief has more patience: the meeting ends when the time of the first is up.
    raised = together(*(comes(cluster, i, 1 if i else 9) for i in range(3) if i != missing))
    assert 1 <= time.monotonic() - start < 3
    for error in raised:
        assert type(error) is TimeoutError and "within" in str(error)
        assert f"worker {missing} ({cluster[missing]}) did not" in str(error)


@pytest.mark.parametrize("index", [0, 1])
def test_two_processes_of_one_index_are_an_error(index):
    cluster = ports(3)
    raised = together(
        comes(cluster, 0), comes(cluster, index, after=0.3), comes(cluster, 1)
    )
    for error in raised:
        assert type(
            error
        ) is ValueError and f"two processes that are worker {index}" in str(error)


def test_a_worker_may_leave_and_come_again():
    cluster = ports(3)

    def leaves():
        """Says who it is, and is gone before the others came."""
        with contextlib.suppress(OSError):
            deadline = time.monotonic() + 5
            meeting._ask(cluster, 1, {}, deadline, time.monotonic() + 0.1)

    calls = [comes(cluster, 0), comes(cluster, 1, after=0.6), comes(cluster, 2, after=1)]
    assert together(*calls, lambda: (time.sleep(0.3), leaves())) == [None] * 4


def test_a_chief_may_leave_and_come_again():
    cluster = ports(2)

    def leaves():
        with meeting._listen(cluster[0]) as server:
            server.setblocking(True)
            server.accept()[0].close()

    assert together(leaves, comes(cluster, 1), comes(cluster, 0, after=0.5)) == [None] * 3


def test_rubbish_on_the_port_is_ignored():
    cluster = ports(2)
    rubbish = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", b"\n", b"[" * 10**5 + b"\n",
        b"\xff\xfe\n", b"{}\n", b"1\n", b'{"worker": "1", "facts": {}, "left": 1}\n',
        b'{"worker": 1, "facts": {"a": 1}, "left": 1}\n',
        b'{"worker": 1, "facts": [1], "left": 1}\n',
        b'{"worker": 1, "facts": {}, "left": NaN}\n',
        b'{"worker": 1, "facts": {}, "left": 1' + b"0" * 400 + b"}\n", b"x" * (2**20 + 1),
    ]  # fmt: skip

    def disturb():
        host, port = cluster[0].split(":")
        for text in rubbish:
            with socket.create_connection((host, int(port)), 5) as one:
                with contextlib.suppress(OSError):  # it may hang up before it has heard all
                    one.sendall(text)
                    one.shutdown(socket.SHUT_WR)
                    assert one.recv(10) == b""
        silent = socket.create_connection((host, int(port)), 5)
        time.sleep(0.5)
        silent.close()

    calls = [comes(cluster, 0), lambda: (time.sleep(0.2), disturb())]
    assert together(*calls, comes(cluster, 1, after=0.5)) == [None] * 3


def test_a_port_that_is_taken_is_an_error():
    cluster = ports(2)
    with meeting._listen(cluster[0]):
        (error,) = together(comes(cluster, 0, timeout=1))
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
def test_tf_config(config, expected):
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


# The launcher, of workers that follow a script rather than train.

STUB = (
    START
    + """
import json
launcher.end_with_launcher()
config = json.loads(os.environ["TF_CONFIG"])
cluster, index = config["cluster"]["worker"], config["task"]["index"]
# On its port, as TensorFlow's server would be: it is free once the process has gone.
server = meeting._listen(cluster[index])
folder = sys.argv[-1]
start = len([name for name in os.listdir(folder) if name.startswith(f"{index}-")])
with open(f"{folder}/{index}-{start}", "w") as file:
    json.dump([os.getpid(), cluster[index], sys.argv[1:]], file)
print(f"out of {index}", flush=True)
print(f"err of {index}", file=sys.stderr, flush=True)

def together():
    while len([n for n in os.listdir(folder) if n.endswith(f"-{start}")]) < len(cluster):
        time.sleep(0.01)

"""
)


def is_alive(pid):
    """Whether it runs. An orphan is dead before the system's first process takes note."""
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return not pathlib.Path("/proc/self").exists()  # a system without it
    except ProcessLookupError:
        return False


class Launched:
    """A launcher in a process of its own, and what its workers left in the folder."""

    def __init__(self, folder, script, **options):
        (folder / "stub.py").write_text(STUB + script)
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
        """What each start of a worker, or of all, wrote: process, address, arguments."""
        names = sorted(self.team.glob("*" if index is None else f"{index}-*"))
        return [json.loads(text) for name in names if (text := name.read_text())]

    def until(self, condition):
        patience = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < patience and self.process.poll() is None
            time.sleep(0.01)

    def ends(self, code):
        """Waits for the launcher, of whose workers nothing must be left; its output."""
        output = self.process.communicate(timeout=30)
        assert self.process.returncode == code, output
        self.nothing_is_left()
        return output

    def nothing_is_left(self):
        assert self.starts()
        for pid, address, _ in self.starts():
            assert not is_alive(pid), f"process {pid} is left"
            assert is_free(address)


def test_all_finish(tmp_path):
    job = Launched(tmp_path, "together()")
    out, err = job.ends(0)
    # The chief's output passes through, the others' has its name before it.
    assert out == "out of 0\n"
    assert sorted(err.splitlines()) == [
        "[worker 1] err of 1",
        "[worker 1] out of 1",
        "err of 0",
    ]
    assert [args for _, _, args in job.starts()] == [
        ["train", "--epochs", "2", str(job.team)]
    ] * 2


def test_one_dies_and_all_start_again(tmp_path):
    # The other one takes its time to end.
    job = Launched(
        tmp_path,
        """
if index == 0 and start < 2:
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), sys.exit(75)))
together()
if start < 2:
    if index == 1:
        os.kill(os.getpid(), signal.SIGKILL) if start else sys.exit(1)
    time.sleep(60)
""",
    )
    _, err = job.ends(0)
    assert (
        "worker 1 ended with code 1: restarting all workers from the last backup (1 of 3)"
        in err
    )
    assert (
        "worker 1 ended with SIGKILL: restarting all workers" in err and "(2 of 3)" in err
    )
    for index in (0, 1):
        again = [args[1] == "--resume" for _, _, args in job.starts(index)]
        assert again == [False, True, True]
    assert len({address for _, address, _ in job.starts()}) == 6


def test_restarts_are_bounded(tmp_path):
    job = Launched(tmp_path, "together()\nsys.exit('no luck' if index else 0)", restarts=1)
    _, err = job.ends(1)
    assert len(job.starts(0)) == 2
    said = "worker 1 ended with code 1, after 1 restarts. Its last lines:\n"
    assert err.endswith(said + "out of 1\nerr of 1\nno luck\n")


@pytest.mark.parametrize("code", [2, 69, 75, 130])
def test_no_start_would_help(tmp_path, code):
    job = Launched(tmp_path, f"together()\ntime.sleep(60) if index else sys.exit({code})")
    job.ends(code)
    assert len(job.starts()) == 2


# One worker ends as asked. The other does not, and is killed: after the grace, or soon
# after the chief has gone.
@pytest.mark.parametrize(
    ("number", "code", "ends", "grace"),
    [(signal.SIGTERM, 75, 1, 1), (signal.SIGINT, 130, 0, 60)],
    ids=["SIGTERM", "SIGINT"],
)
def test_signals_are_passed_on(tmp_path, number, code, ends, grace):
    script = f"""
def heard(*_):
    open(f"{{folder}}/../heard-{{index}}", "w").close()
    if index == {ends}:
        sys.exit({code})
signal.signal({int(number)}, heard)
together()
open(f"{{folder}}/../ready-{{index}}", "w").close()
while True:
    time.sleep(0.1)
"""
    job = Launched(tmp_path, script, grace=grace)
    job.until(lambda: len([*tmp_path.glob("ready-*")]) == 2)
    job.process.send_signal(number)
    job.ends(code)
    assert len([*tmp_path.glob("heard-*")]) == 2
    assert len(job.starts()) == 2


def test_a_killed_launcher_leaves_nothing(tmp_path):
    job = Launched(tmp_path, "together()\ntime.sleep(60)")
    job.until(lambda: len(job.starts()) == 2)
    time.sleep(0.1)
    job.process.kill()
    job.process.communicate(timeout=10)
    patience = time.monotonic() + 20
    while time.monotonic() < patience:
        with contextlib.suppress(AssertionError):
            job.nothing_is_left()
            return
        time.sleep(0.05)
    job.nothing_is_left()
