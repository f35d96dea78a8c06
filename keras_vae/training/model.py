"""A Keras model that resumes exactly: training depends on its weights and its seed alone.

The module is independent of VAEs. It adds to Keras: the counters that key noise and order
are weights; arrays are shuffled by (seed, epoch); the state of seed generators is saved; a
step whose gradients are not finite changes nothing; the key of the noise in evaluation is
the position of a row in the data. So a resumed run continues exactly where it stopped, and
several replicas train like one device.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks
from keras_vae.configured import Configured
from keras_vae.datasets.rows import RowsOnDisk
from keras_vae.training import chunks, identity, replicas
from keras_vae.training.arrays import (
    split_last,
    yields_batches,
)
from keras_vae.training.augmentation import check_augmentation
from keras_vae.training.batches import batches
from keras_vae.training.data import DataModel
from keras_vae.training.forks import check_not_forked
from keras_vae.training.guard import drop_no_skips, guarded_callbacks
from keras_vae.training.keras_private import flatten_layers
from keras_vae.training.saving import ExactSaving, check_checkpoints


class BuiltWhenMade(type(keras.Model)):  # type: ignore[misc]
    """Metaclass that builds a model after the whole constructor has returned.

    All shapes are known then. So wrong parts fail at once, `summary` and `save` work before
    the first batch, and loading finds every weight and optimizer slot.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        model = super().__call__(*args, **kwargs)
        if not model.built:
            model.build(model.batch_shape)
        return model


class ResumableModel(Configured, ExactSaving, DataModel):
    """Base of the models: `fit`, `evaluate` and `predict` on arrays, resumed exactly.

    A subclass implements `train_step` and `test_step` with `step_noise`, `row_noise`,
    `update` and `report`, lists its metrics in `reported`, and checks data in `check_data`.

    Args:
        seed: int of 32 bits, the root of all noise and of the order of the data.
            Default: drawn from Keras' global seed.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Raises:
        ValueError: if the seed is not an int of 32 bits.
    """

    # Compilation.

    def compile(
        self,
        optimizer: Any = "adam",
        *,
        max_skipped: int = 20,
        global_clipnorm: float | None = None,
        steps_per_execution: int | str = "auto",
        jit_compile: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        """Configures how the model is trained.

        Args:
            optimizer: Keras optimizer or its name.
            max_skipped: int. A step whose gradients are not finite changes no weight and
                is counted in the metric `skipped_steps`, which the logs contain from the
                first skipped step on. After this many skipped steps in a row `fit` raises
                an error.
            global_clipnorm: float, the largest norm of all gradients together, summed over
                the replicas; larger gradients are scaled down to it. Default: no limit.
            steps_per_execution: int, or "auto": an execution takes a tenth of a second or
                more. "auto" is 1 for data other than arrays, and if a callback is called
                for each batch.
            jit_compile: bool, or "auto": XLA, except for convolutions and recurrent layers
                on a CPU, which are faster without it, and under several replicas.
            **kwargs: `run_eagerly`, `auto_scale_loss`, `metrics` and `weighted_metrics` of
                `keras.Model.compile`. A metric is a function of x and its reconstruction,
                the mean of p(x|z) with the z of the step, drawn from q(z|x).

        Raises:
            ValueError: if a number is out of range.
        """
        if steps_per_execution != "auto":
            checks.positive_int(steps_per_execution, "steps_per_execution")
        max_skipped = checks.positive_int(max_skipped, "max_skipped")
        if global_clipnorm is not None:
            global_clipnorm = checks.positive(global_clipnorm, "global_clipnorm")
        strategy = self.distribute_strategy
        # XLA cannot compile a whole step in which replicas synchronise.
        self._nested_xla = jit_compile is True and strategy.num_replicas_in_sync > 1
        requested = 1 if steps_per_execution == "auto" else int(steps_per_execution)
        steps = replicas.steps_per_execution(strategy, requested)
        super().compile(
            optimizer,
            steps_per_execution=steps,
            jit_compile=False if self._nested_xla else jit_compile,
            **kwargs,
        )
        if steps != requested:
            warnings.warn(
                "`steps_per_execution` is 1 under this strategy, whose replicas cannot "
                "synchronise in a loop. On the CPUs of one host they can with "
                "MirroredStrategy(cross_device_ops=tf.distribute.ReductionToOneDevice()). "
                f"Received: steps_per_execution={steps_per_execution}",
                stacklevel=3,
            )
        self.max_skipped, self.global_clipnorm = max_skipped, global_clipnorm
        self._requested = {
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
        }

    def default_jit_compile(self) -> bool:
        """Returns the value of `jit_compile="auto"`: as in Keras, unless XLA is slower."""
        if self.distribute_strategy.num_replicas_in_sync > 1:
            return False
        if not tf.config.list_physical_devices("GPU") and chunks.slow_in_xla(self):
            return False
        return all(layer.supports_jit for layer in flatten_layers(self))

    def get_compile_config(self) -> dict:
        config = super().get_compile_config()
        names = "optimizer", "metrics", "weighted_metrics", "run_eagerly"
        kept = {key: config[key] for key in names if config.get(key) is not None}
        scales = isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)
        return {
            **kept,
            **self._requested,
            "max_skipped": self.max_skipped,
            "global_clipnorm": self.global_clipnorm,
            "auto_scale_loss": scales,
        }

    def in_xla(self, function: Callable) -> Callable:
        """Compiles a part of a step with XLA, if XLA cannot compile the whole step."""
        if not self._nested_xla:
            return function
        function = functools.partial(function)
        return tf.function(function, jit_compile=True, autograph=False)

    def try_xla(self, run: Callable[[bool], Any]) -> Any:
        """Calls `run(jit_compile)`; retries without XLA, unless `jit_compile=True`."""
        required = self.compiled and self._requested["jit_compile"] is True
        return chunks.try_xla(self, run, required)

    def compiled_once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Returns the cached result of `make()`, a compiled function, for a key.

        The cache belongs to the model and is not saved.
        """
        # Not with `setattr`: Keras would track the cache.
        cache = self.__dict__.setdefault("_compiled_once", {})
        if key not in cache:
            cache[key] = make()
        return cache[key]

    def make_train_function(self, force: bool = False) -> None:
        if force or getattr(self, "train_function", None) is None:
            self.train_function = chunks.execution_function(self, self.train_step)

    def make_test_function(self, force: bool = False) -> None:
        if force or getattr(self, "test_function", None) is None:
            self.test_function = chunks.execution_function(self, self.test_step)

    def prepare_epochs(self, iterator: Any) -> None:
        adapter = getattr(iterator, "data_adapter", None)
        if isinstance(adapter, chunks.Chunks):
            self.set_epoch_parts(iterator, adapter.parts)

    # Training and evaluation.

    def fit(  # noqa: D417 (the other arguments are those of Keras)
        self, x: Any = None, y: Any = None, batch_size: int | None = None, epochs: int = 1,
        verbose: Any = "auto", callbacks: Any = None, validation_split: float = 0.0,
        validation_data: Any = None, shuffle: bool = True,
        class_weight: dict | None = None, sample_weight: Any = None,
        initial_epoch: int = 0, steps_per_epoch: int | None = None,
        validation_steps: int | None = None, validation_batch_size: int | None = None,
        validation_freq: Any = 1, augmentation: Any = None,
    ) -> keras.callbacks.History:  # fmt: skip
        """Trains like `keras.Model.fit`; the order of arrays depends on (seed, epoch) only.

        Arrays are checked before training starts. With `steps_per_epoch`, an epoch has that
        many batches, and the next epoch continues in the data where this one ended. Noise,
        schedules and order continue where the last `fit`, or the saved model, ended.

        Under `tf.distribute.MultiWorkerMirroredStrategy` all workers make the same call of
        `fit`. Each reads its share of the batches; only the chief shows a progress bar.

        Args:
            x: array `[rows, *event]` (NumPy, TensorFlow, ...), data frame,
                `tf.data.Dataset`, `keras.utils.PyDataset` or generator, whose first batch
                is checked; or rows that are read when they are needed: matrices of
                `scipy.sparse`, `np.load(path, mmap_mode="r")`, `keras_vae.Shards`,
                `keras_vae.TFRecords`, `keras_vae.ImageFiles`.
            y: labels, which a VAE ignores, so that `(x, y)` pairs can be passed.
            sample_weight: array `[rows]`, a factor of the loss of each example.
            batch_size: int. Default: 32.
            validation_data: x, `(x, y)` or `(x, y, sample_weight)`.
            augmentation: Keras' image preprocessing layer or a list of them, such as
                `keras.layers.RandomTranslation(0.1, 0.1)`, for the batches of an array.
                Their random numbers are a function of (seed, epoch, batch), too. With
                layers that reduce the size (`RandomCrop`), x is larger than the event of
                the likelihood; validation data must have the event's size.
            epochs: int; this and the other arguments are those of `keras.Model.fit`.

        Returns:
            `keras.callbacks.History`.

        Raises:
            ValueError: for data that do not fit the likelihood, and if workers differ in
                model, data or options.
            RuntimeError: after `max_skipped` steps in a row without finite gradients, if
                all steps of `fit` were skipped, and if weights are NaN or infinite; in a
                forked child of a process that has used TensorFlow, where `fit` would wait
                forever.
        """
        check_not_forked()
        self.require_compiled("fit")
        checks.positive_ints_or_none(
            batch_size=batch_size,
            validation_batch_size=validation_batch_size,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            epochs=epochs or None,  # 0 trains nothing, as in Keras
        )
        callbacks = guarded_callbacks(callbacks, self)
        check_checkpoints(getattr(callbacks, "callbacks", callbacks))
        layers = check_augmentation(augmentation)
        facts = functools.partial(
            identity.data_facts, x=x, y=y, sample_weight=sample_weight,
            validation_data=validation_data, augmentation=layers, batch_size=batch_size,
            steps_per_epoch=steps_per_epoch, shuffle=shuffle,
            validation_split=validation_split, validation_steps=validation_steps,
            validation_freq=validation_freq,
            class_weight=repr(class_weight),  # with its keys
        )  # fmt: skip
        self._check_workers(facts, class_weight)
        if validation_split and validation_data is None and not yields_batches(x):
            data = self._checked(x, y, sample_weight, augmentation=layers)
            (x, y, sample_weight), validation_data = split_last(data, validation_split)
            validation_split = 0.0
        if yields_batches(x):
            x = self._check_own_batches(x, "x", layers=layers, fit=True)
        else:
            if class_weight is not None and y is None:
                raise ValueError("`class_weight` needs labels. Received: y=None")
            x, steps_per_epoch = self._batches(
                x, y, sample_weight, batch_size, steps_per_epoch, shuffle, layers,
                class_weight=class_weight, callbacks=callbacks, fit=True,
            )  # fmt: skip
            y = sample_weight = None
        if validation_data is not None:
            validation_data, validation_steps = self._validation(
                validation_data, validation_batch_size or batch_size, validation_steps,
                callbacks,
            )  # fmt: skip
        if not replicas.is_chief(self.distribute_strategy):
            verbose = 0
        shuffle = shuffle and isinstance(x, keras.utils.PyDataset)
        with self._fitting(callbacks, facts):
            return super().fit(
                x, y, epochs=epochs, verbose=verbose, callbacks=callbacks,
                validation_split=validation_split, validation_data=validation_data,
                shuffle=shuffle, class_weight=class_weight, sample_weight=sample_weight,
                initial_epoch=initial_epoch, steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps, validation_freq=validation_freq,
            )  # fmt: skip

    def _check_workers(self, facts, class_weight):
        strategy = self.distribute_strategy
        if not replicas.several_workers(strategy):
            return
        versions = f"keras {keras.__version__}, tensorflow {tf.__version__}"
        state = {"versions": versions, "weights": identity.fingerprint(self)}
        replicas.check_same({**facts(), **identity.model_facts(self), **state}, strategy)
        if class_weight is not None:
            raise ValueError(
                "`class_weight` must be None with several workers: give each row its "
                f"`sample_weight`. Received: class_weight={class_weight}"
            )

    @contextlib.contextmanager
    def _fitting(self, callbacks, facts):
        begun, step = self.epochs_begun.numpy(), self.step.numpy()
        listed = getattr(callbacks, "callbacks", callbacks)
        try:
            with contextlib.ExitStack() as stack:
                for callback in listed:
                    if hasattr(callback, "around_fit"):
                        stack.enter_context(callback.around_fit(listed, facts))
                yield
                if step != self.step.numpy():
                    self.check_weights()
        finally:
            if step == self.step.numpy():  # failed before the first step
                self.epochs_begun.assign(begun)

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Computes the loss and the terms of the bound, in nats.

        Deterministic for fixed weights: the key of the noise is the position of a row in
        the data. So the values do not depend on the batch size.

        Raises:
            ValueError: for data that do not fit the likelihood.
        """
        check_not_forked()
        self.require_compiled("evaluate")
        checks.positive_ints_or_none(batch_size=batch_size, steps=steps)
        if not replicas.is_chief(self.distribute_strategy):
            verbose = 0
        if yields_batches(x):
            x = self._check_own_batches(x, "x")
        else:
            x, steps = self._batches(
                x, y, sample_weight, batch_size, steps, callbacks=kwargs.get("callbacks")
            )
            y = sample_weight = None
        with self._evaluation():
            return super().evaluate(
                x, y, verbose=verbose, sample_weight=sample_weight, steps=steps, **kwargs
            )

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        check_not_forked()
        self.reset_metrics()  # Keras 3.15 and later do this, too
        logs = super().train_on_batch(*args, **kwargs)
        drop_no_skips(logs)
        return logs

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        check_not_forked()
        self.reset_metrics()
        with self._evaluation():
            return super().test_on_batch(*args, **kwargs)

    @contextlib.contextmanager
    def _evaluation(self) -> Iterator[None]:
        self._evaluating = True
        try:
            yield
        finally:
            self._evaluating = False

    def predict(self, x: Any, batch_size: int | None = None, **kwargs: Any) -> np.ndarray:
        """Computes reconstructions, a NumPy array `[rows, *event]`."""
        check_not_forked()
        checks.positive_ints_or_none(batch_size=batch_size)
        if yields_batches(x):
            x = self._check_own_batches(x, "x")
        else:
            x = self.check_data(x)
            if isinstance(x, RowsOnDisk):
                x, batch_size = batches(x, batch_size or 32), None
        return super().predict(x, batch_size=batch_size, **kwargs)
