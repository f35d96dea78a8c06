"""Each form of data that Keras accepts, and each dtype, gives the same numbers."""

import numpy as np
import pytest

import keras_vae as kv
from tests.citizenship.common import (
    BYTES,
    EPS,
    FORMS,
    ROWS,
    WIDTH,
    X,
    assert_close,
    assert_same,
    batches,
    compiled,
    evaluate,
    fit,
    generator,
    make,
    state,
    trainable_weights,
)


@pytest.mark.parametrize("form", [*FORMS, "generator"])
def test_every_form_of_data_gives_the_same_evaluation(shared, form):
    # Without `steps` Keras warns at the end of a generator.
    data = {"x": generator(), "steps": 2} if form == "generator" else FORMS[form]()
    assert evaluate(shared, **data) == evaluate(shared)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_trains_the_same(in_order, form):
    model = compiled()
    # Keras shuffles the batches of a PyDataset by default.
    fit(model, **FORMS[form](), epochs=2, shuffle=False)
    assert_same(state(model), state(in_order))


def test_a_generator_trains_the_same(in_order):
    model = compiled()
    fit(model, generator(epochs=2), epochs=2, steps_per_epoch=2)
    assert_same(state(model), state(in_order))


@pytest.fixture(scope="module")
def in_graph():
    """A model after an epoch of X in graph mode, not shuffled, and its history."""
    model = compiled(run_eagerly=False)
    return model, fit(model, X, shuffle=False)


def test_a_dataset_trains_in_graph_mode_as_an_array_does(in_graph):
    model, (expected, _) = compiled(run_eagerly=False), in_graph
    fit(model, batches(X))
    assert_same(state(model), state(expected))


@pytest.mark.parametrize("grey", [None, "soft", "binarize"])
def test_uint8_is_divided_by_255(grey):
    def model():
        bernoulli = kv.distributions.IndependentBernoulli
        return compiled(model=make(likelihood=bernoulli((WIDTH,), grey) if grey else None))

    from_bytes, from_floats = model(), model()
    assert evaluate(from_bytes, BYTES) == evaluate(from_floats, X)
    assert fit(from_bytes, BYTES) == fit(from_floats, X)
    assert_same(state(from_bytes), state(from_floats))
    assert_same(from_bytes.predict(BYTES, verbose=0), from_floats.predict(X, verbose=0))


def test_uint8_is_divided_by_255_in_graph_mode(in_graph):
    from_bytes, (from_floats, history) = compiled(run_eagerly=False), in_graph
    # TensorFlow replaces the division by a product with 1 / 255, which is rounded, too:
    # each x is off by up to 2 EPS of itself, in each of 24 rows, for a gradient near 1.
    tolerance = {"rtol": 0, "atol": 2 * ROWS * EPS}
    losses = fit(from_bytes, BYTES, shuffle=False)["loss"]
    assert_close(losses, history["loss"], **tolerance)
    assert_close(trainable_weights(from_bytes), trainable_weights(from_floats), **tolerance)


def test_bool_is_read_as_0_and_1():
    bernoulli = kv.distributions.IndependentBernoulli((WIDTH,), grey="error")
    model, bits = compiled(model=make(likelihood=bernoulli)), X > 0.5
    assert evaluate(model, bits) == evaluate(model, bits.astype(np.float32))
    assert np.isfinite(fit(model, bits)["loss"]).all()


def test_evaluate_does_not_depend_on_the_batch_size(shared):
    # The same 24 numbers, summed in another order.
    assert_close([evaluate(shared, batch_size=7)], [evaluate(shared)], rtol=ROWS * EPS)
