"""The start of a run from the weights of another run."""

import os
from typing import Any

from keras_vae.datasets import NAMED, Dataset
from keras_vae.runs.data import load_data, reading
from keras_vae.runs.folder import Run
from keras_vae.runs.options import Options
from keras_vae.runs.rows import check_bytes

PARTS = ("encoder", "decoder", "posterior", "prior", "likelihood")


def inherit(options: Options, given: dict[str, Any]) -> tuple[Options, Dataset]:
    """Takes the model and the scaling of the data from the run `options.init`.

    Args:
        options: the options of the new run.
        given: the options that the user has set, by name.

    Returns:
        (options, data): with the options of the model and of reading of the other run, and
        the data scaled by its numbers.

    Raises:
        ValueError: for an option that contradicts the other run, and for data that do not
            suit its model.
    """
    other = Run.open(options.init or "")
    about, changes = other.info["data"], {}
    for name in Options.of_model():
        changes[name] = value = getattr(other.options, name)
        if name in given and given[name] != value:
            raise ValueError(
                f"`{name}` must be left out, or {value} as in the run of `init`. "
                f"Received: {name}={given[name]}"
            )
    for name in reading(options):
        if name not in given:
            changes[name] = getattr(other.options, name)
    if "value_range" not in given and options.data not in NAMED:
        changes["value_range"] = about["value_range"]  # None for a table
    options = options.replace(**changes)
    data = load_data(options, scaler=other.scaler, **other.channels)
    other.check_suits(data, "in the run of `init`")
    if about["value_range"] == [0, 255] and data.x_train.dtype == "float32":
        check_bytes(data.x_seen, "data", data.name)
    return options, data


def copy_weights(model: Any, folder: str | os.PathLike) -> None:
    """Copies the weights of the model of a run; the optimizer and the step are left out."""
    other = Run.open(folder).model()
    for part in PARTS:
        getattr(model, part).set_weights(getattr(other, part).get_weights())
