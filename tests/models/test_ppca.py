"""A linear VAE is probabilistic PCA, whose solution is known in closed form.

Lucas et al. (2019), "Don't Blame the ELBO!", section 4; Tipping and Bishop (1999), section
3.2: with a shared noise variance, at the optimum sigma^2 is the mean of the smallest
eigenvalues of the sample covariance, the decoder spans the first eigenvectors, and the
ELBO equals the log-likelihood.
"""

import keras
import numpy as np
import pytest

import keras_vae as kv

ROWS, DIM, LATENT = 500, 6, 2
# Standard deviations along a random basis: two directions stand out.
SPREAD = np.array([3.0, 1.5, 0.6, 0.5, 0.5, 0.4])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    x = rng.normal(size=(ROWS, DIM)) * SPREAD @ basis.T + rng.normal(size=DIM)
    x = x.astype(np.float32)
    values, vectors = np.linalg.eigh(np.cov(x.T.astype(np.float64), bias=True))
    return x, values[::-1], vectors[:, ::-1]


def linear_vae(scale):
    return kv.VAE(
        encoder=keras.layers.Identity(),
        decoder=keras.layers.Identity(),
        likelihood=kv.distributions.IndependentNormal((DIM,), scale=scale),
        latent_dim=LATENT,
        seed=0,
    )


def train(model, x, epochs):
    # An epoch is 20 passes: a new pipeline for each epoch takes longer than 5 steps.
    x, epochs = np.tile(x, (20, 1)), epochs // 20
    steps = epochs * len(x) // 100
    rate = keras.optimizers.schedules.CosineDecay(0.03, steps)
    objective = kv.objectives.ELBO(num_samples=4)
    model.compile(
        keras.optimizers.Adam(rate), objective, jit_compile=True, steps_per_execution=50
    )
    model.fit(x, batch_size=100, epochs=epochs, verbose=0)


def test_a_linear_vae_reaches_the_closed_form_of_ppca(data):
    x, values, vectors = data
    model = linear_vae("shared")
    train(model, x, 400)

    sigma2 = values[LATENT:].mean()
    likelihood = -0.5 * (
        DIM * np.log(2 * np.pi)
        + np.log(values[:LATENT]).sum()
        + (DIM - LATENT) * np.log(sigma2)
        + DIM
    )
    loc_layer = model.likelihood._projections["loc"]
    decoder = loc_layer.kernel.numpy().astype(np.float64)  # [latent, dim]
    found = np.square(float(model.decode(np.zeros((1, LATENT))).stddev()[0, 0]))

    # The gradient is noisy and the last steps are small: 1 % of a variance, and 2 degrees
    # of a subspace, move the likelihood by less than 0.01 nats.
    assert found == pytest.approx(sigma2, rel=0.01)
    span = np.linalg.qr(decoder.T)[0]
    cosines = np.linalg.svd(span.T @ vectors[:, :LATENT], compute_uv=False)
    assert np.degrees(np.arccos(cosines.clip(0, 1))).max() < 2.0
    # W W^T, not only its span: the prior fixes the scale of a latent.
    expected = (vectors[:, :LATENT] * (values[:LATENT] - sigma2)) @ vectors[:, :LATENT].T
    assert np.abs(decoder.T @ decoder - expected).max() < 0.02 * values[0]
    elbo = model.evaluate(
        np.tile(x, (20, 1)), batch_size=1000, verbose=0, return_dict=True
    )["elbo"]
    # 0.01 for incomplete training, and the error of 10,000 single samples (the
    # reconstruction term varies by sqrt(latent) nats): 0.015.
    assert elbo == pytest.approx(likelihood, abs=0.03)
    # The bound is tight, and no estimate can exceed the maximum.
    estimate = kv.evaluation.importance_weighted(model, x, 200)
    assert estimate.log_likelihood.mean() == pytest.approx(likelihood, abs=0.01)


@pytest.mark.slow
def test_a_variance_above_an_eigenvalue_collapses_that_unit(data):
    x, values, _ = data
    model = linear_vae(scale=float(np.sqrt((values[0] + values[1]) / 2)))
    assert values[1] < model.likelihood.scale**2 < values[0]
    train(model, x, 400)
    kl = np.sort(kv.evaluation.kl_per_unit(model, x))
    # The unit in use contributes 0.5 log(eigenvalue / sigma^2) to the bound.
    assert kl[0] < 0.005
    assert kl[1] == pytest.approx(
        0.5 * np.log(values[0] / model.likelihood.scale**2), abs=0.02
    )
    assert kv.evaluation.active_units(model, x).sum() == 1


@pytest.mark.slow
def test_a_variance_below_both_eigenvalues_keeps_both_units(data):
    x, values, _ = data
    model = linear_vae(scale=float(np.sqrt(values[1] / 2)))
    train(model, x, 200)
    assert kv.evaluation.active_units(model, x).sum() == LATENT
