"""Checks of an artefact before anything in it runs: model card, files, graphs.

An artefact may come from somebody else, together with its model card. So the card has no
say in what is checked: its lists must be those of the artefact.
"""

import json
import pathlib
import re
from typing import Any

import numpy as np

from keras_vae import checks
from keras_vae.escapes import visible
from keras_vae.exporting import card as cards
from keras_vae.exporting import formats, graphs
from keras_vae.exporting.operators import OPERATORS

MAX_CARD_BYTES = 2**24
MAX_SAMPLES = 10_000  # of `score`: the model draws them to compare

# The files that each format writes, apart from the card.
FILES = {
    "tf_saved_model": r"(saved_model|fingerprint)\.pb"
    r"|variables/variables\.(index|data-\d{5}-of-\d{5})"
    r"|assets\.extra/tf_serving_warmup_requests",
    "litert": r"[^/]+\.tflite",
    "onnx": r"[^/]+\.onnx",
}

# The types of the entries of a card that are read here; str stands for any key.
_TENSORS = {str: {"dtype": str, "shape": list}}
_ENTRIES = {
    "card_format": int,
    "format": str,
    "num_samples": (int, type(None)),
    "signatures": {str: {"inputs": _TENSORS, "outputs": _TENSORS}},
    "model": {"weights": str},
    "files": {str: {"sha256": str}},
}


def read_card(path: pathlib.Path) -> dict[str, Any]:
    """Reads the model card of an artefact, and compares it with the files.

    Raises:
        ValueError: if the card is missing or damaged, or if the files are not those of the
            card, unchanged.
    """
    card_path, _ = cards.paths(path)
    if not path.exists() or not card_path.is_file():
        raise ValueError(
            "`artefact` must be written by `keras-vae export`: a folder of a SavedModel "
            f"or of .onnx files, or a .tflite file, with its model card. Received: {path}, "
            + (f"without {card_path}" if path.exists() else "which does not exist")
        )
    found = _files(path)
    try:
        size = card_path.stat().st_size
        checks.require(size <= MAX_CARD_BYTES, "bytes", f"at most {MAX_CARD_BYTES:,}", size)
        card = json.loads(card_path.read_text("utf-8"))
        _check_card(card)
    # RecursionError: of a deep card.
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"`artefact` must have a readable model card. Received: {card_path}: {error}"
        ) from error
    _check_files(path, card, found)
    return card


def _files(path):
    """Returns the paths of the files of an artefact by name, without its card.

    Raises:
        ValueError: for links and devices, which lead out of the artefact.
    """
    if path.suffix == ".tflite":
        root, entries = path.parent, [path, *cards.paths(path)]
    else:
        root, entries = path, sorted(path.rglob("*"))
    for entry in entries:
        is_link = entry.is_symlink() and entry != path  # the argument may be a link
        if is_link or (entry.exists() and not (entry.is_file() or entry.is_dir())):
            raise ValueError(
                "`artefact` must hold only files and folders, no links and no devices. "
                f"Received: {path} with {_shown(str(entry.relative_to(root)))}"
            )
    files = [e for e in entries if e.is_file() and e not in cards.paths(path)]
    return {file.relative_to(root).as_posix(): file for file in files}


def _check_card(card):
    """Raises a ValueError unless the card has the entries that are used here."""
    _check_types(card, _ENTRIES, "card")
    number = card["card_format"]
    expected = f"at most {cards.FORMAT}: update keras_vae"
    checks.require(number <= cards.FORMAT, "card_format", expected, number)
    is_format = card["format"] in formats.FORMATS
    checks.require(is_format, "format", f"one of {list(formats.FORMATS)}", card["format"])
    checks.positive_ints_or_none(num_samples=card["num_samples"])
    samples = card["num_samples"] or 1
    expected = f"at most {MAX_SAMPLES:,}"
    checks.require(samples <= MAX_SAMPLES, "num_samples", expected, samples)
    for name in ("signatures", "files"):
        checks.require(card[name], name, "a dict with entries", card[name])
    for signature in card["signatures"].values():
        for tensor in signature["inputs"].values():
            is_dtype = tensor["dtype"] in np.sctypeDict
            checks.require(is_dtype, "dtype", "the name of a dtype", tensor["dtype"])


def _check_types(value, kinds, name):
    """Raises a ValueError unless a value and its entries have the expected types."""
    kind = dict if isinstance(kinds, dict) else kinds
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = getattr(kind, "__name__", "an int or null")
        raise ValueError(
            f"{name} must be {expected}. Received: {checks.short(repr(value))}"
        )
    for key, inner in kinds.items() if kind is dict else ():
        for entry in value if key is str else (key,):
            if entry not in value:
                raise ValueError(f"{name} must have the entry {entry!r}. Received: none")
            _check_types(value[entry], inner, f"{name}[{_shown(entry)}]")


def _shown(text):
    """Returns a text from an artefact as one short line."""
    return checks.short(visible(str(text)))


def _check_files(path, card, found):
    """Raises a ValueError unless the artefact has the files of its card, and no others."""
    pattern, faults = FILES[card["format"]], {}
    for name in sorted({*card["files"], *found}):
        if name not in found:
            faults[name] = "is missing"
        elif name not in card["files"]:
            faults[name] = "is not in the card"
        elif not re.fullmatch(pattern, name):
            faults[name] = f"is not a file of {card['format']}"
        elif cards.checksum(found[name]) != card["files"][name]["sha256"]:
            faults[name] = "has another checksum"
    if faults:
        listed = [f"{_shown(name)} {fault}" for name, fault in faults.items()]
        more = f", and {len(listed) - 5} more" if len(listed) > 5 else ""
        raise ValueError(
            "`artefact` must have the files of its model card, unchanged, and no others. "
            f"Received: {path}, where {', '.join(listed[:5])}{more}"
        )


def check_graphs(
    path: pathlib.Path, card: dict[str, Any], safe_mode: bool = True
) -> graphs.Graphs:
    """Compares the operators and signatures of an artefact with what exports have.

    Args:
        path: of the artefact.
        card: the result of `read_card`.
        safe_mode: bool, whether to refuse operators that exports do not use.

    Returns:
        `graphs.Graphs`, what was found.

    Raises:
        ValueError: for other operators, and for other signatures than those of the card.
    """
    found = graphs.read(path, card["format"])
    others = sorted(found.operators - OPERATORS[card["format"]])
    if others and safe_mode:
        listed = ", ".join(map(_shown, others[:10]))
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        raise ValueError(
            "`artefact` must use only operators of exports of keras_vae, which compute "
            f"numbers. Received: {path} with {listed}{more}. An artefact is a program: run "
            "it (--no-safe-mode, or safe_mode=False) only if you trust its author"
        )
    names, default = {*card["signatures"]}, card.get("serving_default")
    is_default = True
    if card["format"] == "tf_saved_model":
        is_default = isinstance(default, str) and default in names
        names.add("serving_default")
    if found.signatures != names or not is_default:
        raise ValueError(
            "`artefact` must have the signatures of its model card, and no others. "
            f"Received: {path} with {_shown(sorted(found.signatures))}, and a card with "
            f"{_shown(sorted(names))}, where serving_default is {_shown(default)}"
        )
    return found
