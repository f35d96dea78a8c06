"""Loads the data of a run, without TensorFlow, so that wrong data are refused at once."""

from typing import Any

import numpy as np

from keras_vae import datasets
from keras_vae.datasets import Dataset
from keras_vae.runs.options import Options


def reading(options: Options) -> dict[str, Any]:
    """Returns the arguments of `datasets.load` that the options set, by name."""
    return {
        "label": options.label,
        "drop": tuple(options.drop),
        "resize": options.resize,
        "value_range": options.value_range,
        "header": {"yes": True, "no": False}.get(options.header or ""),
        "axes": options.axes,
        "array": options.array,
        "skip_broken": options.skip_broken,
    }


def load_data(options: Options, **fitted: Any) -> Dataset:
    """Loads the data set that the options name, with its validation rows.

    Args:
        options: the options of the run.
        **fitted: arguments of `datasets.load` that an earlier run has set, such as
            `scaler`.
    """
    data = datasets.load(options.data, **reading(options), **fitted)
    data = data.hold_out(options.validation)
    if options.crop:
        shape = data.event_shape
        if len(shape) != 3 or min(np.subtract(shape[:2], options.crop)) < 0:
            raise ValueError(
                "`crop` must not be larger than the images. Received: "
                f"crop={options.crop} of rows of shape {shape}"
            )
        if sum(np.equal(shape[:2], options.crop)) == 1:
            raise ValueError(  # Keras' RandomCrop would not crop at random
                "`crop` must be smaller than the images in height and in width. Received: "
                f"crop={options.crop} of rows of shape {shape}"
            )
        event_shape = (*options.crop, shape[2])
        parts = {
            part: datasets.center(getattr(data, part), event_shape)
            for part in ("x_val", "x_test")
        }
        data = data._replace(**parts)
    return data
