"""report.html: one page that needs nothing beside it."""

import base64
import importlib.resources

import jinja2
from PIL import Image

from keras_vae.runs.report import figures

# Title and caption of each figure, in the order of the page.
CAPTIONS = {
    "curves": (
        "The bound and its terms",
        "Nats per example, by epoch. elbo = -(reconstruction + kl), unweighted, whatever "
        "the objective.",
    ),
    "reconstructions": (
        "Reconstructions",
        "Test rows, and below them the mean of p(x | E[z|x]).",
    ),
    "samples": ("Samples", "Means of p(x|z), z from the prior, seed 1."),
    "classes": (
        "Samples of each class",
        "Means of p(x|z, label): a column for each label, and in each row the same z, by "
        "seed.",
    ),
    "transfer": (
        "Another label",
        "Test rows, and below them the same z with each label in turn.",
    ),
    "marginals": ("Columns", "Test rows beside 2,000 samples, in the units of the data."),
    "latent": (
        "The latent map",
        "Posterior means of test rows, coloured by label where there is one.",
    ),
    "interpolations": (
        "Interpolations",
        "Straight lines between the codes of two test rows, decoded.",
    ),
    "traversals": (
        "Traversals",
        "One unit in each row, from 2.5 standard deviations below its mean to as much "
        "above: the active units, or the 32 with the largest KL, in this order.",
    ),
    "kl": (
        "KL of each unit",
        "KL(q(z|x) || p(z)), mean over the test rows. A unit near 0 is not used.",
    ),
}
STRIPS = (
    " Each strip of colour is a row, its columns from left to right; white is the "
    "middle of the values, blue below it, red above."
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


def write(run, model, data, numbers, table):
    """Draws the figures and writes report.html.

    Args:
        run: `keras_vae.runs.folder.Run`.
        model: its model.
        data: its `Dataset`.
        numbers: from `evaluate`.
        table: from `compare`.

    Returns:
        `pathlib.Path` of the page.
    """
    drawn = figures.draw(run, model, data)
    strips = len(data.event_shape) != 3
    shown = []
    for name, (title, caption) in CAPTIONS.items():
        if name in drawn:
            picture = len(drawn[name]) == 1
            shown.append({
                "name": name,
                "title": title,
                "caption": caption + (STRIPS if picture and strips else ""),
                "files": [_embedded(path) for path in drawn[name]],
                "size": _size(drawn[name][0]),
                "picture": picture,
            })  # fmt: skip
    best = {}
    for key, better in (("reconstruction_error", min), ("probe_accuracy", max)):
        for latent in {row["latent"] for row in table}:
            rows = [row[key] for row in table if row["latent"] == latent and key in row]
            best[key, latent] = better(rows, default=None)
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
        figures=shown,
        table=table,
        best=best,
    )
    run.write("report.html", page)
    return run.path("report.html")


def _tile(key, title, unit, numbers):
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
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
