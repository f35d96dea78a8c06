"""The figures of a report: PNG files, charts for a light and a dark theme."""

import contextlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from keras_vae import evaluation
from keras_vae.callbacks import image_grid
from keras_vae.datasets import Dataset
from keras_vae.models import VAE
from keras_vae.runs.folder import Run

matplotlib.use("agg")
import matplotlib.pyplot as plt

THEMES = {"light": ("#ffffff", "#1b1f24"), "dark": ("#161b22", "#e6edf3")}
COLOURS = ["#3b82f6", "#f97316", "#10b981", "#ef4444", "#a855f7", "#a16207", "#ec4899",
           "#64748b", "#84cc16", "#06b6d4"]  # fmt: skip


def draw(run: Run, model: VAE, data: Dataset) -> dict[str, list[pathlib.Path]]:
    """Draws the figures that suit the model and the data, in the folder `figures`.

    Returns:
        Dict: name -> list of files: one for a picture, light and dark for a chart.
    """
    folder = run.path("figures")
    folder.mkdir(exist_ok=True)
    pictures = Pictures(data.event_shape, data.shown_range)
    figures = {"curves": chart(folder / "curves", curves, run.metrics())}
    rows = _spread(len(data.x_test), 12)
    x, condition = data.x_test[rows], run.condition_kwargs(data, "test", rows)
    pair = np.concatenate(
        [model.as_float(x).numpy(), model.reconstruct(x, **condition).numpy()]
    )
    figures["reconstructions"] = pictures.save(folder / "reconstructions.png", pair, len(x))
    if run.conditional:
        classes = np.arange(min(12, len(data.classes)))
        samples = class_samples(model, classes)
        figures["classes"] = pictures.save(folder / "classes.png", samples, len(classes))
        changed = transferred(model, x, classes, **condition)
        figures["transfer"] = pictures.save(folder / "transfer.png", changed, len(x))
    elif model.generative:
        samples = model.sample(60, seed=1, mean=True).numpy()
        figures["samples"] = pictures.save(folder / "samples.png", samples, 12)
    if model.generative and data.scaler is not None:
        rows = np.arange(2000) % len(data.x_test)
        draws = model.sample(2000, seed=1, **run.condition_kwargs(data, "test", rows))
        draws = data.scaler.inverse(draws.numpy())
        real = data.scaler.inverse(data.x_test)
        figures["marginals"] = chart(
            folder / "marginals", marginals, data.scaler.columns, real, draws
        )
    rows = _spread(len(data.x_test), 3000)
    posterior = model.encode(
        data.x_test[rows], 1024, **run.condition_kwargs(data, "test", rows)
    )
    means = posterior.mean().numpy()
    labels = None if data.y_test is None else data.y_test[rows]
    figures["latent"] = chart(folder / "latent", latent_map, means, labels)
    if len(x) > 1 and not condition:
        steps = interpolations(model, x)
        figures["interpolations"] = pictures.save(folder / "interpolations.png", steps, 11)
    kl: np.ndarray | None = None
    active = np.arange(means.shape[1])
    if model.generative:
        with contextlib.suppress(ValueError):
            kl = evaluation.kl_per_unit(
                model, data.x_test, **run.condition_kwargs(data, "test")
            )
            figures["kl"] = chart(folder / "kl", kl_bars, kl)
        varies = evaluation.active_units(
            model, data.x_test, **run.condition_kwargs(data, "test")
        )
        active = np.flatnonzero(varies)
    spread = means.var(axis=0) if kl is None else kl
    units = active[np.argsort(-spread[active], kind="stable")][:32]
    if len(units):
        values = traversals(model, means, units, run.condition_kwargs(data, "test", rows))
        figures["traversals"] = pictures.save(folder / "traversals.png", values, 11)
    return figures


def _spread(rows, count):
    """Returns up to `count` evenly spaced row numbers."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(int))


class Pictures:
    """Rows of the data as pictures: images unchanged, vectors as strips of colour.

    Args:
        event_shape: ints, the shape of a row.
        shown_range: (low, high), from `Dataset`.
    """

    def __init__(self, event_shape: Sequence[int], shown_range: Sequence[float]):
        self.strips = len(event_shape) != 3
        self.low, self.high = shown_range

    def save(self, path: pathlib.Path, x: Any, columns: int) -> list[pathlib.Path]:
        """Saves rows x `[rows, *event]` as a grid; returns a list with the file."""
        x = (np.asarray(x, np.float32) - self.low) / ((self.high - self.low) or 1)
        if self.strips:
            x = plt.get_cmap("RdBu_r")(np.clip(x, 0, 1))[:, None, :, :3]
            width = max(1, min(4, 900 // (columns * x.shape[2])))  # pixels of an element
            x = x.repeat(6, axis=1).repeat(width, axis=2)
        elif x.shape[-1] not in (1, 3):
            x = x[..., :3] if x.shape[-1] > 3 else x[..., :1]
        grid = image_grid(x, columns)
        picture = Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid)
        factor = max(1, 900 // picture.width)
        size = (picture.width * factor, picture.height * factor)
        picture.resize(size, Image.Resampling.NEAREST).save(path)
        return [path]


def class_samples(model: VAE, labels: np.ndarray, count: int = 6) -> np.ndarray:
    """Samples each label with the same seeds: `[count * labels, *event]`, by seed."""
    seeds = np.repeat(np.arange(1, count + 1), len(labels))
    condition = np.tile(labels, count)
    return model.sample(seeds=seeds, condition=condition, mean=True).numpy()


def transferred(model: VAE, x: Any, labels: np.ndarray, condition: Any) -> np.ndarray:
    """Decodes the z of rows x with each label: `[(1 + labels) * rows, *event]`, x first."""
    z = model.encode(x, condition=condition).mean()
    means = [model.decode(z, condition=label).mean().numpy() for label in labels]
    return np.concatenate([model.as_float(x).numpy(), *means])


def interpolations(model: VAE, x: Any, steps: int = 11) -> np.ndarray:
    """Decodes straight lines between the codes of pairs: `[pairs * steps, *event]`."""
    codes = model.encode(x).mean().numpy()
    pairs = len(codes) // 2
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    lines = [
        (1 - share) * codes[2 * i] + share * codes[2 * i + 1] for i in range(min(5, pairs))
    ]
    return model.decode(np.concatenate(lines)).mean().numpy()


def traversals(
    model: VAE,
    means: np.ndarray,
    units: Sequence[int] | np.ndarray,
    condition: dict[str, Any],
    steps: int = 11,
) -> np.ndarray:
    """Varies one latent unit at a time, starting from a typical row, and decodes.

    Args:
        model: `VAE`.
        means: `[rows, latent]`, posterior means.
        units: the units to vary.
        condition: the conditions of the rows, as keyword arguments of `decode`, or empty.
        steps: int.

    Returns:
        `[units * steps, *event]`: from 2.5 standard deviations below the unit's mean to 2.5
        above.
    """
    centre = means.mean(axis=0)
    row = np.argmin(((means - centre) ** 2).sum(axis=1))
    typical = means[row]
    condition = {name: value[row] for name, value in condition.items()}
    codes = np.tile(typical, (len(units), steps, 1))
    for i, unit in enumerate(units):
        codes[i, :, unit] = (
            centre[unit] + np.linspace(-2.5, 2.5, steps) * means[:, unit].std()
        )
    return model.decode(codes.reshape(-1, means.shape[1]), **condition).mean().numpy()


def chart(path: pathlib.Path, function: Callable, *args: Any) -> list[pathlib.Path]:
    """Draws a chart for the light and the dark theme; returns the two files."""
    files = []
    for theme, (paper, ink) in THEMES.items():
        style = {
            "figure.facecolor": paper, "axes.facecolor": paper, "savefig.facecolor": paper,
            "text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": ink,
            "xtick.color": ink, "ytick.color": ink, "grid.color": ink, "grid.alpha": 0.15,
            "legend.frameon": False, "font.size": 9, "axes.grid": True,
            "axes.spines.top": False, "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=COLOURS),
        }  # fmt: skip
        with plt.rc_context(style):
            figure = function(*args)
            files.append(path.with_name(f"{path.name}-{theme}.png"))
            figure.savefig(files[-1], dpi=120, bbox_inches="tight")
            plt.close(figure)
    return files


def curves(metrics: dict[str, list[float]]) -> Any:
    """Plots the terms of training and validation by epoch; returns the figure."""
    names = [n for n in ("elbo", "reconstruction", "kl", "loss") if n in metrics]
    if "elbo" in names and np.allclose(metrics["loss"], -np.array(metrics["elbo"])):
        names.remove("loss")  # equal to the bound
    figure, axes = plt.subplots(
        1, len(names), figsize=(3.3 * len(names), 2.8), layout="constrained", squeeze=False
    )
    epochs = np.array(metrics["epoch"]) + 1
    marker = "." if len(epochs) < 3 else None
    for axis, name in zip(axes[0], names, strict=True):
        shown: list[float] = []
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in metrics:
                axis.plot(epochs, metrics[key], label=label, marker=marker)
                shown += metrics[key][len(epochs) // 20 :]
        later = np.array(shown)[np.isfinite(shown)]
        # Otherwise the first epochs would determine the scale.
        if len(epochs) > 5 and len(later):
            margin = 0.05 * np.ptp(later) + 1e-9
            axis.set_ylim(later.min() - margin, later.max() + margin)
        axis.set(title=name.upper() if name in ("elbo", "kl") else name, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].set_ylabel("nats per example")
    axes[0][0].legend()
    return figure


def latent_map(means: np.ndarray, labels: np.ndarray | None) -> Any:
    """Plots posterior means `[rows, latent]`, projected by PCA if latent > 2."""
    figure, axis = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
    names = ("unit 0", "unit 1")
    if means.shape[1] == 1:
        means, names = np.concatenate([means, np.zeros_like(means)], 1), ("unit 0", "")
    elif means.shape[1] > 2:
        centred = means - means.mean(axis=0)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        means = centred @ axes[:2].T
        names = ("first principal component", "second")
    style: dict = {"s": 6, "alpha": 0.7, "linewidths": 0}
    if labels is None:
        axis.scatter(*means.T, **style)
    elif labels.dtype.kind == "f" or len(np.unique(labels)) > 20:
        if labels.dtype.kind not in "iuf":
            labels = np.unique(labels, return_inverse=True)[1]
        points = axis.scatter(*means.T, c=labels, cmap="viridis", **style)
        figure.colorbar(points, ax=axis)
    else:
        classes = np.unique(labels)
        colours = COLOURS if len(classes) <= 10 else plt.get_cmap("tab20").colors
        for label, colour in zip(classes, colours, strict=False):
            axis.scatter(
                *means[labels == label].T, color=colour, label=_escaped(label), **style
            )
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)
    axis.set(xlabel=names[0], ylabel=names[1])
    return figure


def _escaped(name):
    """Escapes a name, which matplotlib would read as a formula."""
    return str(name).replace("$", r"\$")


def kl_bars(kl: np.ndarray) -> Any:
    """Plots the KL of each unit, largest first."""
    figure, axis = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
    order = np.argsort(-kl, kind="stable")
    axis.bar(range(len(kl)), kl[order])
    if len(kl) <= 40:
        axis.set_xticks(range(len(kl)), [str(unit) for unit in order])
    axis.set(xlabel="latent unit", ylabel="KL, nats")
    return figure


def marginals(columns: Sequence[str], real: np.ndarray, drawn: np.ndarray) -> Any:
    """Plots histograms of each column: test rows and samples."""
    count = min(len(columns), 16)
    ncols = min(count, 4)
    nrows = -(-count // ncols)
    figure, axes = plt.subplots(
        nrows,
        ncols,
        figsize=(2.4 * ncols, 1.9 * nrows),
        layout="constrained",
        squeeze=False,
    )
    for i, axis in enumerate(axes.flat):
        if i >= count:
            axis.set_axis_off()
            continue
        both = np.concatenate([real[:, i], drawn[:, i]])
        low, high = np.percentile(both, [0.5, 99.5])
        bins = np.linspace(low, high, 31)
        if not bins[-1] > bins[0]:
            bins = bins[0] + np.linspace(-0.5, 0.5, 31)
        axis.hist(real[:, i], bins, density=True, histtype="step", label="test rows")
        axis.hist(drawn[:, i], bins, density=True, histtype="step", label="samples")
        axis.set_title(_escaped(columns[i]), fontsize=9)
        axis.set_yticks([])
    axes[0][0].legend(fontsize=7)
    return figure
