"""Every private name of Keras that this package uses, with the reason.

They were checked in Keras 3.14 and 3.15. tests/training/test_keras_private.py fails when
one of them is missing or its source has changed.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

import keras_vae

# Again: TensorFlow imports Keras, and ignores the ImportError of the hook on that import.
keras_vae.check_backend(keras)

__all__ = [
    "CALLBACK_STATE",
    "DataAdapter",
    "Model",
    "PRIVATE_MODULES",
    "check_slots",
    "flatten_layers",
    "has_sublayers",
    "loops_on_cpu",
    "moving_variables",
    "set_initial_epoch",
    "summed_gradients",
    "unlocked_state",
    "untrack",
    "without_tracing_warnings",
]

# The modules of classes without a public name, in the configs of saved models. Keras loads
# only classes that can be saved from them.
PRIVATE_MODULES = "keras.src."

# Attributes that hold the state of Keras' callbacks at the end of an epoch. Keras has no
# method that returns this state.
CALLBACK_STATE: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: (
        "wait", "stopped_epoch", "best", "best_epoch", "best_weights",
    ),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    keras.callbacks.ModelCheckpoint: (
        "best", "_batches_seen_since_last_saving", "_last_batch_seen",
    ),
}  # fmt: skip


@contextlib.contextmanager
def without_tracing_warnings() -> Iterator[None]:
    """Hides TensorFlow's warning about repeated traces, for functions that Keras makes.

    TensorFlow counts the traces of a function over all models, so that it warns when
    several models are trained one after the other.
    """
    logger = tf.get_logger()
    logger.addFilter(_is_not_about_traces)
    try:
        yield
    finally:
        logger.removeFilter(_is_not_about_traces)


def _is_not_about_traces(record):
    return "triggered tf.function retracing" not in record.getMessage()


class Model(keras.Model):
    """`keras.Model` with public names for the internals that a subclass needs."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        self._compile_metrics = None  # Keras would keep the metrics of an earlier `compile`
        super().compile(*args, **kwargs)

    @property
    def user_metrics(self) -> keras.metrics.Metric | None:
        """The `metrics` and `weighted_metrics` of `compile` as one, or None."""
        return self._compile_metrics

    def default_jit_compile(self) -> bool:
        """Returns the value of `jit_compile="auto"`. Keras has no public hook for it."""
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
        """Makes an epoch iterator yield parts with any number of steps.

        Keras' own loop splits an epoch into executions of one size.

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

        `make_train_function` does this only for `train_step`.
        """
        function = self._make_function(step)

        def quiet(iterator: Any) -> Any:
            with without_tracing_warnings():
                return function(iterator)

        return quiet

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        with without_tracing_warnings():
            return super().predict(*args, **kwargs)

    @property
    def made_under_strategy(self) -> bool:
        """Returns True if the model was made in the scope of a `tf.distribute` strategy."""
        return self._distribute_strategy is not None


def flatten_layers(layer: keras.layers.Layer, include_self: bool = True) -> list:
    """Returns all layers inside a layer, at any depth, unlike `Model.layers`."""
    return layer._flatten_layers(include_self=include_self)


def has_sublayers(layer: keras.layers.Layer) -> bool:
    """Returns True if a layer contains other layers. Only `Model` has `layers`."""
    return bool(layer._layers)


def moving_variables(layer: keras.layers.Layer) -> list:
    """Returns variables that a forward pass may update, such as moving averages.

    Unlike `non_trainable_weights`, this excludes the weights of frozen layers.
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
    """Sets the first epoch of a running `fit`, as Keras' BackupAndRestore does."""
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
    """Makes an optimizer apply gradients that are already summed over the replicas.

    Keras would sum them again, and has no option to disable this.
    """
    optimizer._all_reduce_sum_gradients = list
    try:
        yield
    finally:
        # `pop`: another replica, in its own thread, may have removed it already.
        optimizer.__dict__.pop("_all_reduce_sum_gradients", None)


def loops_on_cpu(strategy: tf.distribute.Strategy) -> bool:
    """Returns True if the replicas of a strategy can synchronise in a loop on the CPU."""
    operations = getattr(strategy.extended, "_cross_device_ops", None)
    return isinstance(operations, tf.distribute.ReductionToOneDevice)
