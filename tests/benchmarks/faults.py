"""Kills training many times, and checks that the result is that of uninterrupted training.

    python tests/benchmarks/faults.py [--kills 100] [--workers 25] [--seed 0]

First one process is killed (SIGKILL) at random moments, a third of them while a backup is
written, and restarted, in as many runs as needed for `--kills` kills. Each run must end bit
for bit like an uninterrupted run: weights, optimizer and History. Processes are forks of
this one, which has imported everything and run nothing.

Then one or, every fifth time, both of two workers of `keras-vae launch` are killed; every
fourth time one is stopped (SIGSTOP) instead. The launcher restarts them. The weights must
end within 1e-6 of two uninterrupted workers, and of one device. The test has 3,000 steps:
later gradients are only rounding errors, which Adam scales to steps of full size.
"""

import argparse
import csv
import json
import math
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np

import keras_vae as kv

EPOCHS, ROWS, BATCH = 60, 2048, 64
TOLERANCE = 1e-6  # sums over two workers have another order


def train(folder):
    """Resumes from the newest backup, trains to the end, and writes the final state."""
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([kv.nets.MLP([64]), keras.layers.Dropout(0.2)])
    head = kv.distributions.IndependentNormal((16,))
    vae = kv.VAE(encoder, kv.nets.MLP([64]), head, latent_dim=4)
    vae.compile(keras.optimizers.Adam(1e-3))
    x = np.random.default_rng(0).normal(size=(ROWS, 16)).astype("float32")
    watch = [
        keras.callbacks.EarlyStopping("loss", patience=10, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("loss", patience=2, min_delta=0.05),
        kv.callbacks.Backup(folder / "backup", share=math.inf),
    ]
    history = vae.fit(x, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=watch,
                      validation_data=x[:256])  # fmt: skip
    arrays = [v.numpy() for v in (*vae.variables, *vae.optimizer.variables)]
    np.savez(folder / "end.npz", *arrays)
    (folder / "end.json").write_text(json.dumps([history.epoch, history.history]))


def fork(folder):
    child = os.fork()
    if not child:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2)
        train(folder)
        os._exit(0)
    return child


def newest(folder):
    """Returns the number of epochs in the newest backup, or -1 if there is none."""
    found = folder.glob("backup/epoch-*")
    return max((int(path.name.partition("-")[2]) for path in found), default=-1)


def committing(folder):
    return any(folder.glob("backup/.keras-vae-*"))


def ended(child):
    done, status = os.waitpid(child, os.WNOHANG)
    if done and status:
        raise SystemExit(f"A training failed: {os.waitstatus_to_exitcode(status)}")
    return bool(done)


def kill_once(folder, draw, in_commit):
    """Trains and kills the process; returns False if it ended before."""
    child, first = fork(folder), newest(folder)
    epochs = draw.randint(1, 4)  # so that each process makes progress
    while newest(folder) < first + epochs:
        if ended(child):
            return False
        time.sleep(0.001)
    until = time.monotonic() + draw.uniform(0, 0.3)
    while time.monotonic() < until or (in_commit and not committing(folder)):
        if ended(child):
            return False
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def same(one, other):
    """Whether two runs have the same result, bit for bit."""
    if (one / "end.json").read_text() != (other / "end.json").read_text():
        return False
    with np.load(one / "end.npz") as a, np.load(other / "end.npz") as b:
        return a.files == b.files and all(np.array_equal(a[n], b[n]) for n in a.files)


def one_process(root, kills, draw):
    straight = root / "straight"
    straight.mkdir()
    os.waitpid(fork(straight), 0)
    print(f"{'kill':>4} {'run':>3} {'epoch':>5}  in a commit  same result", flush=True)
    done = during = runs = 0
    while done < kills:
        folder = root / f"run-{runs}"
        folder.mkdir()
        while done < kills and kill_once(folder, draw, in_commit=done % 3 == 0):
            done, in_commit = done + 1, committing(folder)
            during += in_commit
            words = "yes" if in_commit else "no"
            print(f"{done:4} {runs:3} {newest(folder):5}  {words:11}", flush=True)
        if not (folder / "end.json").exists():
            os.waitpid(fork(folder), 0)
        alike = same(straight, folder)
        print(f"{'end':>4} {runs:3} {newest(folder):5}  {'':11}  {alike}", flush=True)
        if not alike:
            raise SystemExit(f"{folder} and {straight} have different results.")
        runs += 1
    print(
        f"{done} kills, {during} in a commit, {runs} runs: all results equal, bit for bit"
    )


# Two workers, started with the command line only.


def command(*args):
    script = "from keras_vae import cli; cli.main()"
    return [sys.executable, "-c", script, *map(str, args)]


def quiet(args, **options):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(args, env=environment, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, **options)  # fmt: skip


def children(parent):
    """Returns the running child processes of a process (Linux)."""
    path = pathlib.Path(f"/proc/{parent}/task/{parent}/children")
    return [int(number) for number in path.read_text().split()] if path.exists() else []


def two_workers(root, kills, draw):
    data = root / "x.npz"
    np.savez(data, x=np.random.default_rng(0).random((ROWS, 8, 2)).astype("float32"))
    options = ["train", data, "--network", "mlp", "--hidden", "32", "--latent", 4,
               "--batch", BATCH, "--epochs", 4 * kills, "--no-xla", "--num-samples", 2,
               "--nll-rows", 2, "--baselines", "none"]  # fmt: skip
    launch = ["launch", "--workers", 2, "--restarts", 1000, "--", *options]
    one, calm, broken = root / "one", root / "calm", root / "broken"
    for whole, arguments in ((one, options), (calm, launch)):
        if quiet(command(*arguments, "--out", whole)).wait():
            raise SystemExit(f"The uninterrupted run failed: {whole.name}")
    launcher = quiet(command(*launch, "--out", broken))
    print(f"{'kill':>4} {'epoch':>5}  workers", flush=True)
    done = 0
    while done < kills and launcher.poll() is None:
        first = newest(broken)
        while newest(broken) < first + 1 and launcher.poll() is None:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
        workers = children(launcher.pid)
        if len(workers) < 2:  # still starting
            continue
        done += 1
        both, frozen = done % 5 == 0, done % 4 == 0 and done % 5 != 0
        for pid in workers if both else [draw.choice(workers)]:
            os.kill(pid, signal.SIGSTOP if frozen else signal.SIGKILL)
        words = "both" if both else "one, stopped" if frozen else "one"
        print(f"{done:4} {newest(broken):5}  {words}", flush=True)
        while frozen and {*workers} & {*children(launcher.pid)}:
            time.sleep(0.1)  # until the launcher has noticed
    if launcher.wait():
        raise SystemExit(f"The launcher failed: {launcher.returncode}")
    rows = [len(list(csv.reader(open(r / "metrics.csv")))) for r in (one, broken)]
    apart = {run.name: difference(run, broken) for run in (one, calm)}
    print(f"{done} kills of two workers, {rows[1] - 1} epochs: weights differ by {apart}")
    if max(apart.values()) > TOLERANCE or rows[0] != rows[1] or done < kills:
        raise SystemExit("The weights differ from those without kills or of one device.")


def difference(one, other):
    """Returns the largest difference of the weights of two runs."""
    models = [keras.saving.load_model(run / "model.keras") for run in (one, other)]
    weights = zip(*(model.get_weights() for model in models), strict=True)
    return max(float(np.max(np.abs(np.subtract(a, b)))) for a, b in weights)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=25, help="kills of two workers")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as root:
        if options.kills:
            one_process(pathlib.Path(root), options.kills, draw)
        if options.workers:
            two_workers(pathlib.Path(root), options.workers, draw)


if __name__ == "__main__":
    main()
