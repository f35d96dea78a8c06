"""Calls exported signatures with bad input and writes what comes of each call. A script.

    python bad_tensors.py RUNTIME ARTEFACT CASES.json FEEDS.npz FOLDER

RUNTIME is "tf_saved_model", "c_api", "litert" or "onnx"; no other runtime is imported, and
nothing of the package. CASES.json is a list of [id, signature, {input: array of FEEDS}];
the good input of a signature is "signature/input". A line of FOLDER/log says that a case
begins, and the next one what came of it, so that a crash or a hang is known to be of one
case: [id, error or null, what a good call gave afterwards or null where that is what it
gave before]. The outputs are in FOLDER/id.npz.
"""

import json
import pathlib
import sys

import numpy as np


def tf_saved_model(path):
    """A function of (signature, arrays by name) that gives arrays by name."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)

    def run(signature, arrays):
        tensors = {name: tf.constant(value) for name, value in arrays.items()}
        outputs = loaded.signatures[signature](**tensors)
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def c_api(path):
    """As `tf_saved_model`, in C, where nothing is compared before the graph runs."""
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
    """As `tf_saved_model`, of a .tflite file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    runners = {name: interpreter.get_signature_runner(name)
               for name in interpreter.get_signature_list()}  # fmt: skip

    def run(signature, arrays):
        runner = runners.get(signature) or interpreter.get_signature_runner(signature)
        return runner(**arrays)

    return run


def onnx(path):
    """As `tf_saved_model`, of a folder of .onnx files."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what it would say is in the exception
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
    """(outputs, None), or (None, the error in words)."""
    try:
        return run(signature, arrays), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def difference(outputs, before):
    """What is wrong with the outputs of a good call, or None."""
    far = [name for name in before
           if not np.allclose(outputs[name], before[name], atol=1e-6)]  # fmt: skip
    return f"another {far}" if far else None


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
            after = signature if signature in good else next(iter(good))
            outputs, spoilt = attempt(run, after, good[after])
            spoilt = spoilt or difference(outputs, before[after])
            print(json.dumps([case, error, spoilt]), file=log, flush=True)
    foreign = {"keras_vae", "tensorflow_probability", "tf_keras"} & set(sys.modules)
    assert not foreign, foreign


if __name__ == "__main__":
    main(*sys.argv[1:])
