"""A VAE is a keras.Model like any other: data, callbacks, optimizers, precision, saving.

Bit for bit where the same operations run in the same order; else with a tolerance whose
reason stands beside it.
"""

import contextlib
import csv
import io
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv

ROWS, WIDTH, BATCH = 24, 8, 10  # batches of 10, 10 and 4 rows: the last is smaller
TERMS = ["loss", "elbo", "reconstruction", "kl"]
EPS = float(np.finfo(np.float32).eps)

_random = np.random.default_rng(0)
# uint8, and the same as floats in [0, 1]: data for any likelihood.
BYTES = _random.integers(0, 256, (ROWS, WIDTH), np.uint8)
X = BYTES / np.float32(255)
Y = _random.integers(0, 3, ROWS)
W = _random.uniform(0.5, 2.0, ROWS).astype(np.float32)
OTHER = _random.random((2 * ROWS, WIDTH), np.float32)

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


def compiled(optimizer="adam", model=None, **kwargs):
    model = make() if model is None else model
    model.compile(optimizer, **kwargs)
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
    """Keeps what `fit` gives it; for run_eagerly."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def unpack(self, data):
        x, condition, weight = super().unpack(data)
        values = X[:, 0].tolist()
        self.seen.append([values.index(float(value)) for value in x[:, 0]])
        return x, condition, weight


class Gradients(kv.VAE):
    """Keeps the gradients of each step; for run_eagerly."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def update(self, loss, gradients):
        self.seen.append(gradients)
        return super().update(loss, gradients)


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
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
    return compiled(run_eagerly=True)


@pytest.mark.parametrize("form", [*FORMS, "generator"])
def test_every_form_of_the_data_evaluates_alike(shared, form):
    data = {"x": generator()} if form == "generator" else FORMS[form]()
    assert evaluate(shared, **data) == evaluate(shared)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_data_trains_alike(form):
    model, expected = compiled(run_eagerly=True), compiled(run_eagerly=True)
    fit(expected, X, epochs=2, shuffle=False)
    # Keras shuffles the batches of a PyDataset unless told not to.
    fit(model, **FORMS[form](), epochs=2, shuffle=False)
    assert_same(state(model)[1:], state(expected)[1:])


def test_a_generator_trains_as_the_same_rows():
    model, expected = compiled(), compiled()
    fit(expected, epochs=2, shuffle=False)
    fit(model, generator(epochs=2), epochs=2, steps_per_epoch=3)
    assert_same(state(model), state(expected))


def test_a_dataset_trains_in_the_graph_as_arrays_do():
    model, expected = compiled(), compiled()
    fit(expected, X, epochs=2, shuffle=False)
    fit(model, batches(X), epochs=2)
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
    def weighted(weight):
        return np.array(evaluate(shared, batch_size=ROWS, sample_weight=weight))

    of_row = np.array([weighted(one_row) for one_row in np.eye(ROWS, dtype=np.float32)])
    loss, *terms = weighted(W)
    # Sums of 24 rounded terms; `of_row` holds the loss of a row over the number of rows.
    np.testing.assert_allclose(loss, W @ of_row[:, 0], rtol=ROWS * EPS)
    np.testing.assert_allclose(terms, W @ of_row[:, 1:] / W.sum(), rtol=ROWS * EPS)


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
        model = compiled("sgd", make(cls=Gradients), run_eagerly=True)
        model.train_on_batch(X, sample_weight=weight)
        return [np.array(g) for g in model.seen[0]]

    first = (np.arange(ROWS) < 9).astype(np.float32)
    parts = zip(gradient(W * first), gradient(W * (1 - first)), strict=True)
    # Sums over 24 rows of terms that are below 10 and may cancel.
    assert_close(gradient(W), [a + b for a, b in parts], rtol=0, atol=10 * ROWS * EPS)


def test_weights_in_every_form_train_alike():
    model = [compiled(run_eagerly=True) for _ in range(3)]
    fit(model[0], X, sample_weight=W, shuffle=False)
    fit(model[1], batches(X, Y, W))
    fit(model[2], Batches(X, Y, W), shuffle=False)
    assert_same(state(model[1]), state(model[0]))
    assert_same(state(model[2])[1:], state(model[0])[1:])


@pytest.mark.parametrize("form", ["arrays", "dataset", "PyDataset", "batch"])
def test_class_weight_is_the_sample_weight_of_the_class(form):
    class_weight = {0: 0.5, 1: 2.0, 2: 1.5}
    of_class, of_row = compiled(run_eagerly=True), compiled(run_eagerly=True)
    weight = np.array([class_weight[label] for label in Y], np.float32)
    if form == "batch":
        of_class.train_on_batch(X, Y, class_weight=class_weight)
        of_row.train_on_batch(X, Y, sample_weight=weight)
    else:
        data = {"arrays": (X, Y), "dataset": [batches(X, Y)], "PyDataset": [Batches(X, Y)]}
        x, *y = data[form]
        y = y[0] if y else None
        fit(of_class, x, y=y, class_weight=class_weight, shuffle=False)
        fit(of_row, X, sample_weight=weight, shuffle=False)
    assert_same(state(of_class)[1:], state(of_row)[1:])


# What fit and evaluate report.


def test_history_has_these_keys():
    history = fit(compiled(), epochs=2, validation_data=OTHER)
    keys = {*TERMS, "skipped_steps", *(f"val_{name}" for name in TERMS)}
    assert set(history) == keys
    assert all(len(values) == 2 for values in history.values())
    assert history["skipped_steps"] == [0.0, 0.0]


def test_elbo_is_minus_the_sum_of_its_terms():
    model = compiled(objective=kv.objectives.ELBO(beta=3.0))
    history = fit(
        model, epochs=2, sample_weight=W, validation_data=(OTHER, None, 2 * OTHER[:, 0])
    )
    for prefix in ("", "val_"):
        loss, elbo, reconstruction, kl = (np.array(history[prefix + n]) for n in TERMS)
        # Means of up to 48 rounded terms.
        tolerance = {"rtol": 2 * ROWS * EPS}
        np.testing.assert_allclose(elbo, -(reconstruction + kl), **tolerance)
    loss, _, reconstruction, kl = evaluate(model)
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
    model = compiled(objective=kv.objectives.ELBO(beta), run_eagerly=True)
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
        ({}, 3),
        ({"validation_batch_size": 6}, 4),
        ({"validation_steps": 2}, 2),
        ({"validation_data": batches(X), "validation_steps": 2}, 2),
    ],
)
def test_validation_batches(kwargs, expected):
    counter = CountTestBatches()
    kwargs = {"validation_data": X, **kwargs}
    fit(compiled(run_eagerly=True), X[:BATCH], callbacks=counter, **kwargs)
    assert counter.count == expected


@pytest.mark.parametrize("freq", [2, [2, 4]])
def test_validation_freq(freq):
    model = compiled(run_eagerly=True)
    history = fit(model, X[:4], epochs=4, validation_data=X[:4], validation_freq=freq)
    assert len(history["loss"]) == 4 and len(history["val_loss"]) == 2


def test_validation_changes_nothing_in_training():
    with_validation, without = compiled(), compiled()
    history = fit(with_validation, epochs=2, validation_data=OTHER)
    expected = fit(without, epochs=2)
    assert {name: history[name] for name in expected} == expected
    assert_same(state(with_validation), state(without))


# Steps and epochs.


def test_initial_epoch_is_where_counting_begins():
    model = compiled()
    history = model.fit(X, initial_epoch=3, epochs=5, verbose=0, batch_size=BATCH)
    assert history.epoch == [3, 4]
    assert int(model.step) == 6 and int(model.epochs_begun) == 2


def test_steps_per_epoch_takes_so_many_batches_of_an_epoch():
    model = compiled(model=make(cls=Rows), run_eagerly=True)
    fit(model, epochs=2, steps_per_epoch=2)
    assert [len(rows) for rows in model.seen] == [BATCH] * 4
    first, second = (set(sum(model.seen[i : i + 2], [])) for i in (0, 2))
    assert len(first) == len(second) == 2 * BATCH and first != second


def test_steps_without_a_batch_size_split_the_rows_as_keras_does():
    model = compiled(model=make(cls=Rows), run_eagerly=True)
    model.fit(X, steps_per_epoch=3, verbose=0)
    assert [len(rows) for rows in model.seen] == [8, 8, 8]


def test_steps_of_a_repeated_dataset():
    model, expected = compiled(), compiled()
    fit(model, batches(X).repeat(), epochs=2, steps_per_epoch=3)
    fit(expected, epochs=2, shuffle=False)
    assert_same(state(model), state(expected))
    assert evaluate(model, batches(X).repeat(), steps=3) == evaluate(expected)


@pytest.mark.parametrize("steps", [2, 3, 100])  # of three batches in an epoch
def test_steps_per_execution_changes_no_number(steps):
    model, expected = compiled(steps_per_execution=steps), compiled()
    assert fit(model, epochs=3) == fit(expected, epochs=3)
    assert_same(state(model), state(expected))
    assert evaluate(model) == evaluate(expected)
    predicted = model.predict(X, batch_size=BATCH, verbose=0)
    assert_same(predicted, expected.predict(X, batch_size=BATCH, verbose=0))


@pytest.mark.parametrize(
    "how",
    [{"jit_compile": True}, {"run_eagerly": True}],
    ids=["jit_compile", "run_eagerly"],
)
def test_compiled_or_not_trains_alike(how):
    # SGD, as Adam makes steps of full size from gradients that are rounding errors alone.
    model, expected = compiled("sgd", **how), compiled("sgd", jit_compile=False)
    weights = trained(model)
    fit(model, epochs=2)
    fit(expected, epochs=2)
    moved = max(np.abs(a - b).max() for a, b in zip(trained(model), weights, strict=True))
    assert moved > 0.01
    # XLA and Grappler fuse and reorder sums: of about 100 rounded terms, six times.
    assert_close(trained(model), trained(expected), rtol=0, atol=6 * 100 * EPS)
    assert_close([evaluate(model)], [evaluate(expected)], rtol=6 * 100 * EPS)


def test_on_batch_methods():
    model, expected = compiled(), compiled()
    names = [*TERMS, "skipped_steps"]
    logs = model.train_on_batch(X, return_dict=True)
    history = fit(expected, batch_size=ROWS, shuffle=False)
    assert logs == {name: history[name][0] for name in names} and list(logs) == names
    assert_same(trained(model), trained(expected))
    assert model.train_on_batch(X, Y, W)[0] == pytest.approx(
        fit(expected, batch_size=ROWS, sample_weight=W, shuffle=False)["loss"][0],
        rel=ROWS * EPS,  # a sum of 24 rounded terms
    )
    predicted = model.predict_on_batch(X)
    assert isinstance(predicted, np.ndarray)
    np.testing.assert_array_equal(predicted, model.predict(X, verbose=0))


@pytest.mark.parametrize("first", ["evaluate", "test_on_batch"])
def test_test_on_batch_is_evaluate_on_one_batch_in_whatever_order(first):
    model = compiled(run_eagerly=first == "eager")
    calls = {
        "evaluate": lambda: evaluate(model, batch_size=ROWS, return_dict=True),
        "test_on_batch": lambda: model.test_on_batch(X, return_dict=True),
    }
    values = [calls[name]() for name in sorted(calls, key=lambda name: name != first)]
    assert values[0] == values[1] and list(values[0]) == TERMS


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
        return compiled(model=make(cls=Rows, seed=seed), run_eagerly=True)

    model = rows(5)
    seen = orders(model, epochs=3)
    assert [sorted(order) for order in seen] == [list(range(ROWS))] * 3
    seen.append(list(range(ROWS)))
    assert len(set(map(tuple, seen))) == 4  # all differ, and are not that of the array
    assert orders(rows(5), epochs=3, validation_data=OTHER) == seen[:3]
    assert orders(rows(6), epochs=1)[0] not in seen
    # A second fit goes on rather than starting over.
    again = orders(model, epochs=1)
    assert again[0] not in seen
    assert orders(rows(5), epochs=4)[3:] == again


def test_shuffle_false_keeps_the_order():
    model = compiled(model=make(cls=Rows), run_eagerly=True)
    assert orders(model, epochs=2, shuffle=False) == [list(range(ROWS))] * 2


def test_two_fits_are_one():
    twice, once = compiled(), compiled()
    history = [fit(twice, epochs=2) for _ in range(2)]
    expected = fit(once, epochs=4)
    assert {name: history[0][name] + history[1][name] for name in expected} == expected
    assert_same(state(twice), state(once))


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
    with policy(name):
        model = compiled(keras.optimizers.Adam(0.01))
    expected = compiled(keras.optimizers.Adam(0.01))
    for head, features in ((model.posterior, model.encoder), (model.likelihood, None)):
        weights = head.weights
        assert all(w.dtype == "float32" for w in weights)
        if features is not None:
            params = head(features(X[:2]))
            assert all(p.dtype == tf.float32 for p in params.values())
            assert features(X[:2]).dtype == model.compute_dtype
    # A half-precision number is off by up to 2**-9 (bfloat16) of itself, features and
    # weights of about 1 are, and an error of loc costs as much for each of 8 elements.
    np.testing.assert_allclose(evaluate(model), evaluate(expected), rtol=0, atol=8 * 2**-8)
    history = fit(model, epochs=10)
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
        model = compiled(optimizer)
    before = trained(model)
    assert model.train_on_batch(X, return_dict=True)["skipped_steps"] == 1
    assert_same(trained(model), before)
    assert float(optimizer.dynamic_scale) == start / 2 and int(adam.iterations) == 0
    history = fit(model, epochs=10)
    skipped = 1 + sum(history["skipped_steps"])
    assert 1 < skipped < 20  # else the scale would stick
    assert float(optimizer.dynamic_scale) == start / 2**skipped
    assert int(model.step) == 31 and int(adam.iterations) == 31 - skipped
    assert history["skipped_steps"][-1] == 0
    assert history["loss"][-1] < history["loss"][-5]
