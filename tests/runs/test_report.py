"""The report in a browser: pictures, width, light and dark mode."""

import base64
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from keras_vae import cli
from keras_vae.runs.report import numbers

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
LONG = "a_column_with_a_rather_long_name_that_must_not_push_the_page_apart"


@pytest.fixture(scope="module", params=["images", "table"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    if request.param == "images":
        data, extra = folder / "x.npz", []
        x = rng.integers(0, 256, (80, 9, 7, 3)).astype("uint8")
        np.savez(data, x=x, y=rng.integers(0, 3, 80))
    else:
        data, extra = folder / "t.csv", ["--scale", "0.5"]
        header = ",".join(["a", "b & <c>", LONG])
        np.savetxt(
            data, rng.normal(size=(80, 3)), delimiter=",", header=header, comments=""
        )
    out = folder / "run"
    options = ["--network", "mlp", "--hidden", "8", "--latent", "3", "--epochs", "2",
               "--baselines", "2", "--num-samples", "5"]  # fmt: skip
    command = ["train", str(data), "--out", str(out), *options, *extra]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "STEPS", 100)  # of the baselines
        result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0, result.output
    return out


def test_the_report_needs_no_other_file(run):
    page = (run / "report.html").read_text()
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert len(sources) > 8 and all(s.startswith("data:image/png;base64,") for s in sources)
    drawn = {path.read_bytes() for path in (run / "figures").glob("*.png")}
    embedded = {base64.b64decode(s.partition(",")[2]) for s in sources}
    assert embedded == drawn
    for picture in drawn:
        pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))
        assert pixels.std() > 1  # the picture is not empty
    assert "http" not in page.replace("http-equiv", "")


def test_the_report_has_all_sections(run):
    page = (run / "report.html").read_text()
    table = (run / "scaler.json").exists()
    expected = {
        "curves", "reconstructions", "samples", "latent", "interpolations", "traversals",
        "kl", "baselines", "made",
    } | ({"marginals"} if table else set())  # fmt: skip
    ids = set(re.findall(r'<h2 id="(\w+)"', page))
    # Units that are not active have no traversal.
    assert ids | {"traversals"} == expected
    assert "test NLL" in page and "±" in page
    for row in ("this run", "PCA", "linear autoencoder", "deep autoencoder"):
        assert row in page
    assert "<c>" not in page  # names are escaped


def measure_page(page, width):
    """Returns the counts of images, missing images and elements beyond the width."""
    script = f"""
      addEventListener("load", () => {{
        const root = document.documentElement
        root.style.width = "{width}px"  // the window itself cannot be as narrow as a phone
        const images = [...document.images]
        const missing = images.filter(i => !i.naturalWidth).length
        const wide = [...document.querySelectorAll("body *")].filter(
          e => !e.closest(".wide > *") && e.getBoundingClientRect().right > {width} + 0.5)
        document.body.dataset.counts = [images.length, missing, wide.length].join(" ")
      }})"""
    probe = page.with_name("probe.html")
    probe.write_text(
        page.read_text().replace("</body>", f"<script>{script}</script></body>")
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=9000"]
    profile = f"--user-data-dir={page.parent / 'chromium'}"
    dom = subprocess.run(
        [CHROMIUM, *options, profile, "--dump-dom", probe.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    return re.search(r'data-counts="([^"]*)"', dom)[1].split()


@browser
@pytest.mark.parametrize("width", [360, 1000])
def test_all_pictures_load_and_nothing_is_wider_than_the_page(run, width):
    images, missing, wide = map(int, measure_page(run / "report.html", width))
    assert images >= 6
    assert (missing, wide) == (0, 0)


def test_text_is_readable_in_light_and_dark(run):
    # Contrast of all ink colours on both backgrounds, in both colour schemes.
    style = (run / "report.html").read_text()
    schemes = re.findall(r":root \{ (.*?) \}", style)
    assert len(schemes) == 2
    for scheme in schemes:
        colour = dict(re.findall(r"--(\w+): (#\w+)", scheme))
        for ink in ("ink", "soft", "mark"):
            for paper in ("paper", "card"):
                # WCAG 2.1, success criterion 1.4.3
                assert contrast(colour[ink], colour[paper]) > 4.5, (ink, paper)


def contrast(one, other):
    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * d for d in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [
            p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
        ]
        return np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05

    low, high = sorted([luminance(one), luminance(other)])
    return high / low
