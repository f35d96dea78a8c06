"""LiteRT (TFLite): one file with all signatures, for phones, small boards and browsers."""

import functools
import pathlib
import re
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae import checks, disks
from keras_vae.exporting import saved_model, signatures
from keras_vae.exporting.signatures import Shapes, Signature
from keras_vae.models import VAE
from keras_vae.training.arrays import select_rows

QUANTIZE = ("float16", "dynamic", "int8")
ROWS = 200  # maximum number of rows that are used for calibration

# The operators that int8 quantises. They have the weights and take most of the time. All
# others stay in float32, so that a seed returns the same noise as in float32.
_QUANTIZED = {
    "FULLY_CONNECTED",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "CONV_3D",
    "BATCH_MATMUL",
}


def check(
    model: VAE,
    batch_size: int | None = None,
    quantize: str | None = None,
    representative_data: Any = None,
) -> dict[str, Any]:
    """Returns the options of `write`, or raises a ValueError."""
    checks.positive_ints_or_none(batch_size=batch_size)
    checks.require(
        quantize is None or (isinstance(quantize, str) and quantize in QUANTIZE),
        "quantize",
        " or ".join(["None", *map(repr, QUANTIZE)]),
        quantize,
    )
    if (quantize == "int8") != (representative_data is not None):
        received = "none" if representative_data is None else "an array"
        raise ValueError(
            '`representative_data` must be typical rows of data for quantize="int8", and '
            f"left out otherwise. Received: {received}, with {quantize=}"
        )
    if representative_data is not None:
        representative_data = model.check_data(representative_data, "representative_data")
    return {
        "batch_size": batch_size,
        "quantize": quantize,
        "representative_data": representative_data,
    }


def write(
    model: VAE,
    chosen: dict[str, Signature],
    path: pathlib.Path,
    batch_size: int | None = None,
    quantize: str | None = None,
    representative_data: Any = None,
) -> Shapes:
    """Writes a .tflite file; seeds are int32.

    Args:
        model: `keras_vae.VAE`.
        chosen: the signatures to export, by name.
        path: of the file.
        batch_size: int, or None for any number of rows.
        quantize: `"float16"` or `"dynamic"` (int8 weights): only the weights; `"int8"`:
            weights and activations of matrix products and convolutions; None.
        representative_data: array `[rows, *event]` for `"int8"`.

    Returns:
        Dict: for each signature (inputs, outputs), dicts of `tf.TensorSpec`.

    Raises:
        ValueError: if LiteRT's builtin operators do not support a part of the model.
    """
    strict = {name: _strict(s, batch_size) for name, s in chosen.items()}
    with disks.temporary_folder() as folder:
        shapes = saved_model.write(
            model, strict, folder, seed_dtype="int32", batch_size=batch_size
        )
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(folder), signature_keys=list(chosen)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if quantize:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            if quantize == "int8":
                rows = _representative(model, chosen, representative_data, batch_size)
                content = _int8(converter, rows)
            else:
                content = converter.convert()
        except Exception as error:  # the converter raises several kinds
            raise ValueError(
                '`format` must not be "litert" for this model: LiteRT has no builtin '
                f"operators for a part of it. Received: {_missing_operators(error)}"
            ) from error
    custom = {name for name in operators(content) if name.startswith("CUSTOM")}
    if custom:
        raise ValueError(
            '`format` must not be "litert" for this model: LiteRT has no builtin '
            f"operators for a part of it. Received: {sorted(custom)}"
        )
    path.write_bytes(content)
    return shapes


def _missing_operators(error):
    """Finds the unsupported operators in the converter's long message."""
    text = str(error)
    found = sorted(set(re.findall(r"'(tf\.\w+)' op", text)))
    return ", ".join(found) or text[:400]


def _strict(signature, batch_size):
    """Makes a signature raise an error for inputs of a wrong shape.

    LiteRT does not check shapes: it would broadcast, or return wrong rows.
    """

    @functools.wraps(signature.function)
    def function(*inputs):
        return signature.function(*(_checked(value, batch_size) for value in inputs))

    return signature._replace(function=function)


def _checked(value, batch_size):
    """Returns the value unchanged, through operators that fail for a wrong shape."""
    # A concatenation fails unless all other axes are equal. The converter does not remove
    # it, unlike a reshape or an addition of zero.
    zero = tf.zeros((1, *value.shape[1:]), value.dtype)
    value = tf.concat([zero, value], axis=0)[1:]
    if batch_size is not None:  # checks the number of rows
        zero = tf.zeros((batch_size, 1), value.dtype)
        flat = tf.reshape(value, (batch_size, value.shape[1:].num_elements()))
        value = tf.reshape(tf.concat([zero, flat], axis=1)[:, 1:], value.shape)
    return value


def operators(content: bytes) -> set[str]:
    """Returns the operators of a .tflite file (bytes); `CUSTOM ...` if not builtin."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(content, 0)
    codes = (model.OperatorCodes(i) for i in range(model.OperatorCodesLength()))
    kinds = vars(schema.BuiltinOperator).items()
    names = {code: name for name, code in kinds if isinstance(code, int)}
    return {
        names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        + (f" {custom.decode()}" if (custom := code.CustomCode()) else "")
        for code in codes
    }


def is_quantized(content: bytes) -> bool:
    """Returns True if a .tflite file (bytes) has tensors of float16 or small integers."""
    from tensorflow.lite.python import schema_py_generated as schema

    model, kinds = schema.Model.GetRootAsModel(content, 0), schema.TensorType
    small = {kinds.FLOAT16, kinds.INT8, kinds.UINT8, kinds.INT16, kinds.INT4}
    graphs = map(model.Subgraphs, range(model.SubgraphsLength()))
    return any(
        graph.Tensors(i).Type() in small
        for graph in graphs
        for i in range(graph.TensorsLength())
    )


def _int8(converter, rows):
    """Calibrates the ranges of all tensors, then quantises some operators."""
    from tensorflow.lite.python.convert import mlir_quantize

    converter.representative_dataset = lambda: rows
    converter._experimental_calibrate_only = True
    with warnings.catch_warnings():
        # The converter's interpreter warns that it will move to another package.
        warnings.simplefilter("ignore", UserWarning)
        calibrated = converter.convert()
    return mlir_quantize(calibrated, denylisted_ops=operators(calibrated) - _QUANTIZED)


def _representative(model, chosen, x, batch_size):
    """Yields calibration data: (signature, inputs), with rows of x, seeds and latents."""
    size = batch_size or 1
    steps = max(1, min(ROWS, len(x)) // size)
    for step in range(steps):
        rows = np.arange(step * size, (step + 1) * size)
        batch = model.as_float(x[rows % len(x)])
        condition = select_rows(model.example_condition(rows[-1] + 1), rows)
        values = {
            "x": batch.numpy(),
            "seed": rows.astype(np.int32),
            "z": signatures.encode_mean(model, batch, condition)["mean"].numpy(),
            **signatures.by_name(condition),
        }
        if step % 2 and "sample" in chosen:  # calibrates on z of posterior and prior
            values["z"] = signatures.sample(model, values["seed"], condition)["z"].numpy()
        for name, signature in chosen.items():
            yield name, {key: values[key] for key in signature.inputs}
