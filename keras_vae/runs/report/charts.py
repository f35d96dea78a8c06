"""Charts of a report: PNG files for a light and a dark theme, without names of the data.

matplotlib's own font lacks most scripts. Therefore the page shows names of columns and
classes as HTML text, next to the charts.
"""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np

from keras_vae import atomic

matplotlib.use("agg")
import matplotlib.pyplot as plt

THEMES = {"light": ("#ffffff", "#1b1f24"), "dark": ("#161b22", "#e6edf3")}
COLOURS = ["#3b82f6", "#f97316", "#10b981", "#ef4444", "#a855f7", "#a16207", "#ec4899",
           "#64748b", "#84cc16", "#06b6d4"]  # fmt: skip
REAL = "#8b949e"  # colour of the data, next to reconstructions and samples


def chart(path: pathlib.Path, function: Callable, *args: Any) -> list[pathlib.Path]:
    """Draws a chart for the light and the dark theme; returns the two files."""
    files = []
    for theme, (paper, ink) in THEMES.items():
        style = {
            "figure.facecolor": paper, "axes.facecolor": paper, "savefig.facecolor": paper,
            "text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": ink,
            "xtick.color": ink, "ytick.color": ink, "grid.color": ink, "grid.alpha": 0.15,
            "font.size": 9, "axes.grid": True, "axes.axisbelow": True,
            "axes.spines.top": False, "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=COLOURS),
        }  # fmt: skip
        with plt.rc_context(style):
            figure = function(*args)
            files.append(path.with_name(f"{path.name}-{theme}.png"))
            with atomic.replacing(files[-1]) as part:
                figure.savefig(part, dpi=150)
            plt.close(figure)
    return files


def class_colours(count: int) -> list[str]:
    """Returns distinct colours, at most 20, as `#rrggbb`."""
    if count <= len(COLOURS):
        return COLOURS[:count]
    return [matplotlib.colors.to_hex(c) for c in plt.get_cmap("tab20").colors]


def step_colours(count: int) -> list[str]:
    """Returns colours of consecutive steps, from blue to yellow, as `#rrggbb`."""
    colours = plt.get_cmap("plasma")(np.linspace(0, 0.9, count))
    return [matplotlib.colors.to_hex(c) for c in colours]


def _axes(width, height):
    """Makes a figure and its axes; sizes are in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")


def _size(points):
    """Returns the area of a marker: the fewer points, the larger."""
    return float(np.clip(2000 / points, 6, 20))


def curve(metrics: dict[str, list[float]], name: str, best: int | None = None) -> Any:
    """Plots a term of training and validation by epoch, and marks the epoch `best`."""
    figure, axis = _axes(3.2, 2.2)
    epochs = np.array(metrics["epoch"]) + 1
    marker = "." if len(epochs) < 3 else None
    shown: list[float] = []
    for key in (name, f"val_{name}"):
        if key in metrics:
            axis.plot(epochs, metrics[key], marker=marker)
            shown += metrics[key][len(epochs) // 20 :]
    later = np.array(shown)[np.isfinite(shown)]
    # Otherwise the first epochs would determine the scale.
    if len(epochs) > 5 and len(later):
        margin = 0.05 * np.ptp(later) + 1e-9
        axis.set_ylim(later.min() - margin, later.max() + margin)
    if best is not None:
        axis.axvline(best, color=REAL, lw=1, ls=":")
    axis.set(xlabel="epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def latent_map(
    points: np.ndarray, axis_names: Sequence[str], colours: Any, labels: Any
) -> Any:
    """Plots points `[rows, 2]`.

    Args:
        points: the points.
        axis_names: names of the two axes.
        colours: colour of each class, or None for labels that are numbers.
        labels: `[rows]`: numbers, class indices if `colours` are given, or None.
    """
    figure, axis = _axes(4.8, 3.6)
    style: dict = {"s": _size(len(points)), "alpha": 0.7, "linewidths": 0}
    if labels is None:
        axis.scatter(*points.T, **style)
    elif colours is None:
        drawn = axis.scatter(*points.T, c=labels, cmap="viridis", **style)
        figure.colorbar(drawn, ax=axis)
    else:
        order = np.random.RandomState(0).permutation(len(points))  # no class covers others
        drawn = axis.scatter(*points[order].T, c=np.array(colours)[labels[order]], **style)
    axis.set(xlabel=axis_names[0], ylabel=axis_names[1])
    return figure


def kl_bars(kl: np.ndarray) -> Any:
    """Plots the KL of each unit, largest first."""
    figure, axis = _axes(4.8, 3.6)
    order = np.argsort(-kl, kind="stable")
    axis.bar(range(len(kl)), kl[order])
    few = len(kl) <= 20
    axis.set_xticks(range(len(kl)) if few else [], order if few else [])
    axis.set(xlabel="latent unit" if few else f"{len(kl)} latent units", ylabel="KL, nats")
    return figure


def histograms(real: np.ndarray, drawn: np.ndarray) -> Any:
    """Plots the histograms of a column: test rows and samples."""
    figure, axis = _axes(2.4, 1.5)
    real, drawn = real[np.isfinite(real)], drawn[np.isfinite(drawn)]
    both = np.concatenate([real, drawn])
    low, high = np.percentile(both, [0.5, 99.5]) if len(both) else (0, 0)
    if not high - low > 1e-6 * max(abs(low), abs(high)):  # a constant column
        margin = 0.5 + 0.01 * abs(low)  # also of huge values
        low, high = low - margin, high + margin
    for values, colour in ((real, REAL), (drawn, COLOURS[0])):
        weights = np.full(len(values), 1 / max(1, len(values)))
        bins = np.linspace(low, high, 31)
        axis.hist(values, bins, weights=weights, histtype="step", color=colour, lw=1.4)
    axis.set_yticks([])
    axis.locator_params(axis="x", nbins=4)
    return figure


def scatter(real: np.ndarray, other: np.ndarray) -> Any:
    """Plots values `[n]` against the true values, with the line on which both are equal."""
    figure, axis = _axes(2.4, 1.9)
    axis.axline((0, 0), slope=1, color=REAL, lw=1)
    axis.scatter(real, other, s=_size(len(real)), alpha=0.6, linewidths=0)
    real, other = real[np.isfinite(real)], other[np.isfinite(other)]
    values = np.concatenate([real, np.percentile(other, [2, 98]) if len(other) else other])
    low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    margin = 0.05 * (high - low) or 0.5 + 0.01 * abs(low)
    limits = (low - margin, high + margin)
    axis.set(xlim=limits, ylim=limits)
    axis.locator_params(nbins=4)
    return figure


def lines(series: Any, colours: Iterable[str], x: Any = None, xlabel: str = "") -> Any:
    """Plots signals over each other, each channel in axes of its own.

    Args:
        series: `[signals, time, channels]`.
        colours: the colour of each signal.
        x: `[time]`, or None for the index of the time step.
        xlabel: name of the horizontal axis.
    """
    series = np.asarray(series)
    channels = series.shape[2]
    height = 1.9 if channels == 1 else 0.3 + max(0.55, 1.5 / channels) * channels
    # Constrained layout takes seconds for many axes.
    figure, axes = plt.subplots(
        channels, 1, figsize=(3.2, height), sharex=True, squeeze=False
    )
    bottom = 0.5 if xlabel else 0.3  # inches
    figure.subplots_adjust(0.17, bottom / height, 0.98, 1 - 0.1 / height, hspace=0.2)
    x = np.arange(series.shape[1]) if x is None else x
    marker = "." if series.shape[1] < 3 else None
    for channel, axis in enumerate(axes[:, 0]):
        for values, colour in zip(series[..., channel], colours, strict=True):
            axis.plot(x, values, color=colour, lw=1.1, marker=marker)
        axis.locator_params(axis="y", nbins=3)
        axis.tick_params(labelsize=8)
        if channels > 1:
            axis.set_ylabel(str(channel), rotation=0, labelpad=8)
    axis.set_xlabel(xlabel)
    return figure
