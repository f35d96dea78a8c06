"""`datasets.load` refuses missing files, damaged files and wrong contents.

A row is (files, name to load, options, words of the message). The command line names the
same options in its messages; see `tests/cli/test_bad_input.py`.
"""

import gc
import gzip
import io

import keras
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from keras_vae import datasets
from tests.refusals import (
    GREY,
    ROWS,
    assert_each_refused,
    assert_refused,
    damaged_npz,
    rows,
    truncate,
    write_file,
)

ARRAYS = {"x_train": ROWS, "x_test": ROWS[:4]}
TABLE = "a,b,c\n" + "".join(f"{i},{i * i},{i % 3}\n" for i in range(10))
NUMBERS = "a,b\n1,2\n3,4\n5,6\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KERAS_VAE_DATA", raising=False)


@pytest.fixture(scope="module", autouse=True)
def assert_files_closed():
    yield
    gc.collect()  # warns of open files here and not in a later test


def assert_load_refused(row):
    files, data, options, *words = row
    for name, content in files.items():
        write_file(name, content)
    assert_refused(lambda: datasets.load(data, **options), *words)


@rows(
    missing=({}, "b.npy", {}, "`data`", "b.npy", "digits"),
    missing_folder=({}, "no/b.npy", {}, "`data`", "no/b.npy"),
    unknown_name=({}, "mnits", {}, "`data`", "mnits", "mnist"),
    suffix=({"x.mat": b"x"}, "x.mat", {}, "`data`", ".npy", ".csv", "x.mat"),
    nothing=({}, "", {}, "`data`"),
)
def test_data_must_be_a_known_name_or_file(row):
    assert_load_refused(row)


@rows(
    named=({}, "digits", {"value_range": (0, 16)}, "`value_range`"),
    array=({"a.npy": ROWS}, "a.npy", {"resize": (8, 8)}, "`resize`"),
    array_label=({"a.npy": ROWS}, "a.npy", {"label": "a"}, "`label`"),
    array_drop=({"a.npy": ROWS}, "a.npy", {"drop": ["a"]}, "`drop`"),
    array_header=({"a.npy": ROWS}, "a.npy", {"header": False}, "`header`"),
    array_skip=({"a.npy": ROWS}, "a.npy", {"skip_broken": True}, "`skip_broken`"),
    images=({"i/1.png": GREY}, "i", {"label": "a"}, "`label`"),
    table=({"t.csv": TABLE}, "t.csv", {"resize": (8, 8)}, "`resize`"),
)
def test_options_of_other_data_are_refused(row):
    assert_load_refused(row)


def with_value(value):
    x = np.zeros((12, 4))
    x[6, 3] = value
    return x


def load_as(name):
    """Return a function that writes content to a file and loads it."""
    return lambda content: datasets.load(write_file(name, content))


def test_a_npy_file_must_hold_rows_of_finite_numbers():
    shown = {
        "x.npy": np.array([[1, None]] * 4),  # of Python objects
        "<U1": np.array([["a", "b"]] * 4),
        "complex64": ROWS * 1j,
        "datetime64": ROWS.astype("M8[s]"),
    }
    shapes = [(), (4,), (3, 2, 2, 2, 2, 2), (0, 4), (12, 0)]
    shown |= {str(shape): np.zeros(shape) for shape in shapes}
    assert_each_refused(load_as("x.npy"), shown, "`data`")
    # One bad value, or a single row.
    bad = [with_value(np.nan), with_value(np.inf), with_value(1e300), ROWS[:1]]
    assert_each_refused(load_as("x.npy"), bad, "`data`", received="1")


def test_values_must_lie_in_their_range():
    write_file("x.npy", ROWS)
    options = {"value_range": (0.0, 0.1)}
    assert_refused(
        lambda: datasets.load("x.npy", **options), "`value_range`", received=("0.0", "0.1")
    )
    write_file("x.npz", ARRAYS | {"x_test": ROWS[:4] + 9})
    options = {"value_range": (-5, 5)}
    assert_refused(
        lambda: datasets.load("x.npz", **options), "`value_range`", received="x_test"
    )


def test_a_damaged_npy_file_is_named():
    content = write_file("a.npy", ROWS).read_bytes()
    bad = [content[:150], content[:50], b"", b"1,2,3\n"]
    bad += [content.replace(b"), }", b"   }")]
    assert_each_refused(load_as("a.npy"), bad, "`data`", received="a.npy")


@rows(
    nothing=({}, "x_train", "no array"),
    no_train=({"x_val": ROWS, "x_test": ROWS}, "x_train", "x_val"),
    object=({"x": np.array([[1, None]] * 4)}, "numbers"),
    nan_in_test=(ARRAYS | {"x_test": with_value(np.nan)}, "x_test"),
    other_width=(ARRAYS | {"x_test": ROWS[:4, :3]}, "(4,)", "(3,)", "x_test"),
    other_dtype=(ARRAYS | {"x_test": GREY[:4, :4] | 2}, "float32", "uint8", "x_test"),
    rows_of_labels=({"x": ROWS, "y": np.arange(11)}, "(12,)", "(11,)"),
    labels_of_one_part=(ARRAYS | {"y_test": np.arange(4)}, "y_test"),
)
def test_an_npz_file_must_hold_data_and_matching_labels(row):
    arrays, *words = row
    write_file("x.npz", arrays)
    assert_refused(lambda: datasets.load("x.npz"), "`data`", *words)


def test_a_damaged_npz_file_is_named():
    cut = write_file("x.npz", ARRAYS).read_bytes()[:300]
    bad = [cut, damaged_npz(), b"", "404: Not Found"]
    assert_each_refused(load_as("x.npz"), bad, "`data`", received="x.npz")


# Images.


def png(pixels, size=None):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()[:size]


@rows(
    text=("no picture", "3.png"),
    truncated=(png(GREY, 90), "3.png"),
    empty=(b"", "3.png"),
    other_size=(GREY[:7], "8 x 8", "3.png", "7 x 8"),
    uint16=(GREY.astype("uint16") * 256, "3.png"),
)
def test_images_must_be_complete_and_of_one_size(row):
    content, *received = row
    for i in range(6):
        write_file(f"images/{i}.png", content if i == 3 else GREY)
    assert_refused(lambda: datasets.load("images"), "`data`", received=tuple(received))


@rows(
    none=({"d/x.txt": "x"}, "d", {}, "`data`", ".png", "without images"),
    no_test=({"s/train/1.png": GREY, "s/test/x.txt": ""}, "s", {}, "`data`", "s/test"),
    one=({"one/1.png": GREY}, "one", {}, "`data`", "2", "1"),
)
def test_a_folder_must_hold_training_and_test_images(row):
    assert_load_refused(row)


# Tables.


def test_a_csv_file_must_hold_columns_of_numbers():
    assert_each_refused(
        load_as("x.csv"), ["a,b\n", "a,b\n1,2\n"], "`data`", received="x.csv"
    )
    missing = ["a,b\n1,\n3,\n5,\n", "a,b\n1,2\n3,\n5,6\n"]
    assert_each_refused(load_as("x.csv"), missing, "`data`", "`drop`", received="'b'")
    texts = ["a,b\n1,x\n3,y\n5,z\n"]
    assert_each_refused(load_as("x.csv"), texts, "`data`", "`label`", received="'b'")
    infinite = ["a,b\n1,2\n3,inf\n5,6\n", "a,b\n1,2\n3,1e300\n5,1\n"]
    assert_each_refused(load_as("x.csv"), infinite, "`data`", received="'b'")


def test_a_damaged_csv_file_is_named():
    bad = ["", "a,b\n1,2\n3\n5,6,7\n", bytes(range(256)) * 4, NUMBERS.encode("utf-16")[:9]]
    assert_each_refused(load_as("x.csv"), bad, "`data`", received="x.csv")
    cut = gzip.compress(NUMBERS.encode())[:30]
    assert_each_refused(load_as("x.csv.gz"), [cut], "`data`", received="x.csv.gz")


@rows(
    label=({"t.csv": TABLE}, "t.csv", {"label": "d"}, "`label`", "a, b, c", "d"),
    label_with_missing_values=(
        {"x.csv": "a,b\n1,x\n3,\n5,y\n7,x\n2,y\n4,x\n"},
        "x.csv",
        {"label": "b"},
        "`label`",
        "b",
    ),
    only_label=({"x.csv": "a\n1\n2\n3\n"}, "x.csv", {"label": "a"}, "`data`", "column"),
    drop=({"t.csv": TABLE}, "t.csv", {"drop": ["a", "d"]}, "`drop`", "a, b, c", "d"),
    all_dropped=({"t.csv": TABLE}, "t.csv", {"drop": ["a", "b", "c"]}, "`data`", "column"),
    parquet=({"x.parquet": b"PAR1 no table PAR1"}, "x.parquet", {}, "`data`", "Parquet"),
)
def test_a_table_must_have_the_columns_of_the_options(row):
    assert_load_refused(row)


def test_a_parquet_file_must_hold_numbers():
    table = pyarrow.table({"a": [1.0, 2.0, 3.0], "b": [[1], [2], [3]]})
    pyarrow.parquet.write_table(table, "x.parquet")
    assert_refused(lambda: datasets.load("x.parquet"), "`data`", "'b'", received="list")


# Named data sets.


@rows(
    missing=("mnist", None),
    text=("mnist", "x"),
    empty=("mnist", b""),
    cut=("mnist", truncate(100)),
    other_arrays=("mnist", ARRAYS),
    other_faces=("frey_faces", ARRAYS),
    other_shape=("frey_faces", {"x": GREY}),
    other_binary=("mnist_static_binary", ARRAYS),
)
def test_a_named_data_set_needs_a_valid_file_of_that_name(row, monkeypatch):
    name, content = row
    write_file("named/other.npz", ARRAYS)
    if callable(content):
        write_file(f"named/{name}.npz", ARRAYS)
    if content is not None:
        write_file(f"named/{name}.npz", content)
    monkeypatch.setenv("KERAS_VAE_DATA", "named")
    assert_refused(lambda: datasets.load(name), "`data`", f"{name}.npz", received="named")


def test_a_failed_download_names_the_file_and_the_variable(monkeypatch):
    words = ["`data`", "KERAS_VAE_DATA"]
    assert_refused(lambda: datasets.load("frey_faces"), "frey_faces.npz", *words)

    def load_data():
        raise Exception("URL fetch failure on https://storage: no network")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", load_data)
    assert_refused(
        lambda: datasets.load("mnist"), "mnist.npz", *words, received="no network"
    )
