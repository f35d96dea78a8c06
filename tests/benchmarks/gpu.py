"""Describes the GPUs of a host, runs the tests that need GPUs, and measures speed.

Writes three tables in Markdown. `throughput`: images per second of `fit` for two models,
two precisions, with and without XLA, on one GPU up to all of them (MirroredStrategy).
`dense` and `conv`: microseconds per training step on one GPU, of keras_vae, of loops
written by hand for TensorFlow and JAX, and of PyTorch.

    python tests/benchmarks/gpu.py [--steps 200] [--rounds 4] [--limit 480] [--out FILE]

Uses the PyTorch and JAX of this Python, or else of build/peers, which `make bench` creates.
Each contestant (contestants/) is a separate process. After --limit seconds nothing more is
measured, and the tables have what was reached. `--only dense,conv` measures only these
tables, without the tests.

Exits with 1 if TensorFlow finds no GPU. `--device CPU` skips the tests and measures the CPU
(two logical devices for the throughput), only as a trial of this script.
"""

import argparse
import importlib.util
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import scaling
import speed
import tensorflow as tf
from speed import Contestant

BEGIN = time.monotonic()
CASES = list(
    itertools.product(("dense", "conv"), ("float32", "mixed_bfloat16"), (False, True))
)
TESTS = pathlib.Path(__file__).parent.parent / "test_gpu.py"
# The data are random bytes, because MNIST has fewer rows. On a GPU the processes share its
# memory.
ENVIRONMENTS = {
    "CPU": {**speed.NO_GPU, "JAX_PLATFORMS": "cpu", "KERAS_VAE_DATA": ""},
    "GPU": {
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_PLATFORMS": "cuda",
        "KERAS_VAE_DATA": "",
    },
}
TIMES = 2  # epochs by which a long training is longer than a short one
LONGEST, RESERVE = 120, 30  # seconds for one answer, and for all rounds of a column
OVER = "the time was over (--limit)"


def environment():
    """Lines on the driver, the GPUs and the build options of TensorFlow."""
    build = tf.sysconfig.get_build_info()
    yield f"tensorflow {tf.__version__}, keras {keras.__version__}"
    yield "built with " + ", ".join(
        f"{key} {build.get(key, 'none')}" for key in ("cuda_version", "cudnn_version")
    )
    if shutil.which("nvidia-smi"):
        query = "--query-gpu=index,name,driver_version,memory.total"
        command = ["nvidia-smi", query, "--format=csv"]
        yield subprocess.run(command, capture_output=True, text=True).stdout.strip()
    else:
        yield "no nvidia-smi, so no NVIDIA driver"
    for gpu in tf.config.list_physical_devices("GPU"):
        yield f"{gpu.name} {tf.config.experimental.get_device_details(gpu)}"


def measure_cases(device, count, epochs, steps, rows):
    """Yields images per second of each case on `count` devices, in this process."""
    if device == "CPU":
        (cpu,) = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(cpu, logical)
    devices = [f"{device}:{i}" for i in range(count)]
    # One strategy per process, for all cases: TensorFlow would use the same keys for the
    # collectives of a second one, and fails if their shapes differ. On one device without
    # a strategy, as users train: under a strategy, `fit` keeps no data on a GPU.
    strategy = tf.distribute.get_strategy()
    if count > 1:
        strategy = tf.distribute.MirroredStrategy(devices)
    for case in CASES:
        yield images_per_second(*case, strategy, epochs, steps, rows)


def images_per_second(name, policy, xla, strategy, epochs, steps, rows):
    keras.config.set_dtype_policy(policy)
    batch = rows * strategy.num_replicas_in_sync
    with strategy.scope():
        model = scaling.build(name)
        model.compile("adam", jit_compile=xla, steps_per_execution=min(100, steps))
    x = np.random.default_rng(0).integers(0, 256, (steps * batch, 28, 28, 1), np.uint8)
    model.fit(x, batch_size=batch, verbose=0)
    begin = time.perf_counter()
    model.fit(x, batch_size=batch, epochs=epochs, verbose=0)
    return epochs * len(x) / (time.perf_counter() - begin)


def throughput(device, count, sizes, left):
    """Lines of the table, for 1 to `count` devices."""
    counts = sorted({1, count, *(n for n in (2, 4, 8) if n < count)})
    words = zip(("--epochs", "--steps", "--rows"), map(str, sizes), strict=True)
    command = [sys.executable, __file__, "--device", device, *itertools.chain(*words)]
    columns = [in_process([*command, "--count", str(n)], left) for n in counts]
    titles = (f"{n} {device}" for n in counts)
    yield from scaling.header("model", "precision", "XLA", *titles)
    for i, (name, policy, xla) in enumerate(CASES):
        cells = (f"{column[i]:,.0f}" if i < len(column) else "-" for column in columns)
        yield scaling.row(name, policy, "yes" if xla else "no", *cells)
    yield f"\nImages per second of `fit`, {sizes[-1]} rows per step and device."
    if any(len(column) < len(CASES) for column in columns):
        yield f"\n`-`: {OVER}."


def in_process(command, left):
    """Returns the speeds that a process prints, until the time is over."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(max(0, left()), process.kill)
        timer.start()
        lines = (line.split() for line in process.stdout)
        found = [float(words[1]) for words in lines if words[:1] == ["speed"]]
        timer.cancel()
    if process.returncode and left() > 0:
        raise SystemExit("The throughput could not be measured: see the error above.")
    return found


def dense(device, steps):
    """Returns the contestants by label, and the sizes by column."""
    torch = {"device": {"GPU": "cuda", "CPU": "cpu"}[device]}
    chunk = {"steps_per_execution": steps}
    whole, single = ({"whole": whole} for whole in (True, False))
    rows = {
        "keras_vae, `fit`": ("tensorflow", "fit", {}),
        f"keras_vae, `fit`, `steps_per_execution={steps}`": ("tensorflow", "fit", chunk),
        "XLA by hand, a program for an epoch": ("tensorflow", "loop_on_device", whole),
        "XLA by hand, a program for a step": ("tensorflow", "loop_on_device", single),
        "JAX, `scan`": ("jax", "loop", {}),
        "PyTorch, CUDA graph of a step": ("torch", "loop", {**torch, "graph": True}),
        "PyTorch, `torch.compile`": ("torch", "loop", {**torch, "compiled": True}),
        "PyTorch, eager": ("torch", "loop", torch),
    }
    small, large = {"hidden": 400}, {"hidden": 2_048, "depth": 2}
    columns = {
        "400 hidden units, batch 128": {**small, "batch": 128},
        "400 hidden units, batch 1,024": {**small, "batch": 1_024},
        "2 x 2,048 hidden units, batch 1,024": {**large, "batch": 1_024},
    }
    return rows, columns


def conv(device, steps):
    """Returns the contestants by label, and the sizes by column."""
    graph = {"device": {"GPU": "cuda", "CPU": "cpu"}[device], "graph": True}
    graph["channels_last"] = True
    rows = {
        "keras_vae, `fit`": ("tensorflow", "fit", {}),
        "JAX, `scan`": ("jax", "loop", {}),
        "PyTorch, channels last, CUDA graph of a step": ("torch", "loop", graph),
    }
    half = {"float32": False, "bfloat16": True}
    columns = {
        f"batch {batch}, {kind}": {"network": "conv", "batch": batch, "bfloat16": bfloat16}
        for batch in (128, 512)
        for kind, bfloat16 in half.items()
    }
    return rows, columns


def step_times(contestants, columns, device, steps, rounds, left):
    """Lines of a table of microseconds per step.

    Args:
        contestants: dict, label -> (side, name, options) of a `Contestant`.
        columns: dict, title -> further options.
        device: "GPU" or "CPU".
        steps: int, steps per epoch.
        rounds: int. The best one counts.
        left: function without arguments, the seconds that are left.
    """
    contestants = {
        label: Contestant(*words, ENVIRONMENTS[device])
        for label, words in contestants.items()
    }
    if device == "CPU":  # a trial
        columns = {
            f"{title}, / 16": {**size, "batch": size["batch"] // 16}
            for title, size in columns.items()
        }
    processes = speed.start(contestants, pythons())
    try:
        results = {
            title: speed.said(
                title, measure(contestants, processes, size, steps, rounds, left)
            )
            for title, size in columns.items()
        }
    finally:
        for process in processes.values():
            process.end()
    yield from scaling.header("", *columns)
    for label in contestants:
        each = (results[title][label] for title in columns)
        cells = (
            f"{microseconds(r['rounds'], steps):,.0f}" if "rounds" in r else "-"
            for r in each
        )
        yield scaling.row(label, *cells)
    versions = {}
    for process in processes.values():
        versions |= process.versions
    words = [f"\nMicroseconds per step; {steps} steps per epoch, best of {rounds}"]
    words += [f"{name} {version}" for name, version in versions.items()]
    yield ", ".join(words) + ".\n"
    reasons = {}
    for title, column in results.items():
        if any("rounds" in result for result in column.values()):
            yield f"- {title}: {speed.agreement(column)}"
        for label, result in column.items():
            if "failed" in result:
                reasons.setdefault((label, result["failed"]), []).append(title)
    for (label, reason), titles in reasons.items():
        where = "" if len(titles) == len(columns) else f" ({'; '.join(titles)})"
        yield f"- {label}: {reason}{where}"


def pythons():
    """Returns for each side the Python that has its package, or an exception."""
    peers = speed.PEERS / "bin" / "python"
    other = peers if peers.exists() else None
    return {
        side: sys.executable
        if importlib.util.find_spec(side)
        else other or ModuleNotFoundError(f"{side} is not installed")
        for side in ("tensorflow", "torch", "jax")
    }


def measure(contestants, processes, size, steps, rounds, left):
    """Measures a column: label -> {"rounds": answers} or {"failed": reason}."""
    for label, contestant in contestants.items():
        options = {"rows": steps * size["batch"], "times": TIMES}
        options |= {**contestant.options, **size}
        process = processes[label]
        if process.alive():
            process.failed = None  # of the column before
        ask(process, {"prepare": contestant.name, "options": options}, left() - RESERVE)
    answers = {label: [] for label in contestants}
    for _ in range(rounds):
        for label, process in processes.items():
            answer = ask(process, {}, left())
            if not process.failed:
                answers[label].append(answer)
    return {
        label: {"rounds": each} if each else {"failed": processes[label].failed}
        for label, each in answers.items()
    }


def ask(process, order, seconds):
    if seconds < 1:
        process.failed = process.failed or OVER
    return process.ask(order, min(seconds, LONGEST))


def microseconds(answers, steps):
    """Per step: the shortest long training less the shortest short one."""
    short = min(a["start"] + a["seconds"] for a in answers)
    long = min(a["start"] + (1 + TIMES) * a["seconds"] for a in answers)
    return 1e6 * (long - short) / TIMES / steps


def run_tests(left):
    tests = [sys.executable, "-m", "pytest", "-q", str(TESTS)]
    try:
        done = subprocess.run(tests, cwd=TESTS.parent.parent, timeout=max(0, left()))
    except subprocess.TimeoutExpired as error:
        raise SystemExit(f"The tests did not end: {OVER}.") from error
    if done.returncode:
        raise SystemExit("The tests failed, so nothing is measured.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3, help="of the throughput")
    parser.add_argument("--steps", type=int, default=200, help="steps per epoch")
    parser.add_argument("--rows", type=int, default=512, help="rows per step and device")
    parser.add_argument("--rounds", type=int, default=4, help="the best one counts")
    parser.add_argument("--limit", type=float, default=480, help="seconds for everything")
    parser.add_argument("--only", help="tables: throughput,dense,conv")
    parser.add_argument("--out", type=pathlib.Path, help="Markdown file to write")
    parser.add_argument("--device", choices=["GPU", "CPU"], default="GPU")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)  # used internally
    args = parser.parse_args()
    device, steps = args.device, args.steps
    sizes = args.epochs, steps, args.rows
    if args.count:
        for images in measure_cases(device, args.count, *sizes):
            print("speed", images, flush=True)
        return

    def left():
        return BEGIN + args.limit - time.monotonic()

    def write(lines, mode="a"):
        text = "\n".join(lines) + "\n"
        print(text, flush=True)
        if args.out:
            with args.out.open(mode) as file:
                print(text, file=file)

    gpus = len(tf.config.list_physical_devices(device))
    count = 2 if device == "CPU" else gpus
    tables = {"throughput": throughput(device, count, sizes, left)}
    for kind in (dense, conv):
        table = step_times(*kind(device, steps), device, steps, args.rounds, left)
        tables[kind.__name__] = table
    if args.only:
        tables = speed.chosen(tables, args.only)
    write(environment(), "w")
    if not gpus:
        raise SystemExit(
            "TensorFlow finds no GPU, so there is nothing to measure. It needs an NVIDIA "
            "driver and the extra [cuda]. What it found is listed above."
        )
    if device == "GPU" and not args.only:
        run_tests(left)
    for lines in tables.values():
        write(lines)


if __name__ == "__main__":
    main()
