"""A script that runs a SavedModel through TensorFlow's C API, as a server does.

    python c_api.py JOBS.json

It imports no Python code of TensorFlow, only the shared libraries of its wheel. A job has
the keys of `keras_vae/exporting/runtimes.py`, and "names": for each "signature/tensor" the
name of the tensor in the graph, such as "sample_seed:0".
"""

import ctypes
import importlib.util
import json
import pathlib
import sys

import numpy as np

DTYPES = {1: np.float32, 3: np.int32, 9: np.int64}  # codes of TF_DataType


class Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class Buffer(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    ]


def library():
    folder = pathlib.Path(
        importlib.util.find_spec("tensorflow").submodule_search_locations[0]
    )
    for name in ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2"):
        loaded = ctypes.CDLL(str(folder / name), ctypes.RTLD_GLOBAL)
    for name in (
        "NewStatus",
        "NewGraph",
        "NewSessionOptions",
        "LoadSessionFromSavedModel",
        "GraphOperationByName",
        "AllocateTensor",
        "TensorData",
    ):
        getattr(loaded, f"TF_{name}").restype = ctypes.c_void_p
    loaded.TF_Message.restype = ctypes.c_char_p
    loaded.TF_TensorByteSize.restype = ctypes.c_size_t
    loaded.TF_Dim.restype = ctypes.c_int64
    return loaded


class Session:
    """A SavedModel: `run({tensor name: array}, [tensor names]) -> arrays`."""

    def __init__(self, path):
        self.tf = library()
        self.status = ctypes.c_void_p(self.tf.TF_NewStatus())
        self.graph = ctypes.c_void_p(self.tf.TF_NewGraph())
        tags = (ctypes.c_char_p * 1)(b"serve")
        self.session = ctypes.c_void_p(
            self.tf.TF_LoadSessionFromSavedModel(
                ctypes.c_void_p(self.tf.TF_NewSessionOptions()),
                None,
                str(path).encode(),
                tags,
                1,
                self.graph,
                ctypes.byref(Buffer()),
                self.status,
            )
        )
        self.check()

    def check(self):
        if self.tf.TF_GetCode(self.status):
            raise RuntimeError(self.tf.TF_Message(self.status).decode())

    def outputs(self, names):
        outputs = []
        for name in names:
            operation, _, index = name.rpartition(":")
            pointer = self.tf.TF_GraphOperationByName(self.graph, operation.encode())
            outputs.append(Output(pointer, int(index)))
        return (Output * len(outputs))(*outputs)

    def tensor(self, array):
        code = {np.dtype(dtype): code for code, dtype in DTYPES.items()}[array.dtype]
        shape = (ctypes.c_int64 * max(1, array.ndim))(*array.shape)
        size = ctypes.c_size_t(array.nbytes)
        tensor = self.tf.TF_AllocateTensor(code, shape, array.ndim, size)
        data = self.tf.TF_TensorData(ctypes.c_void_p(tensor))
        ctypes.memmove(data, np.ascontiguousarray(array).ctypes.data, array.nbytes)
        return tensor

    def array(self, tensor):
        tensor = ctypes.c_void_p(tensor)
        rank = self.tf.TF_NumDims(tensor)
        shape = [self.tf.TF_Dim(tensor, axis) for axis in range(rank)]
        size = self.tf.TF_TensorByteSize(tensor)
        raw = ctypes.string_at(self.tf.TF_TensorData(tensor), size) if size else b""
        return np.frombuffer(raw, DTYPES[self.tf.TF_TensorType(tensor)]).reshape(shape)

    def run(self, feeds, fetches):
        values = (ctypes.c_void_p * len(fetches))()
        inputs = (ctypes.c_void_p * len(feeds))(*map(self.tensor, feeds.values()))
        self.tf.TF_SessionRun(
            self.session,
            None,
            self.outputs(feeds),
            inputs,
            len(feeds),
            self.outputs(fetches),
            values,
            len(fetches),
            None,
            0,
            None,
            self.status,
        )
        self.check()
        return [self.array(value) for value in values]


def main(jobs):
    for job in jobs:
        session, feeds, results = Session(job["artefact"]), np.load(job["feeds"]), {}
        names = job["names"]
        for signature in sorted({key.split("/")[0] for key in names}):
            tensors = {key: names[key] for key in names if key.split("/")[0] == signature}
            inputs = {name: feeds[key] for key, name in tensors.items() if key in feeds}
            outputs = [key for key in tensors if key not in feeds]
            arrays = session.run(inputs, [tensors[key] for key in outputs])
            results |= dict(zip(outputs, arrays, strict=True))
        np.savez(job["results"], **results)
    assert not any(name.startswith("tensorflow.") for name in sys.modules)
    print(json.dumps([{}] * len(jobs)))


if __name__ == "__main__":
    main(json.loads(pathlib.Path(sys.argv[1]).read_text()))
