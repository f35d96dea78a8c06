"""What all exported forms share: written whole or not at all, with a model card."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import socket
import uuid

import keras
import numpy as np
import tensorflow as tf

import keras_vae

CARD = 1  # the format of the model card


def new_path(filepath, file):
    """The path to write to, checked before anything slow is done.

    Args:
        filepath: path.
        file: bool, whether it will be a .tflite file rather than a folder.
    """
    try:
        path = pathlib.Path(filepath)
    except TypeError:
        raise ValueError(
            f"`filepath` must be a path. Received: filepath={filepath!r}"
        ) from None
    if file and path.suffix != ".tflite":
        raise ValueError(
            f'`filepath` must end with .tflite for format="litert". Received: {path}'
        )
    if path.exists() or path.is_symlink():
        raise ValueError(
            f"`filepath` must not exist: nothing is overwritten. Received: {path}, a "
            f"{'folder' if path.is_dir() else 'file'} that is there already"
        )
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir():
        raise ValueError(
            f"`filepath` must be in a folder. Received: {path}, where {parent} is a file"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(
            f"`filepath` must be in a folder that can be written. Received: {path}"
        )
    return path


@contextlib.contextmanager
def whole(path):
    """Gives a path to write to, a new hidden folder, whose content is then put in place.

    What is written as `folder / path.name` becomes `path`; all beside it goes beside it,
    first. A reader, such as a server that polls, sees nothing before all is there. Killed
    processes leave hidden folders, which the next export beside them removes.

    Args:
        path: `pathlib.Path` that does not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    folder = path.parent / f"{_mine()}{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        yield folder / path.name
        _sync(folder)
        for name in sorted(os.listdir(folder), key=lambda name: name == path.name):
            if name == path.name and path.exists():  # since it was checked
                raise ValueError(f"`filepath` must not exist. Received: {path}")
            os.rename(folder / name, path.parent / name)
        _sync_one(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _mine():
    # With the name of the host: on a shared disk others have their own process numbers.
    return f".keras-vae-{socket.gethostname()}-"


def _sweep(parent):
    for folder in parent.glob(f"{_mine()}*-*"):
        with contextlib.suppress(ValueError, PermissionError):
            try:
                os.kill(int(folder.name.removeprefix(_mine()).split("-")[0]), 0)
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)


def _sync(folder):
    """Writes all of a folder to the disk: a rename must not come before its content."""
    for top, _, files in os.walk(folder, topdown=False):
        for path in [*(os.path.join(top, name) for name in files), top]:
            _sync_one(path)


def _sync_one(path):
    with contextlib.suppress(PermissionError):  # folders, where the system has it not
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def in_float32(model):
    """The model, or if its networks compute in half precision a copy that does not."""
    half = ("float16", "bfloat16")
    if not any(layer.compute_dtype in half for layer in model._flatten_layers()):
        return model
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        copy = type(model).from_config(_without_policies(model.get_config()))
    finally:
        keras.config.set_dtype_policy(before)
    copy.set_weights(model.get_weights())
    return copy


def _without_policies(config):
    """A config in which each mixed policy is float32."""
    if isinstance(config, dict):
        mixed = str(config.get("config", {}).get("name", "")) if _is_policy(config) else ""
        if mixed.startswith("mixed_") or mixed in ("float16", "bfloat16"):
            return keras.dtype_policies.serialize(keras.DTypePolicy("float32"))
        return {key: _without_policies(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_without_policies(value) for value in config)
    return config


def _is_policy(config):
    return str(config.get("class_name", "")).endswith("DTypePolicy")


def card_path(path):
    """Where the model card (JSON) of an artefact is: in a folder, or beside a file."""
    if path.suffix == ".tflite":
        return path.with_name(path.stem + ".card.json")
    return path / "model_card.json"


def card(model, chosen, shapes, format, options, num_samples, about=None):
    """The model card, a dict for JSON.

    Args:
        model: `keras_vae.VAE`.
        chosen: dict of `keras_vae.signatures.Signature`.
        shapes: for each of them (inputs, outputs), dicts of `tf.TensorSpec` by name.
        format: str.
        options: dict of the options of the format.
        num_samples: int, draws per row of `score`.
        about: dict of further entries, or None.
    """
    parts = ["likelihood", "posterior"] + (["prior"] if "sample" in chosen else [])
    packages = ("keras", "tensorflow", "tensorflow-probability")
    return {
        "card_format": CARD,
        "format": format,
        **{key: value for key, value in options.items() if key != "representative_data"},
        "num_samples": num_samples if "score" in chosen else None,
        "serving_default": default(chosen) if format == "tf_saved_model" else None,
        "signatures": {
            name: {
                "meaning": signature.meaning,
                "inputs": _describe(shapes[name][0], _inputs(model)),
                "outputs": _describe(shapes[name][1], signature.outputs),
            }
            for name, signature in chosen.items()
        },
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
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }


def fingerprint(model):
    """A hash of the weights that the signatures read."""
    digest = hashlib.sha256()
    for name in ("encoder", "posterior", "prior", "decoder", "likelihood"):
        for weight in getattr(model, name).weights:
            digest.update(np.ascontiguousarray(weight.numpy()).data)
    return digest.hexdigest()[:16]


def _part(layer):
    """What a head or prior is, without what only Keras needs to know."""
    config = layer.get_config()
    for key in ("name", "trainable", "dtype", "bias_initializer", "projection"):
        config.pop(key, None)
    return {"class_name": type(layer).__name__, **config}


def default(chosen):
    """The signature that a server runs when none is named: what `predict` gives."""
    return "reconstruct" if "reconstruct" in chosen else next(iter(chosen))


def _inputs(model):
    likelihood = type(model.likelihood).__name__
    return {
        "x": f"data in the support of {likelihood}; images of 0 to 255 are divided by 255 "
        "first. A row with another value gives NaN",
        "z": "latents",
        "seed": "one for each row: equal seeds, equal draws, in every exported form",
    }


def _describe(specs, meanings):
    return {
        name: {
            "dtype": spec.dtype.name,
            "shape": spec.shape.as_list(),
            "meaning": meanings.get(name, f"parameter {name} of p(x|z)"),
        }
        for name, spec in specs.items()
    }


def write_card(card, part, path):
    """Writes the model card of `part`, which will be `path`: as JSON and as Markdown."""
    files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
    root = part if part.is_dir() else part.parent
    card["files"] = {
        str(file.relative_to(root)): {
            "bytes": file.stat().st_size,
            "sha256": checksum(file),
        }
        for file in files
    }
    place = card_path(part)
    place.write_text(json.dumps(card, indent=2, default=_plain) + "\n")
    place.with_suffix(".md").write_text(_markdown(card, path))


def checksum(path):
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value):
    """What JSON does not know: NumPy's numbers and arrays, shapes."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _markdown(card, path):
    lines = [f"# {card['model']['class_name']} `{path.name}`", ""]
    for key, value in card.items():
        if key in ("card_format", "signatures", "files") or value is None:
            continue
        if isinstance(value, dict):
            lines += [f"## {key.capitalize()}", "", "| | |", "|---|---|"]
            lines += [f"| {k} | {_short(v)} |" for k, v in value.items()] + [""]
        else:
            lines += [f"{key}: {value}", ""]
    lines += ["## Signatures", ""]
    for name, signature in card["signatures"].items():
        lines += [f"### {name}", "", f"{signature['meaning']}", ""]
        lines += ["| | name | dtype | shape | meaning |", "|---|---|---|---|---|"]
        for side in ("inputs", "outputs"):
            for key, tensor in signature[side].items():
                shape = ["batch" if d is None else d for d in tensor["shape"]]
                shown = ", ".join(map(str, shape))
                lines.append(
                    f"| {side[:-1]} | {key} | {tensor['dtype']} | [{shown}] | "
                    f"{_short(tensor['meaning'])} |"
                )
        lines.append("")
    lines += ["## Files", "", "| file | bytes | sha256 |", "|---|---|---|"]
    for name, file in card["files"].items():
        lines.append(f"| {name} | {file['bytes']:,} | {file['sha256']} |")
    return "\n".join(lines) + "\n"


def _short(value):
    text = json.dumps(value, default=_plain) if isinstance(value, (dict, list)) else value
    return str(text).replace("|", "\\|")


def trace(signature, seed_dtype, batch_size=None):
    """A signature as a graph.

    Args:
        signature: `keras_vae.signatures.Signature`.
        seed_dtype: `"int32"` or `"int64"`.
        batch_size: int, or None for any number of rows.

    Returns:
        (function, concrete function, (inputs, outputs)): the last are dicts of
        `tf.TensorSpec` by name.
    """
    inputs = {
        name: tf.TensorSpec(
            (batch_size, *shape), seed_dtype if dtype == "int" else dtype, name=name
        )
        for name, (dtype, shape) in signature.inputs.items()
    }
    function = tf.function(signature.function)
    concrete = function.get_concrete_function(*inputs.values())
    outputs = {
        name: tf.TensorSpec(value.shape, value.dtype)
        for name, value in concrete.structured_outputs.items()
    }
    return function, concrete, (inputs, outputs)
