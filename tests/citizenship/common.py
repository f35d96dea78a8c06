"""Small models, data and assertions for the tests in this folder.

Tests compare bit for bit if the same operations run in the same order. Otherwise a comment
gives the reason for the tolerance.
"""

import contextlib
import itertools

import keras
import numpy as np
import tensorflow as tf

import keras_vae as kv

ROWS, WIDTH, BATCH = 24, 8, 16  # an epoch is two batches; the second is smaller
TERMS = ["loss", "elbo", "reconstruction", "kl"]
EPS = float(np.finfo(np.float32).eps)

_random = np.random.default_rng(0)
# The same data as uint8 and as floats in [0, 1], for any likelihood.
BYTES = _random.integers(0, 256, (ROWS, WIDTH), np.uint8)
X = BYTES / np.float32(255)
Y = _random.integers(0, 3, ROWS)
W = _random.uniform(0.5, 2.0, ROWS).astype(np.float32)
OTHER = _random.random((BATCH, WIDTH), np.float32)

register = keras.saving.register_keras_serializable("citizenship")


def dense(units=4):
    return keras.layers.Dense(units, "tanh")


def make(encoder=None, decoder=None, likelihood=None, cls=kv.VAE, seed=0, **kwargs):
    """Returns a model; calls with equal arguments give equal weights."""
    if encoder is None:  # otherwise the caller has made its weights
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
    """Compiles a model, eager by default: for a few steps this is faster than tracing."""
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
    """Returns all that training changes: weights, counters, variables of the optimizer."""
    return [np.array(v) for v in (*model.weights, *model.optimizer.variables)]


def trainable_weights(model):
    return [np.array(v) for v in model.trainable_weights]


def assert_same(actual, expected):
    """Asserts that the arrays are equal bit for bit."""
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
    """Batches of the rows of arrays, in order."""

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
    """A VAE that records the rows that it is trained on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.recorded_rows = []

    def train_step(self, data):
        x, *_ = self.unpack(data)
        values = X[:, 0].tolist()
        self.recorded_rows.append([values.index(float(value)) for value in x[:, 0]])
        return super().train_step(data)


class Gradients(kv.VAE):
    """A VAE that records the gradients of each step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.recorded_gradients = []

    def update(self, loss, gradients, *args):
        self.recorded_gradients.append(gradients)
        return super().update(loss, gradients, *args)


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


@contextlib.contextmanager
def policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def with_nan(*batches):
    """Returns X in three batches, some of them NaN; an array with NaN would be refused."""
    x = X.copy().reshape(3, 8, WIDTH)
    x[list(batches)] = np.nan
    return tf.data.Dataset.from_tensor_slices(x)


def reload(model, folder):
    path = folder / "model.keras"
    model.save(path)
    return keras.saving.load_model(path)  # safe_mode is on


def assert_equivalent(actual, expected):
    """Asserts equal predictions, metrics, state and further training, bit for bit."""
    assert_same(state(actual), state(expected))
    predicted = expected.predict(X, verbose=0)
    np.testing.assert_array_equal(actual.predict(X, verbose=0), predicted)
    assert evaluate(actual, batch_size=ROWS) == evaluate(expected, batch_size=ROWS)
    assert fit(actual, batch_size=ROWS) == fit(expected, batch_size=ROWS)
    assert_same(state(actual), state(expected))
