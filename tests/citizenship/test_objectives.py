"""Layers and functions as objectives: training and saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from tests.citizenship.common import (
    EPS,
    ROWS,
    X,
    assert_equivalent,
    compiled,
    evaluate,
    fit,
    make,
    register,
    reload,
)


@register
class LearnedWeight(keras.layers.Layer):
    """reconstruction + exp(-s) kl + s, with a trained s."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.s = self.add_weight(name="s", shape=(), initializer="zeros")

    def call(self, terms, step):
        return terms.reconstruction + tf.exp(-self.s) * terms.kl + self.s


def test_a_layer_as_objective_is_trained_and_saved(tmp_path):
    model = compiled("sgd", objective=LearnedWeight())
    assert any(w is model.objective.s for w in model.trainable_weights)
    kl = model.train_on_batch(X, return_dict=True)["kl"]
    # d loss / d s = 1 - kl at s = 0, and the rate is 0.01; a mean of 24 rounded terms.
    s = float(model.objective.s)
    assert s == pytest.approx(0.01 * (kl - 1), rel=ROWS * EPS)
    loss, _, reconstruction, kl = evaluate(model)
    assert loss == pytest.approx(reconstruction + np.exp(-s) * kl + s, rel=ROWS * EPS)
    loaded = reload(model, tmp_path)
    assert float(loaded.objective.s) == s
    assert_equivalent(loaded, model)


def test_a_new_objective_replaces_the_weights_of_the_old_one():
    model = compiled(objective=LearnedWeight())
    fit(model, X[:4])
    compiled(model=model, objective=kv.objectives.ELBO())
    assert len(model.weights) == len(make().weights)
    fit(model, X[:4])
    compiled(model=model, objective=LearnedWeight())
    assert len(model.weights) == len(make().weights) + 1
    fit(model, X[:4])


def half_kl(terms, step):
    return terms.reconstruction + 0.5 * terms.kl


@register
def registered_half_kl(terms, step):
    return half_kl(terms, step)


def test_a_function_as_objective_needs_custom_objects_to_load(tmp_path):
    model = compiled(objective=half_kl)
    fit(model)
    loss, _, reconstruction, kl = evaluate(model)
    assert loss == pytest.approx(reconstruction + 0.5 * kl, rel=ROWS * EPS)  # 24 terms
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises((TypeError, ValueError), match="half_kl"):
        keras.saving.load_model(path)
    loaded = keras.saving.load_model(path, compile=False)
    np.testing.assert_array_equal(loaded(X), model(X))
    loaded = keras.saving.load_model(path, custom_objects={"half_kl": half_kl})
    assert loaded.objective is half_kl
    assert_equivalent(loaded, model)


def test_a_registered_function_as_objective_loads_without_custom_objects(tmp_path):
    model = compiled(objective=registered_half_kl)
    loaded = reload(model, tmp_path)
    assert loaded.objective is registered_half_kl
    assert_equivalent(loaded, model)


def test_a_lambda_as_objective_is_saved_but_not_loaded_in_safe_mode(tmp_path):
    model = compiled(objective=lambda terms, step: terms.reconstruction)
    fit(model, X[:4])
    with pytest.warns(UserWarning, match="lambda"):
        model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="safe_mode"):
        keras.saving.load_model(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(X), model(X))
