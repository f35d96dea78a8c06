"""Figures of images and volumes."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from keras_vae import atomic
from keras_vae.callbacks import image_grid
from keras_vae.datasets import Dataset
from keras_vae.distributions import IndependentBernoulli
from keras_vae.models import VAE
from keras_vae.runs.report.panels import TRAVERSALS, Figure, Panel


class Pictures:
    """Rows that are images `[height, width, channels]`, or volumes, as their middle slice.

    Args:
        event_shape: ints, the shape of a row.
        shown_range: (low, high), from `Dataset`.
    """

    def __init__(self, event_shape: Sequence[int], shown_range: Sequence[float]):
        *_, height, width, channels = event_shape
        self.note = ""
        if len(event_shape) == 4:
            self.note += (
                f" Volumes are shown by slice {event_shape[0] // 2} of {event_shape[0]}."
            )
        if channels not in (1, 3):
            part = "first three" if channels > 3 else "first"
            self.note += f" Only the {part} of {channels} channels can be seen."
        self.low, self.high = shown_range
        self.ratio = height / width
        fitting = next((n for n, size in ((10, 32), (8, 64), (6, 128)) if width <= size), 4)
        # Tall images are small enough for two of them to fit into the height of a figure.
        self.columns = max(fitting, int(np.ceil(2 * self.ratio)))

    def save(self, path: pathlib.Path, x: Any, columns: int) -> None:
        """Saves rows x `[rows, *event]` as a grid. The file may be half-written."""
        x = (np.asarray(x, np.float32) - self.low) / ((self.high - self.low) or 1)
        if x.ndim == 5:
            x = x[:, x.shape[1] // 2]
        if x.shape[-1] not in (1, 3):
            x = x[..., :3] if x.shape[-1] > 3 else x[..., :1]
        grid = image_grid(np.nan_to_num(x), columns)
        picture = Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid)
        factor = max(1, 900 // picture.width)
        size = (picture.width * factor, picture.height * factor)
        picture.resize(size, Image.Resampling.NEAREST).save(path)


class PictureView(Pictures):
    """Figures of images and volumes.

    All views have these attributes and methods; each method draws a figure.

    Args:
        model: `VAE`.
        data: the data set.
        folder: folder of the files.

    Attributes:
        rows: int, number of test rows to reconstruct.
        steps: int, number of steps of interpolations and traversals.
        lines: int, number of interpolations, and of units to traverse.
    """

    def __init__(self, model: VAE, data: Dataset, folder: pathlib.Path):
        super().__init__(data.event_shape, data.shown_range)
        self.model, self.folder = model, folder
        self.bands = int(np.clip(0.95 * self.columns / self.ratio, 2, 12))  # rows of a grid
        self.rows = self.columns * (self.bands // 2)
        self.steps = self.columns + (self.columns + 1) % 2  # an odd number: has a centre
        self.lines = int(np.clip(0.8 * self.steps / self.ratio, 2, 8))

    def reconstructions(self, x: np.ndarray, means: np.ndarray) -> Figure:
        """Shows rows and their reconstructions, `[rows, *event]` both."""
        pairs = np.stack([x, means])  # [2, rows, *event]
        full = len(x) // self.columns * self.columns
        if full:
            pairs = pairs[:, :full]
        else:  # fewer rows than columns
            blank = np.full_like(pairs[:, :1], (self.low + self.high) / 2)
            blank = np.repeat(blank, self.columns - len(x), axis=1)
            pairs = np.concatenate([pairs, blank], axis=1)
        bands = np.split(pairs, pairs.shape[1] // self.columns, axis=1)
        grid = np.concatenate([band.reshape(-1, *x.shape[1:]) for band in bands])
        return self._figure(
            "reconstructions",
            "Reconstructions",
            "Test rows, and below each the mean of p(x | E[z|x]).",
            [("", grid, self.columns)],
        )

    def samples(self, sample: Callable[..., np.ndarray]) -> Figure:
        """Shows `sample(count, mean=...)`: means, and draws of binary pixels."""
        count = self.columns * self.bands
        caption = "Means of p(x|z), with z drawn from the prior (seed 1)."
        if not isinstance(self.model.likelihood, IndependentBernoulli):
            caption += " A draw of x adds independent noise to each pixel."
            grids = [("", sample(count, mean=True), self.columns)]
        else:
            caption += " Below, draws of x for the same z: each pixel is 0 or 1."
            count = self.columns * max(1, self.bands // 2)
            grids = [
                ("means", sample(count, mean=True), self.columns),
                ("draws", sample(count, mean=False), self.columns),
            ]
        return self._figure("samples", "Samples", caption, grids)

    def classes(self, names: list[str], sample: Callable[[Any, int], np.ndarray]) -> Figure:
        """Shows `sample(label, count)` of each class."""
        columns = max(2, int(np.ceil(self.ratio)))
        return self._figure(
            "classes",
            "Samples of each class",
            "Means of p(x|z, label). All classes have the same z.",
            [
                (name, sample(label, 2 * columns), columns)
                for label, name in enumerate(names)
            ],
            width=7,
            wide=True,
        )

    def transfer(self, names: list[str], x: np.ndarray, changed: list) -> Figure | None:
        """Shows rows x, and their z decoded with each label; None for tall images."""
        if self.ratio > 3:
            return None
        pictures = [("test rows", x), *zip(names, changed, strict=True)]
        return self._figure(
            "transfer",
            "Another label",
            "Test rows (first), and the same z decoded with each label.",
            [(name, values, len(x)) for name, values in pictures],
            width=24,
            wide=True,
        )

    def interpolations(self, values: np.ndarray) -> Figure:
        """Shows lines between rows, `[lines, steps, *event]`."""
        return self._figure(
            "interpolations",
            "Interpolations",
            "Decoded points on straight lines between the posterior means of two test "
            "rows, one line in each row.",
            [("", np.concatenate(values), values.shape[1])],
        )

    def traversals(self, titles: list[str], values: np.ndarray) -> Figure:
        """Shows what each unit changes, `[units, steps, *event]`."""
        return self._figure(
            "traversals",
            "Traversals",
            TRAVERSALS.format(len(titles)),
            [(*item, values.shape[1]) for item in zip(titles, values, strict=True)],
        )

    def _figure(self, name, title, caption, grids, **layout):
        panels = []
        for i, (text, x, columns) in enumerate(grids):
            path = self.folder / f"{name}-{i}.png"
            with atomic.replacing(path) as part:
                self.save(part, x, columns)
                with Image.open(part) as picture:
                    if picture.width > 1600:  # more than a page shows
                        picture.thumbnail((1600, 16_000), Image.Resampling.LANCZOS)
                        picture.save(part)
            panels.append(Panel([path], text))
        return Figure(name, title, caption + self.note, panels, **layout)
