"""Splits of data into training, validation and test rows."""

import numpy as np
import pytest
from PIL import Image

from keras_vae import datasets
from keras_vae.datasets.dataset import Dataset, permuted, with_test_rows
from keras_vae.runs import build
from keras_vae.runs.options import Options
from tests.refusals import assert_refused

RARE = np.array([*"abcdefghij", *"kkk", *"x" * 60, *"y" * 60])


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5, 0.9])
def test_each_class_keeps_a_training_row(fraction):
    x = np.arange(len(RARE))[:, None]
    data = with_test_rows("rare", x, RARE, fraction).hold_out(fraction)
    parts = [data.x_train, data.x_val, data.x_test]
    assert sorted(np.concatenate(parts)[:, 0]) == x[:, 0].tolist()  # each row once
    for part, rows in zip(("train", "val", "test"), parts, strict=True):
        assert len(rows) and (RARE[rows[:, 0]] == getattr(data, f"y_{part}")).all()
        data.class_numbers(part)
    assert {*data.y_train} == {*RARE}


@pytest.mark.parametrize(
    "y",
    [
        None,
        np.repeat([0, 1, 2], 20),  # large classes
        np.arange(60) / 7,  # numbers
        np.ones(60, int),
        np.arange(60),  # a class for each row: otherwise nothing would be held out
    ],
)
def test_other_rows_are_split_as_without_labels(y):
    order = np.random.RandomState(0).permutation(60)
    train, held_out = permuted(60, 12, y)
    assert train.tolist() == sorted(order[12:]) and held_out.tolist() == sorted(order[:12])


def test_only_rows_of_missing_classes_move():
    train, held_out = permuted(len(RARE), 40)
    kept, rest = permuted(len(RARE), 40, RARE)
    moved = {*kept} - {*train}
    missing = {*RARE} - {*RARE[train]}
    assert moved and {*rest} == {*held_out} - moved
    assert sorted(RARE[[*moved]]) == sorted(missing)


@pytest.mark.parametrize("kind", ["csv", "npz", "folder"])
def test_rare_classes_of_files_can_be_conditions(tmp_path, kind):
    path, options = tmp_path / f"rare.{kind}", {}
    x = np.arange(4 * len(RARE), dtype=np.uint8).reshape(-1, 4)
    if kind == "csv":
        lines = [f"{','.join(map(str, row))},{y}\n" for row, y in zip(x, RARE, strict=True)]
        path.write_text("".join(["a,b,c,d,kind\n", *lines]))
        options = {"label": "kind"}
    elif kind == "npz":
        np.savez(path, x=x, y=RARE)
    else:
        for i, (row, y) in enumerate(zip(x, RARE, strict=True)):
            (path / y).mkdir(parents=True, exist_ok=True)
            Image.fromarray(row.reshape(2, 2)).save(path / y / f"{i}.png")
    data = datasets.load(path, **options).hold_out(0.1)
    assert len(data.classes) == 13
    build.resolve(Options(str(path), model="conditional"), data)


@pytest.mark.parametrize("part", ["val", "test"])
def test_classes_without_training_rows_are_refused_before_training(part):
    x, y = np.zeros((4, 3), np.float32), np.array(["a", "b", "a", "b"])
    labels = {"y_train": y, "y_val": y, "y_test": y} | {f"y_{part}": np.array([*"abac"])}
    data = Dataset("labelled", x, x, x, **labels)
    build.resolve(Options("labelled"), data)  # not used
    options = Options("labelled", model="conditional")
    assert_refused(
        lambda: build.resolve(options, data), "`data`", f"y_{part}", received="['c']"
    )
    unlabelled = data._replace(**{f"y_{part}": None})
    assert_refused(
        lambda: build.resolve(options, unlabelled), "`data`", f"y_{part}", received="none"
    )
