"""Data frames and sparse matrices as data: converted exactly, or refused by column."""

import decimal

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse

from keras_vae.training.arrays import as_array
from keras_vae.training.tables import SparseRows
from tests.refusals import assert_refused


def table(**columns):
    return pa.table({"a": [0.5, 1.5], **columns})


@pytest.mark.parametrize(
    "column",
    [
        [1, 2],
        [True, False],
        pa.array([1, 255], pa.uint8()),  # not divided by 255: the columns are no pixels
        [decimal.Decimal("1.25"), decimal.Decimal("2")],
        np.float32([0.25, 3]),
    ],
)
def test_columns_of_numbers_are_converted(column):
    array = as_array(table(b=column), "x")
    assert array.dtype == np.float32
    expected = [float(v) for v in pa.array(column).to_pylist()]
    np.testing.assert_array_equal(array, np.stack([[0.5, 1.5], expected], 1))


def test_columns_of_one_type_keep_it():
    assert as_array(pa.table({"a": [True], "b": [False]}), "x").dtype == bool
    pixels = pa.table({"a": pa.array([255], pa.uint8())})
    assert as_array(pixels, "x").dtype == np.uint8


def test_all_bad_columns_are_named():
    bad = table(city=["x", "y"], age=[None, 3], day=pa.array([0, 1], pa.date32()))
    words = "`x`", "get_dummies", "fillna", "drop"
    received = "'city' (string)", "'day' (date32", "'age' (1)"
    text = assert_refused(lambda: as_array(bad, "x"), *words, received=received)
    assert "'a'" not in text
    missing = lambda: as_array(table(b=[None, None]), "x")  # noqa: E731
    assert "get_dummies" not in assert_refused(missing, "fillna", received="'b' (2)")


def test_nullable_columns_of_pandas():
    import pandas

    frame = pandas.DataFrame({"a": [0.5, 1.5], "b": [1, 2], "c": [True, False]})
    expected = frame.to_numpy("float32")
    for other in (frame, frame.convert_dtypes(), frame.astype(object)):
        np.testing.assert_array_equal(as_array(other, "x"), expected)
    missing = frame.astype({"b": "Int64"})
    missing.loc[0, "b"] = pandas.NA
    assert_refused(lambda: as_array(missing, "x"), "fillna", received="'b' (1)")
    classes = frame.astype({"b": "category"})
    assert_refused(lambda: as_array(classes, "x"), "get_dummies", received="'b' (category)")


def test_python_numbers_in_an_array_of_objects_are_converted():
    array = as_array(np.array([[1, 2.5], [True, decimal.Decimal("0.5")]], object), "x")
    np.testing.assert_array_equal(array, np.float32([[1, 2.5], [1, 0.5]]))


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64", "bool"])
def test_sparse_counts_keep_their_values(dtype):
    dense = (np.arange(12).reshape(4, 3) % 5).astype(dtype)
    rows = as_array(scipy.sparse.coo_array(dense), "x")
    assert isinstance(rows, SparseRows)
    assert rows.dtype == (bool if dtype == "bool" else np.float32)
    np.testing.assert_array_equal(rows[1:3], dense[1:3])
    np.testing.assert_array_equal(rows.part(np.array([3, 0]))[:], dense[[3, 0]])


@pytest.mark.parametrize("value", [7.0, -3.0, np.nan])
def test_every_value_of_a_sparse_matrix_is_checked(value):
    matrix = scipy.sparse.lil_matrix((5000, 3), dtype="float32")
    matrix[1234, 1] = value
    assert value in SparseRows(matrix, "x").sample_rows() or np.isnan(value)
    assert np.isnan(SparseRows(matrix, "x").sample_rows()).any() == np.isnan(value)
