"""Shared by the contestants of ../speed.py and ../gpu.py: protocol, data, clock.

A contestant's process reads orders from stdin and writes an answer to each on stdout, both
as lines of JSON:

    {"prepare": name, "options": {...}}   get ready: data, compilation, one warm-up
    {}                                    one repetition

An answer has the results of the repetition, at least `seconds` and `units`, or the reason
of a failure, `failed`. It also has the CPU seconds of the repetition, `cpu`, and those used
between the previous answer and the order, `idle`.

Needs only NumPy, because the environments of TensorFlow, PyTorch and JAX import it.
"""

import contextlib
import itertools
import json
import math
import os
import pathlib
import sys
import time
import traceback
from importlib import metadata

import numpy as np

# softplus(0 + this) is 1: the standard deviations of q(z|x) before training.
UNIT_SCALE = math.log(math.e - 1)


def serve(contestants, packages):
    """Answers the orders on stdin until it ends.

    Args:
        contestants: dict, name -> function of the options that returns a repetition: a
            function without arguments that returns a dict.
        packages: names of packages whose versions the answer to `prepare` holds, if they
            are installed.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of libraries must not mix with answers
    repetition = None
    slept = time.process_time()
    for line in sys.stdin:
        order = json.loads(line)
        woken = time.process_time()
        try:
            if "prepare" in order:
                repetition = None  # frees the previous one
                repetition = contestants[order["prepare"]](**order["options"])
                answer = {"versions": versions(packages)}
            else:
                answer = repetition()
        except Exception as error:
            traceback.print_exc()
            reason = str(error).strip().splitlines() or [""]
            answer = {"failed": f"{type(error).__name__}: {reason[0]}"}
        answer |= {"idle": woken - slept, "cpu": time.process_time() - woken}
        slept = time.process_time()
        print(json.dumps(answer), file=answers, flush=True)


def versions(packages):
    """Returns the versions of those packages that are installed, by name."""
    found = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def layers(hidden=400, depth=1, latent=20, pixels=784):
    """The matrices `[(fan in, fan out)]` of the dense model: encoder, then decoder."""
    inner = [hidden] * depth
    halves = [pixels, *inner, 2 * latent], [latent, *inner, pixels]
    return [pair for half in halves for pair in itertools.pairwise(half)]


def images(rows, shape=(784,), part="x_train"):
    """uint8 `[rows, *shape]`: MNIST, or random bytes if it or the size is missing."""
    folder = os.environ.get("KERAS_VAE_DATA")
    if folder and math.prod(shape) == 784:
        return np.load(pathlib.Path(folder, "mnist.npz"))[part][:rows].reshape(-1, *shape)
    return np.random.default_rng(0).integers(0, 256, (rows, *shape), np.uint8)


def binary_test_images(rows):
    """float32 `[rows, 784]`, 0 or 1: the same binarised images for all contestants."""
    if not os.environ.get("KERAS_VAE_DATA"):
        raise ValueError("needs MNIST, mnist.npz in the folder KERAS_VAE_DATA")
    grey = images(rows, part="x_test") / 255
    return (np.random.default_rng(0).random(grey.shape) < grey).astype(np.float32)


def glorot(rng, *shape):
    """Uniform weights `[..., channels in, channels out]`.

    Glorot and Bengio (2010), equation 16; the leading axes are those of a convolution.
    """
    limit = math.sqrt(6 / (math.prod(shape[:-2]) * sum(shape[-2:])))
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def seconds(function, *args):
    """Calls a function; returns the seconds and the result."""
    begin = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - begin, result


def long_less_short(run, units, times):
    """Makes a repetition: the time of `run(1 + times)` minus that of `run(1)`, per run.

    So the one-time cost of a call, its `start`, is not in `seconds`. `loss` is the result
    of the long run, after the same number of runs for all contestants unless one was
    repeated.

    Args:
        run: function of the number of runs that returns the loss or None.
        units: int, units per run.
        times: int.
    """

    def repetition():
        short, _ = seconds(run, 1)
        long, loss = seconds(run, 1 + times)
        while long <= short:  # another program used the cores
            short, _ = seconds(run, 1)
            long, _ = seconds(run, 1 + times)
        each = (long - short) / times
        return {"seconds": each, "units": units, "start": short - each, "loss": loss}

    return repetition


def whole(run, units, at_least=1.0):
    """Makes a repetition: the mean time of calls of `run` that take about a second."""
    run()
    count = math.ceil(at_least / seconds(run)[0])

    def repetition():
        return {
            "seconds": seconds(lambda: [run() for _ in range(count)])[0] / count,
            "units": units,
        }

    return repetition


def best(runs, times=3):
    """Finds the fastest function of a dict; returns (key, function)."""

    def fastest(key):
        runs[key]()
        return min(seconds(runs[key])[0] / key[0] for _ in range(times))

    key = min(runs, key=fastest)
    return key, runs[key]


def time_to(target, every, limit, train, nll):
    """Trains, with the clock stopped during evaluation, until the test NLL is `target`.

    Args:
        target: nats.
        every: int, epochs between evaluations.
        limit: int, epochs after which it fails.
        train: function of the number of epochs.
        nll: function without arguments, the test NLL in nats.

    Returns:
        dict: `seconds` and `epochs`, interpolated between the last two evaluations; `units`
        is 1.
    """
    took, value = 0.0, nll()
    for epoch in range(0, limit, every):
        this, _ = seconds(train, every)
        before, value = value, nll()
        if value <= target:
            part = (before - target) / (before - value)
            return {
                "seconds": took + part * this,
                "units": 1,
                "epochs": epoch + part * every,
            }
        took += this
    raise RuntimeError(f"{value:.2f} nats after {limit} epochs, not {target}")
