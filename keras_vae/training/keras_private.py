"""Every private name of Keras that this package uses, with the reason.

All were read in Keras 3.14 and 3.15. tests/training/test_keras_private.py fails when one
of them is gone or its source has changed.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

__all__ = [
    "CALLBACK_STATE",
    "DataAdapter",
    "Model",
    "check_slots",
    "flatten_layers",
    "has_sublayers",
    "loops_on_cpu",
    "moving_variables",
    "set_initial_epoch",
    "summed_gradients",
    "unlocked_state",
    "untrack",
]

# What Keras' callbacks know at the end of an epoch, beside their arguments. They have no
# method that returns it.
CALLBACK_STATE: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: (
        "wait", "stopped_epoch", "best", "best_epoch", "best_weights",
    ),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    keras.callbacks.ModelCheckpoint: (
        "best", "_batches_seen_since_last_saving", "_last_batch_seen",
    ),
}  # fmt: skip


class Model(keras.Model):
    """`keras.Model` with public names for the internals that a subclass needs."""

    def default_jit_compile(self) -> bool:
        """Returns what `jit_compile="auto"` means. Keras has no public hook for it."""
        return super()._resolve_auto_jit_compile()

    def _resolve_auto_jit_compile(self) -> bool:
        return self.default_jit_compile()

    def prepare_epochs(self, iterator: Any) -> None:
        """Receives Keras' epoch iterator before the first epoch of `fit` or `evaluate`."""

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Keras builds a model here, from the mean of the first batch over the replicas,
        # which fails where their shares differ. Models of this package are built already.
        # No other method receives the iterator.
        self.prepare_epochs(iterator)

    def set_epoch_parts(self, iterator: Any, parts: Callable[[], Iterator]) -> None:
        """Lets an epoch iterator go over parts of any number of steps.

        Keras' own loop cuts an epoch into executions of one size.

        Args:
            iterator: what `prepare_epochs` received.
            parts: function without arguments; yields (first step, last step, data).
        """
        iterator._enumerate_iterator = parts

    def require_compiled(self, method: str) -> None:
        """Raises Keras' own ValueError unless the model is compiled."""
        self._assert_compile_called(method)

    def iterator_function(self, step: Callable) -> Callable:
        """Returns Keras' function of an iterator that runs a step.

        `make_train_function` makes it of `train_step` only.
        """
        return self._make_function(step)

    @property
    def made_under_strategy(self) -> bool:
        """Returns True if the model was made in the scope of a `tf.distribute` strategy."""
        return self._distribute_strategy is not None


def flatten_layers(layer: keras.layers.Layer, include_self: bool = True) -> list:
    """All layers inside a layer, at any depth. `Model.layers` has the outer ones only."""
    return layer._flatten_layers(include_self=include_self)


def has_sublayers(layer: keras.layers.Layer) -> bool:
    """Returns True if a layer consists of other layers. Only `Model` has `layers`."""
    return bool(layer._layers)


def moving_variables(layer: keras.layers.Layer) -> list:
    """Variables that a forward pass may update, such as BatchNormalization's averages.

    Not `non_trainable_weights`: that also holds the weights of frozen layers.
    """
    variables = {
        id(variable): variable
        for inner in flatten_layers(layer, include_self=False)
        for variable in inner._non_trainable_variables
    }
    return list(variables.values())


def check_slots(optimizer: keras.optimizers.Optimizer, variables: Sequence) -> None:
    """Raises Keras' ValueError if an optimizer was built for other variables."""
    if optimizer.built:
        optimizer._check_variables_are_known(variables)


def set_initial_epoch(model: keras.Model, epoch: int | None) -> None:
    """Sets the first epoch of a `fit` that has begun, as Keras' BackupAndRestore does."""
    model._initial_epoch = epoch


@contextlib.contextmanager
def unlocked_state(layer: keras.layers.Layer) -> Iterator[None]:
    """Allows new layers in a built model, as Keras' own `quantize` does."""
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.lock()


def untrack(layer: keras.layers.Layer, value: Any) -> None:
    """Removes a value from the state of an unlocked layer."""
    layer._tracker.untrack(value)


@contextlib.contextmanager
def summed_gradients(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Applies gradients that are summed over the replicas already.

    Keras would sum them once more. It has no argument against that.
    """
    optimizer._all_reduce_sum_gradients = list
    try:
        yield
    finally:
        # Another replica, in its own thread, may have been faster.
        optimizer.__dict__.pop("_all_reduce_sum_gradients", None)


def loops_on_cpu(strategy: tf.distribute.Strategy) -> bool:
    """Returns True if the replicas of a strategy can meet inside a loop on the CPU."""
    operations = getattr(strategy.extended, "_cross_device_ops", None)
    return isinstance(operations, tf.distribute.ReductionToOneDevice)
