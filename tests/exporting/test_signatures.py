"""Exported functions: independent rows, NaN for bad rows, terms of the bound."""

import warnings

import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from keras_vae.exporting import signatures


def test_a_prior_that_cannot_sample_from_noise_is_refused(exports, tmp_path):
    model = exports.models["learned_prior"]
    with pytest.raises(ValueError, match="'sample' cannot.*LearnedNormal.*names="):
        model.export(tmp_path / "new", names=["sample", "decode"])
    assert not list(tmp_path.iterdir())


def test_signatures_do_not_mix_rows(exports):
    for name, model in exports.models.items():
        functions = model.signatures(3)
        x = model.as_float(exports.x[name][:6]).numpy()
        condition = model.example_condition(6)
        values = {
            "x": x,
            "seed": np.arange(6, dtype=np.int64) * 977,
            "z": signatures.encode_mean(model, x, condition)["mean"].numpy(),
            **signatures.by_name(condition),
        }
        for signature in exports.names(name):
            function = functions[signature].function
            inputs = [values[key] for key in functions[signature].inputs]
            together = function(*inputs)
            alone = function(*[value[4:5] for value in inputs])
            for key, value in together.items():
                # float32: matrix products of other shapes round differently.
                np.testing.assert_allclose(
                    value[4:5], alone[key], 1e-5, 1e-5, err_msg=f"{name} {signature} {key}"
                )


def test_only_rows_without_a_density_become_nan(exports):
    model = exports.models["bernoulli"]
    x = np.array(exports.x["bernoulli"][:4])
    x[1, 2], x[2, 0] = np.nan, 0.5  # grey="error": 0.5 has no probability
    seeds = np.arange(4)
    for outputs in (
        signatures.encode(model, x, seeds),
        signatures.encode_mean(model, x),
        signatures.reconstruct(model, x),
        signatures.score(model, x, seeds),
    ):
        for value in outputs.values():
            bad = np.isnan(value.numpy().reshape(4, -1))
            assert bad[1:3].all() and not bad[[0, 3]].any()
    z = np.zeros((3, 2), np.float32)
    z[1, 0] = np.inf
    for value in signatures.decode(model, z).values():
        bad = np.isnan(value.numpy().reshape(3, -1))
        assert bad[1].all() and not bad[[0, 2]].any()


def test_one_seed_for_many_rows_is_refused(exports):
    model, x = exports.models["bernoulli"], exports.x["bernoulli"][:4]
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        signatures.encode(model, x, np.array([7]))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        signatures.sample(model, np.array(7))


def test_score_returns_the_terms_of_the_bound(exports):
    model, x = exports.models["per_element_scale"], exports.x["per_element_scale"]
    one = signatures.score(model, x, np.arange(len(x)), num_samples=1)
    np.testing.assert_allclose(
        one["elbo"], one["log_likelihood"] - one["kl"], rtol=1e-6, atol=1e-6
    )
    # With many samples: the bound of `evaluate` and the estimate of `log_likelihood`.
    many = signatures.score(model, x, np.arange(len(x)), num_samples=2000)
    evaluated = model.evaluate(np.repeat(x, 50, axis=0), verbose=0, return_dict=True)
    error = np.std(one["elbo"]) / np.sqrt(50 * len(x))  # of the smaller number of samples
    assert abs(np.mean(many["elbo"]) - evaluated["elbo"]) < 5 * error
    exact = kv.evaluation.importance_weighted(model, x, 20_000)
    gap = np.abs(many["log_prob"] - exact.log_likelihood)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit = 5 * exact.standard_error * np.sqrt(10) + 1e-3
    assert (gap < limit).mean() > 0.95


def test_a_semi_supervised_model_also_exports_its_classifier(exports):
    model = exports.models["semi_supervised"]
    x = model.as_float(exports.x["semi_supervised"][:4]).numpy()
    classify = model.signatures()["classify"]
    assert list(classify.inputs) == ["x"]
    actual = classify.function(x)["probabilities"].numpy()
    np.testing.assert_array_equal(actual, model.classify(x))
    x[1, 2] = np.nan
    bad = np.isnan(classify.function(x)["probabilities"]).all(axis=1)
    assert bad.tolist() == [False, True, False, False]
