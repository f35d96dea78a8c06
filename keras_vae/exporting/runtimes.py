"""A script that runs exported signatures in a separate process.

    python runtimes.py JOBS.json [--end-with-stdin]

It imports nothing from keras_vae, only the runtime of the artefact: TensorFlow, LiteRT's
interpreter or ONNX Runtime. JOBS.json is a list of dicts with the keys

    runtime    "tf_saved_model", "litert" or "onnx"
    artefact   path
    feeds      path of an .npz with arrays named "signature/input"
    results    path of the .npz to write, with arrays named "signature/output"
    repeat     number of calls of each signature to time after the first one, or 0

The times are printed as one line of JSON: a list of dicts in the order of the jobs, with
the keys "import", "load" and, if calls are timed, each signature with "first" and
"call", in milliseconds. With --end-with-stdin the process ends when its standard
input does, which happens when the process that started it ends.
"""

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

PART = 100  # rows of a call, unless the artefact fixes the number


Arrays = dict[str, np.ndarray]
# Each loader yields twice: None after the import of its library, then a dict from the names
# of signatures to (function of arrays by name, fixed number of rows or None, names of
# inputs, object that must be kept alive).
Loader = Iterator[Any]


def tf_saved_model(path: str) -> Loader:
    """Loads the signatures of a SavedModel."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    yield
    loaded = tf.saved_model.load(path)  # must outlive its signatures

    def runner(function):
        names = function.structured_input_signature[1]

        def run(**arrays):
            tensors = {name: tf.constant(value) for name, value in arrays.items()}
            outputs = function(**tensors)
            return {name: value.numpy() for name, value in outputs.items()}

        return run, None, list(names), loaded

    signatures = loaded.signatures
    yield {name: runner(signatures[name]) for name in signatures}


def litert(path: str) -> Loader:
    """Loads the signatures of a .tflite file, to run on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    yield
    interpreter = Interpreter(path, num_threads=1)

    def runner(name):
        run = interpreter.get_signature_runner(name)
        details = run.get_input_details()
        rows = next(iter(details.values()))["shape_signature"][0]
        return run, None if rows == -1 else int(rows), list(details), interpreter

    yield {name: runner(name) for name in interpreter.get_signature_list()}


def onnx(path: str) -> Loader:
    """Loads the signatures of a folder of .onnx files, to run on one thread."""
    import onnxruntime

    yield
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    def runner(file):
        session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
        outputs = [output.name for output in session.get_outputs()]

        def run(**arrays):
            return dict(zip(outputs, session.run(outputs, arrays), strict=True))

        return run, None, [item.name for item in session.get_inputs()], session

    files = [name for name in sorted(os.listdir(path)) if name.endswith(".onnx")]
    yield {name[:-5]: runner(os.path.join(path, name)) for name in files}


def call(run: Callable, rows: int, arrays: Arrays) -> Arrays:
    """Runs a signature on all rows, `rows` at a time; the last call is padded."""
    total = len(next(iter(arrays.values())))
    parts = []
    for start in range(0, total, rows):
        index = np.minimum(np.arange(start, start + rows), total - 1)
        parts.append(run(**{name: value[index] for name, value in arrays.items()}))
    return {name: np.concatenate([p[name] for p in parts])[:total] for name in parts[0]}


def measure(
    run: Callable, rows: int | None, arrays: Arrays, repeat: int
) -> dict[str, float]:
    """Measures the time of the first call and the median of later ones, in ms."""
    index = np.arange(rows or 1) % len(next(iter(arrays.values())))
    batch = {name: value[index] for name, value in arrays.items()}
    times = []
    for _ in range(1 + repeat):
        start = time.perf_counter()
        run(**batch)
        times.append(1e3 * (time.perf_counter() - start))
    return {"first": times[0], "call": statistics.median(times[1:])}


def main(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs the jobs and returns their times."""
    times = []
    for job in jobs:
        start = time.perf_counter()
        loader = globals()[job["runtime"]](job["artefact"])
        next(loader)
        imported = time.perf_counter()
        runners = next(loader)
        loaded = time.perf_counter()
        job_times: dict[str, Any] = {
            "import": 1e3 * (imported - start),
            "load": 1e3 * (loaded - imported),
        }
        feeds = np.load(job["feeds"])
        results: dict[str, Any] = {}
        for name, (run, rows, inputs, _) in runners.items():
            if f"{name}/{inputs[0]}" not in feeds:
                continue
            arrays = {key: feeds[f"{name}/{key}"] for key in inputs}
            if job["repeat"]:
                job_times[name] = measure(run, rows, arrays, job["repeat"])
            for key, value in call(run, rows or PART, arrays).items():
                results[f"{name}/{key}"] = value
        np.savez(job["results"], **results)
        times.append(job_times)
    foreign = {"keras_vae", "tensorflow_probability", "tf_keras"} & set(sys.modules)
    if foreign:
        raise SystemExit(f"a runtime imported {sorted(foreign)}")
    return times


def end_with_stdin() -> None:
    """Ends this process when its standard input ends."""

    def watch():
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    if "--end-with-stdin" in sys.argv:
        end_with_stdin()
    with open(sys.argv[1], encoding="utf-8") as file:
        print(json.dumps(main(json.load(file))))
