"""A .keras file and a weights file store everything that training needs."""

import keras
import pytest

import keras_vae as kv
from tests.citizenship.common import (
    assert_equivalent,
    assert_same,
    compiled,
    fit,
    make,
    policy,
    reload,
)


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_keras_file_restores_the_compiled_model(tmp_path, epochs):
    objective = kv.objectives.ELBO(kv.schedules.Cosine(0.0, 2.0, steps=9), num_samples=2)
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    adam = keras.optimizers.Adam(rate)
    kwargs = {"steps_per_execution": 2, "max_skipped": 5}
    model = compiled(adam, objective=objective, **kwargs)
    fit(model, epochs=epochs)
    loaded = reload(model, tmp_path)
    assert int(loaded.step) == int(loaded.optimizer.iterations) == 2 * epochs
    assert int(loaded.epochs_begun) == epochs
    assert loaded.objective.get_config() == objective.get_config()
    assert loaded.optimizer.get_config() == adam.get_config()
    assert (loaded.steps_per_execution, loaded.max_skipped) == (2, 5)
    assert loaded.run_eagerly
    assert_equivalent(loaded, model)


def test_a_keras_file_restores_an_uncompiled_model(tmp_path):
    model = make()
    loaded = reload(model, tmp_path)
    assert not loaded.compiled
    assert_same(loaded.get_weights(), model.get_weights())


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16"])
def test_a_keras_file_restores_the_precision(tmp_path, name):
    with policy(name):
        model = compiled("adam")
    fit(model)
    loaded = reload(model, tmp_path)
    assert loaded.dtype_policy.name == loaded.encoder.dtype_policy.name == name
    assert type(loaded.optimizer) is type(model.optimizer)
    assert_equivalent(loaded, model)


def test_a_keras_file_keeps_frozen_parts_frozen(tmp_path):
    model = make()
    model.encoder.trainable = False
    loaded = reload(compiled("adam", model), tmp_path)
    assert not loaded.encoder.trainable
    assert_equivalent(loaded, model)


def test_a_weights_file_restores_the_training_state(tmp_path):
    model, other = compiled("adam"), compiled("adam", make(name="other"))
    fit(model, epochs=2)
    model.save_weights(tmp_path / "a.weights.h5")
    other.load_weights(tmp_path / "a.weights.h5")
    assert_equivalent(other, model)


def test_a_weights_file_without_an_optimizer(tmp_path):
    model, other = make(), compiled(model=make(seed=3))
    model.step.assign(7)
    model.save_weights(tmp_path / "a.weights.h5")
    with pytest.warns(UserWarning, match="optimizer"):  # Keras does not load the optimizer
        other.load_weights(tmp_path / "a.weights.h5")
    assert_same(other.get_weights(), model.get_weights())
