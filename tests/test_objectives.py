"""Terms and objectives: closed forms against estimates, and the limiting cases."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import keras_vae as kv

tfd = tfp.distributions
ROWS, LATENT, DIM = 5, 3, 4


def terms(samples, prior=None, dtype=tf.float64):
    """Returns terms of random distributions, in float64 because the maths is under test."""
    rng = np.random.default_rng(0)
    loc, scale = rng.normal(size=(ROWS, LATENT)), rng.uniform(0.5, 2.0, (ROWS, LATENT))
    w = rng.normal(size=(LATENT, DIM))
    posterior = tfd.Independent(tfd.Normal(tf.constant(loc, dtype), scale), 1)
    standard = tfd.Independent(
        tfd.Normal(tf.zeros(LATENT, dtype), tf.ones(LATENT, dtype)), 1
    )
    z = loc + scale * rng.normal(size=(samples, ROWS, LATENT))
    mean = tf.constant(z.reshape(-1, LATENT) @ w, dtype)
    likelihood = tfd.Independent(tfd.Normal(mean, tf.ones([], dtype)), 1)
    x = tf.constant(rng.normal(size=(ROWS, DIM)), dtype)
    z = tf.constant(z, dtype)
    return kv.objectives.Terms(x, z, posterior, prior or standard, likelihood)


def test_terms_have_their_shapes_and_identities():
    t = terms(7)
    assert t.log_likelihood.shape == t.log_prior.shape == t.log_posterior.shape == (7, ROWS)
    assert t.kl_per_unit.shape == (ROWS, LATENT)
    np.testing.assert_allclose(tf.reduce_sum(t.kl_per_unit, 1), t.kl)
    np.testing.assert_allclose(t.elbo, -(t.reconstruction + t.kl))
    # Sample k of row b is row k * ROWS + b of the decoder.
    means = tf.reshape(t.likelihood.mean(), (7, ROWS, DIM))
    expected = tfd.Independent(tfd.Normal(means, tf.ones([], tf.float64)), 1).log_prob(t.x)
    np.testing.assert_allclose(t.log_likelihood, expected)


def test_the_analytic_kl_agrees_with_its_monte_carlo_estimate():
    t = terms(200_000)
    difference = t.log_posterior - t.log_prior
    error = np.std(difference, axis=0) / math.sqrt(200_000)
    assert (np.abs(np.mean(difference, axis=0) - t.kl) < 4 * error).all()


def test_without_a_closed_form_the_kl_is_a_monte_carlo_estimate():
    logistic = tfd.Independent(
        tfd.Logistic(tf.zeros(LATENT, tf.float64), tf.ones([], tf.float64)), 1
    )
    t = terms(50, logistic)
    assert t.kl_per_unit is None
    np.testing.assert_allclose(t.kl, np.mean(t.log_posterior - t.log_prior, axis=0))


def test_a_kl_without_a_value_per_unit():
    full = tfd.MultivariateNormalTriL(
        tf.zeros(LATENT, tf.float64), tf.eye(LATENT, dtype=tf.float64)
    )
    t = terms(50, full)  # TFP has no KL between Independent(Normal) and this
    assert t.kl_per_unit is None
    with pytest.raises(ValueError, match="free_bits"):
        kv.objectives.ELBO(free_bits=0.1)(t, 0)


def test_elbo_and_its_options():
    t = terms(3)
    elbo = kv.objectives.ELBO
    kl = t.kl.numpy()
    np.testing.assert_allclose(elbo()(t, 0), -t.elbo)
    np.testing.assert_allclose(elbo(4.0)(t, 0), t.reconstruction + 4 * kl)
    annealed = elbo(kv.schedules.Linear(0.0, 1.0, steps=10))
    np.testing.assert_allclose(annealed(t, 5), t.reconstruction + 0.5 * kl)
    floor = np.maximum(t.kl_per_unit, 0.5).sum(1)
    np.testing.assert_allclose(elbo(2.0, free_bits=0.5)(t, 0), t.reconstruction + 2 * floor)
    np.testing.assert_allclose(
        elbo(2.0, capacity=1.0)(t, 0), t.reconstruction + 2 * np.abs(kl - 1.0)
    )
    np.testing.assert_allclose(kv.objectives.Reconstruction()(t, 0), t.reconstruction)


def test_free_bits_stop_the_gradient_below_the_floor():
    loc = tf.Variable([[0.1, 3.0]])
    with tf.GradientTape() as tape:
        posterior = tfd.Independent(tfd.Normal(loc, 1.0), 1)
        prior = tfd.Independent(tfd.Normal(tf.zeros(2), 1.0), 1)
        likelihood = tfd.Independent(tfd.Normal(tf.zeros((1, 2)), 1.0), 1)
        t = kv.objectives.Terms(tf.zeros((1, 2)), loc[None], posterior, prior, likelihood)
        loss = kv.objectives.ELBO(free_bits=0.5)(t, 0)
    np.testing.assert_allclose(tape.gradient(loss, loc), [[0.0, 3.0]])


def test_iwae_in_its_limits():
    one = terms(1)
    # With one sample: the ELBO without the closed form of its KL.
    np.testing.assert_allclose(kv.objectives.IWAE(1)(one, 0), -one.log_weight[0])
    many = terms(1000)
    iwae = -kv.objectives.IWAE(1000)(many, 0).numpy()
    # Jensen: log mean exp is at least the mean.
    assert (iwae > np.mean(many.log_weight, axis=0)).all()
    # The exact log p(x) of this linear-Gaussian model.
    rng = np.random.default_rng(0)
    rng.normal(size=(ROWS, LATENT)), rng.uniform(0.5, 2.0, (ROWS, LATENT))
    w = rng.normal(size=(LATENT, DIM))
    marginal = tfd.MultivariateNormalFullCovariance(
        tf.zeros(DIM, tf.float64), w.T @ w + np.eye(DIM)
    )
    weight = np.exp(many.log_weight.numpy())
    error = weight.std(0) / weight.mean(0) / math.sqrt(1000)
    assert (np.abs(iwae - marginal.log_prob(many.x)) < 4 * error).all()


@pytest.mark.parametrize(
    "objective",
    [
        kv.objectives.ELBO(0.5, free_bits=0.1, num_samples=3),
        kv.objectives.ELBO(kv.schedules.Cyclical(0.0, 1.0, 10), capacity=2.0),
        kv.objectives.ELBO(keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.9)),
        kv.objectives.IWAE(7),
        kv.objectives.Reconstruction(2),
    ],
)
def test_an_objective_is_serialised(objective):
    config = keras.saving.serialize_keras_object(objective)
    restored = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(restored) == config
    t = terms(objective.num_samples)
    np.testing.assert_array_equal(restored(t, 7), objective(t, 7))
