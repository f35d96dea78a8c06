"""Private names of Keras: they exist, work as described and are used in one module."""

import ast
import hashlib
import inspect
import pathlib

import keras
import numpy as np
import pytest
from keras.src.backend.tensorflow import optimizer as keras_optimizer
from keras.src.backend.tensorflow import trainer as keras_trainer
from keras.src.trainers.epoch_iterator import EpochIterator

import keras_vae
from keras_vae.training import keras_private

PACKAGE = pathlib.Path(keras_vae.__file__).parent

# Code that this package replaces or relies on, equal in all versions of Keras that
# pyproject.toml allows. If it changed, check that workers still train exactly.
KNOWN_SOURCES = {
    keras_trainer.reduce_per_replica: "2e7d54b1e6ed",
    keras_trainer.TensorFlowTrainer._make_function: "bb33b7a0da3d",
    keras_trainer.TensorFlowTrainer._maybe_symbolic_build: "92a504f5eba9",
    keras_optimizer.TFOptimizer._all_reduce_sum_gradients: "953512efa56c",
    keras_optimizer.TFOptimizer._backend_update_step: "00bd759c099a",
}


@pytest.mark.parametrize("code", KNOWN_SOURCES, ids=lambda code: code.__name__)
def test_private_sources_of_keras_have_not_changed(code):
    source = inspect.getsource(code)
    found = hashlib.sha256(source.encode()).hexdigest()[:12]
    assert found == KNOWN_SOURCES[code]


def test_private_names_of_keras_exist():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.Adam()
    missing = [
        name
        for owner, names in {
            model: (
                "_assert_compile_called", "_compile_metrics", "_distribute_strategy",
                "_flatten_layers",
                "_layers", "_make_function", "_maybe_symbolic_build",
                "_non_trainable_variables", "_resolve_auto_jit_compile", "_tracker",
            ),
            model._tracker: ("lock", "unlock", "untrack"),
            optimizer: ("_all_reduce_sum_gradients", "_check_variables_are_known"),
            EpochIterator: ("_enumerate_iterator",),
        }.items()
        for name in names
        if not hasattr(owner, name)
    ]  # fmt: skip
    assert missing == []
    assert "_initial_epoch" in inspect.getsource(keras_trainer.TensorFlowTrainer.fit)


def test_callbacks_have_the_attributes_that_a_backup_saves(tmp_path):
    callbacks = {
        keras.callbacks.EarlyStopping: keras.callbacks.EarlyStopping(),
        keras.callbacks.ReduceLROnPlateau: keras.callbacks.ReduceLROnPlateau(),
        keras.callbacks.ModelCheckpoint: keras.callbacks.ModelCheckpoint(
            tmp_path / "model.keras"
        ),
    }
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.zeros((4, 2))
    model.fit(x, x[:, :1], validation_data=(x, x[:, :1]), verbose=0,
              callbacks=list(callbacks.values()))  # fmt: skip
    assert callbacks.keys() == keras_private.CALLBACK_STATE.keys()
    for kind, names in keras_private.CALLBACK_STATE.items():
        assert [name for name in names if not hasattr(callbacks[kind], name)] == []


def test_only_moving_averages_are_moving_variables():
    frozen = keras.layers.Dense(2)
    frozen.trainable = False
    model = keras.Sequential([keras.Input((2,)), frozen, keras.layers.BatchNormalization()])
    names = {variable.name for variable in keras_private.moving_variables(model)}
    assert names == {"moving_mean", "moving_variance"}


def test_a_built_model_accepts_new_layers_only_while_unlocked():
    layer = keras.layers.Dense(1)
    layer.build((None, 2))
    with keras_private.unlocked_state(layer):
        layer.inner = keras.layers.Dense(3)
    assert layer.inner in keras_private.flatten_layers(layer)
    with pytest.raises(ValueError):
        layer.another = keras.layers.Dense(3)


def test_private_names_of_keras_are_used_only_in_keras_private():
    def private(path):
        return {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
        }

    home = PACKAGE / "training" / "keras_private.py"
    names = private(home) | {"_maybe_symbolic_build", "_resolve_auto_jit_compile"}
    others = [path for path in PACKAGE.rglob("*.py") if path != home]
    assert [path.name for path in others if private(path) & names] == []
    assert [path.name for path in others if "keras.src" in path.read_text()] == []
