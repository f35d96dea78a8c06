"""Layers and functions as objectives: training and saving."""

import functools

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
from tests.refusals import assert_each_refused


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
    with pytest.warns(UserWarning, match="half_kl"):
        loaded = keras.saving.load_model(path)
    assert not loaded.compiled
    np.testing.assert_array_equal(loaded(X), model(X))
    loaded = keras.saving.load_model(path, custom_objects={"half_kl": half_kl})
    assert loaded.objective is half_kl
    assert_equivalent(loaded, model)


def test_a_registered_function_as_objective_loads_without_custom_objects(tmp_path):
    model = compiled(objective=registered_half_kl)
    loaded = reload(model, tmp_path)
    assert loaded.objective is registered_half_kl
    assert_equivalent(loaded, model)


@register
class WithoutConfig(kv.objectives.Objective):
    """An objective without an attribute of the name of its argument."""

    def __init__(self, gamma):
        super().__init__()
        self.factor = gamma


class Unregistered(kv.objectives.ELBO):
    pass


def scaled_kl(scale):
    return lambda terms, step: scale * terms.kl


def closure(scale):
    def objective(terms, step):
        return scale * terms.kl

    return objective


def test_an_objective_that_cannot_be_saved_is_refused_by_compile():
    bad = [lambda terms, step: terms.kl, scaled_kl(2.0), closure(2.0), Unregistered()]
    bad += [functools.partial(half_kl), Unregistered().__call__]
    assert_each_refused(
        lambda v: compiled(objective=v), bad, "`objective`", "@keras.saving"
    )
    assert_each_refused(
        lambda v: compiled(objective=v), [WithoutConfig(2.0)], "`objective`", "get_config"
    )


def test_a_registered_local_function_can_be_saved(tmp_path):
    objective = register(closure(0.5))
    loaded = reload(compiled(objective=objective), tmp_path)
    assert loaded.objective is objective


def test_a_model_whose_objective_is_gone_loads_and_can_be_used(tmp_path):
    @keras.saving.register_keras_serializable("citizenship")
    class Gone(kv.objectives.ELBO):
        pass

    model = compiled("adam", objective=Gone())
    fit(model)
    path = tmp_path / "model.keras"
    model.save(path)
    del keras.saving.get_custom_objects()["citizenship>Gone"]
    with pytest.warns(UserWarning, match="'Gone'"):
        loaded = keras.saving.load_model(path)
    assert not loaded.compiled and loaded.objective is None
    np.testing.assert_array_equal(loaded.sample(3, seed=0), model.sample(3, seed=0))
    assert not reload(loaded, tmp_path).compiled
    with pytest.raises(ValueError, match="compile"):
        fit(loaded)
    fit(compiled(model=loaded))
