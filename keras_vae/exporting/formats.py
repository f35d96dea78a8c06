"""The formats of an export, and `export`, which writes any of them.

The same seed gives the same sample in all formats (see `keras_vae.random`). Exports are
atomic and never overwrite.
"""

import inspect

from keras_vae import atomic, checks
from keras_vae.exporting import artefact, card, litert, onnx, saved_model, signatures
from keras_vae.exporting.precision import in_float32
from keras_vae.models import VAE

FORMATS = {"tf_saved_model": saved_model, "litert": litert, "onnx": onnx}


def export(
    model,
    filepath,
    format="tf_saved_model",
    names=None,
    num_samples=16,
    about=None,
    **options,
):
    """Writes the model with its signatures, and a model card; see `VAE.export`.

    Args:
        model: `keras_vae.VAE`.
        filepath: path that does not exist yet: a folder, or for `"litert"` a file.
        format: `"tf_saved_model"`, `"litert"` or `"onnx"`.
        names: names of signatures. Default: all that the model has.
        num_samples: int K, draws per row of `score`.
        about: dict of further entries of the model card that can be written as JSON, such
            as the data and numbers of the training; none that the card has by itself.
        **options: those of the format.

            * `"tf_saved_model"`: `warmup`, str: the name of the model in TF Serving, to add
              requests that it runs before it serves the version; needs
              tensorflow-serving-api.
            * `"litert"`: `batch_size`, int: the fixed number of rows of a call (default:
              any); `quantize`: `"float16"`, `"dynamic"` or `"int8"`;
              `representative_data`: array `[rows, *event]` for `"int8"`, which learns the
              ranges of activations from up to 200 rows.

    Returns:
        `pathlib.Path` of what was written.

    Raises:
        ValueError: for a path that exists, for options that do not fit the format, for a
            signature that the model cannot have, and for a part of the model that has no
            form in the format.
        ImportError: if a package is missing that the format needs.
    """
    checks.require(isinstance(model, VAE), "model", "a keras_vae.VAE", model)
    known = isinstance(format, str) and format in FORMATS
    checks.require(known, "format", " or ".join(map(repr, FORMATS)), format)
    writer = FORMATS[format]
    allowed = list(inspect.signature(writer.check).parameters)[1:]
    for name, value in options.items():
        expected = f"left out for {format=}, which has the options {allowed}"
        checks.require(name in allowed, name, expected, value)
    path = artefact.new_path(filepath, file=format == "litert")
    chosen = _choose(model, names, num_samples)
    card.check_about(about)
    options = writer.check(model, **options)
    # Half precision is not the same everywhere, and LiteRT and ONNX do not have bfloat16.
    model = in_float32(model)
    signatures_by_name = signatures.build_signatures(model, num_samples)
    chosen = {name: signatures_by_name[name] for name in chosen}
    try:
        with atomic.creating(path) as part:
            shapes = writer.write(model, chosen, part, **options)
            entries = card.describe(
                model, chosen, shapes, format, options, num_samples, about
            )
            card.write(entries, part, path)
    except FileExistsError as error:
        raise ValueError(f"`filepath` must not exist. Received: {error}") from error
    return path


def _choose(model, names, num_samples):
    """The names of the signatures to export, checked."""
    available = list(signatures.build_signatures(model, num_samples))
    if names is None:
        names = available
    checks.require(
        isinstance(names, (list, tuple))
        and names
        and all(name in available for name in names)
        and len(set(names)) == len(names),
        "names",
        f"some of {available}, of this {type(model).__name__}",
        names,
    )
    for name in names:
        for part in signatures.parts_without_formula(model, name):
            able = [n for n in available if not signatures.parts_without_formula(model, n)]
            raise ValueError(
                f"The signature {name!r} cannot be exported: {type(part).__name__} has no "
                "`sample` from given noise, and the sampler of TFP on which it falls back "
                "gives other numbers in each runtime. Leave the signature out: "
                f"names={able}. Received: names={list(names)}"
            )
    return list(names)
