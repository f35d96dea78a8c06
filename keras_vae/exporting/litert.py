"""LiteRT (TFLite): one file with all signatures, for phones, small boards and browsers."""

import functools
import re
import tempfile
import warnings

import numpy as np
import tensorflow as tf

from keras_vae import checks
from keras_vae.exporting import saved_model, signatures
from keras_vae.training.arrays import select_rows

QUANTIZE = ("float16", "dynamic", "int8")
ROWS = 200  # of the representative data, at most

# What int8 computes in int8: the operators that hold the weights and take the time. All
# others stay in float, or the draws would not be those of the seed.
_HEAVY = {
    "FULLY_CONNECTED",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "CONV_3D",
    "BATCH_MATMUL",
}


def check(model, batch_size=None, quantize=None, representative_data=None):
    """The options of `write`, checked."""
    checks.positive_ints_or_none(batch_size=batch_size)
    fits = quantize is None or (isinstance(quantize, str) and quantize in QUANTIZE)
    expected = " or ".join(["None", *map(repr, QUANTIZE)])
    checks.require(fits, "quantize", expected, quantize)
    if (quantize == "int8") != (representative_data is not None):
        given = "none" if representative_data is None else "some"
        raise ValueError(
            '`representative_data` must be rows like those to come for quantize="int8", '
            f"and left out otherwise. Received: {given}, with {quantize=}"
        )
    if representative_data is not None:
        representative_data = model.check_data(representative_data, "representative_data")
    return {
        "batch_size": batch_size,
        "quantize": quantize,
        "representative_data": representative_data,
    }


def write(model, chosen, path, batch_size=None, quantize=None, representative_data=None):
    """Writes a .tflite file; seeds are int32.

    Args:
        model: `keras_vae.VAE`.
        chosen: dict of `keras_vae.exporting.signatures.Signature`.
        path: `pathlib.Path` of the file.
        batch_size: int, or None for any number of rows.
        quantize: None; `"float16"` or `"dynamic"` (int8 weights): the weights only;
            `"int8"`: weights and activations of matrix products and convolutions.
        representative_data: array `[rows, *event]` for `"int8"`.

    Returns:
        Dict: for each signature (inputs, outputs), dicts of `tf.TensorSpec`.

    Raises:
        ValueError: if a part of the model has no form in LiteRT's builtin operators.
    """
    strict = {name: _strict(one, batch_size) for name, one in chosen.items()}
    with tempfile.TemporaryDirectory() as folder:
        shapes = saved_model.write(
            model, strict, folder, seed_dtype="int32", batch_size=batch_size
        )
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=list(chosen)
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
        except Exception as error:  # of the converter, which has several kinds
            raise ValueError(
                '`format` must be another than "litert" for this model: a part of it has '
                f"no form in LiteRT's builtin operators. Received: {_operators_of(error)}"
            ) from error
    foreign = {name for name in operators(content) if name.startswith("CUSTOM")}
    if foreign:
        raise ValueError(f"LiteRT's builtin operators do not suffice. Received: {foreign}")
    path.write_bytes(content)
    return shapes


def _operators_of(error):
    """The operators that the converter did not know; pages of places are around them."""
    text = str(error)
    found = sorted(set(re.findall(r"'(tf\.\w+)' op", text)))
    return ", ".join(found) or text[:400]


def _strict(signature, batch_size):
    """The signature, which fails for inputs of other shapes than its own.

    LiteRT does not compare them: it would broadcast, or give the wrong rows.
    """

    @functools.wraps(signature.function)
    def function(*inputs):
        return signature.function(*(_checked(value, batch_size) for value in inputs))

    return signature._replace(function=function)


def _checked(value, batch_size):
    # A concatenation fails unless all other axes are equal. The converter does not know
    # that the rest does nothing; it would take away a reshape, or an addition of zero.
    zero = tf.zeros((1, *value.shape[1:]), value.dtype)
    value = tf.concat([zero, value], axis=0)[1:]
    if batch_size is not None:  # and now the rows
        zero = tf.zeros((batch_size, 1), value.dtype)
        flat = tf.reshape(value, (batch_size, value.shape[1:].num_elements()))
        value = tf.reshape(tf.concat([zero, flat], axis=1)[:, 1:], value.shape)
    return value


def operators(content):
    """The names of the operators of a .tflite file (bytes), `CUSTOM ...` if not builtin."""
    from tensorflow.lite.python import schema_py_generated as schema

    codes = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0)).operatorCodes
    kinds = vars(schema.BuiltinOperator).items()
    names = {code: name for name, code in kinds if isinstance(code, int)}
    return {
        names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        + (f" {code.customCode.decode()}" if code.customCode else "")
        for code in codes
    }


def _int8(converter, rows):
    """Learns the ranges of all tensors, then quantises the heavy operators alone."""
    from tensorflow.lite.python.convert import mlir_quantize

    converter.representative_dataset = lambda: rows
    converter._experimental_calibrate_only = True
    with warnings.catch_warnings():
        # The converter's own interpreter says that it will move to another package.
        warnings.simplefilter("ignore", UserWarning)
        calibrated = converter.convert()
    return mlir_quantize(calibrated, denylisted_ops=operators(calibrated) - _HEAVY)


def _representative(model, chosen, x, batch_size):
    """Yields (name, inputs) for each signature: rows of x, seeds, latents of the rows."""
    size = batch_size or 1
    steps = max(1, min(ROWS, len(x)) // size)
    for step in range(steps):
        place = np.arange(step * size, (step + 1) * size)
        part = model.as_float(x[place % len(x)])
        condition = select_rows(model.example_condition(place[-1] + 1), place)
        values = {
            "x": part.numpy(),
            "seed": place.astype(np.int32),
            "z": signatures.encode_mean(model, part, condition)["mean"].numpy(),
            **signatures.by_name(condition),
        }
        if step % 2 and "sample" in chosen:  # the decoder's other input
            values["z"] = signatures.sample(model, values["seed"], condition)["z"].numpy()
        for name, signature in chosen.items():
            yield name, {key: values[key] for key in signature.inputs}
