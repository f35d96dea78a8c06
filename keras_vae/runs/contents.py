"""What the files of a run contain, declared once, and their reader."""

import csv
import io
import math
import os
import pathlib
from typing import Annotated, Any

import keras_vae
from keras_vae import typed_files
from keras_vae.runs.options import MAX_INT, Options
from keras_vae.typed_files import Fields, Rule

FORMAT = 1  # version of run.json and the other files

Count = Annotated[int, Rule("a whole number of 1 or more", lambda n: 1 <= n <= MAX_INT)]
Units = Annotated[  # as a float
    float, Rule("a whole number of 0 or more", lambda n: 0 <= n <= MAX_INT and n % 1 == 0)
]
Finite = Annotated[float, Rule("a finite number", math.isfinite)]
Positive = Annotated[float, Rule("a finite number above 0", lambda x: 0 < x < math.inf)]
# A metric is the mean of float32 values. It may be NaN or infinite.
Metric = Annotated[
    float, Rule("a number", lambda x: abs(x) < 3.5e38 or not math.isfinite(x))
]
Limits = Annotated[
    list[Finite],
    Rule("two numbers, the smaller first", lambda x: len(x) == 2 and x[0] <= x[1]),
]
Range = Annotated[Limits, Rule("two different numbers", lambda x: x[0] < x[1])]
Shape = Annotated[list[Count], Rule("the shape of a row", lambda shape: 1 <= len(shape))]
Names = Annotated[list[str], Rule("a list of names", len)]
Epochs = Annotated[
    list[Metric], Rule("0, 1, 2, ...", lambda epochs: epochs == [*range(len(epochs))])
]

RUN = Fields(
    {
        "format": Count,
        "command": str,
        "options": Options.fields(),
        "data": Fields(
            {
                "name": str,
                "fingerprint": str,
                "event_shape": Shape,
                "value_range": Range | None,
                "shown_range": Limits,
            },
            {"dtype": str, "classes": Names | None, "standardised": bool},
        ),
        "versions": dict[str, str],
    },
    {"early_stopping": Fields({"best_epoch": Count | None, "stopped": bool})},
    rules=(
        Rule(
            "a run with `classes` if it has a `condition`, and otherwise without",
            lambda run: (
                bool(run["options"].get("condition")) == bool(run["data"].get("classes"))
            ),
        ),
    ),
)
EVALUATION = Fields(
    {},
    {"data": str, "active_units": Units, "latent_units": Units},
    others=float,
)
_BASELINE = Fields(
    {"model": str, "latent": Units, "reconstruction_error": float},
    {"probe_accuracy": float, "data": str},
)
SCALER = Fields(
    {"columns": Names, "mean": list[Finite], "scale": list[Positive]},
    rules=(
        Rule(
            "lists of the same length",
            lambda lists: len({*map(len, lists.values())}) == 1,
        ),
    ),
)
METRICS = Fields({"epoch": Epochs, "loss": list[Metric]}, others=list[Metric])
FILES: dict[str, Any] = {
    "run.json": RUN,
    "evaluation.json": EVALUATION,
    "baselines.json": list[_BASELINE],  # type: ignore[valid-type]
    "scaler.json": SCALER,
    "metrics.csv": METRICS,
}


def read(path: pathlib.Path) -> Any:
    """Reads one of `FILES` and checks all its values.

    Args:
        path: path of the file, which has one of these names.

    Returns:
        The value of a JSON file, or the columns of metrics.csv by name. None if the file
        does not exist.

    Raises:
        ValueError: for a file that cannot be read, and for content of another kind.
    """
    parse = _read_columns if path.suffix == ".csv" else typed_files.parse_json
    try:
        value = parse(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(path):
            raise unreadable(path, "a link to nothing") from error
        return None
    except (OSError, ValueError, csv.Error) as error:
        raise unreadable(path, error) from error
    if path.name == "run.json":
        _check_format(path, value)
    try:
        typed_files.check(value, FILES[path.name])
    except typed_files.KindError as fault:
        raise ValueError(
            f"`run` must have a readable {path.name}: {fault.rule}. "
            f"Received: {path} {fault.received}"
        ) from None
    return value


def _check_format(path, info):
    """Raises a ValueError for a run of a newer version, whose other keys are unknown."""
    number = info.get("format") if isinstance(info, dict) else None
    if isinstance(number, int) and number > FORMAT:
        versions = info.get("versions")
        maker = versions.get("keras_vae") if isinstance(versions, dict) else None
        maker, number = typed_files.short(maker), typed_files.short(number)
        raise ValueError(
            f"`run` must be made by keras_vae {keras_vae.__version__} or older: update "
            f"keras_vae. Received: {path.parent}, made by keras_vae {maker} "
            f"(format {number}; this version reads {FORMAT})"
        )


def _read_columns(path):
    """Returns the columns of a table as lists by name; what is no number stays a text."""
    text = typed_files.read_text(path)
    names, *rows = [*filter(None, csv.reader(io.StringIO(text, newline="")))] or [[]]
    if not rows:
        raise ValueError("no rows")
    if len({*names}) < len(names):
        raise ValueError("two columns have the same name")
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise ValueError(f"row {number} has {len(row)} values for {len(names)} columns")
    return {name: [_number(row[i]) for row in rows] for i, name in enumerate(names)}


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text


def unreadable(path: pathlib.Path, reason: object) -> ValueError:
    """Makes the error for a file of a run that cannot be read."""
    if isinstance(reason, BaseException):
        reason = typed_files.reason(reason)
    return ValueError(f"`run` must have a readable {path.name}. Received: {path}: {reason}")
