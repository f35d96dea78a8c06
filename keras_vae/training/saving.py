"""Saving and loading that resume exactly: atomic files, state of seed generators."""

import json
import os
import pathlib
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import keras

from keras_vae import atomic, checks
from keras_vae.training.keras_private import PRIVATE_MODULES


def check_format(filepath: Any) -> None:
    """Raises a ValueError for a path to which Keras would save a model as HDF5."""
    checks.require(
        not str(filepath).endswith((".h5", ".hdf5")),
        "filepath",
        "a path that ends in .keras, such as vae.keras: HDF5 files do not hold the "
        "objective and the state of the training (save_weights writes .weights.h5)",
        str(filepath),
    )


def check_checkpoints(callbacks: Any) -> None:
    """Raises a ValueError before training for callbacks that would save HDF5 models."""
    for callback in callbacks:
        if not getattr(callback, "save_weights_only", True):
            check_format(callback.filepath)


# Keras' modules of layers and their parts; `builtins` stands for functions of these.
_MODULES = {"builtins", "keras"} | {
    f"keras.{name}"
    for name in (
        "activations", "constraints", "dtype_policies", "initializers", "layers", "losses",
        "metrics", "models", "ops", "optimizers", "optimizers.schedules", "random",
        "regularizers",
    )
}  # fmt: skip
_MAX_CONFIG_BYTES = 2**26


def load_model(path: str | os.PathLike) -> Any:
    """Loads a .keras file that somebody else may have written.

    Keras' safe mode refuses code in the file. But a Lambda layer can still call every
    function that Keras exports, with arguments from the file, such as a function that
    writes a picture to a path. So only layers and their parts are allowed here, classes of
    this package and registered classes and functions.

    Raises:
        ValueError: for a file with other classes or functions.
    """
    with zipfile.ZipFile(path) as file:
        size = file.getinfo("config.json").file_size
        if size > _MAX_CONFIG_BYTES:
            raise ValueError(f"config.json has {size:,} bytes")
        config = json.loads(file.read("config.json"))
    for part in _parts(config):
        module, name = str(part["module"]), str(part.get("registered_name"))
        ours = module.startswith((PRIVATE_MODULES, "keras_vae."))
        # For functions of Keras, a registered name does not decide what is loaded.
        foreign = module.split(".")[0] != "keras"
        registered = foreign and keras.saving.get_registered_object(name) is not None
        if not (module in _MODULES or ours or registered):
            raise ValueError(
                f"it uses {part['class_name']!r} of {module!r}, which is no layer or part "
                "of a layer"
            )
    return keras.saving.load_model(path)


def _parts(config) -> Iterator[dict]:
    """Yields the configs of all objects in a config."""
    if isinstance(config, dict) and {"module", "class_name"} <= config.keys():
        yield config
    if isinstance(config, (dict, list)):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _parts(value)


class ExactSaving(keras.Model):
    """Mixin: saves the state of seed generators; saving and loading are atomic."""

    def save(
        self,
        filepath: str | os.PathLike,
        overwrite: bool = True,
        zipped: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves the model atomically: only a complete file replaces an existing one.

        Remote paths and folders are saved by Keras, not atomically.

        Raises:
            ValueError: for the HDF5 formats (.h5, .hdf5), which lack parts of the model.
        """
        check_format(filepath)
        path = pathlib.Path(filepath)
        local_file = "://" not in str(filepath) and not path.is_dir()
        if not local_file or path.suffix != ".keras" or (path.exists() and not overwrite):
            super().save(filepath, overwrite, zipped, **kwargs)
            return
        with atomic.replacing(path) as part:
            super().save(part, True, zipped, **kwargs)

    def load_weights(self, filepath: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Loads weights. If they do not fit, the model is unchanged."""
        variables = [*self.variables, *(self.optimizer.variables if self.compiled else [])]
        before = [v.numpy() for v in variables]
        try:
            super().load_weights(filepath, *args, **kwargs)
        except Exception:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
            raise

    @property
    def compiled(self) -> bool:
        """True if the model can be trained: after `compile`, or restored by a load."""
        return self._has_compiled and getattr(self, "optimizer", None) is not None

    @compiled.setter
    def compiled(self, value: bool) -> None:
        self._has_compiled = value  # Keras also sets it after `compile_from_config`

    def compile_from_config(self, config: dict) -> None:
        """Compiles a loaded model. If a part is missing, the model stays uncompiled."""
        try:
            options = keras.saving.deserialize_keras_object(config)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            warnings.warn(
                "The model is loaded without its training configuration, because its "
                "objective, optimizer or metrics cannot be restored. It can be used, for "
                "example to encode and to sample; call `compile` to train it. The reason: "
                f"{str(error).split('. ')[0]}.",
                stacklevel=2,
            )
            return
        self.compile(**options)

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        # Keras does not save the state of seed generators, such as Dropout's.
        for i, state in enumerate(self._seed_states()):
            store[f"seed_state_{i}"] = state

    def load_own_variables(self, store: Any) -> None:
        states = {key: store[key] for key in store.keys() if key.startswith("seed_")}
        own = {key: store[key] for key in store.keys() if key not in states}
        super().load_own_variables(own)
        for i, state in enumerate(self._seed_states()):
            state.assign(states[f"seed_state_{i}"])

    def _seed_states(self):
        weights = {id(w) for w in self.weights}
        return [v for v in self.variables if id(v) not in weights]
