"""Every row of the zoo goes through all of this.

Making the graph of a step takes a second, XLA's two: the tests of a row share one model.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from keras_vae import models
from tests.zoo import ZOO

BATCH = 8  # three batches an epoch


# With the scope of a module, so that all tests of a row come one after the other.
@pytest.fixture(scope="module", params=ZOO, ids=[row.name for row in ZOO])
def row(request):
    return request.param


@pytest.fixture(scope="module")
def shared(row):
    """(model, its bound before): a model after 60 steps, which tests may train on."""
    model = row.make(keras.optimizers.Adam(0.01))
    before = bound(model, row)
    # One epoch of the rows 20 times: each epoch makes its pipeline anew.
    fit(model, row, times=20)
    return model, before


def bound(model, row):
    # By an evaluation before and after: the loss in `fit` follows a schedule's beta.
    logs = evaluate(model, row, return_dict=True)
    return logs["reconstruction"] + logs.get("kl", 0.0)


def evaluate(model, row, batch_size=BATCH, **options):
    return model.evaluate(*row.data(), batch_size, verbose=0, **options)


def fit(model, row, epochs=1, times=1):
    data = tf.nest.map_structure(
        lambda a: a if a is None else np.tile(a, (times, *[1] * (a.ndim - 1))),
        row.data(),
    )
    return model.fit(*data, batch_size=BATCH, epochs=epochs, verbose=0).history


def assert_equal_weights(a, b, atol=0.0):
    for one, other in zip(a.weights, b.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), 0, atol, err_msg=one.path)


def test_no_public_name_is_missing():
    abstract = {"Head", "Prior", "Terms", "Objective", "Schedule"}
    public = set(models.__all__)
    for module in (kv.distributions, kv.nets):
        public |= set(module.__all__)
    for module in (kv.objectives, kv.schedules):
        public |= {
            name
            for name, value in vars(module).items()
            if isinstance(value, type) and not name.startswith("_")
        }
    covered = {name for row in ZOO for name in row.covers}
    assert covered == public - abstract


def test_it_learns(row, shared):
    model, before = shared
    assert bound(model, row) < before - 0.1


def gradients_of(model):
    """A function of a batch of x and a condition: the gradient of each weight."""

    def gradients(x, condition=None):
        draw = model.step_noise(tf.constant(BATCH))
        with tf.GradientTape() as tape:
            terms = model.terms(x, draw, condition, model._num_samples, True)
            # Past the first step, where an annealed beta is 0.
            loss = tf.reduce_sum(model.objective(terms, tf.constant(5, tf.int64)))
        return tape.gradient(loss, model.trainable_variables)

    return gradients


def test_every_weight_gets_a_gradient_and_xla_the_same(row):
    model = row.make()
    x = tf.constant(row.x[:BATCH])
    given = row.given(BATCH, training=True)
    gradients = gradients_of(model)(x, **given)
    without = [
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None or not np.any(gradient)
    ]
    assert without == []
    if row.name == "dropout":
        return  # Keras' own Dropout draws other numbers under XLA
    with_xla = tf.function(gradients_of(model), jit_compile=True, autograph=False)(
        x, **given
    )
    for variable, one, other in zip(
        model.trainable_variables, gradients, with_xla, strict=True
    ):
        # float32 rounding of fused kernels; the noise is the same.
        np.testing.assert_allclose(other, one, 1e-5, 1e-4, err_msg=variable.path)


# Keras says so of any layer without a `build`, and what follows shows that it is built.
@pytest.mark.filterwarnings("ignore:`build..` was called on layer 'unbuilt")
def test_save_and_resume_are_exact(row, shared, tmp_path):
    model, _ = shared
    model.save(tmp_path / "model.keras")
    resumed = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(row.predict(resumed), row.predict(model))
    assert fit(resumed, row) == fit(model, row)
    assert_equal_weights(model, resumed)
    for one, other in zip(
        model.optimizer.variables, resumed.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


def test_weights_file(row, shared, tmp_path):
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
    found = evaluate(model, row, batch_size=5)
    np.testing.assert_allclose(found, first, rtol=2e-6, atol=1e-7)


def test_same_seed_same_sample(row):
    model = row.make()
    if isinstance(model, kv.Autoencoder):
        with pytest.raises(NotImplementedError, match="prior"):
            model.sample(4, seed=1)
        return
    given = row.given(4)
    a, b = model.sample(4, seed=1, **given), row.make().sample(4, seed=1, **given)
    np.testing.assert_array_equal(a, b)
    assert np.any(a != model.sample(4, seed=2, **given))
    assert a.shape == (4, *row.x.shape[1:])


@pytest.mark.parametrize(
    "policy, epochs",
    [
        ("mixed_bfloat16", 1),
        # float16 begins with a loss scale of 2**15, and skips steps until that fits: an
        # epoch of three steps may have none that counts.
        pytest.param("mixed_float16", 3, marks=pytest.mark.slow),
    ],
)
def test_mixed_precision_stays_finite(row, policy, epochs):
    before = keras.mixed_precision.dtype_policy()
    try:
        keras.mixed_precision.set_dtype_policy(policy)
        model = row.make(run_eagerly=True)
        history = fit(model, row, epochs)
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    assert np.isfinite([values[-1] for values in history.values()]).all()
    assert row.predict(model).dtype == np.float32
    assert all(np.isfinite(w.numpy()).all() for w in model.weights)
