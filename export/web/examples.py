"""Writes examples.json, the examples that the page shows: a script.

    python examples.py RUN FILE

FILE has some test images, their labels, and the KL of each latent unit.
"""

import json
import pathlib
import sys

import numpy as np

from keras_vae import evaluation
from keras_vae.runs.folder import Run

IMAGES = 10


def main(folder, file):
    run = Run.open(folder)
    model, data = run.model(), run.data()
    if len(data.event_shape) != 3:
        raise SystemExit(
            "The data must be images [height, width, channels]. Received: rows of shape "
            f"{data.event_shape}"
        )
    rows = np.arange(min(IMAGES, len(data.x_test)))
    if data.y_test is not None:  # one per class, up to IMAGES
        classes, first = np.unique(data.y_test, return_index=True)
        rows = first[:IMAGES]
    low, high = data.shown_range
    images = (model.as_float(data.x_test[rows]).numpy() - low) / (high - low)
    examples = {
        "event_shape": data.event_shape,
        "images": images.reshape(len(rows), -1).round(4).tolist(),
    }
    if data.y_test is not None:
        examples["labels"] = [str(label) for label in data.y_test[rows]]
    if run.conditional:
        examples["classes"] = [str(name) for name in data.classes]
    if model.generative:
        kl = evaluation.kl_per_unit(
            model, data.x_test, **run.condition_kwargs(data, "test")
        )
        examples["kl_per_unit"] = np.asarray(kl).ravel().round(4).tolist()
    pathlib.Path(file).write_text(json.dumps(examples) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
