"""The report in a browser: pictures, width, light and dark mode."""

import base64
import html
import importlib
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from keras_vae import cli, evaluation
from keras_vae.escapes import visible
from keras_vae.runs import report
from keras_vae.runs.folder import Run
from keras_vae.runs.report import numbers

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
LONG = "a_column_with_a_rather_long_name_that_must_not_push_the_page_apart"
CLASSES = ["猫 $x$", "<b>é</b>", "حمض"]
COLUMNS = ["数量 한국어", "b & <c>", LONG]


@pytest.fixture(scope="module", params=["images", "table"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    if request.param == "images":
        data, extra = folder / "x.npz", []
        x = rng.integers(0, 256, (80, 9, 7, 3)).astype("uint8")
        np.savez(data, x=x, y=np.array(CLASSES)[rng.integers(0, 3, 80)])
    else:
        data, extra = folder / "t.csv", ["--scale", "0.5"]
        header = ",".join(COLUMNS)
        np.savetxt(
            data, rng.normal(size=(80, 3)), delimiter=",", header=header, comments="",
            encoding="utf-8",
        )  # fmt: skip
    out = folder / "run"
    options = ["--network", "mlp", "--hidden", "8", "--latent", "3", "--epochs", "2",
               "--baselines", "2", "--num-samples", "5"]  # fmt: skip
    command = ["train", str(data), "--out", str(out), *options, *extra]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "STEPS", 100)  # of the baselines
        result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0, result.output
    assert "missing from" not in result.output  # glyphs of a font
    return out


def test_the_report_needs_no_other_file(run):
    page = (run / "report.html").read_text("utf-8")
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert len(sources) > 10 and all(
        s.startswith("data:image/png;base64,") for s in sources
    )
    drawn = {path.read_bytes() for path in (run / "figures").glob("*.png")}
    embedded = {base64.b64decode(s.partition(",")[2]) for s in sources}
    assert embedded == drawn
    for picture in drawn:
        pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))
        assert pixels.std() > 1  # the picture is not empty
    assert "http" not in page.replace("http-equiv", "")


def test_the_report_has_all_sections(run):
    page = (run / "report.html").read_text("utf-8")
    table = (run / "scaler.json").exists()
    expected = {
        "curves", "reconstructions", "latent", "traversals", "kl", "baselines", "made",
    } | ({"marginals"} if table else {"samples", "interpolations"})  # fmt: skip
    ids = set(re.findall(r'<h2 id="(\w+)"', page))
    # Units that are not active have no traversal.
    assert ids | {"traversals"} == expected
    assert "test NLL" in page and "±" in page
    for row in ("this run", "mean of the training rows", "PCA", "deep autoencoder"):
        assert row in page
    for name in COLUMNS if table else CLASSES:
        assert f"<bdi>{html.escape(name)}</bdi>" in page


def test_the_report_is_written_before_the_baselines_are_trained(run, capsys):
    opened = Run.open(run)
    page = run / "report.html"
    complete = page.read_bytes()
    page.unlink()

    def compare(*_, **__):
        assert 'id="baselines"' not in page.read_text("utf-8")
        return [{"model": "this run", "latent": 3, "reconstruction_error": 1.0}], ["PCA 2"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw", lambda *_: [])
        patch.setattr(report, "compare", compare)
        cli.train.write_report(opened, opened.data(), 5, 80, [2])
    assert "PCA 2" in page.read_text("utf-8")
    page.write_bytes(complete)
    assert "PCA 2" in capsys.readouterr().out


def test_text_from_outside_has_no_control_characters(run):
    opened, page = Run.open(run), run / "report.html"
    complete, data = page.read_bytes(), opened.data()
    name = "a\x1b[31m\x9b\u202e\u2028\udc80"
    data = data._replace(name=name, notes=[name])
    opened.info["command"] = name
    opened.info["versions"][name] = name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw", lambda *_: [])
        cli.train.write_report(opened, data, 5, 80, [])
    text = page.read_text("utf-8")
    page.write_bytes(complete)
    assert visible(text, keep="\n") == text
    # The title, the heading, the command, the note, and a version with its name.
    assert text.count(r"a\x1b[31m\x9b\u202e\u2028\udc80") >= 6


def test_baselines_that_would_take_too_long_are_left_out(run):
    opened = Run.open(run)
    model, data = opened.model(), opened.data()
    cached = opened.path("baselines.json").read_bytes()
    shown = []

    def compare(latents, limit):
        scores = {"reconstruction_error": 1.0}
        show = lambda text, *_: shown.append(text)  # noqa: E731
        return report.compare(opened, model, data, scores, latents, show, limit)

    table, left_out = compare([2, 3], limit=-1.0)
    assert [row["latent"] for row in table] == [3, 0, 2, 2, 2, 2]  # those of the cache
    assert left_out == [f"{name} 3" for name in numbers.BASELINES]
    # A training that does not end in time is not in the table.
    with pytest.MonkeyPatch.context() as patch:
        clock = iter([0.0, 0.0, *[9.0] * 99])
        patch.setattr(numbers.time, "monotonic", lambda: next(clock))
        table, left_out = compare([3], limit=1.0)
    assert len(table) == 2 and len(left_out) == 4
    assert opened.path("baselines.json").read_bytes() == cached
    assert compare([], limit=1.0) == ([], [])


def test_the_mean_row_has_the_variance_as_its_error(run):
    data = Run.open(run).data()
    x = data.x_test / 255 if data.x_test.dtype == np.uint8 else data.x_test
    error = ((x - data.mean(0).reshape(data.event_shape)) ** 2).sum() / len(x)
    row = numbers.MeanRow(data)
    assert evaluation.reconstruction_error(row, data.x_test) == pytest.approx(error)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_that_a_terminal_cannot_encode_are_escaped(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", stream)
    monkeypatch.setattr("sys.argv", ["keras-vae", "猫"])
    with pytest.raises(SystemExit):
        importlib.import_module("keras_vae.cli.app").main()
    stream.flush()
    assert rb"\u732b" in stream.buffer.getvalue()


def measure_page(page, width):
    """Returns counts of images, missing images and too wide elements, and the height."""
    script = f"""
      addEventListener("load", () => {{
        const root = document.documentElement
        root.style.width = "{width}px"  // the window itself cannot be as narrow as a phone
        const images = [...document.images]
        const missing = images.filter(i => !i.naturalWidth).length
        const wide = [...document.querySelectorAll("body *")].filter(
          e => !e.closest(".wide-table > *, .legend li > *")  // scrolled, cut
            && e.getBoundingClientRect().right > {width} + 0.5)
        const counts = [images.length, missing, wide.length, root.offsetHeight]
        document.body.dataset.counts = counts.join(" ")
      }})"""
    probe = page.with_name("probe.html")
    probe.write_text(
        page.read_text("utf-8").replace("</body>", f"<script>{script}</script></body>"),
        "utf-8",
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
@pytest.mark.parametrize("width", [390, 1280])
def test_all_pictures_load_and_fit_the_page(run, width):
    images, missing, wide, height = map(int, measure_page(run / "report.html", width))
    assert images >= 6
    assert (missing, wide) == (0, 0)
    assert height <= 4000 or width < 1280


def test_text_is_readable_in_light_and_dark(run):
    # Contrast of all ink colours on both backgrounds, in both colour schemes.
    style = (run / "report.html").read_text("utf-8")
    schemes = re.findall(r":root \{ (.*?) \}", style)
    assert len(schemes) == 2
    for scheme in schemes:
        colour = dict(re.findall(r"--(\w+): (#\w+)", scheme))
        for ink in ("ink", "soft", "mark", "warn"):
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
