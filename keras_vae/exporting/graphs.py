"""The operators and signatures of an artefact, read from its files without running it."""

import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from keras_vae.exporting import litert
from keras_vae.exporting.operators import SAVER

OTHER_GRAPHS = "a graph that TensorFlow runs when it loads it"
EXTERNAL_DATA = "data in other files"


class Graphs(NamedTuple):
    """The content of an artefact.

    Attributes:
        operators: set of str, the names of all operators.
        signatures: set of str.
        quantized: bool, whether some tensors have fewer than 32 bits.
    """

    operators: set[str]
    signatures: set[str]
    quantized: bool = False


def read(path: pathlib.Path, format: str) -> Graphs:
    """Reads the operators and signatures of an artefact.

    Args:
        path: of the artefact.
        format: a key of `keras_vae.exporting.formats.FORMATS`.

    Raises:
        ValueError: if a file cannot be read.
        ImportError: if a package that the format needs is not installed.
    """
    try:
        return _READERS[format](path)
    except ImportError as error:
        raise ImportError(
            f'reading a {format} artefact needs a package: pip install "keras-vae[export]".'
            f" Received: {error}"
        ) from error
    except Exception as error:  # of protobuf, flatbuffers and the operating system
        raise ValueError(
            f"`artefact` must be readable as {format}. Received: {path}: "
            f"{type(error).__name__} {error}"
        ) from error


def _saved_model(path):
    from tensorflow.core.protobuf import saved_model_pb2

    content = (path / "saved_model.pb").read_bytes()
    graphs = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    operators = set()
    # Of other graphs than a single one of TensorFlow 2, the loader runs the saver, too.
    if len(graphs) != 1 or not graphs[0].HasField("object_graph_def"):
        operators.add(OTHER_GRAPHS)
    for graph in graphs:
        saver = _saver(content, graph)
        operators |= {node.op for node in graph.graph_def.node}
        for function in graph.graph_def.library.function:
            found = {node.op for node in function.node_def}
            operators |= found - saver.get(function.signature.name, frozenset())
    names = {name for graph in graphs for name in graph.signature_def}
    return Graphs(operators, names - {"__saved_model_init_op"})


def _saver(content, graph):
    """Returns the operators that the saver needs, by the names of its two functions.

    Every SavedModel has functions that read and write checkpoints. They are the saver's if
    it alone refers to them: the name of such a function is in the file twice, in its
    definition and in the saver's node, and nothing depends on this node.
    """
    nodes = graph.graph_def.node
    tensors = [name for node in nodes for name in node.input]
    for signature in graph.signature_def.values():
        tensors += [tensor.name for tensor in signature.inputs.values()]
        tensors += [tensor.name for tensor in signature.outputs.values()]
    for collection in graph.collection_def.values():
        tensors += collection.node_list.value
    used = {_node_name(tensor) for tensor in tensors}
    jobs = {
        _node_name(graph.saver_def.save_tensor_name): SAVER["save"],
        _node_name(graph.saver_def.restore_op_name): SAVER["restore"],
    }
    functions = {
        node.attr["f"].func.name: jobs[node.name]
        for node in nodes
        if node.name in jobs.keys() - used
    }
    return {n: job for n, job in functions.items() if content.count(n.encode()) == 2}


def _node_name(tensor):
    return tensor.removeprefix("^").partition(":")[0]


def _litert(path):
    from tensorflow.lite.python import schema_py_generated as schema

    content = path.read_bytes()
    model = schema.Model.GetRootAsModel(content, 0)
    keys = map(model.SignatureDefs, range(model.SignatureDefsLength()))
    names = {key.SignatureKey().decode() for key in keys}
    return Graphs(litert.operators(content), names, litert.is_quantized(content))


def _onnx(path):
    import onnx

    files = sorted(path.glob("*.onnx"))
    operators = set()
    for file in files:
        for message in _messages(onnx.ModelProto.FromString(file.read_bytes())):
            if isinstance(message, onnx.NodeProto):
                operators.add(f"{message.domain}.{message.op_type}".removeprefix("."))
            elif isinstance(message, onnx.TensorProto) and (
                message.data_location or message.external_data
            ):
                operators.add(EXTERNAL_DATA)
    return Graphs(operators, {file.stem for file in files})


def _messages(message) -> Iterator[Any]:
    """Yields a message of protobuf and all messages in it, at any depth."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            single = hasattr(value, "ListFields")
            for item in [value] if single else value:
                yield from _messages(item)


_READERS = {"tf_saved_model": _saved_model, "litert": _litert, "onnx": _onnx}
