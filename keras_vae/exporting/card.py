"""The model card, which describes an artefact in JSON and in Markdown."""

import hashlib
import json
import pathlib
import platform
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_vae
from keras_vae import checks
from keras_vae.distributions import tfd
from keras_vae.escapes import visible
from keras_vae.exporting.signatures import Shapes, Signature
from keras_vae.models import VAE

FORMAT = 1  # version of the card
# Reserved entries, which `about` cannot replace.
OWN = (
    "card_format", "format", "warmup", "batch_size", "quantize", "num_samples",
    "serving_default", "signatures", "omitted", "model", "versions", "files",
)  # fmt: skip
# What has a meaning in a line of Markdown; not `_` within a word, nor `[` without a link.
_MARKUP = re.compile(r"[\\`*<>&|~$]|_(?![^\W_])|(?<![^\W_])_|\](?=[(\[])")
INPUTS = {
    "x": "data in the units of the likelihood, after preprocessing; a row with a value "
    "without a density returns NaN",
    "z": "latents",
    "seed": "one for each row: equal seeds return equal draws in all formats",
}


def paths(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the paths of the card of an artefact: (JSON, Markdown).

    They are inside the folder of an artefact, or next to its .tflite file.
    """
    if path.suffix == ".tflite":
        stem = f"{path.stem}.card"
        return path.with_name(f"{stem}.json"), path.with_name(f"{stem}.md")
    return path / "model_card.json", path / "model_card.md"


def check_about(about: Any) -> None:
    """Raises a ValueError unless `about` can be added to the card."""
    if about is None:
        return
    has_str_keys = isinstance(about, dict) and all(isinstance(key, str) for key in about)
    checks.require(has_str_keys, "about", "a dict whose keys are str", about)
    taken = sorted({*OWN} & {*about})
    if taken:
        raise ValueError(
            "`about` must not contain entries that the model card has itself. "
            f"Received: the keys {taken}"
        )
    try:
        json.dumps(about, default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`about` must be writable as JSON. Received: {error}") from error


def describe(
    model: VAE,
    chosen: dict[str, Signature],
    shapes: Shapes,
    format: str,
    options: dict[str, Any],
    num_samples: int,
    about: dict[str, Any] | None = None,
    omitted: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Makes the model card, a dict for JSON.

    Args:
        model: `keras_vae.VAE`.
        chosen: the exported signatures by name.
        shapes: for each signature (inputs, outputs), dicts of `tf.TensorSpec` by name.
        format: str.
        options: dict of the options of the format.
        num_samples: int, draws per row of `score`.
        about: dict of further entries, or None.
        omitted: dict from the names of signatures that cannot be exported to the reasons.
    """
    parts = ["likelihood", "posterior"] + (["prior"] if "sample" in chosen else [])
    return {
        "card_format": FORMAT,
        "format": format,
        **{key: value for key, value in options.items() if key != "representative_data"},
        "num_samples": num_samples if "score" in chosen else None,
        "serving_default": default_signature(chosen)
        if format == "tf_saved_model"
        else None,
        "signatures": {
            name: {
                "meaning": signature.meaning,
                "inputs": _tensors(shapes[name][0], INPUTS, "{}, a condition"),
                "outputs": _tensors(shapes[name][1], signature.outputs),
            }
            for name, signature in chosen.items()
        },
        "omitted": omitted or None,
        "model": {
            "class_name": type(model).__name__,
            "parameters": model.count_params(),
            "event_shape": model.likelihood.event_shape,
            "latent_shape": model.posterior.event_shape,
            "weights": fingerprint(model),
            **{name: _part(getattr(model, name)) for name in parts},
        },
        **(about or {}),
        "versions": {
            "keras_vae": keras_vae.__version__,
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "tensorflow-probability": tfd.version,
        },
    }


def fingerprint(model: VAE) -> str:
    """Computes a hash of the weights that the signatures read."""
    digest = hashlib.sha256()
    for name in ("encoder", "posterior", "prior", "decoder", "likelihood"):
        for weight in getattr(model, name).weights:
            digest.update(np.ascontiguousarray(weight.numpy()).data)
    return digest.hexdigest()[:16]


def _part(layer):
    """Returns the config of a head or prior, without entries that only Keras uses."""
    config = layer.get_config()
    for key in ("name", "trainable", "dtype", "bias_initializer", "projection"):
        config.pop(key, None)
    return {"class_name": type(layer).__name__, **config}


def default_signature(chosen: dict[str, Signature]) -> str:
    """Returns the signature that a server runs for requests without a signature name."""
    return "reconstruct" if "reconstruct" in chosen else next(iter(chosen))


def _tensors(specs, meanings, default="parameter {} of p(x|z)"):
    """Describes tensors: dtype, shape and meaning by name."""
    return {
        name: {
            "dtype": spec.dtype.name,
            "shape": spec.shape.as_list(),
            "meaning": meanings.get(name, default.format(name)),
        }
        for name, spec in specs.items()
    }


def write(card: dict[str, Any], part: pathlib.Path, path: pathlib.Path) -> None:
    """Adds the checksums of all files to a card, and writes it as JSON and as Markdown.

    Args:
        card: dict, the result of `describe`.
        part: temporary path of the artefact.
        path: its final path.
    """
    files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
    root = part if part.is_dir() else part.parent
    card["files"] = {
        file.relative_to(root).as_posix(): {
            "bytes": file.stat().st_size,
            "sha256": checksum(file),
        }
        for file in files
    }
    as_json, as_markdown = paths(part)
    as_json.write_text(json.dumps(card, indent=2, default=_plain) + "\n")
    as_markdown.write_text(_markdown(card, path), encoding="utf-8")


def checksum(path: pathlib.Path) -> str:
    """Computes the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value):
    """Converts values that JSON does not support: NumPy's numbers and arrays, shapes."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _markdown(card, path):
    listed = ("card_format", "signatures", "files")
    entries = {k: v for k, v in card.items() if k not in listed and v is not None}
    sections = {k: v for k, v in entries.items() if isinstance(v, dict)}
    lines = [f"# {_text(card['model']['class_name'])} {_text(path.name)}", ""]
    lines += _table(((k, v) for k, v in entries.items() if k not in sections))
    for key, section in sections.items():
        lines += [f"## {_text(key.capitalize())}", "", *_table(section.items())]
    lines += ["## Signatures", ""]
    for name, signature in card["signatures"].items():
        rows = [
            (side[:-1], key, tensor["dtype"], _shape(tensor), tensor["meaning"])
            for side in ("inputs", "outputs")
            for key, tensor in signature[side].items()
        ]
        lines += [f"### {_text(name)}", "", _text(signature["meaning"]), ""]
        lines += _table(rows, ("", "name", "dtype", "shape", "meaning"))
    files = ((k, f"{v['bytes']:,}", v["sha256"]) for k, v in card["files"].items())
    lines += ["## Files", "", *_table(files, ("file", "bytes", "sha256"))]
    return "\n".join(lines)


def _shape(tensor):
    return f"[{', '.join('batch' if d is None else str(d) for d in tensor['shape'])}]"


def _table(rows, header=("", "")):
    lines = [header, ["---"] * len(header), *(map(_text, row) for row in rows)]
    return [*(f"| {' | '.join(cells)} |" for cells in lines), ""]


def _text(value):
    """Returns a value as text in Markdown: no markup, no HTML, one line."""
    if isinstance(value, (dict, list)):
        value = json.dumps(value, default=_plain)
    return _MARKUP.sub(r"\\\g<0>", visible(str(value)))
