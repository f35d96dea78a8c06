"""Writes report.html, a self-contained page."""

import base64
import importlib.resources
import pathlib
from typing import Any

import jinja2
from PIL import Image

from keras_vae.datasets import Dataset
from keras_vae.models import VAE
from keras_vae.runs.folder import Run
from keras_vae.runs.report import figures

# Title and caption of each figure, in the order of the page.
CAPTIONS = {
    "curves": (
        "The bound and its terms",
        "Nats per example, by epoch. elbo = -(reconstruction + kl), without the weights "
        "of the objective.",
    ),
    "reconstructions": (
        "Reconstructions",
        "Test rows (top) and the mean of p(x | E[z|x]) (bottom).",
    ),
    "samples": ("Samples", "Means of p(x|z), with z drawn from the prior (seed 1)."),
    "classes": (
        "Samples of each class",
        "Means of p(x|z, label), one column per label. All samples in a row have the same "
        "seed.",
    ),
    "transfer": (
        "Another label",
        "Test rows (top), and below them the same z decoded with each label.",
    ),
    "marginals": (
        "Columns",
        "Histograms of test rows and of 2,000 samples, in the units of the data.",
    ),
    "latent": (
        "The latent map",
        "Posterior means of test rows, coloured by label if the data have labels.",
    ),
    "interpolations": (
        "Interpolations",
        "Decoded points on straight lines between the posterior means of two test rows.",
    ),
    "traversals": (
        "Traversals",
        "One latent unit in each row, from 2.5 standard deviations below its mean to 2.5 "
        "above: the active units, at most 32, by decreasing KL.",
    ),
    "kl": (
        "KL of each unit",
        "KL(q(z|x) || p(z)), mean over the test rows. Units near 0 are not used.",
    ),
}
STRIPS = (
    " Each coloured strip is a row, with its columns from left to right. White is the "
    "middle of the value range, blue is lower, red is higher."
)
TILES = {
    "test_elbo": ("test ELBO", "nats"),
    "test_nll": ("test NLL", "nats"),
    "test_reconstruction": ("reconstruction", "nats"),
    "test_kl": ("KL", "nats"),
    "bits_per_dimension": ("bits per dimension", ""),
    "active_units": ("active units", ""),
    "probe_accuracy": ("linear probe", ""),
    "reconstruction_error": ("squared error", "summed"),
}


def write(
    run: Run,
    model: VAE,
    data: Dataset,
    numbers: dict[str, float],
    table: list[dict[str, Any]],
) -> pathlib.Path:
    """Draws the figures and writes report.html.

    Args:
        run: the run.
        model: the model of the run.
        data: the data set of the run.
        numbers: the result of `evaluate`.
        table: the result of `compare`.

    Returns:
        `pathlib.Path` of the page.
    """
    source = importlib.resources.files("keras_vae.runs.report").joinpath("report.html.j2")
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.from_string(source.read_text(encoding="utf-8")).render(
        run=run,
        model=model,
        data=data,
        numbers=numbers,
        tiles=[
            _tile(key, *names, numbers) for key, names in TILES.items() if key in numbers
        ],
        figures=_figures(run, model, data),
        table=table,
        best=_best(table),
    )
    run.write("report.html", page)
    return run.path("report.html")


def _figures(run, model, data):
    """Draws the figures; returns the values that the template shows for each."""
    files = figures.draw(run, model, data)
    strips = len(data.event_shape) != 3
    shown = []
    for name, (title, caption) in CAPTIONS.items():
        if name in files:
            picture = len(files[name]) == 1
            shown.append({
                "name": name,
                "title": title,
                "caption": caption + (STRIPS if picture and strips else ""),
                "files": [_embedded(path) for path in files[name]],
                "size": _size(files[name][0]),
                "picture": picture,
            })  # fmt: skip
    return shown


def _best(table):
    """Returns the best value by (column, latent size), which the table marks."""
    best = {}
    for key, better in (("reconstruction_error", min), ("probe_accuracy", max)):
        for latent in {row["latent"] for row in table}:
            rows = [row[key] for row in table if row["latent"] == latent and key in row]
            best[key, latent] = better(rows, default=None)
    return best


def _tile(key, title, unit, numbers):
    """Formats a number for the top of the page."""
    value = f"{numbers[key]:,.2f}"
    if key == "active_units":
        value = f"{numbers[key]:.0f} of {numbers['latent_units']:.0f}"
    elif key == "probe_accuracy":
        value = f"{numbers[key]:.1%}"
    elif key == "test_nll":
        value += f" ± {numbers['test_nll_standard_error']:.2f}"
    return {"title": title, "unit": unit, "value": value}


def _size(path):
    with Image.open(path) as image:
        return image.size


def _embedded(path):
    """Returns a PNG file as a data URL."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
