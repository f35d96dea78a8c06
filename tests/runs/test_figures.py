"""Figures of a report: names of any script, and all kinds and sizes of data."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_vae as kv
from keras_vae.datasets import Dataset, Scaler
from keras_vae.runs.report import charts, figures
from keras_vae.runs.report.pictures import Pictures, PictureView
from keras_vae.runs.report.signals import SignalView
from keras_vae.runs.report.tables import TableView

NAMES = ["猫 狗", "حمض الماليك", "é 😀 한국어", "$x_1$ <b>"]


class Model:
    """A model that converts its input and draws normal samples."""

    likelihood = kv.distributions.IndependentNormal((3,))

    def __init__(self, event_shape):
        self.event_shape = event_shape

    def as_float(self, x):
        return tf.constant(x, tf.float32)

    def sample(self, count, mean):
        return np.random.default_rng(0).normal(size=(count, *self.event_shape))


@pytest.fixture
def view(tmp_path):
    def make(kind, x, **fields):
        model = Model(x.shape[1:])
        return kind(model, Dataset("x", x, x, **fields), tmp_path), model

    return make


def assert_drawn(figure):
    for panel in figure.panels:
        for path in panel.files:
            assert np.asarray(Image.open(path).convert("L")).std() > 0, path


def scaler(columns):
    return Scaler(tuple(columns), np.full(len(columns), 10.0), np.ones(len(columns)))


def test_columns_have_their_names_and_the_share_of_explained_variance(view):
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    table, _ = view(TableView, x, scaler=scaler(NAMES))
    means = x.copy()
    means[:, 1] = x[:, 1].mean()
    means[:, 2] = 2 * x[:, 2].mean() - x[:, 2]
    figure = table.reconstructions(x, means)
    assert [panel.title for panel in figure.panels] == NAMES
    notes = [panel.note for panel in figure.panels]
    assert notes[0] == notes[3] == "R² 1.00"
    assert abs(float(notes[1][3:])) < 0.005
    assert notes[2] == "R² -3.00"  # the error has twice the size of the deviation
    assert_drawn(figure)


def test_traversals_have_the_ends_of_the_columns_that_change_most(view):
    x = np.zeros((5, 4), "float32")
    table, _ = view(TableView, x, scaler=scaler(NAMES))
    steps = np.linspace(-1, 1, 21)[:, None] * np.array([0.1, 3, 0, 2])
    (panel,) = table.traversals(["unit 0"], steps[None]).panels
    names = [text for _, text in panel.legend]
    assert names[0] == f"7 to 13, {NAMES[1]}" and names[1] == f"8 to 12, {NAMES[3]}"


def test_of_many_columns_some_are_shown(view):
    x = np.random.default_rng(0).normal(size=(9, 1555)).astype("float32")
    table, model = view(TableView, x)
    figure = table.samples(model.sample)
    assert len(figure.panels) == 18 and "18 of 1,555 columns" in figure.caption


def test_signals_are_lines_of_at_most_six_channels(view):
    x = np.random.default_rng(0).normal(size=(2, 40, 9)).astype("float32")
    signals, _ = view(SignalView, x)
    figure = signals.reconstructions(x, 0.5 * x)
    assert len(figure.panels) == 2 and "first 6 of 9 channels" in figure.caption
    assert [text for _, text in figure.legend] == ["test row", "reconstruction"]
    assert_drawn(figure)


def test_a_volume_is_shown_by_its_middle_slice(tmp_path):
    x = np.random.default_rng(0).random((4, 7, 5, 6, 1)).astype("float32")
    volumes, slices = Pictures((7, 5, 6, 1), (0, 1)), Pictures((5, 6, 1), (0, 1))
    volumes.save(tmp_path / "a.png", x, 2)
    slices.save(tmp_path / "b.png", x[:, 3], 2)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert "slice 3 of 7" in volumes.note and not slices.note


@pytest.mark.parametrize("shape", [(8, 8, 1), (20, 300, 3), (400, 10, 1), (128, 96, 4)])
@pytest.mark.parametrize("rows", [1, 100])
def test_grids_of_pictures_are_never_tall(view, shape, rows):
    x = np.random.default_rng(0).random((rows, *shape)).astype("float32")
    pictures, model = view(PictureView, x)
    x = x[: pictures.rows]
    ends = np.stack([x[:1]] * pictures.lines)
    for figure in (
        pictures.reconstructions(x, x),
        pictures.samples(model.sample),
        pictures.classes(NAMES, lambda label, count: model.sample(count, False)),
        pictures.interpolations(np.repeat(ends, pictures.steps, axis=1)),
    ):
        for panel in figure.panels:
            with Image.open(*panel.files) as image:
                assert 2.4 * image.width >= image.height and image.width > 250


def test_binary_pixels_have_draws_next_to_means(view):
    x = np.zeros((4, 5, 5, 1), "float32")
    pictures, model = view(PictureView, x)
    assert len(pictures.samples(model.sample).panels) == 1
    model.likelihood = kv.distributions.IndependentBernoulli((5, 5, 1))
    panels = pictures.samples(model.sample).panels
    assert [panel.title for panel in panels] == ["means", "draws"]


def test_classes_of_the_latent_map_are_text(tmp_path):
    means = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    figure = figures.latent_map(tmp_path, means, np.array(NAMES * 10))
    colours, names = zip(*figure.legend, strict=True)
    assert sorted(names) == sorted(NAMES) and len(set(colours)) == len(NAMES)


@pytest.mark.parametrize(
    ("means", "labels"),
    [
        (np.zeros((2, 1)), None),
        (np.ones((2, 5)), np.array(["one", "one"])),
        (np.full((3, 4), np.nan), np.array([1.5, np.nan, 2.0])),
        (np.zeros((60, 2)), np.arange(60).astype(str)),
    ],
)
def test_the_latent_map_of_small_data_is_drawn(tmp_path, means, labels):
    assert_drawn(figures.latent_map(tmp_path, means, labels))


@pytest.mark.parametrize(("rows", "value"), [(1, 0.0), (2, 1e30), (2, np.nan)])
def test_constant_and_missing_values_are_drawn(tmp_path, rows, value):
    x = np.full(rows, value)
    for function in (charts.histograms, charts.scatter):
        charts.chart(tmp_path / "x", function, x, x)
    charts.chart(tmp_path / "x", charts.kl_bars, np.full(rows, value))
    charts.chart(tmp_path / "x", charts.lines, x[None, :, None], ["#000000"])
    metrics = {name: [value] * rows for name in ("elbo", "loss", "val_elbo")}
    figures.training_curves(tmp_path, {"epoch": list(range(rows)), **metrics})
