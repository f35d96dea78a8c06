"""Arrays in .npy and .npz files: axes, names, labels, sparse matrices, rows on the disk."""

import os
from typing import get_args

import numpy as np
import pytest
import scipy.sparse

from keras_vae import datasets
from keras_vae.datasets import array_files
from keras_vae.datasets.array_names import split_name
from keras_vae.datasets.axes import AXES, channels_last, find_axes
from keras_vae.datasets.labels import as_labels
from keras_vae.runs.options import Axes
from tests.refusals import assert_refused, rows

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 5)).astype("float32")
IMAGES = RNG.integers(0, 256, (20, 6, 6), dtype="uint8")
Y = np.arange(20) % 3


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def load_npy(x, **options):
    np.save("x.npy", x)
    return datasets.load("x.npy", **options)


def load_npz(options=None, **content):
    np.savez("a.npz", **content)
    return datasets.load("a.npz", **options or {})


def values_of(data):
    """Return all rows in the order of the file."""
    _, test = datasets.dataset.permuted(len(data.x_train) + len(data.x_test), 4)
    x = np.empty((20, *data.event_shape), data.x_train.dtype)
    x[test], x[np.setdiff1d(np.arange(20), test)] = data.x_test, data.x_train[:]
    return x


# Axes.


@pytest.mark.parametrize(
    "event, dtype, axes",
    [
        ((5,), "float32", None),
        ((28, 28), "uint8", "hw"),
        ((28, 28), "float32", "hw"),  # a picture or a spectrogram
        ((28, 20), "uint8", "hw"),
        ((128, 80), "float32", "hw"),
        ((24, 3), "float32", "tc"),
        ((96, 7), "float64", "tc"),
        ((100, 1), "float32", "tc"),
        ((128, 9), "float32", "tc"),
        ((250, 12), "int16", "tc"),
        ((1000, 4), "bool", "tc"),
        ((28, 28, 1), "float32", "hwc"),
        ((28, 28, 3), "uint8", "hwc"),
        ((28, 28, 4), "uint8", "hwc"),
        ((3, 28, 28), "uint8", "chw"),
        ((1, 28, 28), "float32", "chw"),
        ((4, 84, 84), "uint8", "chw"),
        ((4, 4, 1), "uint8", "hwc"),
        ((1, 4, 4), "uint8", "chw"),
        ((16, 16, 16, 1), "float32", "dhwc"),
        ((30, 64, 64, 1), "uint8", "dhwc"),
        ((28, 28, 28, 3), "uint8", "dhwc"),
        ((1, 16, 16, 16), "float32", "cdhw"),
    ],
)
def test_axes_are_recognised_by_the_shape(event, dtype, axes):
    found, notes = find_axes((20, *event), np.dtype(dtype), None, "x")
    assert found == axes
    # Without a note: vectors, images with a last axis of channels, square images of bytes.
    assert bool(notes) != (axes in (None, "hwc") or dtype == "uint8" and event == (28, 28))
    for note in notes:
        assert "--axes" in note and AXES[axes] in note


@pytest.mark.parametrize(
    "event, dtype, words",
    [
        ((1, 128), "float32", ("tc", "ct")),
        ((9, 128), "float32", ("tc", "ct")),
        ((100, 20), "float32", ("hw", "tc")),
        ((16, 16, 16), "float32", ("hwc", "dhw")),
        ((64, 64, 12), "uint8", ("hwc", "chw")),
        ((13, 64, 64), "uint16", ("hwc", "chw")),
        ((30, 64, 64, 3), "uint8", ("Videos", "dhwc")),
        ((3, 16, 64, 64), "uint8", ("Videos", "cdhw")),
    ],
)
def test_doubtful_axes_are_refused(event, dtype, words):
    find = lambda: find_axes((20, *event), np.dtype(dtype), None, "x")  # noqa: E731
    assert_refused(find, "`axes`", *words, received=str(event[-1]))


def test_a_long_series_without_rows_is_refused_with_the_line_that_cuts_it():
    assert_refused(lambda: load_npy(np.zeros(999)), "`data`", "sliding_window_view")


def test_channels_become_the_last_axis():
    x = RNG.normal(size=(20, 3, 4, 5, 6))
    assert set(get_args(Axes)) == set(AXES)
    for axes in AXES:
        part = x[(..., *[0] * (4 - len(axes)))]
        moved = channels_last(part, axes)
        letters = axes.replace("c", "") + "c"
        sizes = dict(
            zip(axes, part.shape[1:], strict=True), **{"c": 1} if "c" not in axes else {}
        )
        assert moved.shape == (20, *(sizes[letter] for letter in letters))
        expected = np.einsum(f"n{axes}->n{letters.rstrip('c')}" + "c" * ("c" in axes), part)
        assert np.array_equal(moved, expected.reshape(moved.shape))
    assert channels_last(X, None) is X


@rows(
    signals=((7, 3), "ct", (3, 7)),
    images=((7, 3), "hw", (7, 3, 1)),
    vectors=((7,), "t", (7, 1)),
    volumes=((4, 5, 6), "dhw", (4, 5, 6, 1)),
    channels=((4, 5, 6), "hwc", (4, 5, 6)),
)
def test_the_option_sets_the_axes(row):
    event, axes, shape = row
    x = RNG.normal(size=(20, *event))
    data = load_npy(x, axes=axes)
    assert data.event_shape == shape and data.axes == axes and not data.notes
    assert np.array_equal(values_of(data), channels_last(x, axes).astype("float32"))


@rows(
    letters=(X, "abc", "one of"),
    count=(X, "hw", "letter for each axis"),
    images=(IMAGES, "hwc", "letter for each axis"),
)
def test_the_option_must_fit_the_shape(row):
    x, axes, words = row
    assert_refused(lambda: load_npy(x, axes=axes), "`axes`", words, received=axes)


@pytest.mark.parametrize("value_range", [None, (-1, 255)])
def test_rows_on_the_disk_have_the_same_axes_and_scale(value_range, monkeypatch):
    x = RNG.integers(0, 256, (20, 3, 6, 7), dtype="uint8")
    expected = load_npy(x, value_range=value_range)
    monkeypatch.setattr(array_files, "too_large", lambda size: True)
    data = load_npy(x, value_range=value_range)
    assert data.streamed and data.event_shape == (6, 7, 3)
    assert data.value_range == expected.value_range and data.notes == expected.notes
    assert np.array_equal(values_of(data), values_of(expected))
    assert data.x_train.dtype == expected.x_train.dtype


# Names.


def test_names_are_split_into_stem_and_part():
    names = {
        "x": ("x", None), "X_train": ("x", "train"), "Xtest": ("x", "test"),
        "trainX": ("x", "train"), "Xtr": ("x", "train"), "x_valid": ("x", "val"),
        "train_images": ("images", "train"), "imagesTest": ("images", "test"),
        "train": ("", "train"), "arr_0": ("arr_0", None), "train_val": ("train_val", None),
        "latents_values": ("latents_values", None), "constraint": ("constraint", None),
    }  # fmt: skip
    assert {name: split_name(name) for name in names} == names


TEST = IMAGES[:5]


@rows(
    only_array=({"whatever": IMAGES}, None, 0),
    only_matrix=({"spikes": X, "mouse": Y}, None, 0),
    positional=({"arr_0": IMAGES, "arr_1": Y}, None, 0),
    imgs=({"imgs": IMAGES, "latents": X, "labels": Y}, None, 20),
    exact_name=({"x": IMAGES, "features": X, "y": Y, "target": Y}, None, 20),
    split=({"X_train": IMAGES, "X_test": TEST, "y_train": Y, "y_test": Y[:5]}, 5, 20),
    upper=({"TRAIN_X": IMAGES, "TEST_X": TEST}, 5, 0),
    class_names=({"x": IMAGES, "target": Y, "label": np.array(["a", "b", "c"])}, None, 20),
    no_prefix=({"train": IMAGES, "test": TEST}, 5, 0),
    medmnist=(
        {"train_images": IMAGES, "train_labels": Y[:, None], "val_images": TEST,
         "val_labels": Y[:5, None], "test_images": TEST, "test_labels": Y[:5, None]},
        5, 20,
    ),
    train_alone=({"x_train": IMAGES, "y_train": Y}, None, 20),
    no_test=({"x_train": IMAGES, "x_val": TEST}, None, 0),
    whole_and_test=({"X": IMAGES, "X_test": TEST}, 5, 0),
)  # fmt: skip
def test_usual_names_are_known(row):
    content, test_rows, labels = row
    data = load_npz(**content)
    count = 16 if test_rows is None else 20
    assert len(data.x_train) == count and len(data.x_test) == (test_rows or 4)
    assert (0 if data.y_train is None else len(data.y_train)) == labels * count // 20
    x = values_of(data) if test_rows is None else data.x_train
    source = next(iter(content.values()))
    assert np.array_equal(x.reshape(source.shape), source)
    has_val = any("val" in name for name in content)
    assert (data.x_val is not None) == has_val
    assert (data.y_val is not None) == (has_val and bool(labels))


def test_options_name_the_arrays_and_notes_list_those_that_are_not_used():
    content = {"a": IMAGES, "b_train": X, "b_test": X[:4], "kind": Y, "meta": np.array({})}
    data = load_npz({"array": "a", "label": "kind"}, **content)
    assert data.event_shape == (6, 6, 1) and len(data.y_train) == 16
    assert data.notes == (
        "The data are a, the labels kind; b_train, b_test and meta not used "
        "(--array and --label name others).",
    )
    data = load_npz({"array": "b"}, **content)
    assert np.array_equal(data.x_train, X) and len(data.x_test) == 4


@rows(
    several=({"images": IMAGES, "features": X}, {}, "`array`", "images", "(20, 5)"),
    unknown=({"u": X, "v": X}, {}, "`array`", "u (20, 5)"),
    one_array_a_row=({f"arr_{i}": X for i in range(99)}, {}, "`array`", "80 more"),
    wrong_array=({"x": X}, {"array": "z"}, "`array`", "array=z"),
    wrong_label=({"x": X}, {"label": "z"}, "`label`", "label=z"),
    several_labels=({"x": X, "label": Y, "target": Y}, {}, "`label`", "target"),
    bad_label=({"x": X, "y": X}, {"label": "y"}, "`label`", "(20, 5)"),
    objects=({"x": np.array([[1], [1, 2]], object)}, {}, "`data`", "x.tolist()"),
    structured=({"x": np.zeros(9, [("a", "f4")])}, {}, "`data`", "to_csv"),
    complex=({"x": X * 1j}, {}, "`data`", "x.real"),
)
def test_arrays_that_cannot_be_chosen_are_refused(row):
    content, options, *words = row
    assert_refused(lambda: load_npz(options, **content), *words)


def test_nan_is_counted_and_its_first_place_named():
    x = X.copy()
    x[7, 3] = x[9, 0] = np.nan
    assert_refused(lambda: load_npz(imgs=x), "2 values", "imgs", "row 7 at [3]")


# Sparse matrices.


def test_sparse_matrices_are_read_as_dense_arrays():
    matrix = (
        scipy.sparse.random_array((20, 30), density=0.1, rng=0).astype("float32").tocsr()
    )
    for kind in ("csr", "csc", "coo"):
        scipy.sparse.save_npz("a.npz", matrix.asformat(kind))
        assert np.array_equal(values_of(datasets.load("a.npz")), matrix.toarray())
    content = {}
    for part, rows_of in (("train", matrix), ("test", matrix[:5])):
        content[f"counts_{part}"] = rows_of.data
        content[f"indices_{part}"], content[f"indptr_{part}"] = (
            rows_of.indices,
            rows_of.indptr,
        )
    data = load_npz(**content, label_train=Y, label_test=Y[:5])
    columns = matrix.indices.max() + 1
    assert np.array_equal(data.x_train, matrix.toarray()[:, :columns])
    assert np.array_equal(data.x_test, data.x_train[:5]) and len(data.y_test) == 5


# Labels.


@rows(
    column=(Y[:, None], Y),
    floats=(Y.astype("float32"), Y),
    measured=(Y + 0.5, Y + 0.5),
    bools=(Y > 1, Y > 1),
    one_hot=(np.eye(3)[Y], Y),
    one_hot_bool=(np.eye(3, dtype=bool)[Y], Y),
    text=(np.array(["a", "bb", "ü"])[Y], np.array(["a", "bb", "ü"])[Y]),
    utf8=(np.array([b"a", "ü".encode()])[Y % 2], np.array(["a", "ü"])[Y % 2]),
    objects=(np.array(["a", "bb", "ü"], object)[Y], np.array(["a", "bb", "ü"])[Y]),
    objects_of_numpy=(np.array([np.int64(4), 5, np.float32(6)], object)[Y], Y + 4),
    objects_of_numpy_text=(
        np.array([*map(np.str_, "abc")], object)[Y, None],
        np.array([*"abc"])[Y],
    ),
)
def test_labels_are_one_class_for_each_row(row):
    raw, expected = row
    data = load_npz(x=np.arange(20)[:, None] * np.ones(3), y=raw)
    assert data.y_train.dtype.kind == expected.dtype.kind
    assert np.array_equal(data.y_train, expected[data.x_train[:, 0].astype(int)])


@rows(
    several=((RNG.random((20, 4)) < 0.9).astype(int), "(20, 4)"),
    masks=(IMAGES, "(20, 6, 6)"),
    dates=(Y.astype("M8[s]"), "datetime64"),
    missing=(np.array(["a", np.nan, None], object)[Y], "NoneType, float, str"),
    objects=(np.array([{}, np.dtype("f4"), os.system], object)[Y], "objects"),
)
def test_other_labels_are_left_out_with_a_note(row):
    raw, word = row
    data = load_npz(x=X, y=raw)
    assert data.y_train is None and word in data.notes[0]


class Malicious:
    """An object that creates a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("created",)


def test_a_pickle_in_a_file_runs_no_code():
    for labels in ([Malicious()] * 20, ["a"] * 19 + [Malicious()]):
        data = load_npz(
            x=X, y=np.array(labels, object), extra=np.array(Malicious(), object)
        )
        assert data.y_train is None and "mkdir" in data.notes[-1]
    assert not os.path.exists("created")
    with np.load("a.npz", allow_pickle=True) as file:
        assert file["extra"] is not None  # the check can fail
    assert os.path.exists("created")


def test_the_reason_why_labels_are_no_classes_is_named():
    reasons = {"float64": Y + 0.5, "1 different": Y * 0, "no labels": None}
    reasons["200 different"] = np.arange(250)
    for words, y in reasons.items():
        x = np.zeros((20 if y is None else len(y), 3))
        data = load_npz(x=x, **{} if y is None else {"y": y})
        assert words in data.class_problem and not data.has_classes
    assert load_npz(x=X, y=Y).has_classes
    assert as_labels(np.array([2**70, 1], object))[0] is None


@pytest.mark.parametrize("name", ["a.mat", "b.h5", "c.pt", "d.pkl", "e.nii.gz", "f.wav"])
def test_a_file_of_another_kind_is_refused_with_the_line_that_converts_it(name):
    with open(name, "wb"):
        pass
    assert_refused(lambda: datasets.load(name), "`data`", 'np.save("x.npy"', received=name)
