"""Data loaded by name and from files; bad files are in `test_bad_files.py`."""

import json
import os

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

from keras_vae import datasets

DATA = os.environ.get("KERAS_VAE_DATA")
RNG = np.random.default_rng(0)


def test_digits_have_values_from_0_to_16():
    digits = datasets.load("digits")
    assert digits.x_train.shape == (1438, 8, 8, 1) and digits.x_test.shape == (359, 8, 8, 1)
    assert digits.x_train.dtype == np.float32
    assert digits.value_range == (0, 16)
    assert (digits.x_train.min(), digits.x_train.max()) == (0, 1)
    # The original integers, as multiples of 1/16.
    assert np.array_equal(digits.x_train * 16, np.round(digits.x_train * 16))
    assert set(digits.y_test) == set(range(10))


def test_rows_and_labels_stay_together(tmp_path):
    x = np.arange(50, dtype=np.float32)[:, None].repeat(3, axis=1)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(50))
    data = datasets.load(tmp_path / "a.npz").hold_out(0.1)
    assert np.array_equal(data.x_train[:, 0], data.y_train)
    assert np.array_equal(data.x_test[:, 0], data.y_test)
    parts = [data.x_train, data.x_val, data.x_test]
    assert [len(part) for part in parts] == [36, 4, 10]
    assert sorted(np.concatenate(parts)[:, 0]) == list(range(50))


def test_a_split_is_reproducible(tmp_path):
    np.save(tmp_path / "a.npy", RNG.normal(size=(40, 3)))
    one, two = (datasets.load(tmp_path / "a.npy").hold_out(0.2) for _ in range(2))
    assert one.fingerprint() == two.fingerprint()
    np.save(tmp_path / "a.npy", RNG.normal(size=(40, 3)))
    assert (
        datasets.load(tmp_path / "a.npy").hold_out(0.2).fingerprint() != one.fingerprint()
    )


@pytest.mark.parametrize(
    "x, value_range, shape, dtype, scaled",
    [
        (np.full((9, 4, 5), 200, "uint8"), None, (4, 5, 1), "uint8", 200),
        (np.full((9, 4, 5, 3), 200, "uint8"), None, (4, 5, 3), "uint8", 200),
        (np.full((9, 4, 5), 1, "uint8"), None, (4, 5, 1), "bool", True),
        (np.full((9, 4, 5), True), None, (4, 5, 1), "bool", True),
        (np.full((9, 4), 7.0), None, (4,), "float32", 7),
        (np.full((9, 4), 7), None, (4,), "float32", 7),
        (np.full((9, 5, 5), 12.0), (0, 16), (5, 5, 1), "float32", 0.75),
        (np.full((9, 4, 5), 12, "uint8"), (0, 16), (4, 5, 1), "float32", 0.75),
        (np.full((9, 4, 5), 12, "uint8"), (0, 255), (4, 5, 1), "uint8", 12),
    ],
)
def test_an_npy_file_gets_shape_dtype_and_scale(
    tmp_path, x, value_range, shape, dtype, scaled
):
    np.save(tmp_path / "x.npy", x)
    data = datasets.load(tmp_path / "x.npy", value_range=value_range)
    assert data.event_shape == shape
    assert data.x_train.dtype == data.x_test.dtype == dtype
    assert (data.x_train == scaled).all()


def test_an_npz_file_keeps_its_own_split(tmp_path):
    x = RNG.integers(0, 256, (10, 6, 7)).astype("uint8")
    np.savez(
        tmp_path / "a.npz", x_train=x[:6], x_test=x[6:], y_train=np.arange(6)[:, None],
        y_test=np.arange(4),
    )  # fmt: skip
    data = datasets.load(tmp_path / "a.npz")
    assert np.array_equal(data.x_train[..., 0], x[:6]) and data.y_train.shape == (6,)
    assert np.array_equal(data.x_test[..., 0], x[6:]) and data.x_val is None


def save_images(folder, count, size=(5, 7), mode="RGB"):
    folder.mkdir(parents=True)
    for i in range(count):
        shape = size if mode == "L" else (*size, len(mode))
        pixels = RNG.integers(0, 256, shape).astype(np.uint8)
        Image.fromarray(pixels, mode=None).save(folder / f"{i}.png")


def test_a_folder_of_images_loads_only_its_images(tmp_path):
    save_images(tmp_path / "a", 5)
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    data = datasets.load(tmp_path / "a")
    assert data.event_shape == (5, 7, 3) and data.x_train.dtype == np.uint8
    assert data.y_train is None and len(data.x_train) == 4
    first = np.asarray(Image.open(tmp_path / "a" / "0.png"))
    both = np.concatenate([data.x_train, data.x_test])
    assert (both == first).all(axis=(1, 2, 3)).sum() == 1


def test_subfolders_are_classes_and_grey_images_become_colour(tmp_path):
    save_images(tmp_path / "a" / "cat", 4, mode="L")
    save_images(tmp_path / "a" / "dog", 4)
    data = datasets.load(tmp_path / "a")
    assert data.event_shape == (5, 7, 3)
    grey = np.concatenate([data.y_train, data.y_test]) == "cat"
    x = np.concatenate([data.x_train, data.x_test])
    assert np.array_equal((x == x[..., :1]).all(axis=(1, 2, 3)), grey) and grey.sum() == 4


def test_train_and_test_folders_are_a_split_and_images_are_resized(tmp_path):
    save_images(tmp_path / "a" / "train" / "cat", 3, mode="L")
    save_images(tmp_path / "a" / "test" / "cat", 2, size=(9, 9), mode="L")
    data = datasets.load(tmp_path / "a", resize=(4, 6))
    assert data.x_train.shape == (3, 4, 6, 1) and data.x_test.shape == (2, 4, 6, 1)
    assert list(data.y_test) == ["cat", "cat"]


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_tables_are_standardised(tmp_path, kind):
    columns = {
        "wide": RNG.normal(1000, 300, 200), "count": RNG.integers(0, 9, 200),
        "same": np.full(200, 3.5), "flag": RNG.random(200) < 0.3,
        "name": np.where(RNG.random(200) < 0.5, "a", "b"), "when": ["2020-01-01"] * 200,
    }  # fmt: skip
    table, path = pyarrow.table(columns), tmp_path / f"t.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    else:
        with pyarrow.output_stream(path) as file:  # compresses if the name ends with .gz
            pyarrow.csv.write_csv(table, file)
    data = datasets.load(path, label="name", drop=["when"])
    assert data.scaler.columns == ("wide", "count", "same", "flag")
    assert set(data.y_train) == {"a", "b"}
    x = data.x_train.astype(np.float64)
    # float32 rounding of standardised values, averaged over 160 rows.
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(axis=0), [1, 1, 0, 1], atol=1e-6)
    scaler = datasets.Scaler.from_dict(json.loads(json.dumps(data.scaler.to_dict())))
    restored = scaler.inverse(np.concatenate([data.x_train, data.x_test]))
    raw = np.stack([columns[name] for name in scaler.columns], axis=1).astype(float)
    order = [np.lexsort(rows.T.round(3)) for rows in (restored, raw)]
    np.testing.assert_allclose(restored[order[0]], raw[order[1]], rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(not DATA, reason="KERAS_VAE_DATA is not set")
@pytest.mark.parametrize(
    "name, shape, rows, dtype",
    [
        ("mnist", (28, 28, 1), (60000, 0, 10000), "uint8"),
        ("fashion_mnist", (28, 28, 1), (60000, 0, 10000), "uint8"),
        ("frey_faces", (28, 20, 1), (1765, 0, 200), "uint8"),
        ("mnist_static_binary", (28, 28, 1), (50000, 10000, 10000), "bool"),
    ],
)
def test_named_data_sets_have_their_shapes_and_sizes(name, shape, rows, dtype):
    data = datasets.load(name)
    assert data.event_shape == shape and data.x_train.dtype == dtype
    parts = (data.x_train, data.x_val, data.x_test)
    assert tuple(0 if part is None else len(part) for part in parts) == rows
    if name == "mnist_static_binary":  # the published means
        means = [data.x_train.mean(), data.x_val.mean(), data.x_test.mean()]
        np.testing.assert_allclose(means, [0.13056, 0.13113, 0.13251], atol=1e-5)


def test_a_constant_column_has_scale_1(tmp_path):
    # In floats, the standard deviation of 160 times 0.1 is 3e-17, not 0.
    rows = np.stack([np.full(160, 0.1), RNG.normal(size=160)], axis=1)
    scaler = datasets.Scaler.fit(("a", "b"), rows)
    assert scaler.scale[0] == 1 and scaler.mean[0] == 0.1
    assert (scaler.transform(rows)[:, 0] == 0).all()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"resize": 28}, r"`resize` must be \(height, width\)"),
        ({"resize": (0, 3)}, r"`resize` must be \(height, width\)"),
        ({"value_range": (1, 1)}, r"`value_range` must be \(low, high\)"),
        ({"drop": "a"}, "`drop` must be left out .* Received: drop=.'a',."),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        datasets.load("digits", **options)


def test_a_val_folder_is_the_validation_set(tmp_path):
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        save_images(tmp_path / "a" / part, count)
    data = datasets.load(tmp_path / "a").hold_out(0.5)
    assert [len(x) for x in (data.x_train, data.x_val, data.x_test)] == [4, 2, 3]
