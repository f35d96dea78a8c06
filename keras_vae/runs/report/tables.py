"""Figures of vectors and rows of tables: a chart for each column."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_vae.datasets import Dataset
from keras_vae.models import VAE
from keras_vae.runs.report import charts
from keras_vae.runs.report.panels import TRAVERSALS, Figure, Panel

MOST_COLUMNS = 18  # that figures show


class TableView:
    """Figures of vectors and rows of tables `[columns]`; see `PictureView`."""

    def __init__(self, model: VAE, data: Dataset, folder: pathlib.Path):
        self.folder, self.data = folder, data
        self.columns = [f"x{i}" for i in range(data.event_shape[0])]
        if data.scaler is not None:
            self.columns = list(data.scaler.columns)
        self.real = self._in_units(model.as_float(data.x_test[:2000]).numpy())
        self.rows, self.steps, self.lines = 500, 21, 8
        self.scaled = "" if data.scaler is None else ", in standard deviations"

    def reconstructions(self, x: np.ndarray, means: np.ndarray) -> Figure:
        """Draws the reconstruction of each column against its true values."""
        error, variance = ((x - means) ** 2).mean(0), x.var(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            explained = 1 - error / variance  # R^2
        order = np.argsort(-explained, kind="stable")
        shown, note = self._choose(order, "from the best to the worst R²")
        x, means = self._in_units(x), self._in_units(means)
        panels = [
            self._panel("reconstructions", i, charts.scatter, x[:, i], means[:, i])
            for i in shown
        ]
        for k, i in enumerate(shown):
            score = f"{explained[i]:.2f}" if variance[i] > 1e-12 else "undefined, constant"
            panels[k] = panels[k]._replace(note=f"R² {score}")
        return Figure(
            "reconstructions",
            "Reconstructions",
            f"The mean of p(x | E[z|x]) of {len(x)} test rows (vertical) against the true "
            "values (horizontal), in the units of the data. Points on the line are exact; "
            f"R² is the share of the variance that is explained.{note}",
            panels,
            width=10.5,
            wide=True,
        )

    def samples(self, sample: Callable[..., np.ndarray]) -> Figure:
        """Draws histograms of the columns of test rows and of samples."""
        draws = self._in_units(sample(2000, mean=False))
        both = (self.real, draws)
        distance = np.abs(np.diff([np.median(x, 0) for x in both], axis=0)[0])
        order = np.argsort(distance / (self.real.std(0) + 1e-9), kind="stable")
        shown, note = self._choose(order, "from the best to the worst median")
        return Figure(
            "marginals",
            "Columns",
            "Histograms of test rows and of 2,000 samples, in the units of the data."
            + note,
            [
                self._panel("marginals", i, charts.histograms, *(x[:, i] for x in both))
                for i in shown
            ],
            [(charts.REAL, "test rows"), (charts.COLOURS[0], "samples")],
            width=10.5,
            wide=True,
        )

    def classes(self, names: list[str], sample: Callable[[Any, int], np.ndarray]) -> Figure:
        """Draws the means of the columns of each class, of test rows and samples."""
        x, y = self.data.x_test, self.data.class_numbers("test")
        panels = []
        for label, name in enumerate(names):
            if (y == label).any():
                means = x[y == label].mean(0), sample(label, 500).mean(0)
                file = self.folder / f"classes-{label}"
                panels.append(Panel(charts.chart(file, charts.scatter, *means), name))
        return Figure(
            "classes",
            "Samples of each class",
            f"The mean of each column{self.scaled}: 500 samples with the label (vertical) "
            "against the test rows of the class (horizontal).",
            panels,
            width=10.5,
            wide=True,
        )

    def transfer(self, names: list[str], x: np.ndarray, changed: list) -> None:
        """Returns None: other labels cannot be seen at a glance."""

    def interpolations(self, values: np.ndarray) -> None:
        """Returns None, too."""

    def traversals(self, titles: list[str], values: np.ndarray) -> Figure:
        """Draws the columns that each unit changes most."""
        panels = []
        x = np.linspace(-2.5, 2.5, values.shape[1])
        for k, (title, steps) in enumerate(zip(titles, values, strict=True)):
            most = np.argsort(-np.ptp(steps, axis=0), kind="stable")[:5]
            ends = self._in_units(steps[[0, -1]])
            legend = [
                (colour, f"{ends[0, i]:.4g} to {ends[1, i]:.4g}, {self.columns[i]}")
                for colour, i in zip(charts.COLOURS, most, strict=False)
            ]
            files = charts.chart(
                self.folder / f"traversals-{k}",
                charts.lines,
                steps[:, most].T[..., None],
                charts.COLOURS[: len(most)],
                x,
                "deviation of the unit",
            )
            panels.append(Panel(files, title, legend=legend))
        few = min(5, len(self.columns))
        return Figure(
            "traversals",
            "Traversals",
            TRAVERSALS.format(len(titles))
            + f" Vertical: the {few} columns that change most{self.scaled}. Below, their "
            "ends in the units of the data.",
            panels,
            width=16,
            wide=True,
        )

    def _in_units(self, x):
        """Converts rows to the units of the data."""
        return x if self.data.scaler is None else self.data.scaler.inverse(x)

    def _panel(self, name, column, function, *args):
        files = charts.chart(self.folder / f"{name}-{column}", function, *args)
        return Panel(files, self.columns[column])

    def _choose(self, order, text):
        """Returns the columns to show, and a note: all, or some of the order."""
        if len(order) <= MOST_COLUMNS:
            return range(len(order)), ""
        chosen = np.linspace(0, len(order) - 1, MOST_COLUMNS).astype(int)
        return order[chosen], f" {MOST_COLUMNS} of {len(order):,} columns, {text}."
