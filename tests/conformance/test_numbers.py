"""Each row of the zoo: gradients, also of XLA, samples of a seed, half precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from keras_vae import models
from tests.conformance.common import BATCH, fit
from tests.zoo import ZOO


def test_no_public_name_is_missing():
    abstract = {"Head", "Prior", "Terms", "Objective", "Schedule"}
    public = set(models.__all__)
    for module in (kv.distributions, kv.nets):
        public |= set(module.__all__)
    for module in (kv.objectives, kv.schedules):
        public |= {
            name
            for name, value in vars(module).items()
            if isinstance(value, type)
            and value.__module__ == module.__name__
            and not name.startswith("_")
        }
    covered = {name for row in ZOO for name in row.covers}
    assert covered == public - abstract


def gradients_of(model):
    """Makes a function of x and a condition that returns the gradient of each weight."""

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
        return  # Keras' Dropout draws other numbers with XLA
    with_xla = tf.function(gradients_of(model), jit_compile=True, autograph=False)(
        x, **given
    )
    for variable, one, other in zip(
        model.trainable_variables, gradients, with_xla, strict=True
    ):
        # float32 rounding of fused kernels; the noise is the same.
        np.testing.assert_allclose(other, one, 1e-5, 1e-4, err_msg=variable.path)


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
        # float16 starts with a loss scale of 2**15, and skips steps while it is too large:
        # an epoch of three steps may skip all.
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
