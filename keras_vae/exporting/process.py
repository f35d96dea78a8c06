"""A new process that runs artefacts, see `runtimes.py`."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_vae import disks
from keras_vae.exporting.runtimes import Arrays

SCRIPT = pathlib.Path(__file__).with_name("runtimes.py")


def run(
    jobs: Sequence[dict[str, Any]],
    repeat: int = 0,
    script: str | os.PathLike = SCRIPT,
    timeout: float | None = None,
) -> list[tuple[Arrays, dict[str, Any]]]:
    """Runs artefacts in one new process.

    Args:
        jobs: list of dicts with the keys `"runtime"`, `"artefact"` and `"feeds"`, arrays by
            "signature/input": see `runtimes.py`.
        repeat: int, calls to time.
        script: path of the program that runs the jobs.
        timeout: float, seconds after which the process is killed, or None.

    Returns:
        List of (results, times) in the order of the jobs.

    Raises:
        ValueError: if the process fails or takes longer.
        ImportError: if the runtime is not installed.
    """
    with disks.temporary_folder() as folder:
        tasks = []
        for i, job in enumerate(jobs):
            paths = {key: str(folder / f"{key}-{i}.npz") for key in ("feeds", "results")}
            np.savez(paths["feeds"], **job["feeds"])
            artefact_path = str(job["artefact"])
            tasks.append({**job, **paths, "artefact": artefact_path, "repeat": repeat})
        (folder / "jobs.json").write_text(json.dumps(tasks))
        # -P: otherwise `import onnx` would find this package's onnx.py, next to the script.
        command = [sys.executable, "-P", str(script), str(folder / "jobs.json")]
        try:
            code, output, errors = _run(command, folder, timeout)
        except subprocess.TimeoutExpired:
            raise _failed(jobs, f"it took longer than {timeout:g} seconds") from None
        if code:
            lines = errors.strip().splitlines() or [f"exit code {code}"]
            if lines[-1].startswith("ModuleNotFoundError"):
                raise ImportError(
                    f"running a {jobs[0]['runtime']} artefact needs a package: pip install "
                    f'"keras-vae[export]". Received: {lines[-1]}'
                )
            raise _failed(jobs, lines[-1] if code > 0 else f"killed by signal {-code}")
        times = json.loads(output.splitlines()[-1])
        results = []
        for job in tasks:
            with np.load(job["results"]) as file:
                results.append(dict(file))
    return list(zip(results, times, strict=True))


def _failed(jobs, reason):
    runtime, artefact = jobs[0]["runtime"], jobs[0]["artefact"]
    return ValueError(f"`artefact` must run with {runtime}. Received: {artefact}: {reason}")


def _run(command, folder, timeout):
    """Runs a command; returns its exit code, its output and its messages.

    The command is in a process group of its own, which is killed after the timeout and if
    this process is interrupted. If this process is killed, the command ends, too: the end
    of its standard input tells it.
    """
    output, errors = folder / "output", folder / "errors"
    with (
        open(output, "wb") as out,
        open(errors, "wb") as err,
        subprocess.Popen(
            [*command, "--end-with-stdin"],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            start_new_session=True,
        ) as process,
    ):
        try:
            process.wait(timeout)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                if hasattr(os, "killpg"):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()  # Windows has no process groups
            process.wait()
            raise
    texts = (path.read_text("utf-8", "replace") for path in (output, errors))
    return process.returncode, *texts
