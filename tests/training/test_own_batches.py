"""Data that yield batches: checked by the first batch, and read completely."""

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import keras_vae as kv
from keras_vae.distributions import IndependentBernoulli, IndependentNormal
from tests.refusals import assert_refused

RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(size=(40, 6)).astype("float32")
Y = np.arange(40) % 4


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return tuple(a[10 * index : 10 * index + 10] for a in self.arrays)


def generate(*arrays):
    yield from (Batches(*arrays)[i] for i in range(4))


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(10)


def distribute(*arrays):
    return tf.distribute.get_strategy().experimental_distribute_dataset(dataset(*arrays))


KINDS = [dataset, Batches, generate, distribute]


def build(likelihood=IndependentBernoulli, condition=None):
    keras.utils.set_random_seed(0)
    parts = {"likelihood": likelihood((6,)), "latent_dim": 2, "seed": 0}
    dense = [keras.layers.Dense(4), keras.layers.Dense(4)]
    if condition is None:
        model = kv.VAE(*dense, **parts)
    else:
        dense = [kv.nets.Concatenated(layer) for layer in dense]
        model = kv.ConditionalVAE(*dense, **parts, condition=condition)
    model.compile("adam", run_eagerly=True)
    return model


@pytest.fixture(scope="module")
def bernoulli():
    return build()


@pytest.mark.parametrize("kind", [lambda x: x, *KINDS])
def test_values_are_checked_before_the_first_step(kind, bernoulli):
    grey = X * 255
    for call, name in (
        (lambda: bernoulli.fit(kind(grey), verbose=0), "`x`"),
        (lambda: bernoulli.fit(X, validation_data=kind(grey), verbose=0), "validation"),
        (lambda: bernoulli.evaluate(kind(grey), verbose=0), "`x`"),
        (lambda: bernoulli.predict(kind(grey), verbose=0), "`x`"),
    ):
        assert_refused(call, name, "255", received=f"{grey[:10].max():.5}"[:3])
    mask = (X > 0.5).astype("uint8")
    assert_refused(lambda: bernoulli.fit(kind(mask), verbose=0), "uint8", received="1")
    assert int(bernoulli.step) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_unusual_scale_is_a_warning(kind, bernoulli):
    four_bits = RANDOM.integers(0, 17, X.shape).astype("uint8")
    with pytest.warns(UserWarning, match="largest value is 16"):
        bernoulli._check_own_batches(kind(four_bits), "x", fit=True)


def test_arrays_of_unusual_scale_are_a_warning():
    columns = X * 10.0 ** np.arange(6)
    with pytest.warns(UserWarning, match=r"values from .* Column 5 .*std"):
        build(IndependentNormal).fit(columns, steps_per_epoch=1, verbose=0)


@pytest.mark.parametrize(
    "x",
    [X, X * 20, (X * 255).astype("uint8"), X > 0.5, np.where(np.arange(40)[:, None], 0, X)],
)
def test_usual_data_have_no_warning(x):
    build(IndependentNormal).warn_about_scale(x, "x")  # warnings are errors


def test_the_scale_of_grey_images_needs_a_division():
    likelihood = IndependentNormal((4, 4, 1))
    x = RANDOM.uniform(0, 255, (20, 4, 4, 1)).astype("float32")
    with pytest.warns(UserWarning, match=r"x / np.float32\(255\)"):
        kv.models.scale.warn(x, "x", likelihood)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_no_batch_is_lost(kind):
    model = build()
    model.fit(kind(X), validation_data=dataset(X), steps_per_epoch=4, verbose=0)
    assert int(model.step) == 4
    # A generator continues where the last fit left it.
    batches = iter(kind(X)) if kind is not generate else kind(X)
    assert sum(1 for _ in batches) == 4


def test_a_generator_is_not_closed_by_fit():
    model, batches = build(), generate(X)
    model.fit(batches, steps_per_epoch=2, verbose=0)
    assert next(batches, None) is not None


@pytest.mark.parametrize("condition", [None, 4])
def test_methods_of_all_rows_accept_batches(condition):
    model = build(condition=condition)
    labels = {} if condition is None else {"condition": Y}
    methods = {
        "encode": lambda x, **c: model.encode(x, **c).mean(),
        "reconstruct": model.reconstruct,
        "log_likelihood": lambda x, **c: model.log_likelihood(x, 3, **c),
    }
    for name, method in methods.items():
        expected = method(X, **labels)
        # float32: matrix products of other shapes round differently.
        for kind in KINDS[:3]:
            np.testing.assert_allclose(
                method(kind(X, Y)), expected, atol=1e-5, err_msg=f"{name} {kind}"
            )
    if condition:
        call = lambda: model.encode(dataset(X, Y), condition=Y)  # noqa: E731
        assert_refused(call, "`condition`", received="array")


def test_parts_are_small_for_large_events():
    shape = 64, 64, 3
    model = kv.VAE(
        keras.layers.Dense(1),
        keras.layers.Dense(1),
        IndependentNormal(shape),
        latent_dim=1,
    )
    sizes = [len(x) for _, x, _ in model.parts(np.zeros((200, *shape), "uint8"))]
    assert sum(sizes) == 200
    assert max(sizes) <= 100  # 1.2 million elements


def test_sparse_matrices_equal_their_dense_arrays():
    x = scipy.sparse.random(40, 6, 0.3, "coo", dtype="float32", random_state=0)
    model, other = build(IndependentNormal), build(IndependentNormal)
    dense = model.fit(x.toarray(), verbose=0).history
    assert other.fit(x, verbose=0).history == dense
    np.testing.assert_array_equal(model.encode(x).mean(), other.encode(x.toarray()).mean())
