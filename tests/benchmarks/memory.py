"""Measures the rate and memory of training on an array that is larger than memory.

A dense VAE (784-400-20-400-784, batches of 128, `compile("adam")`) trains on repeated rows
of MNIST in one file, through `np.load(path, mmap_mode="r")`. For each file size the table
has the rate relative to 60,000 rows in memory, and the resident memory of the process: its
peak (VmHWM), and anonymous and file-backed pages at the end of the training. Two
processes, one for each array, train in turn, so that other load slows both.

    KERAS_VAE_DATA=folder python tests/benchmarks/memory.py [--gigabytes 0.05 1 5 20]
        [--rounds 15] [--steps 200] [--folder DIR] [--out FILE.md]

The array is written to a temporary folder and read once, so that it is in the system's
page cache as far as that has room. "read from disk" is what was read again during the
training (read_bytes of /proc, Linux). With --out the table also replaces the text in FILE
between the lines `<!-- memory -->` and `<!-- /memory -->`.
"""

import argparse
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def train(path, steps):
    """Trains on an array in turns of `steps`, one for each line of stdin."""
    import keras

    import keras_vae as kv

    model = kv.VAE(
        encoder=kv.nets.MLP([400]),
        decoder=kv.nets.MLP([400]),
        likelihood=kv.distributions.IndependentBernoulli((28, 28, 1)),
        latent_dim=20,
        seed=0,
    )
    model.compile("adam")

    class Turns(keras.callbacks.Callback):
        """Uses one fit, so that the rows are shuffled once; a turn is an epoch."""

        def on_epoch_begin(self, epoch, logs=None):
            self.begin = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.model.step.numpy()  # waits for the last step
            print(time.perf_counter() - self.begin, flush=True)
            self.model.stop_training = not sys.stdin.readline()

    x = np.load(path, mmap_mode="r") if path else mnist()
    model.fit(
        x,
        batch_size=128,
        epochs=10**6,
        steps_per_epoch=steps,
        verbose=0,
        callbacks=[Turns()],
    )
    print(
        *read_proc("status", "VmHWM", "RssAnon", "RssFile"), *read_proc("io", "read_bytes")
    )


def mnist():
    import keras_vae as kv

    return kv.datasets.load("mnist").x_train


def read_proc(name, *keys):
    text = pathlib.Path("/proc/self", name).read_text()
    return [re.search(rf"^{key}:\s+(\d+)", text, re.MULTILINE)[1] for key in keys]


class Training:
    """A process that trains on an array, in a file or in memory."""

    def __init__(self, path, steps):
        command = [sys.executable, __file__, "--train", path, "--steps", str(steps)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self._answer()  # the first turn traces

    def turn(self):
        """Runs a turn and returns its seconds."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._answer())

    def end(self):
        """Ends the process; returns MB: peak, anonymous, file-backed, read from disk."""
        self.process.stdin.close()
        *resident, read = map(int, self._answer().split())
        return [*(kib * 1024 / 1e6 for kib in resident), read / 1e6]

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("The training failed.")
        return line


def measured(sizes, rounds, steps, folder):
    """Lines of the table."""
    titles = ("data, GB", "rows", "relative rate", "rate, steps/s", "peak, MB")
    yield from header(*titles, "anonymous, MB", "file-backed, MB", "read from disk, MB")
    load, images, in_memory = os.getloadavg()[0], mnist(), []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = pathlib.Path(place, "x.npy")
            rows = write(path, images, int(size * 1e9) // images[0].size)
            disk, memory = Training(str(path), steps), Training("", steps)
            turns = [(memory.turn(), disk.turn()) for _ in range(rounds)]
            in_memory.append(([m for m, _ in turns], memory.end()))
            numbers = disk.end()
        ratios = [m / d for m, d in turns]
        yield line(size, rows, spread(ratios), [d for _, d in turns], numbers, steps)
    turns, numbers = in_memory[-1]
    yield line("in memory", len(images), "1", turns, numbers, steps)
    yield ""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield (
        f"Medians of {rounds} turns of {steps} steps (lowest to highest); each array "
        f"alternates with the array in memory. {platform.machine()}, {os.cpu_count()} "
        f"cores, {total:.0f} GB of memory; load average before: {load:.1f}."
    )


def write(path, images, rows):
    """Writes `rows` rows by repeating the images; returns their number."""
    needed, free = rows * images[0].size, shutil.disk_usage(path.parent).free
    if needed > 0.9 * free:
        raise SystemExit(
            f"{path.parent} has {free / 1e9:.0f} GB free and needs {needed / 1e9:.0f} GB"
        )
    # Writes only the header with NumPy: mapped rows would count as memory here.
    np.lib.format.open_memmap(path, "w+", images.dtype, (rows, *images.shape[1:]))
    with open(path, "r+b") as file:
        file.seek(-needed, os.SEEK_END)
        for start in range(0, rows, len(images)):
            file.write(images[: rows - start].data)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        while file.read(2**24):
            pass
    return rows


def line(size, rows, ratio, turns, numbers, steps):
    rate = steps / statistics.median(turns)
    return row(size, f"{rows:,}", ratio, f"{rate:.0f}", *(f"{n:,.0f}" for n in numbers))


def header(*titles):
    return row(*titles), row(*["---"] * len(titles))


def row(*cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.05, 1, 5, 20])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=200, help="steps per turn")
    parser.add_argument("--folder", help="folder of the array; default: temporary")
    parser.add_argument("--out", type=pathlib.Path, help="Markdown file to update")
    parser.add_argument("--train", help=argparse.SUPPRESS)  # used internally
    args = parser.parse_args()
    if args.train is not None:
        train(args.train, args.steps)
        return
    table = []
    for text in measured(args.gigabytes, args.rounds, args.steps, args.folder):
        print(text, flush=True)
        table.append(text)
    if args.out:
        replace(args.out, "memory", "\n".join(table))


def replace(path, name, table):
    whole = path.read_text()
    block = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    if not re.search(block, whole, re.DOTALL):
        raise SystemExit(f"{path} must have lines <!-- {name} --> and <!-- /{name} -->")
    path.write_text(
        re.sub(block, lambda m: f"{m[1]}\n{table}\n\n{m[2]}", whole, flags=re.DOTALL)
    )


if __name__ == "__main__":
    main()
