"""Measures the time to the first results of a new process, and counts its XLA programs.

A dense model (784-400-20-400-784) is trained for an epoch of 12,800 images, evaluated,
sampled and exported. The first epoch of `keras.Model.fit` is measured for comparison: the
common recipe of a VAE, and an autoencoder. Then the commands of `make demo` run.

    python tests/benchmarks/first_result.py [--rounds 3] [--out docs/speed.md]

With --out the table replaces the text in FILE between the lines `<!-- first -->` and
`<!-- /first -->`.
"""

import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import scaling

HERE = pathlib.Path(__file__).parent
ROWS = 12_800
# TensorFlow logs each compilation with these settings.
LOGGED = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "device_compilation_profiler=1"}
COMPILED = re.compile(r"Compiled \S+ \d+ times, compile time: (\d+) us")
TASK = re.compile(r"^task (.+): ([\d.]+) s$")


def timed(what, function, *args, **kwargs):
    """Calls a function, prints the seconds that it took, and returns its result."""
    begin = time.perf_counter()
    result = function(*args, **kwargs)
    seconds = time.perf_counter() - begin
    print(f"task {what}: {seconds:.3f} s", file=sys.stderr, flush=True)
    return result


def ours(folder):
    with_tensorflow = timed("import keras_vae and TensorFlow", contestants)
    x = with_tensorflow.protocol.images(ROWS)
    vae = timed("build the model", with_tensorflow.dense)
    vae.compile("adam")
    options = {"batch_size": with_tensorflow.BATCH, "verbose": 0}
    timed("`fit`, the first epoch", vae.fit, x, **options)
    timed("`fit` again", vae.fit, x, **options)
    timed("`evaluate`", vae.evaluate, x, **options)
    timed("`sample(16)`", vae.sample, 16)
    timed("`sample(10_000)`", vae.sample, 10_000)
    timed("`log_likelihood`, 100 rows, 1,000 samples", vae.log_likelihood, x[:100])
    timed("`log_likelihood`, 50 other rows", vae.log_likelihood, x[100:150])
    timed("`encode`, 1,000 rows", vae.encode, x[:1000])
    timed("`export`", vae.export, folder / "1")


def recipe():
    with_tensorflow = contestants()
    x = with_tensorflow.protocol.images(ROWS).astype("float32") / 255
    model = with_tensorflow.Recipe()
    model.compile(with_tensorflow.keras.optimizers.Adam())
    options = {"batch_size": with_tensorflow.BATCH, "verbose": 0}
    timed("`keras.Model.fit`, the common recipe, the first epoch", model.fit, x, **options)


def contestants():
    sys.path.insert(0, str(HERE / "contestants"))
    import with_tensorflow

    return with_tensorflow


def commands(folder):
    """The commands of `make demo`, by name."""
    run = str(folder / "run")
    serving, litert = f"{run}/serving/digits/1", f"{run}/model.tflite"
    to = ["export", run, "--to"]
    return {
        "`keras-vae train digits`": ["train", "digits", "--out", run],
        "`keras-vae export --to serving`": [*to, "serving", "--name", "digits"],
        "`keras-vae export --to litert`": [*to, "litert"],
        "`keras-vae verify`, serving": ["verify", serving, run],
        "`keras-vae verify`, LiteRT": ["verify", litert, run],
    }


def run(command):
    """Runs a command; returns {task: (seconds, programs, seconds of compilation)}."""
    environment = {**os.environ, **LOGGED}
    begin = time.perf_counter()
    done = subprocess.run(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, errors="replace",
    )  # fmt: skip
    whole = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found, compiled = {}, []
    for line in done.stderr.splitlines():
        if match := COMPILED.search(line):
            compiled.append(int(match[1]) / 1e6)
        elif match := TASK.search(line):
            found[match[1]] = float(match[2]), len(compiled), sum(compiled)
            compiled = []
    return found or {None: (whole, len(compiled), sum(compiled))}


def measured(rounds):
    """Lines of the table: medians over the rounds."""
    rows = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            for kind in ("ours", "recipe"):
                task = [sys.executable, __file__, "--task", kind, "--folder", name]
                for what, numbers in run(task).items():
                    rows.setdefault(what, []).append(numbers)
            for what, arguments in commands(folder).items():
                command = [str(pathlib.Path(sys.executable).parent / "keras-vae")]
                ((_, numbers),) = run([*command, *arguments]).items()
                rows.setdefault(what, []).append(numbers)
    yield from scaling.header("", "s", "XLA programs", "of these s, compilation")
    for what, numbers in rows.items():
        seconds, programs, compilation = map(statistics.median, zip(*numbers, strict=True))
        yield scaling.row(what, f"{seconds:.2f}", f"{programs:g}", f"{compilation:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--task", choices=["ours", "recipe"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        ours(args.folder) if args.task == "ours" else recipe()
        return
    table = "\n".join(measured(args.rounds))
    print(table)
    if args.out:
        scaling.replace(args.out, {"first": table})


if __name__ == "__main__":
    main()
