"""A script that calls exported signatures with bad input and records each outcome.

    python bad_tensors.py RUNTIME ARTEFACT CASES.json FEEDS.npz FOLDER

RUNTIME is "tf_saved_model", "c_api", "litert" or "onnx". Neither another runtime nor the
package is imported. CASES.json is a list of [id, signature, {input: array of FEEDS}]; the
good input of a signature is "signature/input". FOLDER/log has a line when a case begins and
a line with its outcome, so that a crash or a hang belongs to one case: [id, error or null,
difference of a later good call or null]. The outputs are in FOLDER/id.npz.
"""

import json
import pathlib
import sys

import numpy as np


def tf_saved_model(path):
    """Returns a function of (signature, arrays by name) that returns arrays by name."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)

    def run(signature, arrays):
        tensors = {name: tf.constant(value) for name, value in arrays.items()}
        outputs = loaded.signatures[signature](**tensors)
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def c_api(path):
    """Like `tf_saved_model`, in C, which checks nothing before it runs the graph."""
    import c_api

    string = np.dtype("V24")  # a TF_TString; of zeros, the empty string
    c_api.DTYPES |= {2: np.float64, 4: np.uint8, 7: string, 10: np.bool_, 19: np.float16}
    session = c_api.Session(path)
    names = json.loads(pathlib.Path(path).with_name("names.json").read_text())

    def run(signature, arrays):
        graph = names[signature]
        feeds = {
            graph[name]: np.zeros(value.shape, string) if value.dtype.kind == "U" else value
            for name, value in arrays.items()
        }
        outputs = [name for name in graph if name.startswith("output ")]
        values = session.run(feeds, [graph[name] for name in outputs])
        return {
            name.removeprefix("output "): value
            for name, value in zip(outputs, values, strict=True)
        }

    return run


def litert(path):
    """Like `tf_saved_model`, for a .tflite file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    runners = {name: interpreter.get_signature_runner(name)
               for name in interpreter.get_signature_list()}  # fmt: skip

    def run(signature, arrays):
        runner = runners.get(signature) or interpreter.get_signature_runner(signature)
        return runner(**arrays)

    return run


def onnx(path):
    """Like `tf_saved_model`, for a folder of .onnx files."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # the exception has the same text
    sessions = {}

    def run(signature, arrays):
        if signature not in sessions:
            file = str(pathlib.Path(path, f"{signature}.onnx"))
            sessions[signature] = onnxruntime.InferenceSession(
                file, options, ["CPUExecutionProvider"]
            )
        outputs = [output.name for output in sessions[signature].get_outputs()]
        return dict(zip(outputs, sessions[signature].run(outputs, arrays), strict=True))

    return run


def attempt(run, signature, arrays):
    """Returns (outputs, None) or (None, text of the error)."""
    try:
        return run(signature, arrays), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def difference(outputs, before):
    """Returns the names of outputs that differ from a former good call, or None."""
    differing = [name for name in before
           if not np.allclose(outputs[name], before[name], atol=1e-6)]  # fmt: skip
    return f"another {differing}" if differing else None


def main(runtime, artefact, cases, feeds, folder):
    run, feeds, folder = globals()[runtime](artefact), dict(np.load(feeds)), folder
    good = {}
    for key in feeds:
        signature, _, name = key.partition("/")
        if name:
            good.setdefault(signature, {})[name] = feeds[key]
    before = {name: run(name, arrays) for name, arrays in good.items()}
    with open(pathlib.Path(folder, "log"), "a", encoding="utf-8") as log:
        for case, signature, inputs in json.loads(pathlib.Path(cases).read_text()):
            print(json.dumps([case]), file=log, flush=True)
            arrays = {name: feeds[key] for name, key in inputs.items()}
            outputs, error = attempt(run, signature, arrays)
            if outputs is not None:
                np.savez(pathlib.Path(folder, f"{case}.npz"), **outputs)
            later = signature if signature in good else next(iter(good))
            outputs, later_error = attempt(run, later, good[later])
            later_error = later_error or difference(outputs, before[later])
            print(json.dumps([case, error, later_error]), file=log, flush=True)
    imported = {"keras_vae", "tensorflow_probability", "tf_keras"} & set(sys.modules)
    assert not imported, imported


if __name__ == "__main__":
    main(*sys.argv[1:])
