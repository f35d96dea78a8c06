"""Figures of signals: line plots."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_vae.datasets import Dataset
from keras_vae.models import VAE
from keras_vae.runs.report import charts
from keras_vae.runs.report.panels import TRAVERSALS, Figure, Panel

MOST_CHANNELS = 6  # that figures show


class SignalView:
    """Figures of signals `[time, channels]`; see `PictureView`."""

    def __init__(self, model: VAE, data: Dataset, folder: pathlib.Path):
        self.folder = folder
        channels = data.event_shape[1]
        self.lines = self.rows = 8 if channels < 3 else 4
        self.steps = 9
        self.note = ""
        if channels > 1:
            self.note = " Each channel has axes of its own, with its number."
        if channels > MOST_CHANNELS:
            self.note += f" The first {MOST_CHANNELS} of {channels} channels are shown."

    def reconstructions(self, x: np.ndarray, means: np.ndarray) -> Figure:
        """Draws rows and their reconstructions over each other."""
        pairs = np.stack([x, means], axis=1)
        names = ("test row", "reconstruction")
        return self._figure(
            "reconstructions",
            "Reconstructions",
            "Test rows, and the mean of p(x | E[z|x]).",
            [("", pair) for pair in pairs],
            (charts.REAL, charts.COLOURS[0]),
            names,
        )

    def samples(self, sample: Callable[..., np.ndarray]) -> Figure:
        """Draws samples: a draw of each, and its mean over it."""
        draws, means = sample(self.rows, mean=False), sample(self.rows, mean=True)
        return self._figure(
            "samples",
            "Samples",
            "z is drawn from the prior (seed 1).",
            [("", pair) for pair in np.stack([draws, means], axis=1)],
            (charts.REAL, charts.COLOURS[0]),
            ("draw of x", "mean of p(x|z)"),
        )

    def classes(self, names: list[str], sample: Callable[[Any, int], np.ndarray]) -> Figure:
        """Draws samples of each class."""
        return self._figure(
            "classes",
            "Samples of each class",
            "Means of p(x|z, label). Lines of the same colour have the same z.",
            [(name, sample(label, 5)) for label, name in enumerate(names)],
            charts.COLOURS[:5],
        )

    def transfer(self, names: list[str], x: np.ndarray, changed: list) -> Figure:
        """Draws rows, and the same z with each label."""
        colours = charts.class_colours(len(names))
        return self._figure(
            "transfer",
            "Another label",
            "Test rows, and the same z decoded with each label.",
            [("", signals) for signals in np.stack([x, *changed], axis=1)],
            (charts.REAL, *colours),
            ("test row", *names),
        )

    def interpolations(self, values: np.ndarray) -> Figure:
        """Draws the steps of a line between two rows over each other."""
        return self._figure(
            "interpolations",
            "Interpolations",
            "Decoded points on straight lines between the posterior means of two test "
            "rows, from blue to orange.",
            [("", steps) for steps in values],
            charts.step_colours(values.shape[1]),
        )

    def traversals(self, titles: list[str], values: np.ndarray) -> Figure:
        """Draws the steps of each unit over each other."""
        return self._figure(
            "traversals",
            "Traversals",
            TRAVERSALS.format(len(titles)) + " From blue (low) to orange (high).",
            list(zip(titles, values, strict=True)),
            charts.step_colours(values.shape[1]),
        )

    def _figure(self, name, title, caption, panels, colours, names=()):
        shown = [
            Panel(
                charts.chart(
                    self.folder / f"{name}-{i}",
                    charts.lines,
                    series[..., :MOST_CHANNELS],
                    colours,
                ),
                text,
            )
            for i, (text, series) in enumerate(panels)
        ]
        legend = list(zip(colours, names, strict=True)) if names else ()
        return Figure(name, title, caption + self.note, shown, legend, 16, True)
