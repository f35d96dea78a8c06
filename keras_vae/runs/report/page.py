"""Writes report.html, a self-contained page."""

import base64
import importlib.resources
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from keras_vae.datasets import Dataset
from keras_vae.escapes import visible
from keras_vae.models import VAE
from keras_vae.runs.folder import Run
from keras_vae.runs.report.findings import caveats, findings, is_bound
from keras_vae.runs.report.panels import Figure

TILES = {
    "test_elbo": ("test ELBO", "nats"),
    "test_nll": ("test NLL", "nats"),
    "test_reconstruction": ("reconstruction", "nats"),
    "test_kl": ("KL", "nats"),
    "bits_per_dimension": ("bits per dimension", ""),
    "active_units": ("active units", ""),
    "probe_accuracy": ("linear probe", ""),
    "relative_error": ("reconstruction error", "of the data's deviation"),
}


def write(
    run: Run,
    model: VAE,
    data: Dataset,
    numbers: dict[str, float],
    figures: Sequence[Figure],
    table: Sequence[dict[str, Any]] = (),
    left_out: Sequence[str] = (),
) -> pathlib.Path:
    """Writes report.html.

    Args:
        run: the run.
        model: the model of the run.
        data: the data set of the run.
        numbers: the result of `evaluate`.
        figures: the result of `draw`.
        table: the table of `compare`.
        left_out: the baselines that `compare` left out.

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
    environment.filters["options"] = _mark_options
    page = environment.from_string(source.read_text(encoding="utf-8")).render(
        run=run,
        model=model,
        data=data,
        name=pathlib.Path(data.name).name,
        findings=findings(numbers, run.metrics(), run.options),
        numbers=numbers,
        best_epoch=run.info.get("early_stopping", {}).get("best_epoch"),
        bound=is_bound(numbers),
        caveats=caveats(numbers, data, run.options),
        tiles=[
            _tile(key, *names, numbers) for key, names in TILES.items() if key in numbers
        ],
        figures=[_embed(figure) for figure in figures],
        table=table,
        left_out=left_out,
        best=_best(table),
    )
    run.write("report.html", visible(page, keep="\n"))
    return run.path("report.html")


def _embed(figure):
    """Returns a figure with its panels as the template shows them."""
    panels = [
        {
            **panel._asdict(),
            "sources": [_data_url(path) for path in panel.files],
            "size": _size(panel.files[0]),
        }
        for panel in figure.panels
    ]
    return {**figure._asdict(), "panels": panels}


def _mark_options(text):
    """Marks the options of the command line in a text, such as `--beta 0.5`."""
    option = r"--[a-z-]+( \d+(\.\d+)?| linear)?"
    return Markup(re.sub(option, r"<code>\g<0></code>", str(escape(text))))


def _best(table):
    """Returns the best value by (column, latent size), which the table marks."""
    best = {}
    for key, better in (("reconstruction_error", min), ("probe_accuracy", max)):
        for latent in {row["latent"] for row in table}:
            rows = [row[key] for row in table if row["latent"] == latent and key in row]
            best[key, latent] = better(rows) if len(rows) > 1 else None
    return best


def _tile(key, title, unit, numbers):
    """Formats a number for the top of the page."""
    value = f"{numbers[key]:,.{1 if abs(numbers[key]) >= 1000 else 2}f}"
    if key == "active_units":
        value = f"{numbers[key]:.0f} of {numbers['latent_units']:.0f}"
    elif key == "probe_accuracy":
        value = f"{numbers[key]:.1%}"
        if "probe_majority" in numbers:
            unit = f"most frequent class {numbers['probe_majority']:.1%}"
    elif key == "relative_error":
        value = f"{numbers[key]:.0%}"
    elif key == "test_nll":
        unit = f"± {numbers['test_nll_standard_error']:.2f} {unit}"
        if is_bound(numbers):
            value, unit = f"≤\N{NO-BREAK SPACE}{value}", f"{unit}, upper bound"
    return {"title": title, "unit": unit, "value": value}


def _size(path):
    with Image.open(path) as image:
        return image.size


def _data_url(path):
    """Returns a PNG file as a data URL."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
