"""What users of Keras expect: names of parts, metrics, quiet loops."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.python.eager.polymorphic_function import polymorphic_function

import keras_vae as kv
from keras_vae.exporting import verify
from tests.citizenship.common import (
    EPS,
    W,
    X,
    Y,
    compiled,
    evaluate,
    fit,
    make,
    register,
    reload,
)

PARTS = ["encoder", "posterior", "prior", "decoder", "likelihood"]
tfd, tfb = tfp.distributions, tfp.bijectors


def test_parts_have_their_names_in_the_summary_and_get_layer():
    encoder = keras.layers.Dense(4, name="mine")
    model, lines = make(encoder=encoder), []
    model.summary(print_fn=lines.append)
    assert [name for name in PARTS if f"{name} (" not in "".join(lines)] == []
    for name in PARTS:
        assert model.get_layer(name) is getattr(model, name)
    assert model.get_layer("mine") is model.get_layer(index=0) is encoder
    with pytest.raises(ValueError, match="unknown"):
        model.get_layer("unknown")


def test_parts_form_a_symbolic_model():
    model = make()
    x = keras.Input(X.shape[1:])
    means = keras.Model(x, model.posterior(model.encoder(x))["loc"])
    np.testing.assert_array_equal(means(X), model.encode(X).mean())
    autoencoder = keras.Model(x, model(x))
    np.testing.assert_array_equal(autoencoder(X), model(X))


@register
def largest_error(x, reconstruction):
    return tf.reduce_max(tf.abs(x - reconstruction), axis=-1)


METRICS = {
    "metrics": ["mae", largest_error, keras.metrics.R2Score(name="r2")],
    "weighted_metrics": ["mse"],
}


def terms_of(model):
    """Returns the reconstructions that `evaluate` compares with x."""
    draw = model.row_noise(tf.range(len(X)))
    return model.terms(X, draw, num_samples=2).reconstructed


def test_metrics_compare_x_with_its_reconstruction(tmp_path):
    objective = kv.objectives.IWAE(2)  # the mean of two reconstructions
    model = compiled("adam", objective=objective, run_eagerly=False, **METRICS)
    history = fit(model, y=Y, sample_weight=W, validation_data=(X, Y, W))
    names = {"mae", "mse", "r2", "largest_error"}
    assert history.keys() >= names | {f"val_{name}" for name in names}
    found = evaluate(model, sample_weight=W, return_dict=True)
    error = X - terms_of(model).numpy()
    expected = {
        "mae": np.abs(error).mean(),
        "largest_error": np.abs(error).max(1).mean(),
        "mse": np.average((error**2).mean(1), weights=W),
        "r2": np.mean(1 - (error**2).sum(0) / ((X - X.mean(0)) ** 2).sum(0)),
    }
    for name, value in expected.items():  # sums of some hundred rounded terms
        assert found[name] == pytest.approx(value, rel=300 * EPS, abs=300 * EPS)
        assert history[f"val_{name}"][0] == pytest.approx(found[name], rel=300 * EPS)
    loaded = reload(model, tmp_path)
    assert evaluate(loaded, sample_weight=W, return_dict=True) == found
    model.compile("adam")
    assert not names & fit(model).keys()


def test_metrics_do_not_change_training_and_ignore_skipped_steps():
    rows = np.concatenate([X, np.full_like(X[:8], np.nan)])
    x = tf.data.Dataset.from_tensor_slices(rows).batch(8)
    with_metrics, without = compiled(metrics=["mae"]), compiled()
    history = fit(with_metrics, x)
    expected = fit(without, x)
    assert history["skipped_steps"] == [1.0] and np.isfinite(history["mae"]).all()
    assert {name: history[name] for name in expected} == expected
    clean = fit(compiled(metrics=["mae"]), shuffle=False, batch_size=8)
    assert history["mae"] == clean["mae"]


class Flow(kv.distributions.Head):
    """A user's posterior: a distribution for which TFP has no mean."""

    projected = ("loc", "scale")
    bijector = tfb.Exp()

    def parameters(self, raw):
        return {"loc": raw["loc"], "scale": 0.1 + 0.1 * tf.nn.sigmoid(raw["scale"])}

    def distribution(self, params):
        normal = tfd.Independent(tfd.Normal(**params), 1)
        return tfd.TransformedDistribution(normal, self.bijector)


class FlowFromNoise(Flow):
    noise = "normal"

    def sample(self, params, noise):
        return self.bijector.forward(params["loc"] + params["scale"] * noise)


@pytest.mark.parametrize("head", [Flow, FlowFromNoise])
def test_a_mean_without_a_formula_is_estimated(head):
    model = kv.VAE(
        keras.layers.Dense(4), keras.layers.Dense(4),
        kv.distributions.IndependentNormal(X.shape[1:]), posterior=head((2,)), seed=0,
    )  # fmt: skip
    q = model.encode(X)
    normal = q.distribution.distribution
    variance = normal.stddev() ** 2
    mean = tf.exp(normal.mean() + variance / 2)  # of a log-normal distribution
    stddev = mean * tf.sqrt(tf.exp(variance) - 1)
    # 256 draws: five standard errors of the mean, and of the standard deviation.
    assert np.all(np.abs(q.mean() - mean) < 5 / 16 * stddev)
    np.testing.assert_allclose(q.stddev(), stddev, rtol=0.5)
    np.testing.assert_array_equal(q.mean(), model.encode(X).mean())
    predicted = model.predict(X, verbose=0)
    assert np.isfinite(predicted).all() and predicted.shape == X.shape
    assert kv.evaluation.active_units(model, X).shape == (2,)
    if head is FlowFromNoise:  # rows have the same noise
        np.testing.assert_allclose(model.reconstruct(X[3:4]), predicted[3:4], atol=1e-5)


def test_an_export_leaves_out_signatures_without_a_formula(tmp_path):
    model = kv.VAE(
        keras.layers.Dense(4), keras.layers.Dense(4),
        kv.distributions.IndependentNormal(X.shape[1:]), posterior=Flow((2,)), seed=0,
    )  # fmt: skip
    omitted = {"encode", "encode_mean", "reconstruct", "score"}
    with pytest.warns(UserWarning, match="has no encode, encode_mean, .*Flow"):
        path = model.export(tmp_path / "m")
    card = verify.read_card(path)
    assert card["signatures"].keys() == {"decode", "sample"}
    assert card["omitted"].keys() == omitted
    assert "## Omitted" in (path / "model_card.md").read_text()
    assert all(d.agrees for d in verify.verify(model, path, X, rows=20))
    for name in omitted:
        with pytest.raises(ValueError, match="noise"):
            model.export(tmp_path / "n", names=["decode", name])
    assert not (tmp_path / "n").exists()


def test_several_models_do_not_warn_about_traces(caplog, monkeypatch):
    # Warns at the second trace of a function in place of the fifth.
    monkeypatch.setattr(polymorphic_function, "FREQUENT_TRACING_WARNING_THRESHOLD", 2)
    batches = tf.data.Dataset.from_tensor_slices(X[:4]).batch(4)
    for seed in range(3):
        model = compiled(model=make(seed=seed), run_eagerly=False, jit_compile=False)
        fit(model, X[:4], batch_size=4)
        fit(model, batches)
        model.predict(X[:4], verbose=0)
        model.log_likelihood(X[:4], num_samples=2)
    assert [r for r in caplog.records if "retracing" in r.getMessage()] == []
    assert logging.getLogger("tensorflow").filters == []


def test_the_namespace_has_public_names_only():
    assert [n for n in dir(kv) if not n.startswith("__")] == sorted(kv.__all__)
    for name in ("sys", "pkgutil", "wrapt", "Any"):
        assert not hasattr(kv, name)
