"""A VAE is a keras.Model like any other: data, callbacks, optimizers, precision, saving.

Bit for bit where the same operations run in the same order; else with a tolerance whose
reason stands beside it.
"""

import contextlib
import copy
import csv
import io
import itertools
import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util.event_pb2 import Event

import keras_vae as kv

ROWS, WIDTH, BATCH = 24, 8, 16  # an epoch is two batches; the second is smaller
TERMS = ["loss", "elbo", "reconstruction", "kl"]
EPS = float(np.finfo(np.float32).eps)

_random = np.random.default_rng(0)
# uint8, and the same as floats in [0, 1]: data for any likelihood.
BYTES = _random.integers(0, 256, (ROWS, WIDTH), np.uint8)
X = BYTES / np.float32(255)
Y = _random.integers(0, 3, ROWS)
W = _random.uniform(0.5, 2.0, ROWS).astype(np.float32)
OTHER = _random.random((BATCH, WIDTH), np.float32)

register = keras.saving.register_keras_serializable("citizenship")


# Models and data.


def dense(units=4):
    return keras.layers.Dense(units, "tanh")


def make(encoder=None, decoder=None, likelihood=None, cls=kv.VAE, seed=0, **kwargs):
    """A model; calls with equal arguments give equal weights."""
    if encoder is None:  # else the caller has made its weights already
        keras.utils.set_random_seed(1)
    return cls(
        encoder=dense() if encoder is None else encoder,
        decoder=dense() if decoder is None else decoder,
        likelihood=likelihood or kv.distributions.IndependentNormal((WIDTH,)),
        latent_dim=2,
        seed=seed,
        **kwargs,
    )


def compiled(optimizer="sgd", model=None, run_eagerly=True, **kwargs):
    """Eager by default, which takes less time than tracing a graph for a few steps."""
    model = make() if model is None else model
    model.compile(optimizer, run_eagerly=run_eagerly, **kwargs)
    return model


def fit(model, x=X, epochs=1, batch_size=BATCH, **kwargs):
    if not isinstance(x, np.ndarray | tf.Tensor):
        batch_size = None
    return model.fit(x, epochs=epochs, batch_size=batch_size, verbose=0, **kwargs).history


def evaluate(model, x=X, batch_size=BATCH, **kwargs):
    return model.evaluate(x, batch_size=batch_size, verbose=0, **kwargs)


def state(model):
    """All that training changes: weights, counters, the optimizer's slots."""
    return [np.array(v) for v in (*model.weights, *model.optimizer.variables)]


def trained(model):
    return [np.array(v) for v in model.trainable_weights]


def assert_same(actual, expected):
    """Bit for bit."""
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(actual, expected, **tolerance):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def batches(*arrays, size=BATCH):
    dataset = tf.data.Dataset.from_tensor_slices(arrays[0] if len(arrays) == 1 else arrays)
    return dataset.batch(size)


class Batches(keras.utils.PyDataset):
    """The rows of arrays, in order."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return -(-ROWS // BATCH)

    def __getitem__(self, index):
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return tuple(array[rows] for array in self.arrays)


def generator(epochs=1):
    for _, first in itertools.product(range(epochs), range(0, ROWS, BATCH)):
        yield (X[first : first + BATCH],)


class Rows(kv.VAE):
    """Keeps the rows that it is trained on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def train_step(self, data):
        x, *_ = self.unpack(data)
        values = X[:, 0].tolist()
        self.seen.append([values.index(float(value)) for value in x[:, 0]])
        return super().train_step(data)


class Gradients(kv.VAE):
    """Keeps the gradients of each step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def update(self, loss, gradients, *args):
        self.seen.append(gradients)
        return super().update(loss, gradients, *args)


class Interrupt(keras.callbacks.Callback):
    """Ends a fit after the first batch of the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 2:
            raise InterruptedError


# Forms of the data.

FORMS = {
    "float64": lambda: {"x": X.astype(np.float64)},
    "tensor": lambda: {"x": tf.constant(X)},
    "labelled": lambda: {"x": X, "y": Y},
    "weighted": lambda: {"x": X, "y": Y, "sample_weight": np.ones(ROWS)},
    "dataset": lambda: {"x": batches(X)},
    "labelled dataset": lambda: {"x": batches(X, Y)},
    "weighted dataset": lambda: {"x": batches(X, Y, np.ones(ROWS))},
    "PyDataset": lambda: {"x": Batches(X)},
    "labelled PyDataset": lambda: {"x": Batches(X, Y)},
}


@pytest.fixture(scope="module")
def shared():
    """A compiled model that no test changes."""
    return compiled()


@pytest.mark.parametrize("form", [*FORMS, "generator"])
def test_every_form_of_the_data_evaluates_alike(shared, form):
    # Keras does not know when a generator ends, and warns if it meets the end unawares.
    data = {"x": generator(), "steps": 2} if form == "generator" else FORMS[form]()
    assert evaluate(shared, **data) == evaluate(shared)


@pytest.fixture(scope="module")
def in_order():
    """A model after two epochs of X, not shuffled, that no test changes."""
    model = compiled()
    fit(model, X, epochs=2, shuffle=False)
    return model


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


def test_a_dataset_trains_in_the_graph_as_arrays_do():
    model, expected = compiled(run_eagerly=False), compiled(run_eagerly=False)
    fit(expected, X, shuffle=False)
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


def test_uint8_is_the_float_over_255_in_the_graph():
    of_bytes, of_floats = compiled(run_eagerly=False), compiled(run_eagerly=False)
    # TensorFlow turns the division into a product with 1 / 255, also rounded: each x is
    # off by up to 2 EPS of itself, and each of 24 rows adds that to a gradient near 1.
    tolerance = {"rtol": 0, "atol": 2 * ROWS * EPS}
    assert_close(fit(of_bytes, BYTES)["loss"], fit(of_floats, X)["loss"], **tolerance)
    assert_close(trained(of_bytes), trained(of_floats), **tolerance)


def test_bool_is_0_and_1():
    bernoulli = kv.distributions.IndependentBernoulli((WIDTH,), grey="error")
    model, bits = compiled(model=make(likelihood=bernoulli)), X > 0.5
    assert evaluate(model, bits) == evaluate(model, bits.astype(np.float32))
    assert np.isfinite(fit(model, bits)["loss"]).all()


def test_evaluate_does_not_depend_on_the_batch_size(shared):
    # The same 24 numbers, summed in another order.
    assert_close([evaluate(shared, batch_size=7)], [evaluate(shared)], rtol=ROWS * EPS)


# Weights of rows and classes.


def test_loss_is_a_weighted_sum_over_the_rows_and_terms_are_weighted_means(shared):
    rows = 8

    def weighted(weight):
        return np.array(evaluate(shared, X[:rows], sample_weight=weight))

    of_row = np.array([weighted(one_row) for one_row in np.eye(rows, dtype=np.float32)])
    loss, *terms = weighted(W[:rows])
    tolerance = {"rtol": rows * EPS}  # sums of 8 rounded terms
    np.testing.assert_allclose(of_row[:, 0] * rows, -of_row[:, 1], **tolerance)
    np.testing.assert_allclose(loss, W[:rows] @ of_row[:, 0], **tolerance)
    means = W[:rows] @ of_row[:, 1:] / W[:rows].sum()
    np.testing.assert_allclose(terms, means, **tolerance)


def test_rows_of_weight_0_are_left_out(shared):
    kept = 17
    weight = (np.arange(ROWS) < kept).astype(np.float32)
    loss, *terms = evaluate(shared, sample_weight=weight)
    expected, *expected_terms = evaluate(shared, X[:kept])
    # Sums of up to 24 rounded terms.
    np.testing.assert_allclose(terms, expected_terms, rtol=ROWS * EPS)
    np.testing.assert_allclose(loss * ROWS, expected * kept, rtol=ROWS * EPS)


def test_gradients_are_linear_in_the_weights():
    def gradient(weight):
        model = compiled("sgd", make(cls=Gradients))
        model.train_on_batch(X, sample_weight=weight)
        return [np.array(g) for g in model.seen[0]]

    first = (np.arange(ROWS) < 9).astype(np.float32)
    parts = zip(gradient(W * first), gradient(W * (1 - first)), strict=True)
    # Sums over 24 rows of terms that are below 10 and may cancel.
    assert_close(gradient(W), [a + b for a, b in parts], rtol=0, atol=10 * ROWS * EPS)


def test_weights_in_every_form_train_alike():
    model = [compiled() for _ in range(3)]
    fit(model[0], X, sample_weight=W, shuffle=False)
    fit(model[1], batches(X, Y, W))
    fit(model[2], Batches(X, Y, W), shuffle=False)
    assert_same(state(model[1]), state(model[0]))
    assert_same(state(model[2]), state(model[0]))


@pytest.mark.parametrize("form", ["labelled", "labelled dataset", "labelled PyDataset"])
def test_class_weight_is_the_sample_weight_of_the_class(form):
    class_weight = {0: 0.5, 1: 2.0, 2: 1.5}
    of_class, of_row = compiled(), compiled()
    weight = np.array([class_weight[label] for label in Y], np.float32)
    fit(of_class, **FORMS[form](), class_weight=class_weight, shuffle=False)
    fit(of_row, X, sample_weight=weight, shuffle=False)
    assert_same(state(of_class), state(of_row))
    of_class.train_on_batch(X, Y, class_weight=class_weight)
    of_row.train_on_batch(X, sample_weight=weight)
    assert_same(state(of_class), state(of_row))


# What fit and evaluate report.


def test_history_has_these_keys():
    history = fit(compiled(run_eagerly=False), epochs=2, validation_data=OTHER)
    keys = {*TERMS, "skipped_steps", *(f"val_{name}" for name in TERMS)}
    assert set(history) == keys
    assert all(len(values) == 2 for values in history.values())
    assert history["skipped_steps"] == [0.0, 0.0]


def test_elbo_is_minus_the_sum_of_its_terms():
    model = compiled(objective=kv.objectives.ELBO(beta=3.0))
    history = fit(model, y=Y, sample_weight=W, validation_data=(X, Y, W))
    # Means of 24 rounded terms.
    tolerance = {"rtol": ROWS * EPS}
    for prefix in ("", "val_"):
        elbo, reconstruction, kl = (np.array(history[prefix + n]) for n in TERMS[1:])
        np.testing.assert_allclose(elbo, -(reconstruction + kl), **tolerance)
    loss, elbo, reconstruction, kl = evaluate(model)
    np.testing.assert_allclose(elbo, -(reconstruction + kl), **tolerance)
    np.testing.assert_allclose(loss, reconstruction + 3 * kl, **tolerance)


def test_evaluate_returns_a_list_in_this_order_or_a_dict(shared):
    values = evaluate(shared)
    assert evaluate(shared, return_dict=True) == dict(zip(TERMS, values, strict=True))
    loss, elbo, reconstruction, kl = values
    assert loss == -elbo and reconstruction > 0 and kl > 0
    assert shared.metrics_names[: len(TERMS)] == TERMS


@pytest.mark.parametrize("form", ["array", "pair", "triple", "dataset", "PyDataset"])
def test_every_form_of_validation_data_gives_what_evaluate_gives(form):
    data = {
        "array": X,
        "pair": (X, Y),
        "triple": (X, Y, W),
        "dataset": batches(X),
        "PyDataset": Batches(X),
    }[form]
    # With a schedule, for validation counts the step of the model, not of evaluation.
    beta = kv.schedules.Linear(0.0, 1.0, steps=10)
    model = compiled(objective=kv.objectives.ELBO(beta))
    history = fit(model, OTHER, validation_data=data)
    expected = evaluate(model, sample_weight=W if form == "triple" else None)
    assert [history[f"val_{name}"][-1] for name in TERMS] == expected


def test_validation_split_takes_the_last_rows_unshuffled():
    split, expected = compiled(), compiled()
    history = fit(split, X, y=Y, sample_weight=W, validation_split=0.25)
    at = ROWS * 3 // 4
    validation = (X[at:], Y[at:], W[at:])
    kwargs = {"y": Y[:at], "sample_weight": W[:at], "validation_data": validation}
    assert fit(expected, X[:at], **kwargs) == history
    assert_same(state(split), state(expected))


class CountTestBatches(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.count = 0

    def on_test_batch_end(self, batch, logs=None):
        self.count += 1


@pytest.mark.parametrize(
    "kwargs, expected",
    [
        ({}, 2),
        ({"validation_batch_size": 8}, 3),
        ({"validation_batch_size": 8, "validation_steps": 2}, 2),
        ({"validation_data": batches(X, size=8), "validation_steps": 2}, 2),
    ],
)
def test_validation_batches(kwargs, expected):
    counter = CountTestBatches()
    kwargs = {"validation_data": X, **kwargs}
    fit(compiled(), X[:BATCH], callbacks=counter, **kwargs)
    assert counter.count == expected


@pytest.mark.parametrize("freq", [2, [2, 4]])
def test_validation_freq(freq):
    model = compiled()
    history = fit(model, X[:4], epochs=4, validation_data=X[:4], validation_freq=freq)
    assert len(history["loss"]) == 4 and len(history["val_loss"]) == 2


def test_validation_changes_nothing_in_training():
    with_validation, without = compiled(), compiled()
    history = fit(with_validation, epochs=2, validation_data=X)
    expected = fit(without, epochs=2)
    assert {name: history[name] for name in expected} == expected
    assert_same(state(with_validation), state(without))


# Steps and epochs.


def test_initial_epoch_is_where_counting_begins():
    model = compiled()
    history = model.fit(X, initial_epoch=3, epochs=5, verbose=0, batch_size=BATCH)
    assert history.epoch == [3, 4]
    assert int(model.step) == 4 and int(model.epochs_begun) == 2


def test_epochs_of_steps_go_on_through_the_data():
    model = compiled(model=make(cls=Rows))  # 24 rows: a pass is 3 batches
    fit(model, epochs=3, batch_size=8, steps_per_epoch=2)
    assert [len(rows) for rows in model.seen] == [8] * 6
    first, second = sum(model.seen[:3], []), sum(model.seen[3:], [])
    assert sorted(first) == sorted(second) == sorted(set(first))
    assert first != second
    # The epochs of other steps are other parts of the same order, as if never cut.
    whole = compiled(model=make(cls=Rows))
    fit(whole, epochs=2, batch_size=8)
    assert whole.seen == model.seen


def test_steps_without_a_batch_size_split_the_rows_as_keras_does():
    model = compiled(model=make(cls=Rows))
    model.fit(X, steps_per_epoch=3, verbose=0)
    assert [len(rows) for rows in model.seen] == [8, 8, 8]


def test_more_steps_than_batches_go_on_with_the_next_pass():
    model = compiled(model=make(cls=Rows))
    fit(model, epochs=1, batch_size=8, steps_per_epoch=5)
    assert len(model.seen) == 5 and int(model.epochs_begun) == 1
    with pytest.warns(UserWarning, match="ran out of data"):  # as Keras does
        evaluate(model, X, steps=5)


def test_steps_of_a_repeated_dataset(in_order):
    model = compiled()
    fit(model, batches(X).repeat(), epochs=2, steps_per_epoch=2)
    assert_same(state(model), state(in_order))
    assert evaluate(model, batches(X).repeat(), steps=2) == evaluate(in_order)


@pytest.fixture(scope="module")
def graph():
    """A model after two epochs of three batches in the graph, and its history."""
    model = compiled("adam", run_eagerly=False)
    return model, fit(model, epochs=2, batch_size=10)


@pytest.mark.parametrize("steps", [2, 3, 100])  # of three batches in an epoch
def test_steps_per_execution_changes_no_number(graph, steps):
    expected, history = graph
    model = compiled("adam", steps_per_execution=steps, run_eagerly=False)
    assert fit(model, epochs=2, batch_size=10) == history
    assert_same(state(model), state(expected))
    assert evaluate(model, batch_size=10) == evaluate(expected, batch_size=10)
    predicted = model.predict(X, batch_size=10, verbose=0)
    assert_same(predicted, expected.predict(X, batch_size=10, verbose=0))


def test_two_fits_are_one(graph):
    model, (expected, history) = compiled("adam", run_eagerly=False), graph
    first, second = (fit(model, batch_size=10) for _ in range(2))
    assert {name: first[name] + second[name] for name in history} == history
    assert_same(state(model), state(expected))


@pytest.mark.parametrize(
    "how",
    [{"run_eagerly": False}, {"run_eagerly": False, "jit_compile": True}],
    ids=["graph", "jit_compile"],
)
def test_compiled_or_not_trains_alike(how):
    # SGD, as Adam makes steps of full size of gradients that are rounding errors alone.
    model, expected = compiled("sgd", **how), compiled("sgd")
    weights, size = trained(model), ROWS // 2  # one size, as XLA compiles each anew
    fit(model, epochs=2, batch_size=size)
    fit(expected, epochs=2, batch_size=size)
    moved = max(np.abs(a - b).max() for a, b in zip(trained(model), weights, strict=True))
    # XLA and Grappler fuse and reorder sums, of at most 8 * 24 rounded terms of about 1,
    # at a rate of 0.01, in four steps.
    tolerance = {"rtol": 0, "atol": 4 * 0.01 * 8 * ROWS * EPS}
    assert moved > 1000 * tolerance["atol"]
    assert_close(trained(model), trained(expected), **tolerance)
    values = [evaluate(each, batch_size=size) for each in (model, expected)]
    np.testing.assert_allclose(*values, rtol=8 * ROWS * EPS)


def test_train_on_batch_is_a_fit_on_one_batch():
    model, expected = compiled(), compiled()
    logs = model.train_on_batch(X, return_dict=True)
    history = fit(expected, batch_size=ROWS, shuffle=False)
    names = [*TERMS, "skipped_steps"]
    assert logs == {name: history[name][0] for name in names}
    assert_same(state(model)[2:], state(expected)[2:])  # epochs are fit's
    values = model.train_on_batch(X, Y, W)
    history = fit(expected, y=Y, sample_weight=W, batch_size=ROWS, shuffle=False)
    assert values == [history[name][0] for name in names]
    assert_same(state(model)[2:], state(expected)[2:])


@pytest.mark.parametrize("first", ["evaluate", "test_on_batch"])
def test_test_on_batch_is_evaluate_on_one_batch_in_either_order(first):
    model = compiled(run_eagerly=False)
    calls = {
        "evaluate": lambda: evaluate(model, batch_size=ROWS),
        "test_on_batch": lambda: model.test_on_batch(X),
    }
    values = [calls[name]() for name in sorted(calls, key=lambda name: name != first)]
    assert values[0] == values[1] and len(values[0]) == len(TERMS)


def test_predict_on_batch_is_predict_on_one_batch(shared):
    predicted = shared.predict_on_batch(X)
    assert isinstance(predicted, np.ndarray)
    np.testing.assert_array_equal(predicted, shared.predict(X, batch_size=ROWS, verbose=0))


# predict.


def test_predict_is_reconstruct_is_the_call(shared):
    expected = shared(X).numpy()
    np.testing.assert_array_equal(shared.reconstruct(X), expected)
    np.testing.assert_array_equal(shared.predict(X, batch_size=ROWS, verbose=0), expected)
    mean = shared.decode(shared.encode(X).mean()).mean()
    np.testing.assert_array_equal(mean, expected)


@pytest.mark.parametrize("form", ["float64", "tensor", "dataset", "labelled dataset"])
def test_predict_takes_every_form(shared, form):
    x = FORMS[form]()["x"]
    batch_size = None if isinstance(x, tf.data.Dataset) else BATCH
    predicted = shared.predict(x, batch_size=batch_size, verbose=0)
    assert predicted.shape == X.shape and predicted.dtype == np.float32
    expected = shared.predict(X, batch_size=BATCH, verbose=0)
    np.testing.assert_array_equal(predicted, expected)
    # Another number of rows may take another kernel: sums of up to 8 rounded terms.
    np.testing.assert_allclose(predicted, shared(X), rtol=0, atol=2 * WIDTH * EPS)


# The order of the rows.


def orders(model, epochs, **kwargs):
    """The order of the rows in each of the next epochs."""
    model.seen.clear()
    fit(model, epochs=epochs, **kwargs)
    flat = sum(model.seen, [])
    return [flat[i : i + ROWS] for i in range(0, len(flat), ROWS)]


def test_an_epoch_has_each_row_once_in_an_order_of_seed_and_epoch():
    def rows(seed):
        return compiled(model=make(cls=Rows, seed=seed))

    model = rows(5)
    seen = orders(model, epochs=3)
    assert [sorted(order) for order in seen] == [list(range(ROWS))] * 3
    seen.append(list(range(ROWS)))
    assert len(set(map(tuple, seen))) == 4  # all differ, and are not that of the array
    assert orders(rows(5), epochs=3, validation_data=X[:4]) == seen[:3]
    assert orders(rows(6), epochs=1)[0] not in seen
    # A second fit goes on rather than starting over.
    again = orders(model, epochs=1)
    assert again[0] not in seen
    assert orders(rows(5), epochs=4)[3:] == again


def test_shuffle_false_keeps_the_order():
    model = compiled(model=make(cls=Rows))
    assert orders(model, epochs=2, shuffle=False) == [list(range(ROWS))] * 2


# Mixed precision.


@contextlib.contextmanager
def policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float64"])
def test_other_precisions_train(name):
    expected = compiled(keras.optimizers.Adam(0.05))
    with policy(name):
        model = compiled(keras.optimizers.Adam(0.05))
    model.set_weights(expected.get_weights())
    features = model.encoder(X)
    assert features.dtype == model.compute_dtype
    for head in (model.posterior, model.likelihood):
        assert {w.dtype for w in head.weights} == {"float32"}
    assert {p.dtype for p in model.posterior(features).values()} == {tf.float32}
    # bfloat16 rounds to within 2**-9 of a number: twice what is about 1, features and
    # weights, each time for 8 elements of x.
    tolerance = {"rtol": 0, "atol": 8 * 2**-8}
    np.testing.assert_allclose(evaluate(model), evaluate(expected), **tolerance)
    history = fit(model, epochs=8, batch_size=ROWS)
    assert np.isfinite(history["loss"]).all() and sum(history["skipped_steps"]) == 0
    assert history["loss"][-1] < history["loss"][0] - 0.1
    assert model.predict(X, verbose=0).dtype == np.float32


def test_float16_scales_the_loss_of_the_optimizer():
    with policy("mixed_float16"):
        model = compiled("adam")
        unscaled = compiled("adam", auto_scale_loss=False)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert isinstance(unscaled.optimizer, keras.optimizers.Adam)


def test_float16_skips_overflow_and_lowers_the_scale():
    start = 2.0**30
    with policy("mixed_float16"):
        adam = keras.optimizers.Adam(0.01)
        optimizer = keras.optimizers.LossScaleOptimizer(adam, initial_scale=start)
        model = compiled(optimizer, run_eagerly=False)
    before = trained(model)
    assert model.train_on_batch(X, return_dict=True)["skipped_steps"] == 1
    assert_same(trained(model), before)
    assert float(optimizer.dynamic_scale) == start / 2 and int(adam.iterations) == 0
    history = fit(model, epochs=12)
    skipped = 1 + sum(history["skipped_steps"])
    assert 1 < skipped < 20  # else the scale would stick
    assert float(optimizer.dynamic_scale) == start / 2**skipped
    assert int(model.step) == 25 and int(adam.iterations) == 25 - skipped
    assert history["skipped_steps"][-1] == 0
    assert history["loss"][-1] < history["loss"][-3]


# Callbacks.


def ascend_from_epoch_3(epoch, rate):
    """Ascends the loss from the fourth epoch on, so that validation gets worse."""
    return 0.05 if epoch < 3 else -0.05


def test_early_stopping_and_checkpoint_keep_the_best_val_elbo(tmp_path):
    best = {"monitor": "val_elbo", "mode": "max"}
    path = tmp_path / "{epoch}.keras"
    model = compiled("adam", run_eagerly=False)
    history = fit(
        model,
        epochs=9,
        validation_data=OTHER,
        callbacks=[
            keras.callbacks.LearningRateScheduler(ascend_from_epoch_3),
            keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True, **best),
            keras.callbacks.ModelCheckpoint(path, save_best_only=True, **best),
        ],
    )
    elbos = history["val_elbo"]
    at = int(np.argmax(elbos))
    assert 0 < at and len(elbos) == at + 3 < 9
    assert evaluate(model, OTHER)[1] == elbos[at]
    assert int(model.step) == 2 * (at + 1)  # the weights of that step, its count among them
    files = {int(file.stem): file for file in tmp_path.iterdir()}
    assert max(files) == at + 1  # Keras counts from 1 in file names
    loaded = keras.saving.load_model(files[at + 1])
    assert evaluate(loaded, OTHER)[1] == elbos[at]
    assert_same(loaded.get_weights(), model.get_weights())


def test_checkpoint_of_weights_alone(tmp_path):
    path = tmp_path / "{epoch}_{val_elbo:.3f}.weights.h5"
    model, other = compiled("adam"), compiled("adam")
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    history = fit(model, validation_data=OTHER, callbacks=checkpoint)
    (file,) = tmp_path.iterdir()
    assert file.name == f"1_{history['val_elbo'][0]:.3f}.weights.h5"
    other.load_weights(file)
    assert_same(state(other), state(model))


def test_early_stopping_asks_for_the_mode_of_elbo():
    stop = keras.callbacks.EarlyStopping(monitor="val_elbo")
    with pytest.raises(ValueError, match="mode"):
        fit(compiled(), validation_data=OTHER, callbacks=stop)


def test_reduce_on_plateau():
    plateau = keras.callbacks.ReduceLROnPlateau(
        monitor="val_loss", factor=0.5, patience=1, min_delta=1e9
    )
    model = compiled(keras.optimizers.Adam(0.5))
    history = fit(model, X[:4], epochs=3, validation_data=OTHER, callbacks=plateau)
    # The first epoch is an improvement on none.
    assert history["learning_rate"] == [0.5, 0.5, 0.25]
    assert float(model.optimizer.learning_rate) == 0.125


def test_learning_rate_scheduler():
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: [0.0, 0.25][epoch])
    model = compiled("sgd")
    weights = trained(model)
    assert fit(model, callbacks=scheduler)["learning_rate"] == [0.0]
    assert_same(trained(model), weights)
    fit(model, initial_epoch=1, epochs=2, callbacks=scheduler)
    expected = compiled(keras.optimizers.SGD(0.25))
    expected.step.assign(2)
    expected.epochs_begun.assign(1)
    fit(expected)
    assert_same(trained(model), trained(expected))


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    logger = keras.callbacks.CSVLogger(path)
    history = fit(compiled(), epochs=2, validation_data=OTHER, callbacks=logger)
    with open(path) as file:
        rows = list(csv.DictReader(file))
    assert [row.pop("epoch") for row in rows] == ["0", "1"]
    columns = {name: [float(row[name]) for row in rows] for name in rows[0]}
    assert columns == history


def test_tensorboard_writes_all_terms(tmp_path):
    pytest.importorskip("tensorboard")  # TensorFlow does not bring it
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1, update_freq=1)
    model = compiled(run_eagerly=False)
    history = fit(model, epochs=2, validation_data=OTHER, callbacks=board)
    for folder, prefix in (("train", ""), ("validation", "val_")):
        files = [str(file) for file in (tmp_path / folder).glob("events*")]
        events = [Event.FromString(e.numpy()) for e in tf.data.TFRecordDataset(files)]
        values = [value for event in events for value in event.summary.value]
        for name in TERMS:
            found = [v.tensor for v in values if v.tag == f"epoch_{name}"]
            written = [float(tf.make_ndarray(tensor)) for tensor in found]
            assert written == np.float32(history[prefix + name]).tolist()


def with_nan(*places):
    """Three batches of X, NaN at these places; of arrays it would be refused."""
    x = X.copy().reshape(3, 8, WIDTH)
    x[list(places)] = np.nan
    return tf.data.Dataset.from_tensor_slices(x)


def test_terminate_on_nan():
    model = compiled()
    weights = trained(model)
    fit(model, with_nan(0, 1, 2), epochs=4, callbacks=keras.callbacks.TerminateOnNaN())
    assert int(model.step) == 1
    assert_same(trained(model), weights)
    # One such batch among others is skipped, and no reason to stop.
    history = fit(model, with_nan(1), epochs=2, callbacks=keras.callbacks.TerminateOnNaN())
    assert history["skipped_steps"] == [1.0, 1.0]
    assert np.isfinite(history["loss"]).all()


class Log(keras.callbacks.Callback):
    """A user's own callback."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("epoch", epoch, int(self.model.step)))

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("batch", batch, int(self.model.step)))
        self.logs = logs

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("end", epoch, int(self.model.step)))
        self.epoch_logs = logs


def test_a_callback_of_ones_own():
    log, model = Log(), compiled()
    history = fit(model, callbacks=log, validation_data=X)
    assert log.calls == [
        ("epoch", 0, 0),
        ("batch", 0, 1),
        ("batch", 1, 2),
        ("end", 0, 2),
    ]
    assert log.params["steps"] == 2 and log.params["epochs"] == 1
    assert log.logs == {name: history[name][0] for name in [*TERMS, "skipped_steps"]}
    assert log.epoch_logs == {name: values[0] for name, values in history.items()}


class Evaluate(keras.callbacks.Callback):
    """Evaluates, and predicts, in the middle of a fit."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.predict(X, verbose=0)

    def on_epoch_end(self, epoch, logs=None):
        self.values = evaluate(self.model)


def test_a_callback_may_evaluate():
    callback, model, expected = Evaluate(), compiled(), compiled()
    history = fit(model, X[:4], epochs=2, callbacks=callback)
    validated = fit(expected, X[:4], epochs=2, validation_data=X)
    assert history == {name: validated[name] for name in history}
    assert callback.values == [validated[f"val_{name}"][-1] for name in TERMS]
    assert_same(state(model), state(expected))


@pytest.mark.parametrize("form", ["object", "list", "tuple", "CallbackList"])
def test_callbacks_in_every_form(form):
    log, model = Log(), compiled()
    callbacks = {
        "object": log,
        "list": [log],
        "tuple": (log,),
        "CallbackList": keras.callbacks.CallbackList([log], add_history=True, model=model),
    }[form]
    for fits in (1, 2):  # with the same object, which counts on, once for each epoch
        fit(model, X[:4], epochs=2, callbacks=callbacks)
        assert len(log.calls) == fits * 2 * 3 and int(model.epochs_begun) == fits * 2


def test_fit_leaves_the_list_of_callbacks_alone():
    callbacks = [Log()]
    fit(compiled(), X[:4], callbacks=callbacks)
    assert len(callbacks) == 1


@pytest.mark.parametrize("dropout", [False, True])
def test_backup_and_restore_goes_on_as_if_uninterrupted(tmp_path, dropout):
    def model():
        keras.utils.set_random_seed(1)
        encoder = (
            keras.Sequential([dense(), keras.layers.Dropout(0.3)]) if dropout else None
        )
        objective = kv.objectives.ELBO(kv.schedules.Linear(0.0, 1.0, steps=12))
        return compiled("adam", make(encoder, dense()), objective=objective)

    def train(model, *callbacks):
        return fit(model, epochs=4, batch_size=ROWS // 2, callbacks=callbacks)

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    expected, interrupted, again = model(), model(), model()
    history = train(expected)
    with pytest.raises(InterruptedError):
        train(interrupted, backup, Interrupt())
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    assert train(again, backup) == {name: values[2:] for name, values in history.items()}
    assert_same(state(again), state(expected))


def test_progress_names_all_terms(capsys):
    model = compiled()
    model.fit(X, validation_data=OTHER, verbose=2)
    printed = capsys.readouterr().out
    assert all(f" {name}: " in printed and f" val_{name}: " in printed for name in TERMS)


# The model as an object.


def test_summary_and_counts():
    model, out = make(), io.StringIO()
    model.summary(print_fn=lambda line: out.write(line + "\n"))
    parts = (model.encoder, model.posterior, model.prior, model.decoder, model.likelihood)
    # Kernels and biases; the likelihood's scale is one more.
    counts = (8 * 4 + 4, 2 * (4 * 2 + 2), 0, 2 * 4 + 4, 4 * 8 + 8 + 1)
    for part, count in zip(parts, counts, strict=True):
        (line,) = [line for line in out.getvalue().splitlines() if part.name + " " in line]
        assert line.rstrip("│ ").endswith(f" {count}")
        assert part.count_params() == count
    assert f"Trainable params: {sum(counts)} " in out.getvalue()
    counters = 3  # step, epochs_begun, skipped_in_a_row
    assert model.count_params() == sum(counts) + counters
    assert sum(np.size(w) for w in model.trainable_weights) == sum(counts)
    assert list(model.layers) == list(parts)


def test_get_layer():
    model = make(encoder=keras.layers.Dense(4, name="my_encoder"))
    assert model.get_layer("my_encoder") is model.encoder
    assert model.get_layer(index=1) is model.posterior


def test_paths_of_weights_are_unique():
    paths = [w.path for w in make(keras.Sequential([dense(), dense()])).weights]
    assert len(set(paths)) == len(paths)


def test_fit_and_evaluate_ask_for_compile():
    for method in (make().fit, make().evaluate):
        with pytest.raises(ValueError, match=r"compile\(\)"):
            method(X, verbose=0)


def as_json(model):
    return json.loads(json.dumps(model.get_config()))  # has no tuples


@pytest.mark.parametrize(
    "copied",
    [
        keras.models.clone_model,
        lambda model: type(model).from_config(model.get_config()),
        lambda model: keras.models.model_from_json(model.to_json()),
    ],
    ids=["clone_model", "from_config", "to_json"],
)
def test_a_copy_has_the_config_and_weights_of_its_own(copied):
    model = compiled(model=make(seed=5, name="mine"))
    other = copied(model)
    assert type(other) is kv.VAE and as_json(other) == as_json(model)
    assert other.name == "mine" and other.seed == 5
    pairs = list(zip(trained(model), trained(other), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    assert any((a != b).any() for a, b in pairs)
    before = trained(model)
    if not other.compiled:  # model_from_json compiles
        compiled(model=other)
    first = evaluate(other)[0]
    fit(other)
    assert evaluate(other)[0] < first
    assert_same(trained(model), before)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
def test_a_deep_copy_goes_on_alike(copied):
    model = compiled("adam")
    fit(model)
    other = copied(model)
    assert_goes_on_alike(other, model)
    assert other.encoder is not model.encoder


def test_a_layer_of_another_model():
    x, model = keras.Input((WIDTH,)), make()
    outer = keras.Model(x, model(x))
    # Another number of rows may take another kernel: sums of up to 8 rounded terms.
    tolerance = {"rtol": 0, "atol": 2 * WIDTH * EPS}
    np.testing.assert_allclose(outer.predict(X, verbose=0), model(X), **tolerance)
    assert len(outer.trainable_weights) == len(model.trainable_weights)


def test_the_global_seed_makes_a_model_reproducible():
    def numbers():
        keras.utils.set_random_seed(4)
        model = compiled(model=make(dense(), dense(), seed=None))
        return [model.seed, fit(model), *state(model)]

    first, second = numbers(), numbers()
    assert first[:2] == second[:2]
    assert_same(first[2:], second[2:])


def test_weights_can_be_set():
    model, other = compiled(), compiled(model=make(seed=3))
    fit(model)
    other.set_weights(model.get_weights())
    assert_same(other.get_weights(), model.get_weights())
    np.testing.assert_array_equal(other(X), model(X))
    with pytest.raises(ValueError, match="weight"):
        other.set_weights(model.get_weights()[:-1])


def test_a_frozen_encoder_keeps_its_weights():
    model = compiled()
    fit(model)
    frozen, free = (np.array(v) for v in (model.encoder.kernel, model.decoder.kernel))
    model.encoder.trainable = False
    compiled(model=model)
    fit(model)
    np.testing.assert_array_equal(model.encoder.kernel, frozen)
    assert (np.array(model.decoder.kernel) != free).all()
    model.encoder.trainable = True
    compiled(model=model)
    fit(model)
    assert (np.array(model.encoder.kernel) != frozen).all()


# Saving.


def reload(model, folder):
    path = folder / "model.keras"
    model.save(path)
    return keras.saving.load_model(path)  # safe_mode is on


def assert_goes_on_alike(actual, expected):
    """Predictions, evaluation, state and further training are the same bit for bit."""
    assert_same(state(actual), state(expected))
    predicted = expected.predict(X, verbose=0)
    np.testing.assert_array_equal(actual.predict(X, verbose=0), predicted)
    assert evaluate(actual, batch_size=ROWS) == evaluate(expected, batch_size=ROWS)
    assert fit(actual, batch_size=ROWS) == fit(expected, batch_size=ROWS)
    assert_same(state(actual), state(expected))


@pytest.mark.parametrize("epochs", [0, 2])
def test_keras_file(tmp_path, epochs):
    objective = kv.objectives.ELBO(kv.schedules.Cosine(0.0, 2.0, steps=9), num_samples=2)
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    adam = keras.optimizers.Adam(rate)
    kwargs = {"steps_per_execution": 2, "max_skipped": 5}
    model = compiled(adam, objective=objective, **kwargs)
    fit(model, epochs=epochs)
    loaded = reload(model, tmp_path)
    assert int(loaded.step) == int(loaded.optimizer.iterations) == 2 * epochs
    assert int(loaded.epochs_begun) == epochs
    assert loaded.objective.get_config() == objective.get_config()
    assert loaded.optimizer.get_config() == adam.get_config()
    assert (loaded.steps_per_execution, loaded.max_skipped) == (2, 5)
    assert loaded.run_eagerly
    assert_goes_on_alike(loaded, model)


def test_keras_file_of_a_model_that_is_not_compiled(tmp_path):
    model = make()
    loaded = reload(model, tmp_path)
    assert not loaded.compiled
    assert_same(loaded.get_weights(), model.get_weights())


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16"])
def test_keras_file_keeps_the_precision(tmp_path, name):
    with policy(name):
        model = compiled("adam")
    fit(model)
    loaded = reload(model, tmp_path)
    assert loaded.dtype_policy.name == loaded.encoder.dtype_policy.name == name
    assert type(loaded.optimizer) is type(model.optimizer)
    assert_goes_on_alike(loaded, model)


def test_keras_file_keeps_what_is_frozen(tmp_path):
    model = make()
    model.encoder.trainable = False
    loaded = reload(compiled("adam", model), tmp_path)
    assert not loaded.encoder.trainable
    assert_goes_on_alike(loaded, model)


def test_weights_file(tmp_path):
    model, other = compiled("adam"), compiled("adam", make(name="other"))
    fit(model, epochs=2)
    model.save_weights(tmp_path / "a.weights.h5")
    other.load_weights(tmp_path / "a.weights.h5")
    assert_goes_on_alike(other, model)


def test_weights_file_without_an_optimizer(tmp_path):
    model, other = make(), compiled(model=make(seed=3))
    model.step.assign(7)
    model.save_weights(tmp_path / "a.weights.h5")
    with pytest.warns(UserWarning, match="optimizer"):  # Keras says that it stays as it is
        other.load_weights(tmp_path / "a.weights.h5")
    assert_same(other.get_weights(), model.get_weights())


# Kinds of networks.


@register
class Model(keras.Model):
    """A subclassed model; its layers are made in `__init__`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = dense(units)
        self.drop = keras.layers.Dropout(0.2)
        self.out = dense(4)

    def call(self, x, training=False):
        return self.out(self.drop(self.hidden(x), training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class Unbuilt(keras.layers.Layer):
    """A layer without `build` and `training`; its layers are made in `__init__`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.blocks = [dense(units), dense(units)]

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def functional(shape):
    x = keras.Input(shape)
    h = dense()(x)
    return keras.Model(x, keras.layers.Concatenate()([h, dense()(h)]))


def stochastic(shape):
    layers = keras.layers
    return keras.Sequential([dense(), layers.BatchNormalization(), layers.Dropout(0.2)])


NETWORKS = {
    "Sequential": lambda shape: keras.Sequential([dense(5), dense()]),
    "Sequential with Input": lambda shape: keras.Sequential([keras.Input(shape), dense()]),
    "Dropout and BatchNormalization": stochastic,
    "Functional": functional,
    "subclassed Model": lambda shape: Model(5),
    "layer without build": lambda shape: Unbuilt(5),
    "Dense": lambda shape: dense(),
    "Identity": lambda shape: keras.layers.Identity(),
    "MLP": lambda shape: kv.nets.MLP([5, 4]),
}


# Keras warns when it loads such a layer, in whatever model: it makes the layers inside
# only when it is called, which VAE does at once.
@pytest.mark.filterwarnings("ignore:`build..` was called on layer 'unbuilt")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_trains_and_is_saved(tmp_path, name):
    model = compiled(
        keras.optimizers.Adam(0.05),
        make(NETWORKS[name]((WIDTH,)), NETWORKS[name]((2,))),
    )
    first = evaluate(model, batch_size=ROWS)[0]
    weights = trained(model)
    fit(model)
    assert evaluate(model, batch_size=ROWS)[0] < first
    for variable, before in zip(model.trainable_weights, weights, strict=True):
        assert (np.array(variable) != before).any(), variable.path
    assert_goes_on_alike(reload(model, tmp_path), model)


class Flags(keras.layers.Layer):
    """Keeps the training flags that it is called with."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def call(self, x, training=None):
        self.seen.add(training)
        return x


def test_the_training_flag_is_set_in_fit_alone():
    model = compiled(model=make(Flags(), Flags()))

    def seen_in(function, *args, **kwargs):
        for network in (model.encoder, model.decoder):
            network.seen.clear()
        function(*args, **kwargs)
        return [network.seen for network in (model.encoder, model.decoder)]

    assert seen_in(fit, model, X[:4]) == [{True}, {True}]
    assert seen_in(evaluate, model) == [{False}, {False}]
    assert seen_in(model.predict, X, verbose=0) == [{False}, {False}]
    assert seen_in(model.reconstruct, X) == [{False}, {False}]
    assert seen_in(model, X, training=True) == [{True}, {True}]
    assert seen_in(model.encode, X) == [{False}, set()]
    assert seen_in(model.decode, np.zeros((3, 2))) == [set(), {False}]
    assert seen_in(model.sample, 3) == [set(), {False}]
    assert seen_in(model.log_likelihood, X, 2) == [{False}, {False}]


def test_evaluation_changes_nothing_and_training_moves_the_averages():
    keras.utils.set_random_seed(1)
    model = compiled(model=make(stochastic((WIDTH,)), stochastic((2,))))
    before = state(model)
    values, predicted = evaluate(model), model.predict(X, verbose=0)
    assert evaluate(model) == values
    np.testing.assert_array_equal(model.predict(X, verbose=0), predicted)
    assert_same(state(model), before)
    hidden = np.array(model.encoder.layers[0](X))
    fit(model, batch_size=ROWS)
    batch = model.encoder.layers[1]
    # One step of the moving average from 0; a mean of 24 rounded terms.
    expected = (1 - batch.momentum) * hidden.mean(0)
    np.testing.assert_allclose(batch.moving_mean, expected, rtol=0, atol=ROWS * EPS)
    assert evaluate(model) == evaluate(model)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_an_activity_regularizer_adds_to_the_loss_but_not_to_the_bound(run_eagerly):
    keras.utils.set_random_seed(1)
    encoder = keras.Sequential([keras.layers.Dense(4, "tanh", activity_regularizer="l1")])
    model = compiled("sgd", make(encoder, dense()), run_eagerly=run_eagerly)
    for step in (fit, evaluate, evaluate, fit):  # nothing is left of what was before
        penalty = 0.01 * np.abs(encoder(X)).sum() / ROWS  # Keras averages over the rows
        values = step(model, batch_size=ROWS)
        loss, elbo, reconstruction, kl = (
            [values[name][0] for name in TERMS] if step is fit else values
        )
        # Sums of 24 rounded terms.
        np.testing.assert_allclose(loss + elbo, penalty, rtol=0, atol=loss * ROWS * EPS)
        np.testing.assert_allclose(elbo, -(reconstruction + kl), rtol=ROWS * EPS)


def test_a_kernel_regularizer_adds_to_the_loss_and_shrinks_the_kernel():
    keras.utils.set_random_seed(1)
    regularizer = keras.regularizers.L2(0.5)
    layer = keras.layers.Dense(4, "tanh", kernel_regularizer=regularizer)
    model, plain = compiled("sgd", make(layer, dense())), compiled("sgd", make())
    plain.set_weights(model.get_weights())
    kernel = np.array(layer.kernel)
    weight = np.full(ROWS, 2.0)  # counts for the losses of the rows alone
    loss, elbo, *_ = evaluate(model, y=Y, sample_weight=weight)
    # Sums of 32 rounded terms.
    np.testing.assert_allclose(loss, -2 * elbo + 0.5 * (kernel**2).sum(), rtol=32 * EPS)
    for each in (model, plain):
        fit(each, y=Y, sample_weight=weight, batch_size=ROWS)
    # At a rate of 0.01; kernels are about 1, and rounded a few times.
    expected = np.array(plain.encoder.kernel) - 0.01 * kernel
    np.testing.assert_allclose(layer.kernel, expected, rtol=0, atol=4 * EPS)


# Objectives of one's own.


@register
class LearnedWeight(keras.layers.Layer):
    """reconstruction + exp(-s) kl + s, with a trained s."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.s = self.add_weight(name="s", shape=(), initializer="zeros")

    def call(self, terms, step):
        return terms.reconstruction + tf.exp(-self.s) * terms.kl + self.s


def test_an_objective_that_is_a_layer_is_trained_and_saved(tmp_path):
    model = compiled("sgd", objective=LearnedWeight())
    assert any(w is model.objective.s for w in model.trainable_weights)
    kl = model.train_on_batch(X, return_dict=True)["kl"]
    # d loss / d s = 1 - kl at s = 0, and the rate is 0.01; a mean of 24 rounded terms.
    s = float(model.objective.s)
    assert s == pytest.approx(0.01 * (kl - 1), rel=ROWS * EPS)
    loss, _, reconstruction, kl = evaluate(model)
    assert loss == pytest.approx(reconstruction + np.exp(-s) * kl + s, rel=ROWS * EPS)
    loaded = reload(model, tmp_path)
    assert float(loaded.objective.s) == s
    assert_goes_on_alike(loaded, model)


def test_a_layer_as_objective_leaves_with_it():
    model = compiled(objective=LearnedWeight())
    fit(model, X[:4])
    compiled(model=model, objective=kv.objectives.ELBO())
    assert len(model.weights) == len(make().weights)
    fit(model, X[:4])
    compiled(model=model, objective=LearnedWeight())
    assert len(model.weights) == len(make().weights) + 1
    fit(model, X[:4])


def half_kl(terms, step):
    return terms.reconstruction + 0.5 * terms.kl


@register
def registered_half_kl(terms, step):
    return half_kl(terms, step)


def test_a_function_as_objective(tmp_path):
    model = compiled(objective=half_kl)
    fit(model)
    loss, _, reconstruction, kl = evaluate(model)
    assert loss == pytest.approx(reconstruction + 0.5 * kl, rel=ROWS * EPS)  # 24 terms
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises((TypeError, ValueError), match="half_kl"):
        keras.saving.load_model(path)
    loaded = keras.saving.load_model(path, compile=False)
    np.testing.assert_array_equal(loaded(X), model(X))
    loaded = keras.saving.load_model(path, custom_objects={"half_kl": half_kl})
    assert loaded.objective is half_kl
    assert_goes_on_alike(loaded, model)


def test_a_registered_function_as_objective_needs_no_custom_objects(tmp_path):
    model = compiled(objective=registered_half_kl)
    loaded = reload(model, tmp_path)
    assert loaded.objective is registered_half_kl
    assert_goes_on_alike(loaded, model)


def test_a_lambda_as_objective_is_saved_but_not_loaded_in_safe_mode(tmp_path):
    model = compiled(objective=lambda terms, step: terms.reconstruction)
    fit(model, X[:4])
    with pytest.warns(UserWarning, match="lambda"):
        model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="safe_mode"):
        keras.saving.load_model(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(X), model(X))


# Optimizers.

OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "schedule": lambda: keras.optimizers.Adam(
        keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    ),
    "AdamW": lambda: keras.optimizers.AdamW(0.1, weight_decay=0.1),
    "clipnorm": lambda: keras.optimizers.SGD(0.1, clipnorm=0.1),
    "global_clipnorm": lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.1),
    "EMA": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5),
    "accumulation": lambda: keras.optimizers.Adam(0.1, gradient_accumulation_steps=2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fit_is_the_optimizer_applied_to_the_gradients(name):
    model = compiled(OPTIMIZERS[name](), make(cls=Gradients))
    variables = [keras.Variable(v, name=v.name) for v in model.trainable_variables]
    fit(model, batch_size=8)
    optimizer = OPTIMIZERS[name]()
    optimizer.build(variables)
    for gradients in model.seen:
        optimizer.apply(gradients, variables)
    optimizer.finalize_variable_values(variables)
    assert len(model.seen) == 3
    assert_same(trained(model), [np.array(v) for v in variables])
    assert int(model.optimizer.iterations) == int(optimizer.iterations)


def test_weight_decay_shrinks_the_weights_beside_the_gradient():
    rate, decay = 0.1, 0.5
    model = compiled(keras.optimizers.SGD(rate, weight_decay=decay))
    reference = compiled(keras.optimizers.SGD(rate))
    start = np.array(model.encoder.kernel)
    for each in (model, reference):
        each.train_on_batch(X)
    # w - rate decay w, then the step: two roundings of numbers of about 1.
    expected = np.array(reference.encoder.kernel) - rate * decay * start
    np.testing.assert_allclose(model.encoder.kernel, expected, rtol=0, atol=2 * EPS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_skipped_step_advances_the_step_alone(name):
    model = compiled(OPTIMIZERS[name](), run_eagerly=False)
    model.train_on_batch(X)
    before, step = state(model), int(model.step)
    logs = model.train_on_batch(X * np.nan, return_dict=True)
    assert logs["skipped_steps"] == 1.0
    assert int(model.step) == step + 1 and int(model.skipped_in_a_row) == 1
    counters = {id(model.step), id(model.skipped_in_a_row)}
    variables = (*model.weights, *model.optimizer.variables)
    for variable, value in zip(variables, before, strict=True):
        if id(variable) not in counters:
            np.testing.assert_array_equal(variable, value)
    logs = model.train_on_batch(X, return_dict=True)
    assert logs["skipped_steps"] == 0.0 and int(model.skipped_in_a_row) == 0
    assert np.isfinite(logs["loss"])


def test_a_skipped_step_leaves_moving_averages_alone():
    keras.utils.set_random_seed(1)
    encoder = keras.Sequential([dense(), keras.layers.BatchNormalization()])
    model = compiled(model=make(encoder, dense()))
    model.train_on_batch(X)
    before = [np.array(v) for v in encoder.non_trainable_weights]
    model.train_on_batch(X * np.nan)
    assert_same([np.array(v) for v in encoder.non_trainable_weights], before)
    assert np.isfinite(evaluate(model)).all()


def test_fit_stops_after_max_skipped_steps_in_a_row():
    model = compiled(max_skipped=3)
    with pytest.raises(RuntimeError, match="3 training steps in a row"):
        fit(model, with_nan(0, 1, 2), epochs=4)
    assert int(model.step) == 3
    fit(compiled(max_skipped=3), with_nan(0, 1), epochs=2)  # never three in a row
