"""Describes the GPUs of a host, runs the tests that need GPUs, and measures throughput.

Prints images per second of `fit` in Markdown: two models, two precisions, with and without
XLA, on one GPU up to all of them (MirroredStrategy).

    python tests/benchmarks/gpu.py [--epochs 3] [--steps 200] [--rows 512]

Exits with 1 if TensorFlow finds no GPU. `--device CPU` skips the tests and measures two
logical CPU devices, only as a trial of this script.
"""

import argparse
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import scaling
import tensorflow as tf

CASES = list(
    itertools.product(("dense", "conv"), ("float32", "mixed_bfloat16"), (False, True))
)
TESTS = pathlib.Path(__file__).parent.parent / "test_gpu.py"


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


def column(device, count, epochs, steps, rows):
    """Measures images per second of each case on `count` devices, in this process."""
    if device == "CPU":
        (cpu,) = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(cpu, logical)
    devices = [f"{device}:{i}" for i in range(count)]
    # One strategy per process, for all cases: TensorFlow would use the same keys for the
    # collectives of a second one, and fails if their shapes differ.
    strategy = tf.distribute.OneDeviceStrategy(devices[0])
    if count > 1:
        strategy = tf.distribute.MirroredStrategy(devices)
    return [speed(*case, strategy, epochs, steps, rows) for case in CASES]


def speed(name, policy, xla, strategy, epochs, steps, rows):
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


def table(device, count, sizes):
    """Lines of the table, for 1 to `count` devices."""
    counts = sorted({1, count, *(n for n in (2, 4, 8) if n < count)})
    words = zip(("--epochs", "--steps", "--rows"), map(str, sizes), strict=True)
    command = [sys.executable, __file__, "--device", device, *itertools.chain(*words)]
    columns = []
    for n in counts:
        done = subprocess.run(
            [*command, "--count", str(n)], stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise SystemExit(f"Failed on {n} devices: see the error above.")
        columns.append(json.loads(done.stdout.splitlines()[-1]))
    yield from scaling.header(
        "model", "precision", "XLA", *(f"{n} {device}" for n in counts)
    )
    for (name, policy, xla), *speeds in zip(CASES, *columns, strict=True):
        cells = (f"{images:,.0f}" for images in speeds)
        yield scaling.row(name, policy, "yes" if xla else "no", *cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200, help="steps per epoch")
    parser.add_argument("--rows", type=int, default=512, help="rows per step and device")
    parser.add_argument("--device", choices=["GPU", "CPU"], default="GPU")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)  # used internally
    args = parser.parse_args()
    sizes = args.epochs, args.steps, args.rows
    if args.count:
        print(json.dumps(column(args.device, args.count, *sizes)))
        return
    print("\n".join(environment()), flush=True)
    count = len(tf.config.list_physical_devices(args.device))
    if not count:
        raise SystemExit(
            "TensorFlow finds no GPU, so there is nothing to measure. It needs an NVIDIA "
            "driver and the extra [cuda]. What it found is listed above."
        )
    if args.device == "CPU":
        count = 2
    else:
        tests = [sys.executable, "-m", "pytest", "-q", str(TESTS)]
        if subprocess.run(tests, cwd=TESTS.parent.parent).returncode:
            raise SystemExit("The tests failed, so nothing is measured.")
    print("\n" + "\n".join(table(args.device, count, sizes)))
    print(f"\nImages per second of fit, {args.rows} rows per step and device.")


if __name__ == "__main__":
    main()
