"""A trained model as artefacts that run without this package: `VAE.export`.

The same seed gives the same sample in all of them (see `keras_vae.random`). Each is
written beside its place and renamed, so that it is whole or not there.
"""

import pathlib

import numpy as np

from keras_vae import checks, signatures
from keras_vae.exporting import artefact, litert, onnx, saved_model
from keras_vae.exporting.artefact import in_float32

__all__ = ["export", "in_float32"]

FORMATS = {"tf_saved_model": saved_model, "litert": litert, "onnx": onnx}


def export(
    model,
    filepath,
    format="tf_saved_model",
    names=None,
    num_samples=16,
    batch_size=None,
    quantize=None,
    representative_data=None,
    about=None,
):
    """Writes the model with its signatures, and a model card; see `VAE.export`.

    Args:
        model: `keras_vae.VAE`.
        filepath: path that does not exist yet: a folder, or for `"litert"` a file.
        format: `"tf_saved_model"`, `"litert"` or `"onnx"`.
        names: names of signatures. Default: all that the model has.
        num_samples: int K, draws per row of `score`.
        batch_size: int, the fixed number of rows of a call, or None for any. `"litert"`.
        quantize: None, `"float16"`, `"dynamic"` or `"int8"`. `"litert"`.
        representative_data: array `[rows, *event]` for `"int8"`, which learns the ranges
            of activations from up to 200 rows.
        about: dict of further entries of the model card that can be written as JSON, such
            as the data and numbers of the training.

    Returns:
        `pathlib.Path` of what was written.

    Raises:
        ValueError: for a path that exists, for options that do not fit the format, and for
            a signature that the model cannot have.
        ImportError: if a package is missing that the format needs.
    """
    named = isinstance(format, str) and format in FORMATS
    checks.that(named, "format", " or ".join(map(repr, FORMATS)), format)
    options = _options(model, format, batch_size, quantize, representative_data)
    path = artefact.new_path(filepath, file=format == "litert")
    chosen = _choose(model, names, num_samples)
    writer = FORMATS[format]
    writer.check()
    # Half precision is not the same everywhere, and LiteRT and ONNX do not have bfloat16.
    model = in_float32(model)
    every = signatures.of(model, num_samples)
    chosen = {name: every[name] for name in chosen}
    with artefact.whole(path) as part:
        shapes = writer.write(model, chosen, part, **options)
        card = artefact.card(model, chosen, shapes, format, options, num_samples, about)
        artefact.write_card(card, part, path)
    return path


def _options(model, format, batch_size, quantize, representative_data):
    """The options of a format, checked."""
    if format != "litert":
        given = {"batch_size": batch_size, "quantize": quantize}
        given["representative_data"] = representative_data
        for name, value in given.items():
            checks.that(value is None, name, f'left out unless format="litert" ({format=})',
                        value)  # fmt: skip
        return {}
    checks.positive_ints_or_none(batch_size=batch_size)
    fits = quantize is None or (isinstance(quantize, str) and quantize in litert.QUANTIZE)
    expected = " or ".join(["None", *map(repr, litert.QUANTIZE)])
    checks.that(fits, "quantize", expected, quantize)
    if (quantize == "int8") != (representative_data is not None):
        raise ValueError(
            '`representative_data` must be rows like those to come if quantize="int8", and '
            f"left out otherwise. Received: quantize={quantize!r} and representative_data "
            f"{'of shape ' + str(np.shape(representative_data)) if quantize is None else ''}"
            f"{'None' if representative_data is None else 'given'}"
        )
    if representative_data is not None:
        representative_data = model.check_data(representative_data, "representative_data")
    return {
        "batch_size": batch_size,
        "quantize": quantize,
        "representative_data": representative_data,
    }


def _choose(model, names, num_samples):
    """The names of the signatures to export, checked."""
    has = list(signatures.of(model, num_samples))
    if names is None:
        names = has
    fits = isinstance(names, (list, tuple)) and names and set(names) <= set(has)
    checks.that(fits, "names", f"some of {has}, of this {type(model).__name__}", names)
    for name in names:
        for part in signatures.parts_without_formula(model, name):
            able = [n for n in has if not signatures.parts_without_formula(model, n)]
            raise ValueError(
                f"The signature {name!r} cannot be exported: {type(part).__name__} does not "
                "say how to sample from given noise (`noise`, and `sample` or a parent's), "
                "and TFP's own sampler gives other numbers in each runtime. Leave it out: "
                f"names={able}. Received: names={list(names)}"
            )
    return list(names)


def path_of_card(path):
    """Where the model card (JSON) of an artefact is: in a folder, or beside a file."""
    return artefact.card_path(pathlib.Path(path))
