"""The recipes in export/training and docs/scaling.md, as far as they need no cluster."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).parent.parent
FILES = ROOT / "export" / "training"
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture(scope="module")
def scaling():
    path = ROOT / "tests" / "benchmarks" / "scaling.py"
    spec = importlib.util.spec_from_file_location("scaling", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake_command(tmp_path, monkeypatch):
    """A function that writes a command, which scripts run instead of the real one."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def make(name, script):
        path = tmp_path / name
        path.write_text(f"#!/usr/bin/env bash\n{script}\n")
        path.chmod(0o755)

    return make


def test_each_recipe_warns_about_its_open_ports():
    for path in FILES.iterdir():
        text = " ".join(re.sub(r"[#*\n]", " ", path.read_text()).split())
        assert re.search(r"gRPC.*(neither|without) passwords", text), path.name
        assert re.search(r"on all interfaces", text), path.name


# Kubernetes.


@pytest.fixture
def kubernetes():
    text = (FILES / "kubernetes.yaml").read_text()
    return {item["kind"]: item for item in yaml.safe_load_all(text)}


@needs_bash
def test_the_pods_of_a_job_find_each_other(kubernetes, fake_command, monkeypatch):
    job = kubernetes["Job"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    fake_command("keras-vae", 'echo "$TF_CONFIG"; echo "$@"')
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    count = job["spec"]["completions"]
    assert count == job["spec"]["parallelism"] == 3
    name, service = job["metadata"]["name"], kubernetes["Service"]["metadata"]["name"]
    port = container["ports"][0]["containerPort"]
    for index in range(count):
        monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
        process = subprocess.run(
            [*container["command"], *container["args"]], capture_output=True, text=True
        )
        config, arguments = process.stdout.splitlines()
        assert json.loads(config) == {
            "cluster": {"worker": [f"{name}-{i}.{service}:{port}" for i in range(count)]},
            "task": {"type": "worker", "index": index},
        }
        assert {"train", "--resume", "multi-worker"} <= {*arguments.split()}
    assert pod["subdomain"] == service
    claim = kubernetes["PersistentVolumeClaim"]["metadata"]["name"]
    claims = [v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["volumes"]]
    assert claim in claims


def test_only_the_pods_of_a_job_can_connect_to_its_ports(kubernetes):
    labels = kubernetes["Job"]["spec"]["template"]["metadata"]["labels"]
    policy = kubernetes["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["podSelector"] == {"matchLabels": labels}
    assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": labels}}]}]
    assert kubernetes["Service"]["spec"]["selector"] == labels


def test_a_job_handles_the_exit_codes(kubernetes):
    spec = kubernetes["Job"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    actions = {}
    for rule in spec["podFailurePolicy"]["rules"]:
        if codes := rule.get("onExitCodes"):
            assert codes["containerName"] == container["name"] and codes["operator"] == "In"
            actions |= dict.fromkeys(codes["values"], rule["action"])
    assert actions == {2: "FailJob", 75: "Ignore", 69: "Count"}
    # Any other restart policy makes podFailurePolicy invalid.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


# Slurm.


@needs_bash
@pytest.mark.parametrize(
    ("codes", "restarts", "requeue"),
    [
        ((0, 0), None, False),
        ((75, 69), None, True),  # one got a signal, the other lost its peer
        ((69, 75), 30, True),
        ((69, 69), 3, True),
        ((69, 69), 20, False),  # no endless restarts
        ((2, 2), None, False),
        ((69, 1), 20, False),
        ((137, 69), 3, True),  # one was killed
        ((137, 69), 20, False),
        ((1, 0), None, False),
    ],
)
def test_slurm_requeues_a_job_by_its_exit_codes(
    fake_command, monkeypatch, codes, restarts, requeue
):
    fake_command("scontrol", 'echo "$@"')
    # As in the manual: options, one number for each task, the highest exit code.
    fake_command(
        "srun",
        "while [[ $1 == --* ]]; do shift; done; worst=0\n"
        'for i in 0 1; do SLURM_PROCID=$i "$@" || code=$?\n'
        "((code > worst)) && worst=$code; done; exit $worst",
    )
    fake_command(
        "keras-vae",
        f'printf "%s|" "$@"; echo; codes=({codes[0]} {codes[1]}); '
        "exit ${codes[$SLURM_PROCID]}",
    )
    monkeypatch.setenv("SLURM_JOB_ID", "12345")
    if restarts is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    process = subprocess.run(
        ["bash", FILES / "slurm.sh", "a table.csv", "--out", "runs/a"],
        capture_output=True,
        text=True,
    )
    assert process.returncode == max(codes), process.stderr
    first, second, *requeued = process.stdout.splitlines()
    assert first == "train|a table.csv|--out|runs/a|--resume|--strategy|multi-worker|"
    assert second == first
    assert requeued == (["requeue 12345"] if requeue else [])


# A user's own launcher.


@pytest.mark.slow
def test_the_python_code_of_the_readme_trains(tmp_path, scaling):
    (code,) = re.findall(
        r"```python\n(.*?)```", (FILES / "README.md").read_text(), re.DOTALL
    )
    for host, port in zip(("host0", "host1"), scaling.free_ports(2), strict=True):
        assert f"{host}.example:2222" in code
        code = code.replace(f"{host}.example:2222", f"127.0.0.1:{port}")
    (tmp_path / "own.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    workers = [
        subprocess.Popen(
            [sys.executable, "own.py", str(i)], cwd=tmp_path, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(outputs)
    assert (tmp_path / "digits.keras").is_file() and any((tmp_path / "backups").iterdir())


# docs/scaling.md.


def test_the_scaling_table_follows_the_formula(scaling):
    text = (ROOT / "docs" / "scaling.md").read_text()
    (table,) = re.findall(r"<!-- paper -->\n\n(.*?)\n\n<!-- /paper -->", text, re.DOTALL)
    cells = {
        line.split("|")[1].strip(): line.split("|")[2:-1] for line in table.splitlines()
    }
    numbers = [
        (int(parameters.replace(",", "")), 1e-3 * float(ms))
        for parameters, ms in zip(cells["parameters"], cells["compute, ms"], strict=True)
    ]
    models = dict(zip(scaling.STEPS, numbers[:: len(scaling.NETWORKS)], strict=True))
    assert table.splitlines() == list(scaling.paper(models))
    for name in ("dense", "conv"):
        assert scaling.build(name).count_params() == models[name][0]


def test_the_time_of_a_ring_all_reduce(scaling):
    # Two workers: each sends one half, receives the sum of the other half, and vice versa.
    assert scaling.all_reduce(8e6, 2, bandwidth=1e6, latency=0) == pytest.approx(8.0)
    assert scaling.all_reduce(0, 5, bandwidth=1.0, latency=0.5) == pytest.approx(4.0)
    # With many workers each sends twice the bytes of the gradients.
    many = scaling.all_reduce(8e6, 10_000, bandwidth=1e6, latency=0)
    assert many == pytest.approx(16.0, rel=1e-3)
