"""ONNX: a folder with one file for each signature, for ONNX Runtime."""

import logging
import pathlib
from typing import Any

import numpy as np

from keras_vae.exporting import artefact
from keras_vae.exporting.signatures import Shapes, Signature
from keras_vae.models import VAE

INT32, INT64 = 6, 7  # of onnx.TensorProto
OPSET = 18  # the first version with BitwiseXor, which the noise needs


def check(model: VAE) -> dict[str, Any]:
    """Returns no options; raises an ImportError if tf2onnx is not installed."""
    try:
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'format="onnx" needs tf2onnx: pip install "keras-vae[export]". '
            f"Received: {error}"
        ) from error
    return {}


def write(model: VAE, chosen: dict[str, Signature], path: pathlib.Path) -> Shapes:
    """Writes `path / <signature>.onnx`; seeds are int32.

    Args:
        model: `keras_vae.VAE`.
        chosen: the signatures to export, by name.
        path: of the folder.

    Returns:
        Dict: for each signature (inputs, outputs), dicts of `tf.TensorSpec`.

    Raises:
        ValueError: if ONNX does not support a part of the model.
    """
    import onnx
    import tf2onnx

    # Missing operators are reported by the checker below.
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    handlers: dict = {
        "BroadcastArgs": (_broadcast_args, []),
        "Expm1": (_expm1, []),
        "MulNoNan": (_mul_no_nan, []),
    }
    shapes = {}
    path.mkdir()
    for name, signature in chosen.items():
        function, concrete, shapes[name] = artefact.trace(signature, "int32")
        inputs = list(shapes[name][0].values())
        converted, _ = tf2onnx.convert.from_function(
            function, inputs, OPSET, custom_op_handlers=handlers
        )
        _embed_constants(converted.graph, concrete)
        try:
            onnx.checker.check_model(converted)  # fails for unconverted operators
        except onnx.checker.ValidationError as error:
            raise ValueError(
                f'`format` must not be "onnx" for this model: ONNX has no operators for a '
                f"part of {name!r}. Received: {error}"
            ) from error
        (path / f"{name}.onnx").write_bytes(converted.SerializeToString())
    return shapes


def _embed_constants(graph, concrete):
    """Stores tensors that layers hold, such as those of Normalization, in the file.

    tf2onnx freezes only variables, and turns other captured tensors into inputs.
    """
    from onnx import numpy_helper

    captures = zip(concrete.graph.internal_captures, concrete.captured_inputs, strict=True)
    constants = {inner.name: value for inner, value in captures}
    for tensor in [tensor for tensor in graph.input if tensor.name in constants]:
        value = constants[tensor.name].numpy()
        graph.initializer.append(numpy_helper.from_array(value, tensor.name))
        graph.input.remove(tensor)


# Operators of TFP's distributions that tf2onnx does not support.


def _broadcast_args(graph, node, name, _):
    """Computes the shape to which two shapes broadcast."""
    first, second = (graph.make_node("Cast", [x], attr={"to": INT64}).output[0]
                     for x in node.input)  # fmt: skip
    zeros = graph.make_node("ConstantOfShape", [first]).output[0]
    broadcast = graph.make_node("Expand", [zeros, second]).output[0]
    shape = graph.make_node("Shape", [broadcast]).output[0]
    _replace(graph, node, "Cast", [shape], {"to": INT32})


def _expm1(graph, node, name, _):
    """Computes exp(x) - 1."""
    (x,) = node.input
    one = graph.make_const(f"{name}_one", _like(graph, x, 1)).output[0]
    exp = graph.make_node("Exp", [x]).output[0]
    _replace(graph, node, "Sub", [exp, one])


def _mul_no_nan(graph, node, name, _):
    """Computes x * y, and 0 where y is 0, even for x that is NaN or infinite."""
    x, y = node.input
    zero = graph.make_const(f"{name}_zero", _like(graph, y, 0)).output[0]
    product = graph.make_node("Mul", [x, y]).output[0]
    is_zero = graph.make_node("Equal", [y, zero]).output[0]
    _replace(graph, node, "Where", [is_zero, zero, product])


def _like(graph, tensor, value):
    """Returns a number in the dtype of a tensor."""
    from tf2onnx import utils

    return np.array(value, utils.map_onnx_to_numpy_type(graph.get_dtype(tensor)))


def _replace(graph, node, operator, inputs, attr=None):
    """Replaces a node by another operator with the same outputs."""
    shapes, dtypes, outputs = node.output_shapes, node.output_dtypes, node.output
    graph.remove_node(node.name)
    graph.make_node(
        operator,
        inputs,
        attr,
        name=node.name,
        outputs=outputs,
        shapes=shapes,
        dtypes=dtypes,
    )
