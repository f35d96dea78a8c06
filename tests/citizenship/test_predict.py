"""`predict`, `reconstruct` and the call return the same, for each form of data."""

import numpy as np
import pytest
import tensorflow as tf

from tests.citizenship.common import BATCH, EPS, FORMS, ROWS, WIDTH, X


def test_predict_reconstruct_and_the_call_return_the_same(shared):
    expected = shared(X).numpy()
    np.testing.assert_array_equal(shared.reconstruct(X), expected)
    np.testing.assert_array_equal(shared.predict(X, batch_size=ROWS, verbose=0), expected)
    predicted = shared.predict_on_batch(X)
    assert isinstance(predicted, np.ndarray)
    np.testing.assert_array_equal(predicted, expected)
    mean = shared.decode(shared.encode(X).mean()).mean()
    np.testing.assert_array_equal(mean, expected)


@pytest.mark.parametrize("form", ["float64", "tensor", "dataset", "labelled dataset"])
def test_predict_accepts_every_form_of_data(shared, form):
    x = FORMS[form]()["x"]
    batch_size = None if isinstance(x, tf.data.Dataset) else BATCH
    predicted = shared.predict(x, batch_size=batch_size, verbose=0)
    assert predicted.shape == X.shape and predicted.dtype == np.float32
    expected = shared.predict(X, batch_size=BATCH, verbose=0)
    np.testing.assert_array_equal(predicted, expected)
    # Another number of rows may use another kernel: sums of up to 8 rounded terms.
    np.testing.assert_allclose(predicted, shared(X), rtol=0, atol=2 * WIDTH * EPS)
