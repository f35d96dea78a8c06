"""`export`, which writes a model in one of several formats.

The same seed returns the same sample in all formats (see `keras_vae.random`). Exports are
atomic and never overwrite.
"""

import inspect
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

from keras_vae import atomic, checks
from keras_vae.exporting import artefact, card, litert, onnx, saved_model, signatures
from keras_vae.exporting.precision import in_float32
from keras_vae.models import VAE

FORMATS = {"tf_saved_model": saved_model, "litert": litert, "onnx": onnx}


def export(
    model: VAE,
    filepath: str | os.PathLike,
    format: str = "tf_saved_model",
    names: Sequence[str] | None = None,
    num_samples: int = 16,
    about: dict[str, Any] | None = None,
    **options: Any,
) -> pathlib.Path:
    """Writes the signatures of a model and a model card; see `VAE.export`.

    Args:
        model: `keras_vae.VAE`.
        filepath: path that does not exist yet: a folder, or for `"litert"` a file.
        format: `"tf_saved_model"`, `"litert"` or `"onnx"`.
        names: names of signatures. Default: all that can be exported. A warning and the
            model card list the others.
        num_samples: int K, draws per row of `score`.
        about: dict of further entries of the model card, such as the data and results of
            the training. They must be writable as JSON, and cannot replace the card's own
            entries.
        **options: options of the format.

            * `"tf_saved_model"`: `warmup`, str: the model's name in TF Serving. If set,
              warm-up requests are written, which the server runs before it serves the
              version; needs tensorflow-serving-api.
            * `"litert"`: `batch_size`, int: the fixed number of rows of a call (default:
              any); `quantize`: `"float16"`, `"dynamic"` or `"int8"`;
              `representative_data`: array `[rows, *event]`, for `"int8"`: the ranges of
              activations are calibrated on up to 200 of its rows.

    Returns:
        `pathlib.Path` of the export.

    Raises:
        ValueError: for a path that exists, for options of another format, for a name of a
            signature that the model does not have or that cannot be exported, and for
            layers that the format does not support.
        ImportError: if a package that the format needs is not installed.
    """
    checks.require(isinstance(model, VAE), "model", "a keras_vae.VAE", model)
    is_format = isinstance(format, str) and format in FORMATS
    checks.require(is_format, "format", " or ".join(map(repr, FORMATS)), format)
    writer: Any = FORMATS[format]
    allowed = list(inspect.signature(writer.check).parameters)[1:]
    for name, value in options.items():
        expected = f"left out for {format=}, which has the options {allowed}"
        checks.require(name in allowed, name, expected, value)
    path = artefact.new_path(filepath, file=format == "litert")
    names, omitted = _check_names(model, names, num_samples)
    card.check_about(about)
    options = writer.check(model, **options)
    # Runtimes round half precision differently, and LiteRT and ONNX do not have bfloat16.
    model = in_float32(model)
    available = model.signatures(num_samples)
    chosen = {name: available[name] for name in names}
    try:
        with atomic.creating(path) as part:
            shapes = writer.write(model, chosen, part, **options)
            entries = card.describe(
                model, chosen, shapes, format, options, num_samples, about, omitted
            )
            card.write(entries, part, path)
    except FileExistsError as error:
        raise ValueError(f"`filepath` must not exist. Received: {error}") from error
    return path


def _check_names(model, names, num_samples):
    """Returns the names of the signatures to export, and the reasons of omitted ones."""
    available = list(model.signatures(num_samples))
    reasons = {
        name: f"{type(parts[0]).__name__} does not compute its samples from noise; it uses "
        "TFP's sampler, whose numbers differ between runtimes"
        for name in available
        if (parts := signatures.parts_without_formula(model, name))
    }
    rest = [name for name in available if name not in reasons]
    if names is None and rest:
        if reasons:
            warnings.warn(
                f"The export has no {', '.join(reasons)}: "
                f"{'; '.join(dict.fromkeys(reasons.values()))}.",
                stacklevel=4,
            )
        return rest, reasons
    names = available if names is None else names
    checks.require(
        isinstance(names, (list, tuple))
        and names
        and all(name in available for name in names)
        and len(set(names)) == len(names),
        "names",
        f"some of {available}, the signatures of this {type(model).__name__}",
        names,
    )
    for name in names:
        if name in reasons:
            raise ValueError(
                f"The signature {name!r} cannot be exported: {reasons[name]}. Leave the "
                f"signature out: names={rest}. Received: names={list(names)}"
            )
    return list(names), {}
