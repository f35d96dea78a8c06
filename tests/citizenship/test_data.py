"""Each form of the data that Keras takes, and each dtype, gives the same numbers."""

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
    trained,
)


@pytest.mark.parametrize("form", [*FORMS, "generator"])
def test_every_form_of_the_data_evaluates_alike(shared, form):
    # Keras does not know when a generator ends, and warns if it meets the end unawares.
    data = {"x": generator(), "steps": 2} if form == "generator" else FORMS[form]()
    assert evaluate(shared, **data) == evaluate(shared)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_data_trains_alike(in_order, form):
    model = compiled()
    # Keras shuffles the batches of a PyDataset unless told not to.
    fit(model, **FORMS[form](), epochs=2, shuffle=False)
    assert_same(state(model), state(in_order))


def test_a_generator_trains_alike(in_order):
    model = compiled()
    fit(model, generator(epochs=2), epochs=2, steps_per_epoch=2)
    assert_same(state(model), state(in_order))


@pytest.fixture(scope="module")
def in_graph():
    """A model after an epoch of X in the graph, not shuffled, and its history."""
    model = compiled(run_eagerly=False)
    return model, fit(model, X, shuffle=False)


def test_a_dataset_trains_in_the_graph_as_arrays_do(in_graph):
    model, (expected, _) = compiled(run_eagerly=False), in_graph
    fit(model, batches(X))
    assert_same(state(model), state(expected))


@pytest.mark.parametrize("grey", [None, "soft", "binarize"])
def test_uint8_is_the_float_over_255(grey):
    def model():
        bernoulli = kv.distributions.IndependentBernoulli
        return compiled(model=make(likelihood=bernoulli((WIDTH,), grey) if grey else None))

    of_bytes, of_floats = model(), model()
    assert evaluate(of_bytes, BYTES) == evaluate(of_floats, X)
    assert fit(of_bytes, BYTES) == fit(of_floats, X)
    assert_same(state(of_bytes), state(of_floats))
    assert_same(of_bytes.predict(BYTES, verbose=0), of_floats.predict(X, verbose=0))


def test_uint8_is_the_float_over_255_in_the_graph(in_graph):
    of_bytes, (of_floats, history) = compiled(run_eagerly=False), in_graph
    # TensorFlow turns the division into a product with 1 / 255, also rounded: each x is
    # off by up to 2 EPS of itself, and each of 24 rows adds that to a gradient near 1.
    tolerance = {"rtol": 0, "atol": 2 * ROWS * EPS}
    losses = fit(of_bytes, BYTES, shuffle=False)["loss"]
    assert_close(losses, history["loss"], **tolerance)
    assert_close(trained(of_bytes), trained(of_floats), **tolerance)


def test_bool_is_0_and_1():
    bernoulli = kv.distributions.IndependentBernoulli((WIDTH,), grey="error")
    model, bits = compiled(model=make(likelihood=bernoulli)), X > 0.5
    assert evaluate(model, bits) == evaluate(model, bits.astype(np.float32))
    assert np.isfinite(fit(model, bits)["loss"]).all()


def test_evaluate_does_not_depend_on_the_batch_size(shared):
    # The same 24 numbers, summed in another order.
    assert_close([evaluate(shared, batch_size=7)], [evaluate(shared)], rtol=ROWS * EPS)
