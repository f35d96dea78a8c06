"""Names of the arrays of an .npz file: which are data and which are labels."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

# Words in the usual names of arrays.
X_WORDS = {"x", "data", "feature", "features", "image", "images", "img", "imgs", "input"}
X_WORDS |= {"inputs", "sample", "samples", "set"}
Y_WORDS = {"y", "class", "label", "labels", "target", "targets"}
PARTS = {"train": "train", "training": "train", "tr": "train"}
PARTS |= {"val": "val", "valid": "val", "validation": "val"}
PARTS |= {"test": "test", "testing": "test", "te": "test"}


class Choice(NamedTuple):
    """Names of the arrays with data and labels.

    Attributes:
        x: dict from the parts train, val and test to names; one array is train.
        y: dict from some of these parts to names.
        notes: sentences for `Dataset.notes`.
    """

    x: dict[str, str]
    y: dict[str, str]
    notes: tuple[str, ...]


def split_name(name: str) -> tuple[str, str | None]:
    """Splits `"train_images"` or `"imagesTrain"` into `("images", "train")`.

    Returns:
        (stem, part): the name without the part; train, val, test or None.
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    text = re.sub(rf"^([xy])(?=({'|'.join(PARTS)})$)", r"\1_", text)  # Xtrain
    words = [word for word in re.split(r"[\W_]+", text) if word]
    parts = [word for word in words if word in PARTS]
    if len(parts) != 1:
        return "_".join(words), None
    return "_".join(w for w in words if w not in parts), PARTS[parts[0]]


def choose(
    path: pathlib.Path,
    headers: Mapping[str, Any],
    array: str | None = None,
    label: str | None = None,
) -> Choice:
    """Chooses the arrays of an .npz file with data and with labels.

    The data have the name `x` or another usual one, such as `X_train` and `X_test`,
    `train_images` or `imgs`, or are the only numbers with two or more axes. Labels have the
    name `y`, `labels`, `train_labels` or another usual one.

    Args:
        path: path of the file, for errors.
        headers: dict from names to shapes and dtypes, see `archives.read_headers`.
        array: name of the data, or None. `a` includes `a_train`, `a_val` and `a_test`.
        label: name of the labels, or None.

    Raises:
        ValueError: if an array is missing, or several may be the data or the labels.
    """
    shapes = [f"{name} {header.shape}" for name, header in headers.items()]
    received = f"{path} with {_listed(shapes) if shapes else 'no array'}"
    groups: dict[str, dict[str | None, str]] = {}
    for name in headers:
        stem, part = split_name(name)
        groups.setdefault(stem, {}).setdefault(part, name)

    def pick(option, given, stems):
        """Returns the array that the user names, or the only usual one, by part."""
        if given is not None:
            stems = [s for s, names in groups.items() if given in (s, *names.values())]
        elif {"x", "y"} & {*stems}:
            stems = [stem for stem in stems if stem in ("x", "y")]
        if len(stems) > 1 or (given is not None and not stems):
            chosen = "" if given is None else f"{option}={given}, "
            raise ValueError(
                f"`{option}` must name one of the arrays. Received: {chosen}{received}"
            )
        parts: dict[Any, str] = dict(groups[stems[0]]) if stems else {}
        whole = parts.pop(None, None)
        if whole is not None and (whole == given or "train" not in parts):
            return {"train": whole} if whole == given else {"train": whole, **parts}
        return parts

    y_stems = [s for s in groups if _words(s) & Y_WORDS and _words(s) <= X_WORDS | Y_WORDS]
    x_stems = [stem for stem in groups if _words(stem) <= X_WORDS]
    if not x_stems:
        matrices = {n for n, h in headers.items() if len(h.shape) > 1}
        matrices -= {n for n in headers if headers[n].dtype.kind not in "buif"}
        x_stems = [s for s in groups if matrices & {*groups[s].values()}]
        x_stems = [stem for stem in x_stems if stem not in y_stems]
    x = pick("array", array, x_stems)
    # Other arrays, such as the names of the classes, may also be called labels.
    rows = {headers[name].shape[:1] for name in x.values()}
    in_rows = {name for name, header in headers.items() if header.shape[:1] in rows}
    y_stems = [s for s in y_stems if s == "y" or in_rows & {*groups[s].values()}]
    y = pick("label", label, y_stems)
    if not x or (len(x) > 1 and "train" not in x):
        raise ValueError(
            "`data` must be an .npz file with x, or with x_train and x_test, and "
            f"optionally labels y. Received: {received}"
        )
    if len(x) == 1:
        ((part, name),) = x.items()
        x, y = {"train": name}, {"train": y[part]} if part in y else {}
    y = {part: y[part] for part in x if part in y}
    return Choice(x, y, _notes(headers, x, y))


def _words(stem):
    return {*stem.split("_")} - {""}


def _notes(headers, x, y):
    """Describes the choice, unless there was none."""
    unused = [name for name in headers if name not in (*x.values(), *y.values())]
    usual = all(split_name(name)[0] in ("x", "y") for name in (*x.values(), *y.values()))
    if usual and not unused:
        return ()
    note = f"The data are {_listed(x.values())}"
    note += f", the labels {_listed(y.values())}" if y else ""
    note += f"; {_listed(unused)} not used" if unused else ""
    return (f"{note} (--array and --label name others).",)


def _listed(names, limit=20):
    names = [*names]
    if len(names) > limit:
        names[limit - 1 :] = [f"{len(names) - limit + 1:,} more"]
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
