"""Fills the disk at each point at which a command writes, and checks what is left.

    python tests/benchmarks/full_disk.py [--steps 8] [--size 24]

Runs are written to a small tmpfs, for which it must be root; otherwise it prints SKIPPED.
The disk is filled when a file appears, or has some free space from the start, in steps.
After each command that fails: exit code 2; one message, with the path on the disk and not
"out of memory"; every JSON file can be read, every model loaded; no hidden file is left.
Then space is freed, and the same command must succeed: weights, metrics and evaluation are
those of an undisturbed run, bit for bit. It prints a table.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np

import keras_vae as kv  # its classes are those in the models

TRAIN = (
    "train digits --out {run} --network mlp --hidden 32 --latent 2 --epochs 12 --no-xla "
    "--num-samples 2 --nll-rows 20 --baselines"
).split()
# Files at whose appearance the disk is filled, while `train` runs. The report is followed
# by baselines.json.
POINTS = (
    "run.json",
    "backup/epoch-000000",
    "model.keras",
    "evaluation.json",
    "report.html",
)
# Commands on a finished run, on a full disk.
COMMANDS = {
    "evaluate": "evaluate {run} --num-samples 2 --nll-rows 20",
    "report": "report {run} --baselines none --num-samples 2 --nll-rows 20",
    "encode, new file": "encode {run} --out {run}/z.npz",
    "encode, former file": "encode {run} --out {run}/z.csv --overwrite",
    "sample": "sample {run} --out {run}/s.png",
    "export litert": "export {run} --to litert",
    "export serving": "export {run} --to serving",
    "export onnx": "export {run} --to onnx",
}


class Disk:
    """A small file system in memory, which can be filled."""

    def __init__(self, folder, megabytes):
        self.folder, self.fill_file = folder, folder / "fill"
        options = ["-o", f"size={megabytes}m", "tmpfs", str(folder)]
        done = subprocess.run(["mount", "-t", "tmpfs", *options], capture_output=True)
        self.mounted = not done.returncode

    def fill(self, free=0):
        """Fills the disk but for `free` bytes."""
        rest = max(0, shutil.disk_usage(self.folder).free - free)
        with contextlib.suppress(OSError), open(self.fill_file, "wb", 0) as file:
            while rest > 0:
                rest -= file.write(bytes(min(rest, 4096)))

    def free(self):
        self.fill_file.unlink(missing_ok=True)

    def unmount(self):
        subprocess.run(["umount", "-l", str(self.folder)])


def start(command, run, **environment):
    words = [word.format(run=run) for word in command]
    program = [sys.executable, "-m", "keras_vae.cli", *words]
    return subprocess.Popen(
        program, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(process):
    """Returns (exit code, the lines printed by the command itself)."""
    text = process.communicate()[0]
    foreign = ("I0000", "W0000", "E0000", "WARNING: All log")
    return process.returncode, [x for x in text.splitlines() if not x.startswith(foreign)]


def result(run):
    """Returns what a finished training has written: weights, metrics and evaluation."""
    model = keras.saving.load_model(run / "model.keras")
    return (
        [v.numpy() for v in (*model.variables, *model.optimizer.variables)],
        (run / "metrics.csv").read_text(),
        (run / "evaluation.json").read_text(),
    )


def same(one, other):
    arrays = zip(one[0], other[0], strict=True)
    return all(np.array_equal(a, b) for a, b in arrays) and one[1:] == other[1:]


def faults(run, code, lines):
    """Yields what is wrong after a command on a full disk."""
    errors = [line for line in lines if line.startswith("Error: ")]
    if code not in (0, 2):
        yield f"exit code {code}"
    if code == 2 and (len(errors) != 1 or lines[-1] != errors[0]):
        yield f"not one message: {lines[-3:]}"
    if any("out of memory" in line or "Traceback" in line for line in lines):
        yield "out of memory, or a traceback"
    if code == 2 and ("No space left" not in errors[0] or str(run) not in errors[0]):
        yield f"no path: {errors}"
    for path in run.rglob("*"):
        if path.name.startswith("."):
            yield f"left behind: {path}"
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".keras":
            keras.saving.load_model(path)


def print_row(point, code, lines, wrong, agrees):
    warned = sum(line.startswith("Warning: ") for line in lines)
    last = "; ".join(wrong) or (lines[-1] if code else f"{warned} warnings")
    print(f"| {point} | {code} | {last} | {agrees} |", flush=True)
    return bool(wrong) or agrees != "yes"


def train_on(disk, point, reference, fill, baselines="none"):
    """Trains, calls `fill(run)` meanwhile, frees the disk, resumes; prints a row."""
    run, train = disk.folder / "run", [*TRAIN, baselines]
    process = start(train, run)
    fill(run, process)
    code, lines = finish(process)
    wrong = list(faults(run, code, lines)) if run.exists() else []
    disk.free()
    for command in ([*train, "--resume"], COMMANDS["report"].split())[: 1 + (code == 0)]:
        again, more = finish(start(command, run))
        wrong += [f"does not resume: {more[-1]}"] * bool(again)
    agrees = "yes" if not again and same(result(run), reference) else "NO"
    shutil.rmtree(run)
    return print_row(point, code, lines, wrong, agrees)


def fill_at(disk, name):
    def fill(run, process):
        while process.poll() is None and not (run / name).exists():
            time.sleep(0.002)
        disk.fill()

    return fill


def use(disk, finished, point, command):
    """Runs a command on a finished run on a full disk, and again when space is free."""
    run = disk.folder / "run"
    shutil.copytree(finished, run)
    if "overwrite" in command:
        (run / "z.csv").write_text("former\n")
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    disk.fill()
    code, lines = finish(start(command.split(), run))
    wrong = list(faults(run, code, lines))
    if code:
        after = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        wrong += [f"changed: {p}" for p in before if after.get(p) != before[p]]
        wrong += [f"new: {p}" for p in after if p not in before]
    disk.free()
    again, _ = finish(start(command.split(), run))
    shutil.rmtree(run)
    return print_row(point, code, lines, wrong, "NO" if again else "yes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8, help="amounts of free space")
    parser.add_argument("--size", type=int, default=24, help="MB of the disk")
    options = parser.parse_args()
    root = pathlib.Path(tempfile.mkdtemp(dir=os.getcwd(), prefix=".full-disk-"))
    (root / "disk").mkdir()
    disk = Disk(root / "disk", options.size)
    try:
        if not disk.mounted:
            print("SKIPPED: no right to mount a small disk")
            return
        raise SystemExit(measure(root, disk, options.steps))
    finally:
        disk.unmount()
        shutil.rmtree(root)


def measure(root, disk, steps):
    """Prints the table; returns the number of rows that are wrong."""
    print(f"keras_vae {kv.__version__}: a full disk\n", flush=True)
    print("| the disk is full | exit code | message, or fault | then as undisturbed |")
    print("|---|---|---|---|", flush=True)
    finished = disk.folder / "run"  # the same path, which run.json contains
    code, lines = finish(start([*TRAIN, "none"], finished))
    if code:
        raise SystemExit(lines[-1])
    reference = result(finished)
    size = sum(p.stat().st_size for p in finished.rglob("*") if p.is_file())
    shutil.move(finished, root / "finished")
    wrong = 0
    for name in POINTS:
        point, baselines = f"train: at {name}", "2" if name == "report.html" else "none"
        wrong += train_on(disk, point, reference, fill_at(disk, name), baselines)
    for free in np.linspace(0, size, steps, endpoint=False, dtype=int).tolist():
        disk.fill(free)
        point = f"train: {free / 1024:,.0f} KB are free"
        wrong += train_on(disk, point, reference, lambda *_: None)
    for name, command in COMMANDS.items():
        wrong += use(disk, root / "finished", name, command)
    return wrong


if __name__ == "__main__":
    main()
