"""Each row of the zoo: gradients with and without XLA, seeds, half precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from keras_vae import models
from tests.conformance.common import BATCH, fit
from tests.zoo import ZOO


def test_every_public_name_is_in_the_zoo():
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


def make_gradient_function(model):
    """Returns a function of x and a condition that returns the gradient of each weight."""

    def gradients(x, condition=None):
        draw = model.step_noise(tf.constant(BATCH))
        with tf.GradientTape() as tape:
            terms = model.terms(x, draw, condition, model._num_samples, True)
            # Not at the first step, where an annealed beta is 0.
            loss = tf.reduce_sum(model.objective(terms, tf.constant(5, tf.int64)))
        return tape.gradient(loss, model.trainable_variables)

    return gradients


def test_every_weight_gets_a_gradient_also_with_xla(row):
    model = row.make()
    x = tf.constant(row.x[:BATCH])
    condition = row.condition_kwargs(BATCH, training=True)
    gradients = make_gradient_function(model)(x, **condition)
    missing = [
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None or not np.any(gradient)
    ]
    assert missing == []
    # Dropout of Keras draws other numbers with XLA. The others have no operation that
    # another row does not have.
    if row.name in ("dropout", "fixed_scale", "shared_posterior", "capacity", "annealed"):
        return
    with_xla = tf.function(
        make_gradient_function(model), jit_compile=True, autograph=False
    )(x, **condition)
    for variable, one, other in zip(
        model.trainable_variables, gradients, with_xla, strict=True
    ):
        # float32 rounding of fused kernels; the noise is the same.
        np.testing.assert_allclose(other, one, 1e-5, 1e-4, err_msg=variable.path)


def test_the_same_seed_draws_the_same_sample(row):
    model = row.make()
    if isinstance(model, kv.Autoencoder):
        with pytest.raises(NotImplementedError, match="prior"):
            model.sample(4, seed=1)
        return
    condition = row.condition_kwargs(4)
    a, b = model.sample(4, seed=1, **condition), row.make().sample(4, seed=1, **condition)
    np.testing.assert_array_equal(a, b)
    assert np.any(a != model.sample(4, seed=2, **condition))
    assert a.shape == (4, *row.x.shape[1:])


@pytest.mark.parametrize(
    "policy, epochs",
    [
        ("mixed_bfloat16", 1),
        # float16 starts with a loss scale of 2**15 and skips steps while it is too large,
        # perhaps all three steps of an epoch.
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
