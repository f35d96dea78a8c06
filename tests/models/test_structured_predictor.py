"""Structured prediction: closed forms, and several answers for one input."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import keras_vae as kv
from keras_vae import random

DIM, LATENT, INPUT_DIM = 4, 2, 3
normal = kv.distributions.IndependentNormal


def linear(**options):
    """p(y|x) = N(W m(x) + U x + b, W s(x)^2 W^T + sigma^2), m and log s linear."""
    model = kv.StructuredPredictor(
        encoder=kv.nets.Concatenated(keras.layers.Identity()),
        decoder=kv.nets.Concatenated(keras.layers.Identity()),
        likelihood=normal((DIM,), scale=0.5),
        latent_dim=LATENT,
        condition=(INPUT_DIM,),
        prior=kv.distributions.PriorNetwork(keras.layers.Identity(), (LATENT,)),
        **{"seed": 0, **options},
    )
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(0.5 * rng.normal(size=weight.shape))
    return model


def data(rows=20):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(rows, INPUT_DIM)), rng.normal(size=(rows, DIM))
    return x.astype(np.float32), y.astype(np.float32)


def exact(model, x):
    """Returns p(y|x) in closed form."""
    layer = model.likelihood._projections["loc"]
    w, b = layer.kernel.numpy().astype(float), layer.bias.numpy().astype(float)
    prior = model.prior.distribution(tf.constant(x))
    m, s = prior.mean().numpy().astype(float), prior.stddev().numpy().astype(float)
    scaled = s[:, :, None] * w[:LATENT]
    covariance = np.swapaxes(scaled, 1, 2) @ scaled + 0.25 * np.eye(DIM)
    return tfp.distributions.MultivariateNormalFullCovariance(
        m @ w[:LATENT] + x @ w[LATENT:] + b, covariance
    )


@pytest.mark.parametrize("proposal", ["prior", "posterior"])
def test_both_estimates_agree_with_the_closed_form(proposal):
    model, (x, y) = linear(), data()
    model.compile(jit_compile=False)
    found = kv.evaluation.importance_weighted(
        model, y, 20_000, condition=x, proposal=proposal
    )
    difference = np.abs(found.log_likelihood - exact(model, x).log_prob(y))
    # With fixed seeds, none of the 20 rows is beyond four standard errors. The error is an
    # estimate, too, and unreliable if the effective sample size is small.
    reliable = found.effective_sample_size > 200
    assert reliable.sum() > 5
    assert np.all(difference[reliable] < 4 * found.standard_error[reliable])


def test_the_hybrid_objective_agrees_with_its_equation():
    model, (x, y) = linear(), data()
    draw = model.row_noise(tf.range(len(y)))
    terms = model.terms(y, draw, x, num_samples=5)
    noise = draw("normal", (LATENT,), random.PRIOR, 5)
    prior = model.prior.distribution(tf.constant(x))
    z = prior.mean() + prior.stddev() * noise
    np.testing.assert_allclose(terms.from_prior.z, z, rtol=1e-5, atol=1e-5)
    nats = [
        model.likelihood.distribution(model.generate(one, tf.constant(x))).log_prob(y)
        for one in z
    ]
    predicted = -np.mean(nats, axis=0)
    step = tf.constant(0, tf.int64)
    for alpha in (0.0, 0.3, 1.0):
        loss = kv.objectives.Hybrid(alpha, num_samples=5)(terms, step)
        expected = (1 - alpha) * predicted - alpha * terms.elbo.numpy()
        np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_a_posterior_equal_to_the_prior_has_no_active_unit():
    model, (x, y) = linear(), data()
    assert kv.evaluation.active_units(model, y, condition=x).all()
    kernels = {name: d.kernel.numpy() for name, d in model.prior.head._projections.items()}
    for name, dense in model.posterior._projections.items():  # of the vector (y, x)
        dense.kernel.assign(np.concatenate([np.zeros((DIM, LATENT)), kernels[name]]))
        dense.bias.assign(model.prior.head._projections[name].bias)
    assert model.encode(y, condition=x).mean().numpy().var(0).min() > 0.01
    assert not kv.evaluation.active_units(model, y, condition=x).any()


class CountBatches(keras.callbacks.Callback):
    rows = 0

    def on_predict_batch_end(self, batch, logs=None):
        self.rows += len(logs["outputs"])


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        x, y = data()
        return x[4 * i : 4 * i + 4], y[4 * i : 4 * i + 4]


def test_predict_takes_the_arguments_of_keras(capsys):
    model, (x, _) = linear(), data()
    expected = model.predict(x[:12], num_samples=3, verbose=0)
    assert capsys.readouterr().out == ""
    count, options = CountBatches(), {"num_samples": 3, "verbose": 0}
    found = model.predict(x, batch_size=4, steps=3, callbacks=[count], **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)  # other batches
    assert count.rows == 12
    endless = tf.data.Dataset.from_tensor_slices(x).batch(4).repeat()
    for several, steps in (
        (endless, 3),
        (Pairs(), None),
        ((x[i : i + 4] for i in (0, 4, 8)), None),
    ):
        found = model.predict(several, steps=steps, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    model.predict(x, 4, 2, num_samples=3)
    assert "step" in capsys.readouterr().out


def test_predict_returns_the_mean_of_sampled_answers():
    model, (x, y) = linear(), data()
    found = model.predict(x, num_samples=4000)
    stddev = exact(model, x).stddev().numpy()
    np.testing.assert_array_less(
        np.abs(found - exact(model, x).mean()), 5 * stddev / np.sqrt(4000)
    )
    pairs = tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    for mean in (
        model.predict(x, batch_size=3, num_samples=50),
        model.predict(pairs, num_samples=50),
        model.predict(pairs.map(lambda x, y: x), num_samples=50),
    ):
        expected = model.predict(x, num_samples=50)
        np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-5)
    one = model.predict(x, num_samples=1)
    np.testing.assert_allclose(
        one, model.sample(condition=x, seed=0, mean=True), rtol=1e-5, atol=1e-5
    )


def test_samples_are_one_of_two_answers_and_not_their_mean():
    """y is (0, 1) or (1, 0) for all x: log 2 nats; their mean would have 2 log 2."""
    rng = np.random.default_rng(2)
    first = rng.integers(0, 2, 4000).astype(np.float32)
    y, x = np.stack([first, 1 - first], 1), np.zeros((4000, 1), np.float32)
    model = kv.StructuredPredictor(
        kv.nets.MLP([16], "tanh"),
        kv.nets.MLP([16], "tanh"),
        kv.distributions.IndependentBernoulli((2,), grey="error"),
        condition=(1,),
        prior=kv.distributions.PriorNetwork(kv.nets.MLP([16], "tanh"), (2,)),
        latent_dim=2,
        seed=0,
    )
    # With one sample, the bound loses 0.2 nats: exact posteriors are halves of a normal.
    model.compile(keras.optimizers.Adam(0.01), kv.objectives.IWAE(5))
    model.fit(x, y, batch_size=100, epochs=20, verbose=0)
    nats = -model.log_likelihood(y[:100], 500, condition=x[:100]).mean()
    assert nats == pytest.approx(np.log(2), abs=0.05)
    answers = model.sample(condition=x[:500], seed=1).numpy()
    assert np.mean(answers.sum(1) == 1) > 0.9
    np.testing.assert_allclose(model.predict(x[:5]), 0.5, rtol=0, atol=0.2)


def test_the_networks_get_the_baseline_and_training_does_not_change_it(tmp_path):
    x, y = data(40)
    baseline = keras.Sequential([keras.Input((INPUT_DIM,)), keras.layers.Dense(DIM)])
    before = [w.numpy() for w in baseline.weights]
    model = kv.StructuredPredictor(
        kv.nets.MLP([8]),
        kv.nets.MLP([8]),
        normal((DIM,)),
        condition=(INPUT_DIM,),
        prior=kv.distributions.PriorNetwork(kv.nets.MLP([8]), (LATENT,)),
        latent_dim=LATENT,
        baseline=baseline,
        seed=0,
    )
    embedded = model.embed(x)
    np.testing.assert_array_equal(embedded["x"], x)
    np.testing.assert_allclose(embedded["baseline"], baseline(x), rtol=1e-6)
    model.compile("adam")
    model.fit(x, y, batch_size=10, epochs=2, verbose=0, validation_data=(x, y))
    for weight, value in zip(baseline.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))


def test_wrong_data_and_arguments_are_refused_by_their_names():
    model, (x, y) = linear(), data()
    model.compile("adam")
    for args, message in (
        ((x,), "`y` must .*Received: y=None"),
        ((x[:, :2], y), r"`x` must have the shape \(20, 3\).*\(20, 2\)"),
        ((x, y[:, :2]), r"`y` must have shape \('batch', 4\).*\(20, 2\)"),
        ((x[0], y), "`x` must .* 20.*Received: x='one for all'"),
        ((x[:5], y), r"`x` must have the shape \(20, 3\).*\(5, 3\)"),
        ((x, np.full_like(y, np.nan)), "`y` must be finite"),
        ((np.full_like(x, np.nan), y), "`x` must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(*args, verbose=0)
    with pytest.raises(ValueError, match="`baseline` must .*Received"):
        linear(baseline=len)
    with pytest.raises(ValueError, match="`condition` must .*baseline.*Received"):
        mlp, condition = kv.nets.MLP([4]), {"baseline": (3,)}
        single = keras.Sequential()
        kv.StructuredPredictor(mlp, mlp, normal((DIM,)), 2, condition, baseline=single)
    with pytest.raises(ValueError, match="`num_samples` must .*Received"):
        model.predict(x, num_samples=0)
    with pytest.raises(ValueError, match="`x` must .*Received"):
        model.predict(tf.data.Dataset.from_tensor_slices(x).batch(2).take(0))
    np.testing.assert_array_equal(model.predict(x[0].tolist()), model.predict(x[:1]))
    with pytest.raises(ValueError, match="`alpha` must .*Received"):
        kv.objectives.Hybrid(1.5)
    with pytest.raises(ValueError, match="`network` must .*Received"):
        kv.distributions.PriorNetwork(3, (2,))
    with pytest.raises(ValueError, match="`proposal` must .*Received"):
        kv.evaluation.importance_weighted(model, y, 2, condition=x, proposal="q")
