"""ONNX: a folder with one file for each signature, for ONNX Runtime."""

import logging

import numpy as np

from keras_vae.exporting import artefact

INT32, INT64 = 6, 7  # of onnx.TensorProto
OPSET = 18  # the first with BitwiseXor, which the noise needs


def check(model):
    """No options; an ImportError says what to install."""
    try:
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'format="onnx" needs tf2onnx: pip install "keras-vae[export]". '
            f"Received: {error}"
        ) from error
    return {}


def write(model, chosen, path):
    """Writes `path / <signature>.onnx`; seeds are int32.

    Args:
        model: `keras_vae.VAE`.
        chosen: dict of `keras_vae.exporting.signatures.Signature`.
        path: `pathlib.Path` of the folder.

    Returns:
        Dict: for each signature (inputs, outputs), dicts of `tf.TensorSpec`.

    Raises:
        ValueError: if a part of the model has no form in ONNX.
    """
    import onnx
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # the checker says it again
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
        _hold_constants(converted.graph, concrete)
        try:
            onnx.checker.check_model(converted)  # also knows operators that were left over
        except onnx.checker.ValidationError as error:
            raise ValueError(
                f'`format` must be another than "onnx" for this model: {name!r} has no '
                f"form in ONNX. Received: {error}"
            ) from error
        (path / f"{name}.onnx").write_bytes(converted.SerializeToString())
    return shapes


def _hold_constants(graph, concrete):
    """Puts tensors that layers hold, such as of Normalization, into the file.

    tf2onnx freezes variables alone, and makes of all else an input.
    """
    from onnx import numpy_helper

    captures = zip(concrete.graph.internal_captures, concrete.captured_inputs, strict=True)
    held = {inner.name: value for inner, value in captures}
    for tensor in [one for one in graph.input if one.name in held]:
        value = held[tensor.name].numpy()
        graph.initializer.append(numpy_helper.from_array(value, tensor.name))
        graph.input.remove(tensor)


# Operators of TFP's distributions that tf2onnx does not know.


def _broadcast_args(graph, node, name, _):
    """The shape to which two shapes broadcast."""
    one, other = (graph.make_node("Cast", [x], attr={"to": INT64}).output[0]
                  for x in node.input)  # fmt: skip
    zeros = graph.make_node("ConstantOfShape", [one]).output[0]
    both = graph.make_node("Expand", [zeros, other]).output[0]
    shape = graph.make_node("Shape", [both]).output[0]
    _replace(graph, node, "Cast", [shape], {"to": INT32})


def _expm1(graph, node, name, _):
    (x,) = node.input
    one = graph.make_const(f"{name}_one", _like(graph, x, 1)).output[0]
    exp = graph.make_node("Exp", [x]).output[0]
    _replace(graph, node, "Sub", [exp, one])


def _mul_no_nan(graph, node, name, _):
    """x * y, and 0 where y is 0 whatever x is."""
    x, y = node.input
    zero = graph.make_const(f"{name}_zero", _like(graph, y, 0)).output[0]
    product = graph.make_node("Mul", [x, y]).output[0]
    without = graph.make_node("Equal", [y, zero]).output[0]
    _replace(graph, node, "Where", [without, zero, product])


def _like(graph, tensor, value):
    """A number of the dtype of a tensor."""
    from tf2onnx import utils

    return np.array(value, utils.map_onnx_to_numpy_type(graph.get_dtype(tensor)))


def _replace(graph, node, operator, inputs, attr=None):
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
