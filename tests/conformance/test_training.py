"""Each row of the zoo learns, resumes from a file and evaluates to the same numbers.

Tracing a step takes a second, so the tests of a row share one model.
"""

import keras
import numpy as np
import pytest

from tests.conformance.common import BATCH, fit

# Rows with schedules: a graph could wrongly keep the value of an earlier step.
SCHEDULED = {"free_bits", "capacity", "annealed"}


@pytest.fixture(scope="module")
def shared(row):
    """(model after 60 steps, its bound before): tests may train the model further."""
    model = row.make(keras.optimizers.Adam(0.01))
    before = bound(model, row)
    # One epoch of 20 copies of the rows: each epoch builds a new pipeline.
    fit(model, row, times=20)
    return model, before


def bound(model, row):
    # Not the loss of `fit`, which depends on the schedule of beta.
    logs = evaluate(model, row, return_dict=True)
    return logs["reconstruction"] + logs.get("kl", 0.0)


def evaluate(model, row, batch_size=BATCH, **options):
    return model.evaluate(*row.data(), batch_size, verbose=0, **options)


def assert_equal_weights(a, b, atol=0.0):
    for one, other in zip(a.weights, b.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), 0, atol, err_msg=one.path)


def test_the_bound_improves(row, shared):
    model, before = shared
    assert bound(model, row) < before - 0.1


# Keras warns about every layer without `build`; the test shows that it is built.
@pytest.mark.filterwarnings("ignore:`build..` was called on layer 'unbuilt")
def test_a_saved_model_resumes_bit_for_bit(row, shared, tmp_path):
    if row.name in SCHEDULED:
        model, _ = shared
    else:  # eager, to avoid tracing a second model
        model = row.make(keras.optimizers.Adam(0.01), run_eagerly=True)
        fit(model, row)
    model.save(tmp_path / "model.keras")
    resumed = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(row.predict(resumed), row.predict(model))
    assert fit(resumed, row) == fit(model, row)
    assert_equal_weights(model, resumed)
    for one, other in zip(
        model.optimizer.variables, resumed.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


def test_a_weights_file_restores_all_weights(row, shared, tmp_path):
    model, _ = shared
    model.save_weights(tmp_path / "model.weights.h5")
    other = row.build()
    other.load_weights(tmp_path / "model.weights.h5")
    assert_equal_weights(model, other)


def test_evaluation_is_deterministic(row, shared):
    model, _ = shared
    first = evaluate(model, row)
    assert evaluate(model, row) == first
    # float32: matrix products of other shapes round differently, and a KL near 0 is a
    # difference of numbers near 1.
    other_batches = evaluate(model, row, batch_size=6)
    np.testing.assert_allclose(other_batches, first, rtol=2e-6, atol=1e-7)
