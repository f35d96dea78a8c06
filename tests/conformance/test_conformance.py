"""Every row of the zoo goes through all of this."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from tests.zoo import ZOO

BATCH = 8  # three batches an epoch

zoo = pytest.mark.parametrize("row", ZOO, ids=[row.name for row in ZOO])


def fit(model, row, epochs=1, **kwargs):
    return model.fit(row.x, batch_size=BATCH, epochs=epochs, verbose=0, **kwargs).history


def assert_equal_weights(a, b, atol=0.0):
    for one, other in zip(a.weights, b.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), 0, atol, err_msg=one.path)


def test_no_public_name_is_missing():
    abstract = {"Head", "Prior", "Terms", "Objective", "Schedule"}
    public = {"VAE", "Autoencoder"}
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


@zoo
def test_it_learns(row):
    model = row.make(keras.optimizers.Adam(0.01))

    # By an evaluation before and after: the loss in `fit` follows a schedule's beta.
    def loss():
        logs = model.evaluate(row.x, verbose=0, return_dict=True)
        return logs["reconstruction"] + logs.get("kl", 0.0)

    before = loss()
    fit(model, row, epochs=20)
    assert loss() < before - 0.1


@zoo
def test_every_weight_gets_a_gradient(row):
    model = row.make()
    draw, _ = model.step_noise(tf.constant(BATCH))
    with tf.GradientTape() as tape:
        terms = model.terms(row.x[:BATCH], draw, None, model._num_samples, training=True)
        # Past the first step, where an annealed beta is 0.
        loss = tf.reduce_sum(model.objective(terms, tf.constant(5, tf.int64)))
    gradients = tape.gradient(loss, model.trainable_variables)
    without = [
        variable.path
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True)
        if gradient is None or not np.any(gradient)
    ]
    assert without == []


# Keras says so of any layer without a `build`, and what follows shows that it is built.
@pytest.mark.filterwarnings("ignore:`build..` was called on layer 'unbuilt")
@zoo
def test_save_and_resume_are_exact(row, tmp_path):
    whole = row.make()
    history = fit(whole, row, epochs=4)
    half = row.make()
    fit(half, row, epochs=2)
    half.save(tmp_path / "half.keras")
    resumed = keras.saving.load_model(tmp_path / "half.keras")
    np.testing.assert_array_equal(
        resumed.predict(row.x, verbose=0), half.predict(row.x, verbose=0)
    )
    rest = fit(resumed, row, epochs=2)
    assert {k: v[2:] for k, v in history.items()} == rest
    assert_equal_weights(whole, resumed)
    for one, other in zip(
        whole.optimizer.variables, resumed.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


@zoo
def test_weights_file(row, tmp_path):
    model = row.make()
    fit(model, row)
    model.save_weights(tmp_path / "model.weights.h5")
    other = row.build()
    other.load_weights(tmp_path / "model.weights.h5")
    assert_equal_weights(model, other)


@zoo
def test_evaluation_is_deterministic(row):
    model = row.make()
    first = model.evaluate(row.x, batch_size=BATCH, verbose=0)
    assert model.evaluate(row.x, batch_size=BATCH, verbose=0) == first
    # float32: matrix products of other shapes round differently.
    np.testing.assert_allclose(
        model.evaluate(row.x, batch_size=5, verbose=0), first, rtol=2e-6
    )


@zoo
def test_same_seed_same_sample(row):
    model = row.make()
    if isinstance(model, kv.Autoencoder):
        with pytest.raises(NotImplementedError, match="prior"):
            model.sample(4, seed=1)
        return
    a, b = model.sample(4, seed=1), row.make().sample(4, seed=1)
    np.testing.assert_array_equal(a, b)
    assert np.any(a != model.sample(4, seed=2))
    assert a.shape == (4, *row.x.shape[1:])


@zoo
@pytest.mark.parametrize(
    "policy",
    ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)],
)
def test_mixed_precision_stays_finite(row, policy):
    before = keras.mixed_precision.dtype_policy()
    try:
        keras.mixed_precision.set_dtype_policy(policy)
        model = row.make()
        history = fit(model, row, epochs=3)
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    # float16 begins with a loss scale of 2**15, and skips steps until that fits: an
    # epoch of three steps may have none that counts.
    assert np.isfinite([values[-1] for values in history.values()]).all()
    assert model.predict(row.x, verbose=0).dtype == np.float32
    assert all(np.isfinite(w.numpy()).all() for w in model.weights)


@zoo
def test_xla_or_not(row):
    if row.name == "dropout":
        pytest.skip("Keras' own Dropout draws other numbers under XLA")
    with_xla, without = (
        row.make("sgd", jit_compile=True),
        row.make("sgd", jit_compile=False),
    )
    fit(with_xla, row)
    fit(without, row)
    # float32 rounding of fused kernels, grown over three steps; the noise is the same.
    assert_equal_weights(with_xla, without, atol=2e-5)
