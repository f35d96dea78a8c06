"""Runs exported signatures in a process of its own: a script, not a module to import.

    python runtimes.py JOBS.json

It imports nothing of this package, only the runtime of the artefact: TensorFlow, LiteRT's
interpreter or ONNX Runtime. JOBS.json is a list of dicts with the keys

    runtime    "tf_saved_model", "litert" or "onnx"
    artefact   path
    feeds      path of an .npz with arrays named "signature/input"
    results    path of the .npz to write, with arrays named "signature/output"
    repeat     calls of each signature to time after the first one, or 0

The times are printed as one line of JSON: a list of dicts in the order of the jobs, with
the keys "import", "load" and, where calls are timed, each signature with "first" and
"call", in milliseconds.
"""

import json
import os
import statistics
import sys
import time

import numpy as np

PART = 100  # rows at a time, where any number may be given


# Each yields twice: when its library is imported, and when the artefact is loaded. The
# second time it gives (function of arrays by name, fixed number of rows or None, names of
# inputs, what must be kept alive) by the name of the signature.


def tf_saved_model(path):
    """The signatures of a SavedModel."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    yield
    loaded = tf.saved_model.load(path)  # the signatures keep it alive only together

    def runner(function):
        names = function.structured_input_signature[1]

        def run(**arrays):
            tensors = {name: tf.constant(value) for name, value in arrays.items()}
            outputs = function(**tensors)
            return {name: value.numpy() for name, value in outputs.items()}

        return run, None, list(names), loaded

    signatures = loaded.signatures
    yield {name: runner(signatures[name]) for name in signatures}


def litert(path):
    """The signatures of a .tflite file, on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    yield
    interpreter = Interpreter(path, num_threads=1)

    def runner(name):
        run = interpreter.get_signature_runner(name)
        details = run.get_input_details()
        rows = next(iter(details.values()))["shape_signature"][0]
        return run, None if rows == -1 else int(rows), list(details), interpreter

    yield {name: runner(name) for name in interpreter.get_signature_list()}


def onnx(path):
    """The signatures of a folder of .onnx files, on one thread."""
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


def call(run, rows, arrays):
    """Runs all rows, in parts of `rows`, which an artefact may fix: the last is filled."""
    total = len(next(iter(arrays.values())))
    parts = []
    for start in range(0, total, rows):
        place = np.minimum(np.arange(start, start + rows), total - 1)
        parts.append(run(**{name: value[place] for name, value in arrays.items()}))
    return {name: np.concatenate([p[name] for p in parts])[:total] for name in parts[0]}


def measure(run, rows, arrays, repeat):
    """Times of the first call and of later ones, for one row, in milliseconds."""
    place = np.arange(rows or 1) % len(next(iter(arrays.values())))
    row = {name: value[place] for name, value in arrays.items()}
    times = []
    for _ in range(1 + repeat):
        start = time.perf_counter()
        run(**row)
        times.append(1e3 * (time.perf_counter() - start))
    return {"first": times[0], "call": statistics.median(times[1:])}


def main(jobs):
    """Does the jobs and returns their times."""
    told = []
    for job in jobs:
        start = time.perf_counter()
        steps = globals()[job["runtime"]](job["artefact"])
        next(steps)
        imported = time.perf_counter()
        runners = next(steps)
        took = {"import": 1e3 * (imported - start)}
        took["load"] = 1e3 * (time.perf_counter() - imported)
        feeds, results = np.load(job["feeds"]), {}
        for name, (run, rows, inputs, _) in runners.items():
            if f"{name}/{inputs[0]}" not in feeds:
                continue
            arrays = {key: feeds[f"{name}/{key}"] for key in inputs}
            if job["repeat"]:
                took[name] = measure(run, rows, arrays, job["repeat"])
            for key, value in call(run, rows or PART, arrays).items():
                results[f"{name}/{key}"] = value
        np.savez(job["results"], **results)
        told.append(took)
    foreign = {"keras_vae", "tensorflow_probability", "tf_keras"} & set(sys.modules)
    if foreign:
        raise SystemExit(f"a runtime imported {sorted(foreign)}")
    return told


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(json.dumps(main(json.load(file))))
