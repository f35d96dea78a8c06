"""Runs two commands on one run at once, many times, and checks that the run stays whole.

    python tests/benchmarks/races.py [--starts 30] [--seed 0] ["train, report" ...]

The second command starts after a random delay. Each command must end with exit code 0, or
be refused with exit code 2 and one line; one of them must end with 0. Exports are killed
(SIGKILL) at random moments; the next export must work. At the end all runs and exports
must be complete. Prints a table, in Markdown.

Processes are forks of this one, which has imported everything and run nothing. To be quick,
they train an autoencoder on a few rows without graphs, and reports have no figures.
"""

import argparse
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback

import numpy as np
import tensorflow_probability  # noqa: F401

import keras_vae as kv
from keras_vae import cli
from keras_vae.exporting import serving, verify  # noqa: F401
from keras_vae.runs import report, train  # noqa: F401
from keras_vae.runs.folder import Run

QUICK = "--num-samples 2 --nll-rows 2 --baselines none".split()
TRAIN = "train x.npz --model autoencoder --network mlp --hidden 8 --latent 2 --epochs 2"
TRAIN = [*TRAIN.split(), *QUICK]
# Name: (whether the run exists at the start, two commands, to which the folder is added).
PAIRS = {
    "train, train": (False, [*TRAIN, "--out"], [*TRAIN, "--out"]),
    "train, resume": (False, [*TRAIN, "--out"], [*TRAIN, "--resume", "--out"]),
    "train, report": (False, [*TRAIN, "--out"], ["report", *QUICK]),
    "train, evaluate": (False, [*TRAIN, "--out"], ["evaluate", *QUICK[:4]]),
    "resume, report": (
        True,
        ["train", "x.npz", "--resume", "--epochs", "3", *QUICK, "--out"],
        ["report", *QUICK],
    ),
}
KILL, EXPORT = "export, kill", ["export", "--to", "serving"]


def be_quick():
    compile, eager = kv.VAE.compile, {"run_eagerly": True, "jit_compile": False}
    kv.VAE.compile = lambda *a, **kw: compile(*a, **kw | eager)
    report.draw = lambda *_: []


def fork(function, *args):
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        function(*args)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


def start(command, folder, log):
    """Starts a command of `keras-vae` with its output in a file."""

    def run():
        file = os.open(log, os.O_CREAT | os.O_WRONLY)
        os.dup2(file, 1), os.dup2(file, 2)
        sys.argv = ["keras-vae", *command, str(folder)]
        cli.main()

    return fork(run)


def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def require(condition, *message):
    if not condition:
        raise SystemExit("\n".join(map(str, message)))


def check_runs(folders):
    """Opens each run, in this process; raises an error unless it is complete."""
    for folder in folders:
        run = Run.open(folder)
        model = run.model()
        assert len(run.metrics()["epoch"]) == run.options.epochs, folder
        assert model.step.numpy() and not [*folder.glob(".*")], [*folder.iterdir()]


def race(folder, commands, delay):
    """Runs two commands; returns the number that was refused."""
    logs = [folder.with_suffix(f".{i}.txt") for i in range(2)]
    children = []
    for command, log in zip(commands, logs, strict=True):
        children.append(start(command, folder, log))
        time.sleep(delay * (log is logs[0]))
    codes, outputs = [wait(child) for child in children], [p.read_text() for p in logs]
    for code, output in zip(codes, outputs, strict=True):
        refused = code == 2 and output.startswith("Error: ") and output.count("\n") == 1
        require(code == 0 or refused, folder, codes, output)
    require(0 in codes, folder, *outputs)
    return codes.count(2)


def race_pair(root, template, pair, starts, span, draw):
    """Returns the number of refused commands of all starts."""
    exists, *commands = pair
    root.mkdir()
    folders, refused = [root / f"run-{i}" for i in range(starts)], 0
    for folder in folders:
        if exists:
            shutil.copytree(template, folder)
        order = draw.sample(commands, 2)
        refused += race(folder, order, span * draw.random() ** 3)
    require(wait(fork(check_runs, folders)) == 0, root, "has an incomplete run")
    return refused


def kill_exports(run, starts, span, draw):
    """Kills exports; returns the number that was killed before its end."""
    killed, log = 0, run.with_suffix(".txt")
    versions = run / "serving" / "vae"

    def check():
        check_runs([run])
        for version in versions.glob("[0-9]*"):
            verify.read_card(version)  # compares all files with their checksums

    for _ in range(starts):
        before = len([*versions.glob("[0-9]*")])
        child = start(EXPORT, run, log)
        time.sleep(span * draw.random())
        os.kill(child, signal.SIGKILL)
        killed += wait(child) != 0
        after = len([*versions.glob("[0-9]*")])
        require(wait(start(EXPORT, run, log)) == 0, run, log.read_text())
        require(after + 1 == len([*versions.glob("[0-9]*")]) <= before + 2, versions)
    require(wait(fork(check)) == 0, run, "is incomplete")
    return killed


def timed(command, folder, log):
    begin = time.monotonic()
    require(wait(start(command, folder, log)) == 0, log.read_text())
    return time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=30, help="for each pair")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("names", nargs="*", metavar="PAIR", default=[*PAIRS, KILL])
    options = parser.parse_args()
    draw, starts = random.Random(options.seed), options.starts
    print("| commands | starts | refused or killed | whole |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        np.savez("x.npz", x=np.random.default_rng(0).normal(size=(64, 4)))
        be_quick()
        template, log = pathlib.Path("template").resolve(), pathlib.Path("log.txt")
        span = timed([*TRAIN, "--out"], template, log)
        for name in options.names:
            if name == KILL:
                span = timed(EXPORT, template, log)
                stopped = kill_exports(template, starts, span, draw)
            else:
                root = template.with_name(name.replace(", ", "-"))
                stopped = race_pair(root, template, PAIRS[name], starts, span, draw)
            print(f"| {name} | {starts} | {stopped} | {starts} |", flush=True)


if __name__ == "__main__":
    main()
