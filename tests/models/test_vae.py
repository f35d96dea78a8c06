"""Methods of a VAE other than `fit`: batches, graphs, gradients and sampling."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv


@pytest.fixture(scope="module")
def vae():
    return kv.VAE(
        keras.layers.Dense(5, "tanh"),
        keras.layers.Dense(5, "tanh"),
        kv.distributions.IndependentNormal((4,)),
        latent_dim=2,
        seed=0,
    )


X = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_encode_in_batches_equals_encode(vae, batch_size):
    full, parts = vae.encode(X), vae.encode(X, batch_size)
    # float32: matrix products of other shapes round differently.
    np.testing.assert_allclose(parts.mean(), full.mean(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(parts.stddev(), full.stddev(), rtol=0, atol=1e-6)


def test_methods_work_in_a_users_tf_function(vae):
    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32)])
    def loop(x):
        z = vae.encode(x).mean()
        return vae.decode(z).mean(), vae.reconstruct(x)

    decoded, reconstructed = loop(X)
    np.testing.assert_array_equal(decoded, reconstructed)
    np.testing.assert_allclose(reconstructed, vae.reconstruct(X), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["encode", "reconstruct", "decode"])
def test_methods_have_gradients(vae, method):
    value = tf.constant(X if method != "decode" else X[:, :2])
    with tf.GradientTape() as tape:
        tape.watch(value)
        result = getattr(vae, method)(value)
        loss = tf.reduce_sum(result if method == "reconstruct" else result.mean())
    assert np.abs(tape.gradient(loss, value)).min() > 0


def test_each_sample_depends_only_on_its_seed(vae):
    from keras_vae import random
    from keras_vae.exporting import signatures

    rows = vae.sample(seeds=random.sample_seeds(5, 3))
    np.testing.assert_array_equal(rows, vae.sample(5, seed=3))
    # A row is the same alone as among others, and for int32 as for int64 seeds.
    alone = vae.sample(seeds=random.sample_seeds(5, 3)[2:3])
    np.testing.assert_allclose(alone, rows[2:3], rtol=0, atol=1e-6)
    outputs = signatures.sample(vae, tf.constant(random.sample_seeds(5, 3)))
    np.testing.assert_array_equal(outputs["x"], rows)
    np.testing.assert_array_equal(outputs["mean"], vae.sample(5, seed=3, mean=True))
    np.testing.assert_array_equal(vae.decode(outputs["z"]).mean(), outputs["mean"])
    # z and x use two streams of noise, which are independent.
    assert not np.allclose(outputs["x"][:, :2] - outputs["mean"][:, :2], outputs["z"])


def test_samples_without_a_seed_use_the_global_seed_of_keras(vae):
    keras.utils.set_random_seed(5)
    a, b = vae.sample(3), vae.sample(3)
    assert not np.allclose(a, b)
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(vae.sample(3), a)


def test_samples_have_the_moments_of_the_model(vae):
    n = 20_000
    x = vae.sample(n, seed=0).numpy()
    z = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    mean = vae.decode(z).mean().numpy()
    scale = vae.decode(z[:1]).stddev().numpy()[0, 0]
    error = x.std(0) / np.sqrt(n)
    assert (np.abs(x.mean(0) - mean.mean(0)) < 6 * error).all()
    assert x.var(0) == pytest.approx(mean.var(0) + scale**2, rel=0.05)


def test_every_use_of_the_encoder_sees_binarised_values_if_training_does():
    from keras_vae.exporting import signatures

    model = kv.VAE(
        keras.layers.Dense(5, "tanh"),
        keras.layers.Dense(5, "tanh"),
        kv.distributions.IndependentBernoulli((4,)),
        latent_dim=2,
        seed=0,
    )
    x = np.random.default_rng(0).uniform(size=(7, 4)).astype(np.float32)
    binary = model.encoder_input(x).numpy()
    assert set(np.unique(binary)) == {0.0, 1.0}
    uses = {
        "encode": lambda x: model.encode(x).mean(),
        "encode in batches": lambda x: model.encode(x, batch_size=7).mean(),
        "reconstruct": model.reconstruct,
        "predict": lambda x: model.predict(x, verbose=0),
        "encode signature": lambda x: signatures.encode(model, x, tf.range(7))["z"],
        "encode_mean": lambda x: signatures.encode_mean(model, x)["mean"],
        "reconstruct signature": lambda x: signatures.reconstruct(model, x)["mean"],
    }
    for name, use in uses.items():
        np.testing.assert_array_equal(use(x), use(binary), err_msg=name)
    scores = [signatures.score(model, x, tf.range(7))["log_prob"] for _ in range(2)]
    np.testing.assert_array_equal(*scores)
    value = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(value)
        mean = model.encode(value).mean()
    assert np.abs(tape.gradient(mean, value)).min() > 0
