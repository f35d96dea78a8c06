"""Importance sampling against the exact likelihood of a linear-Gaussian model."""

import keras
import numpy as np
import pytest
from scipy import stats

import keras_vae as kv

DIM, LATENT, SIGMA = 5, 2, 0.7


@pytest.fixture(scope="module")
def model():
    """A VAE with fixed W, b and sigma in the decoder, and a nearly exact posterior."""
    rng = np.random.default_rng(1)
    vae = kv.VAE(
        keras.layers.Identity(),
        keras.layers.Identity(),
        kv.distributions.IndependentNormal((DIM,), scale=SIGMA),
        latent_dim=LATENT,
        seed=0,
    )
    vae.compile()
    w, b = rng.normal(size=(LATENT, DIM)), rng.normal(size=DIM)
    vae.likelihood._projections["loc"].set_weights([w, b])
    precision = np.eye(LATENT) + w @ w.T / SIGMA**2
    gain = np.linalg.inv(precision) @ w / SIGMA**2  # E[z|x] = gain (x - b)
    vae.posterior._projections["loc"].set_weights([gain.T, -gain @ b + 0.05])
    # Wider than the exact posterior, so that the weights are bounded.
    scale = 1.3 / np.sqrt(np.diag(precision))
    raw = np.log(np.expm1(scale - vae.posterior.min_scale)) - np.log(np.expm1(1 - 1e-3))
    vae.posterior._projections["scale"].set_weights([np.zeros((DIM, LATENT)), raw])
    exact = stats.multivariate_normal(b, w.T @ w + SIGMA**2 * np.eye(DIM))
    x = exact.rvs(200, random_state=2).astype(np.float32)
    return vae, x, exact.logpdf(x)


def test_the_estimate_is_exact_within_its_standard_error(model):
    vae, x, exact = model
    result = kv.evaluation.importance_weighted(vae, x, 1000)
    score = (result.log_likelihood - exact) / result.standard_error
    # Normal scores: 68 % within one error, and of 200 none beyond 4.5. The bias of the
    # logarithm, half a squared error, is a twentieth of an error here.
    assert 0.55 < np.mean(np.abs(score) < 1) < 0.8
    assert np.abs(score).max() < 4.5
    assert abs(score.mean()) < 4 / np.sqrt(len(x))
    assert (result.effective_sample_size > 100).all()
    assert (result.effective_sample_size <= 1000.01).all()
    np.testing.assert_array_equal(vae.log_likelihood(x, 1000), result.log_likelihood)


def test_standard_error_and_effective_sample_size_follow_the_weights(model):
    vae, x, _ = model
    position = keras.ops.arange(len(x), dtype="int32")
    log_weight = vae.terms(x, vae.row_noise(position), num_samples=50).log_weight.numpy()
    weight = np.exp(log_weight - log_weight.max(0)).astype(np.float64)
    result = kv.evaluation.importance_weighted(vae, x, 50)
    size = weight.sum(0) ** 2 / (weight**2).sum(0)
    error = weight.std(0, ddof=1) / np.sqrt(50) / weight.mean(0)
    # float32 logarithms of sums of 50 weights.
    np.testing.assert_allclose(result.effective_sample_size, size, rtol=1e-4)
    np.testing.assert_allclose(result.standard_error, error, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 5000])
def test_the_batch_size_does_not_change_the_estimate(model, batch_size):
    vae, x, _ = model
    x = x[:20]
    full = kv.evaluation.importance_weighted(vae, x, 64, batch_size=20 * 64)
    parts = kv.evaluation.importance_weighted(vae, x, 64, batch_size=batch_size)
    # float32 sums in another order.
    np.testing.assert_allclose(parts.log_likelihood, full.log_likelihood, rtol=1e-5)
    np.testing.assert_allclose(parts.standard_error, full.standard_error, rtol=1e-3)


def test_large_weights_are_summed_without_loss_of_precision():
    """log w is 20,000 nats, one sample at a time: a float32 sum would stop growing."""
    keras.utils.set_random_seed(0)
    vae = kv.VAE(
        keras.layers.Identity(),
        keras.layers.Identity(),
        kv.distributions.IndependentNormal((16_000,), scale=0.1),
        latent_dim=2,
        seed=0,
    )
    x = np.zeros((2, 16_000), np.float32)
    at_once = kv.evaluation.importance_weighted(vae, x, 2000, batch_size=4000)
    one_by_one = kv.evaluation.importance_weighted(vae, x, 2000, batch_size=2)
    assert np.abs(at_once.log_likelihood).min() > 1e4
    # Relative to 1e4 nats: the result itself is float32.
    np.testing.assert_allclose(one_by_one.log_likelihood, at_once.log_likelihood, rtol=3e-7)
    assert (one_by_one.effective_sample_size <= 2000).all()


def test_the_estimate_is_the_iwae_bound_of_evaluate(model):
    vae, x, _ = model
    vae.compile(objective=kv.objectives.IWAE(16))
    loss = vae.evaluate(x, verbose=0)[0]
    assert -loss == pytest.approx(vae.log_likelihood(x, 16).mean(), rel=1e-5)


def test_one_sample_has_no_standard_error(model):
    vae, x, _ = model
    result = kv.evaluation.importance_weighted(vae, x[:3], 1)
    assert np.isnan(result.standard_error).all()
    np.testing.assert_allclose(result.effective_sample_size, 1.0, rtol=1e-5)


def test_memory_does_not_grow_with_the_samples(model):
    """The decoder never gets more rows at once than `batch_size`."""
    vae, x, _ = model
    rows = []
    generate = vae.generate
    vae.generate = lambda z, *args: (rows.append(z.shape[0]), generate(z, *args))[1]
    try:
        kv.evaluation.importance_weighted(vae, x[:30], 333, batch_size=64)
    finally:
        del vae.generate
    traced = [r for r in rows if r is not None]
    assert traced and max(traced) <= 64


def test_bits_per_dimension():
    # A fair coin per pixel is one bit per pixel.
    nats = np.full(3, 12 * np.log(2))
    np.testing.assert_allclose(kv.evaluation.bits_per_dimension(nats, (2, 6)), 1.0)


def test_active_units_kl_per_unit_and_linear_probe():
    """A VAE with fixed weights: one informative unit, one constant unit."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    x = np.stack([4.0 * y + 0.1 * rng.normal(size=300), rng.normal(size=300)], 1)
    x = x.astype(np.float32)
    vae = kv.VAE(
        keras.layers.Identity(),
        keras.layers.Identity(),
        kv.distributions.IndependentNormal((2,)),
        posterior=kv.distributions.IndependentNormal((2,), scale=0.5),
    )
    vae.posterior._projections["loc"].set_weights([np.diag([1.0, 0.0]), np.zeros(2)])
    np.testing.assert_array_equal(kv.evaluation.active_units(vae, x), [True, False])
    # KL of N(m, 0.25) to N(0, 1), in closed form.
    constant = 0.5 * (0.25 - 1.0) - np.log(0.5)
    expected = [constant + 0.5 * np.mean(x[:, 0] ** 2), constant]
    np.testing.assert_allclose(kv.evaluation.kl_per_unit(vae, x, 64), expected, rtol=1e-5)
    split = x[:200], y[:200], x[200:], y[200:]
    assert kv.evaluation.linear_probe(vae, *split) == 1.0
    shuffled = x[:200], rng.permutation(y[:200]), x[200:], y[200:]
    assert kv.evaluation.linear_probe(vae, *shuffled) < 0.8
