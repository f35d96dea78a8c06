"""Checks of the data of a model, and their conversion to batches for Keras."""

import contextlib
import weakref
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae.training import chunks, own_batches, replicas
from keras_vae.training.arrays import check_labels, check_weight, yields_batches
from keras_vae.training.batches import batches
from keras_vae.training.step import StepModel
from keras_vae.training.tables import is_sparse


class DataModel(StepModel):
    """Model that checks arrays before training, and gathers their batches by index.

    Args:
        seed: see `StepModel`.
        **kwargs: `name` and `dtype` of `keras.Model`.
    """

    _requested: dict[str, Any]  # the options of `compile` that may be "auto"
    # The names, in the arguments of `fit`, of the observed data and of the condition.
    data_names: tuple[str, str] = ("x", "y")

    # Methods that a subclass implements.

    def check_data(self, x: Any, name: str = "x", augmentation: Any = ()) -> Any:
        """Returns data as a NumPy array or `RowsOnDisk`, or raises a ValueError."""
        raise NotImplementedError

    def check_batch(self, x: Any, name: str = "x") -> None:
        """Raises a ValueError unless x, a tensor or its spec, is a batch for the model."""
        raise NotImplementedError

    def warn_about_scale(self, x: Any, name: str) -> None:
        """Warns about checked data of `fit` whose scale makes training fail."""

    def unpack(self, data: Any) -> tuple[Any, Any, Any]:
        """Splits a batch of `fit` into (observed, condition, weight)."""
        raise NotImplementedError

    def check_labels(self, y: Any, rows: int, name: str) -> Any:
        """Returns the labels of `fit`; checks here only that each row of x has one."""
        check_labels(y, rows, name)
        return y

    def _checked(self, x, y, weight, prefix="", augmentation=()):
        x = self.check_data(x, f"{prefix}x", augmentation)
        y = self.check_labels(y, len(x), f"{prefix}y")
        weight = check_weight(weight, len(x), f"{prefix}sample_weight")
        return x, y, weight

    def _validation(self, data, batch_size, steps, callbacks):
        if isinstance(data, (tuple, list)) and not 1 <= len(data) <= 3:
            raise ValueError(
                "`validation_data` must be x, (x, y) or (x, y, sample_weight). "
                f"Received: a {type(data).__name__} of {len(data)}"
            )
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        if yields_batches(x):
            checked = self._check_own_batches(x, "validation_data", "validation_data: ")
            return (checked if x is data else data), steps
        x, steps = self._batches(
            x, y, weight, batch_size, steps, prefix="validation_data: ", callbacks=callbacks
        )
        self._checked_batches[id(x)] = x
        return x, steps

    def _check_own_batches(self, x, name, prefix="", layers=(), fit=False):
        """Checks the first batch of data that yield batches; returns the data, unread."""
        if layers:
            raise ValueError(
                "`augmentation` is for arrays: map the layers over a tf.data.Dataset "
                f"yourself. Received: x of type {type(x).__name__}"
            )
        if isinstance(x, tf.data.Dataset):
            if x.cardinality() == 0:
                raise ValueError(f"`{name}` is empty. Received: a Dataset without batches")
            self.check_batch(self.unpack(x.element_spec)[0], name)
        if self._checked_batches.get(id(x)) is x:
            return x
        batch, x = own_batches.read_first(x, name)
        if batch is not None:
            observed, condition, _ = self.unpack(batch)
            if is_sparse(observed):
                raise ValueError(
                    f"`{name}` must yield dense batches, such as batch.toarray(). "
                    f"Received: a batch of type {type(observed).__name__}"
                )
            observed = self.check_data(observed, f"{prefix}{self.data_names[0]}")
            if condition is not None:
                self.check_labels(condition, len(observed), f"{prefix}{self.data_names[1]}")
            if fit:
                self.warn_about_scale(observed, self.data_names[0])
        with contextlib.suppress(TypeError):  # without weak references
            self._checked_batches[id(x)] = x
        return x

    @property
    def _checked_batches(self):
        """Data that need no check: Keras evaluates validation data after each epoch."""
        # Not with `setattr`: Keras would track it.
        return self.__dict__.setdefault("_checked_data", weakref.WeakValueDictionary())

    def _batches(
        self, x, y, weight, batch_size, steps=None, shuffle=False, layers=(), prefix="",
        class_weight=None, callbacks=None, fit=False,
    ):  # fmt: skip
        """Checks arrays; returns (batches, steps), with steps None for finite batches."""
        x, y, weight = self._checked(x, y, weight, prefix, layers)
        if fit:
            self.warn_about_scale(y if self.data_names[0] == "y" else x, self.data_names[0])
        packed, rows = self._packed(x, y, weight)
        if batch_size is None:
            batch_size = -(-rows // steps) if steps else 32  # as in Keras
        epoch = (lambda: self.epochs_begun.numpy() - 1) if fit else None
        options = {
            "data": packed, "batch_size": batch_size, "steps": steps, "seed": self.seed,
            "shuffle": shuffle, "epoch": epoch,
        }  # fmt: skip
        strategy = self.distribute_strategy
        has_none = any(a is None for a in tf.nest.flatten(packed))
        distributed = self.made_under_strategy or tf.distribute.has_strategy()
        if not (layers or class_weight or has_none or distributed):
            pace = chunks.Pace(self._requested["steps_per_execution"], callbacks)
            return chunks.Chunks(pace, **options, device=self.device), None
        options["augmentation"] = layers
        if not replicas.several_workers(strategy):
            return batches(**options), None
        # Each worker reads its own share. The dataset is infinite: with a finite one,
        # TensorFlow asks all workers before each step whether one has reached the end.
        count = -(-rows // batch_size)
        steps = (steps or count) if fit else min(steps or count, count)
        dataset = strategy.distribute_datasets_from_function(
            lambda context: batches(**options, replicas=replicas.pipeline_replicas(context))
        )
        return dataset, steps

    def _packed(self, x, y, weight):
        """Packs checked arrays for `batches`; returns the structure and the row count."""
        rows = len(tf.nest.flatten(x)[0])
        y = tf.nest.map_structure(lambda a: None if a is None else np.asarray(a), y)
        kinds = {getattr(a, "dtype", np.dtype(bool)).kind for a in tf.nest.flatten(y)}
        if kinds - set("buif"):
            # XLA does not support strings, and TensorFlow no objects: drops labels that
            # the model does not read.
            y = y if self.unpack((x, y, weight))[1] is not None else None
        # Not Keras' own packing, which drops weights without labels. Without None, which a
        # distributed dataset does not accept.
        if weight is None:
            return (x if y is None else (x, y)), rows
        return (x, np.zeros(rows, bool) if y is None else y, weight), rows
