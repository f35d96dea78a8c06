"""The figures of a report, for all kinds of models and data."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_vae import evaluation
from keras_vae.datasets import Dataset
from keras_vae.models import VAE
from keras_vae.runs.folder import Run
from keras_vae.runs.report import charts
from keras_vae.runs.report.panels import Figure, Panel
from keras_vae.runs.report.pictures import PictureView
from keras_vae.runs.report.signals import SignalView
from keras_vae.runs.report.tables import TableView

# The view of the rows of a data set, by the number of axes of a row.
VIEWS: dict[int, Any] = {1: TableView, 2: SignalView, 3: PictureView, 4: PictureView}
MOST_CLASSES = 12  # that figures of a conditional model show


def draw(
    run: Run,
    model: VAE,
    data: Dataset,
    show: Callable[[str, int, int], Any] = lambda *_: None,
) -> list[Figure]:
    """Draws the figures that suit the model and the data, in the folder `figures`.

    Args:
        run: the run.
        model: the model of the run.
        data: the data set of the run.
        show: function (text, done, total) that displays the progress.

    Returns:
        list of `Figure`, in the order of the page.
    """
    folder = run.path("figures")
    folder.mkdir(exist_ok=True)
    figures: list[Figure] = []
    show("drawing", 0, 8)
    for figure in _figures(run, model, data, folder):
        figures += [figure] if figure is not None else []
        show("drawing", min(7, len(figures)), 8)
    return figures


def _figures(run, model, data, folder) -> Iterator[Figure | None]:
    """Yields the figures; None for those that the kind of data does not have."""
    best = run.info.get("early_stopping", {}).get("best_epoch")
    yield training_curves(folder, run.metrics(), best)
    yield from _rows(run, model, data, folder)
    rows = spread(len(data.x_test), 3000)
    condition = run.condition_kwargs(data, "test", rows)
    means = model.encode(data.x_test[rows], 1024, **condition).mean().numpy()
    yield latent_map(folder, means, None if data.y_test is None else data.y_test[rows])
    test = run.condition_kwargs(data, "test")
    kl, active = None, np.arange(means.shape[1])
    if model.generative:
        with contextlib.suppress(ValueError):
            kl = evaluation.kl_per_unit(model, data.x_test, **test)
            yield kl_chart(folder, kl)
        active = np.flatnonzero(evaluation.active_units(model, data.x_test, **test))
    view = _view(model, data, folder)
    if view is not None and len(active):
        order = means.var(axis=0) if kl is None else kl
        units = active[np.argsort(-order[active], kind="stable")][: view.lines]
        values = traversals(model, means, units, condition, view.steps)
        titles = [
            f"unit {unit}" + ("" if kl is None else f", {kl[unit]:.2f} nats")
            for unit in units
        ]
        yield view.traversals(titles, values.reshape(len(units), -1, *data.event_shape))


def _view(model, data, folder):
    kind = VIEWS.get(len(data.event_shape))
    return None if kind is None else kind(model, data, folder)


def _rows(run, model, data, folder) -> Iterator[Figure | None]:
    """Yields the figures that show rows of the data."""
    view = _view(model, data, folder)
    if view is None:
        return
    rows = spread(len(data.x_test), view.rows)
    x, condition = data.x_test[rows], run.condition_kwargs(data, "test", rows)
    means = model.reconstruct(x, **condition)
    yield view.reconstructions(model.as_float(x).numpy(), np.asarray(means))

    def sample(count, mean, label=None):
        kwargs = {} if label is None else {"condition": label}
        if run.conditional and label is None:
            kwargs = run.condition_kwargs(data, "test", np.arange(count) % len(data.x_test))
        return model.sample(count, seed=1, mean=mean, **kwargs).numpy()

    if run.conditional:
        names = list(map(str, data.classes[:MOST_CLASSES]))
        draws = isinstance(view, TableView)
        yield view.classes(names, lambda label, n: sample(n, not draws, label))
        few = slice(8)
        few_condition = {name: value[few] for name, value in condition.items()}
        changed = transferred(model, x[few], range(len(names)), **few_condition)
        yield view.transfer(names, model.as_float(x[few]).numpy(), changed)
    if model.generative and (isinstance(view, TableView) or not run.conditional):
        yield view.samples(sample)
    ends = data.x_test[spread(len(data.x_test), 2 * view.lines)]
    if len(ends) > 1 and not condition:
        yield view.interpolations(interpolations(model, ends, view.steps))


def spread(rows: int, count: int) -> np.ndarray:
    """Returns up to `count` evenly spaced row numbers."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(int))


def transferred(
    model: VAE, x: Any, labels: Sequence[int], condition: Any
) -> list[np.ndarray]:
    """Decodes the z of rows x with each label: a list of `[rows, *event]`."""
    z = model.encode(x, condition=condition).mean()
    return [model.decode(z, condition=label).mean().numpy() for label in labels]


def interpolations(model: VAE, x: Any, steps: int) -> np.ndarray:
    """Decodes straight lines between the codes of pairs: `[pairs, steps, *event]`."""
    codes = model.encode(x).mean().numpy()
    pairs = len(codes) // 2
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    start, end = codes[0 : 2 * pairs : 2, None], codes[1 : 2 * pairs : 2, None]
    points = (1 - share) * start + share * end  # [pairs, steps, latent]
    decoded = model.decode(points.reshape(-1, points.shape[-1])).mean().numpy()
    return decoded.reshape(pairs, steps, *x.shape[1:])


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


def training_curves(
    folder: pathlib.Path, metrics: dict[str, list[float]], best: int | None = None
) -> Figure:
    """Plots the terms of training and validation by epoch, and marks the epoch `best`."""
    names = [n for n in ("elbo", "reconstruction", "kl", "loss") if n in metrics]
    if "elbo" in names and np.allclose(
        metrics["loss"], -np.array(metrics["elbo"]), equal_nan=True
    ):
        names.remove("loss")  # equal to the bound
    legend = [(charts.COLOURS[0], "training")]
    if any(f"val_{name}" in metrics for name in names):
        legend.append((charts.COLOURS[1], "validation"))
    kept = "" if best is None else " The dotted line marks the epoch that is kept."
    panels = [
        Panel(
            charts.chart(folder / f"curves-{name}", charts.curve, metrics, name, best),
            name.upper() if name in ("elbo", "kl") else name,
        )
        for name in names
    ]
    return Figure(
        "curves",
        "The bound and its terms",
        "Nats per example, by epoch. elbo = -(reconstruction + kl), without the weights of "
        f"the objective.{kept}",
        panels,
        legend,
        width=70 / max(1, len(names)),
        wide=True,
    )


def latent_map(
    folder: pathlib.Path, means: np.ndarray, labels: np.ndarray | None
) -> Figure:
    """Plots posterior means `[rows, latent]`, projected by PCA if latent > 2."""
    # A diverged model has means of NaN, infinity or near the limit of float32.
    means = np.nan_to_num(means.astype(np.float64), posinf=0.0, neginf=0.0)
    names = ("unit 0", "unit 1")
    if means.shape[1] == 1:
        means, names = np.concatenate([means, np.zeros_like(means)], 1), ("unit 0", "")
    elif means.shape[1] > 2:
        centred = means - means.mean(axis=0)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        means, names = centred @ axes[:2].T, ("first principal component", "second")
    caption, legend, colours = "Posterior means of test rows.", [], None
    if labels is not None:
        classes, numbers = np.unique(labels, return_inverse=True)
        caption = "Posterior means of test rows, coloured by label."
        if labels.dtype.kind != "f" and len(classes) <= 20:
            colours = charts.class_colours(len(classes))
            legend = list(zip(colours, map(str, classes), strict=False))
            labels = numbers
        elif labels.dtype.kind not in "iuf":
            labels = numbers
            caption += (
                f" The colours are the numbers of the {len(classes)} labels in order."
            )
    if means.shape[0] > 1 and names[1] == "second":
        caption += " PCA projects them to two dimensions."
    files = charts.chart(
        folder / "latent", charts.latent_map, means, names, colours, labels
    )
    return Figure("latent", "The latent map", caption, [Panel(files)], legend)


def kl_chart(folder: pathlib.Path, kl: np.ndarray) -> Figure:
    """Plots the KL of each unit."""
    return Figure(
        "kl",
        "KL of each unit",
        "KL(q(z|x) || p(z)), mean over the test rows. Units near 0 are not used.",
        [Panel(charts.chart(folder / "kl", charts.kl_bars, kl))],
    )
