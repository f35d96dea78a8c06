"""A Keras model whose training is a function of its weights and its seed, and of no more.

What stands here is what Keras lacks for that, and knows nothing of VAEs: the counters
that key noise and order are weights; arrays are shuffled by (seed, epoch); the state of
seed generators is saved; a step whose gradients are not finite changes nothing; and
evaluation knows the place of a row in the data. So a resumed run goes on exactly where
the uninterrupted one would be, and replicas do what one device does.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import warnings
import zlib

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks, distribute, execution, input, random, sources

_SCALES_LOSS = keras.optimizers.LossScaleOptimizer


class ResumableModel(keras.Model):
    """Base of the models: `fit`, `evaluate` and `predict` on arrays, resumed exactly.

    A subclass writes `train_step` and `test_step` with `step_noise`, `row_noise`, `update`
    and `report`, names what it reports in `reported`, and checks data in `check_data`.

    Args:
        seed: int of 32 bits, the root of all noise and of the order of the data.
            Default: drawn from Keras' global seed.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Raises:
        ValueError: if the seed is no such int.
    """

    # What `fit` and `evaluate` report beside the loss.
    reported: tuple[str, ...] = ()

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed = random.fresh_seed() if seed is None else checks.int32(seed, "seed")
        # Weights, so that every way of saving keeps them.
        self.step = self._add_counter("step")
        self.epochs_begun = self._add_counter("epochs_begun")
        self.skipped_in_a_row = self._add_counter("skipped_in_a_row")
        self._means = {name: _Mean(name, "float64") for name in ("loss", *self.reported)}
        self._skipped_steps = keras.metrics.Sum(name="skipped_steps")
        self._rows_seen = _RowCount(name="rows_seen")
        self._evaluating = False

    def _add_counter(self, name):
        return self.add_weight(
            name=name,
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
            aggregation="only_first_replica",
        )

    def check_data(self, x, name="x", augmentation=()):
        """Returns data as NumPy array or `Source`, or raises a ValueError naming it."""
        raise NotImplementedError

    def check_batch(self, x, name="x"):
        """Raises a ValueError unless x, a tensor or its spec, is a batch for the model."""
        raise NotImplementedError

    def compile(
        self,
        optimizer="adam",
        *,
        max_skipped=20,
        global_clipnorm=None,
        steps_per_execution="auto",
        jit_compile="auto",
        **kwargs,
    ):
        if steps_per_execution != "auto":
            checks.positive_int(steps_per_execution, "steps_per_execution")
        max_skipped = checks.positive_int(max_skipped, "max_skipped")
        if global_clipnorm is not None:
            global_clipnorm = checks.positive(global_clipnorm, "global_clipnorm")
        # XLA takes a whole step, but not one in which replicas meet.
        nested = jit_compile is True and self.distribute_strategy.num_replicas_in_sync > 1
        auto = steps_per_execution == "auto"
        steps = distribute.steps_per_execution(
            self.distribute_strategy, 1 if auto else steps_per_execution
        )
        super().compile(
            optimizer,
            steps_per_execution=steps,
            jit_compile=False if nested else jit_compile,
            **kwargs,
        )
        if steps != steps_per_execution and not auto:
            warnings.warn(
                "`steps_per_execution` is 1 under this strategy, whose replicas cannot "
                "meet in a loop: on the CPUs of one host they can by MirroredStrategy("
                "cross_device_ops=tf.distribute.ReductionToOneDevice()). Received: "
                f"steps_per_execution={steps_per_execution}",
                stacklevel=3,
            )
        self._nested_xla = nested
        self.max_skipped, self.global_clipnorm = max_skipped, global_clipnorm
        self._asked = {
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
        }

    def _resolve_auto_jit_compile(self):
        # As Keras, but with a CPU, too, unless it is slow there.
        if self.distribute_strategy.num_replicas_in_sync > 1:
            return False
        on_cpu = not tf.config.list_physical_devices("GPU")
        if on_cpu and execution.slow_in_xla(self):
            return False
        return all(layer.supports_jit for layer in self._flatten_layers())

    def get_compile_config(self):
        config = super().get_compile_config()
        kept = {key: config[key] for key in ("optimizer", "run_eagerly") if key in config}
        return {
            **kept,
            **self._asked,
            "max_skipped": self.max_skipped,
            "global_clipnorm": self.global_clipnorm,
            "auto_scale_loss": isinstance(self.optimizer, _SCALES_LOSS),
        }

    # Inside the steps.

    def in_xla(self, function):
        """The function, compiled by XLA if that was asked for, but cannot take the step."""
        return tf.function(function, jit_compile=True) if self._nested_xla else function

    def step_noise(self, rows, offset=0):
        """The noise of a training step: this replica's rows of the global batch's.

        Args:
            rows: int32 scalar tensor, the rows of this replica.
            offset: int32 scalar tensor, where they begin in the global batch.

        Returns:
            The noise, as of `keras_vae.random.step_noise`.
        """
        step = tf.convert_to_tensor(self.step)
        return random.step_noise(self.seed, step, rows, offset)

    def next_positions(self, rows):
        """The places of the next rows in the evaluated data, int32 `[rows]`."""
        offset, total = distribute.share(rows)
        return tf.cast(self._rows_seen.count(total), tf.int32) + offset + tf.range(rows)

    def row_noise(self, position, xla=False):
        """The noise of evaluation: keyed by the seed and a row's place in the data.

        Args:
            position: int32 `[rows]`, the place of each row in the evaluated data.
            xla: bool, as for `keras_vae.random.row_noise`.

        Returns:
            The noise, as of that function.
        """
        draw = random.row_noise(position, tf.fill(tf.shape(position), self.seed), xla)

        def shifted(kind, shape, stream, *args, **kwargs):
            return draw(kind, shape, stream + random.EVALUATION, *args, **kwargs)

        return shifted

    def moving_state(self):
        """What a forward pass may change, moving averages for one: a list of pairs.

        Returns:
            [(variable, its value now)], for `update` to put back if the step is skipped.
        """
        # Not `non_trainable_weights`: those of frozen layers do not move.
        layers = self._flatten_layers(include_self=False)
        variables = {id(v): v for layer in layers for v in layer._non_trainable_variables}
        return [(v, tf.identity(v)) for v in variables.values()]

    def update(self, loss, gradients, moving_state=()):
        """One step of the optimizer, unless the loss or a gradient is not finite.

        Args:
            loss: scalar tensor, this replica's part.
            gradients: list of tensors (or None), one for each trainable variable; they are
                summed over the replicas.
            moving_state: what `moving_state` returned before the forward pass.

        Returns:
            bool scalar tensor, equal on all replicas: whether it took place.
        """
        loss, *gradients = distribute.reduced([loss, *gradients])
        finite = _all_finite([loss, *gradients])
        if self.global_clipnorm is not None:
            # Rows of an embedding that occur twice count once, as their sum.
            gradients = [g if g is None else tf.convert_to_tensor(g) for g in gradients]
            longest = self.optimizer.scale_loss(self.global_clipnorm)  # as they are scaled
            gradients, _ = tf.clip_by_global_norm(gradients, longest)
        variables = self.trainable_variables
        if self.jit_compile and not isinstance(self.optimizer, _SCALES_LOSS):
            # A choice in the loop that makes a value costs nothing with XLA; a conditional
            # copies all the weights.
            changed = [*variables, *self.optimizer.variables]
            moving_state = [*moving_state, *((v, tf.identity(v)) for v in changed)]
            self.optimizer.apply(gradients, variables)
        else:
            distribute.apply_if(finite, self.optimizer, gradients, variables)
        for variable, before in moving_state:
            variable.assign(tf.where(finite, tf.convert_to_tensor(variable), before))
        skipped = tf.cast(~finite, tf.int64)
        with tf.control_dependencies([finite]):  # a step that fails is none
            self.step.assign_add(1)
        self.skipped_in_a_row.assign((self.skipped_in_a_row + skipped) * skipped)
        # Each replica counts its part: the metric sums over them.
        replicas = self.distribute_strategy.num_replicas_in_sync
        self._skipped_steps.update_state(tf.cast(skipped, tf.float32) / replicas)
        return finite

    def report(self, losses, terms, weight=None, finite=None):
        """Adds a batch to the metrics, unless it was skipped; returns their values.

        Args:
            losses: `[batch]`.
            terms: dict by the names of `reported`, each `[batch]`.
            weight: `[batch]` or None; metrics are weighted means, the loss is a mean.
            finite: what `update` returned, in training.

        Returns:
            dict of scalars by name; in training `skipped_steps` is one of them.
        """
        metrics = list(self._means.values())
        if finite is None:
            finite = True
        else:
            metrics.append(self._skipped_steps)
        count = tf.cast(tf.fill(tf.shape(losses), finite), losses.dtype)
        self._means["loss"].update_state(tf.where(finite, losses, 0.0), count)
        if weight is not None:
            count *= tf.cast(weight, count.dtype)
        for name in self.reported:
            value = tf.where(finite, terms[name], 0.0)
            self._means[name].update_state(value, count)
        return {metric.name: metric.result() for metric in metrics}

    @property
    def metrics(self):
        # Exactly what a step returns, or Keras takes one replica's values for all.
        means = list(self._means.values())
        return means if self._evaluating else [*means, self._skipped_steps]

    def reset_metrics(self):
        super().reset_metrics()
        self._rows_seen.reset_state()

    # On arrays.

    def fit(  # noqa: D417 (the rest is as in Keras)
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
        augmentation=None,
    ):
        """`keras.Model.fit`, with arrays in an order that is a function of (seed, epoch).

        Arrays are checked before anything is trained. With `steps_per_epoch`, an epoch
        is so many batches, which go on in the data where the last epoch ended. Noise,
        schedules and order go on where the last `fit`, or the saved model, ended.

        Under `tf.distribute.MultiWorkerMirroredStrategy` all workers call it alike, each
        reads its share of the batches, and the chief alone shows a progress bar.

        Args:
            x: array `[rows, *event]` (NumPy, TensorFlow, ...), `tf.data.Dataset`,
                `keras.utils.PyDataset` or generator; or rows on disk, which are read as
                they are needed: `np.load(path, mmap_mode="r")`, `keras_vae.Shards`,
                `keras_vae.TFRecords`, `keras_vae.ImageFiles`.
            y: labels, which a VAE ignores: `(x, y)` pairs train unchanged.
            sample_weight: array `[rows]`, a factor of the loss of each example.
            batch_size: int, 32 by default.
            validation_data: x, `(x, y)` or `(x, y, sample_weight)`.
            augmentation: Keras' image preprocessing layer or a list of them, such as
                `keras.layers.RandomTranslation(0.1, 0.1)`, for the batches of an array.
                What they draw is a function of (seed, epoch, batch) too. Layers that
                change the size (`RandomCrop`) take larger x than the likelihood has;
                validation data must have the likelihood's size.
            epochs: int; this and the other arguments are as in `keras.Model.fit`.

        Returns:
            `keras.callbacks.History`.

        Raises:
            ValueError: for data that do not fit the likelihood, and for workers that
                differ in what they train.
            RuntimeError: after `max_skipped` steps in a row without finite gradients.
        """
        self._assert_compile_called("fit")
        checks.positive_ints_or_none(
            batch_size=batch_size,
            validation_batch_size=validation_batch_size,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            epochs=epochs or None,  # 0 trains nothing, as in Keras
        )
        callbacks = _with_watch(callbacks, self)
        layers = [] if augmentation is None else input.check_augmentation(augmentation)
        facts = functools.partial(
            _facts,
            x=x,
            y=y,
            sample_weight=sample_weight,
            validation_data=validation_data,
            augmentation=layers,
            batch_size=batch_size,
            steps_per_epoch=steps_per_epoch,
            shuffle=shuffle,
            validation_split=validation_split,
            validation_steps=validation_steps,
            validation_freq=validation_freq,
            class_weight=repr(class_weight),  # whose keys count, too
        )
        strategy = self.distribute_strategy
        if distribute.several_workers(strategy):
            versions = f"keras {keras.__version__}, tensorflow {tf.__version__}"
            mine = {"versions": versions, "weights": self.fingerprint()}
            distribute.check_same({**facts(), **self.facts(), **mine}, strategy)
            if class_weight is not None:
                raise ValueError(
                    "`class_weight` must be None with several workers: give each row its "
                    f"`sample_weight`. Received: class_weight={class_weight}"
                )
        if validation_split and validation_data is None and not input.is_source(x):
            data = self._checked(x, y, sample_weight, augmentation=layers)
            (x, y, sample_weight), validation_data = input.split(data, validation_split)
            validation_split = 0.0
        if input.is_source(x):
            if layers:
                raise ValueError(
                    "`augmentation` is for arrays: map the layers over a tf.data.Dataset "
                    f"yourself. Received: x of type {type(x).__name__}"
                )
            self._check_source(x, "x")
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
        with self._fitting(callbacks, facts):
            return super().fit(
                x,
                y,
                epochs=epochs,
                verbose=verbose if distribute.is_chief(strategy) else 0,
                callbacks=callbacks,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle and isinstance(x, keras.utils.PyDataset),
                class_weight=class_weight,
                sample_weight=sample_weight,
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
                validation_freq=validation_freq,
            )

    def facts(self):
        """What the model is and how it is trained: values by the names of the options."""
        config = keras.saving.serialize_keras_object(self)
        compiled = config.pop("compile_config")
        for name in ("optimizer", "objective", "global_clipnorm"):
            config[name] = compiled[name]
        # Names that Keras counts up, dense_3, differ between two builds in one process.
        text = re.sub(r'_[0-9]+"', '"', json.dumps(config))
        return dict(_flat(json.loads(text)))

    def fingerprint(self):
        """A checksum of all weights and of the optimizer, as this process has them."""
        digest = hashlib.sha256()
        for variable in (*self.variables, *self.optimizer.variables):
            digest.update(np.ascontiguousarray(variable).tobytes())
        return digest.hexdigest()

    @contextlib.contextmanager
    def _fitting(self, callbacks, facts):
        begun, step = self.epochs_begun.numpy(), self.step.numpy()
        every = getattr(callbacks, "callbacks", callbacks)
        try:
            with contextlib.ExitStack() as stack:
                for callback in every:
                    if hasattr(callback, "around_fit"):
                        stack.enter_context(callback.around_fit(every, facts))
                yield
        finally:
            if step == self.step.numpy():  # refused before the first step: none has begun
                self.epochs_begun.assign(begun)

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        **kwargs,
    ):
        """`keras.Model.evaluate`: the loss and the terms of the bound, in nats.

        Deterministic for given weights: noise is keyed by a row's place in the data, and
        so does not depend on the batch size either.

        Raises:
            ValueError: for data that do not fit the likelihood.
        """
        self._assert_compile_called("evaluate")
        checks.positive_ints_or_none(batch_size=batch_size, steps=steps)
        if not distribute.is_chief(self.distribute_strategy):
            verbose = 0
        if input.is_source(x):
            self._check_source(x, "x")
        else:
            x, steps = self._batches(
                x, y, sample_weight, batch_size, steps, callbacks=kwargs.get("callbacks")
            )
            y = sample_weight = None
        with self._evaluation():
            return super().evaluate(
                x, y, verbose=verbose, sample_weight=sample_weight, steps=steps, **kwargs
            )

    def train_on_batch(self, *args, **kwargs):
        self.reset_metrics()  # Keras does so itself since 3.15
        return super().train_on_batch(*args, **kwargs)

    def test_on_batch(self, *args, **kwargs):
        self.reset_metrics()
        with self._evaluation():
            return super().test_on_batch(*args, **kwargs)

    @contextlib.contextmanager
    def _evaluation(self):
        self._evaluating = True
        try:
            yield
        finally:
            self._evaluating = False

    def make_train_function(self, force=False):
        if force or getattr(self, "train_function", None) is None:
            self.train_function = self._function_of(self.train_step)

    def make_test_function(self, force=False):
        if force or getattr(self, "test_function", None) is None:
            self.test_function = self._function_of(self.test_step)

    def _function_of(self, step):
        """What Keras calls for each execution, with an iterator or a part of a chunk."""
        if distribute.several_workers(self.distribute_strategy):
            return distribute.step_function(self.distribute_strategy, step)
        of_iterator = self._make_function(step)

        @functools.cache
        def of_part(jit_compile):
            return execution.loop(step, jit_compile, self.run_eagerly)

        def function(data):
            if isinstance(data, execution.Part):
                return self.try_xla(lambda xla: of_part(xla and not data.rest)(data))
            return of_iterator(data)

        return function

    def try_xla(self, run):
        """Returns `run(jit_compile)`: with XLA where that is so, or was tried by "auto".

        Args:
            run: function of a bool that changes nothing if XLA cannot compile it.
        """
        xla = self.jit_compile  # type: ignore[has-type]
        try:
            return run(xla)
        except execution.NOT_COMPILED as error:
            if not xla or (self.compiled and self._asked["jit_compile"] is True):
                raise
            warnings.warn(
                "XLA cannot compile this model, which is slower without: "
                "compile(jit_compile=False) says so beforehand. The reason: "
                f"{str(error).splitlines()[0]}",
                stacklevel=2,
            )
            self.jit_compile = False
            return run(False)

    def predict(self, x, batch_size=None, **kwargs):
        """`keras.Model.predict`: reconstructions, a NumPy array `[rows, *event]`."""
        checks.positive_ints_or_none(batch_size=batch_size)
        if input.is_source(x):
            self._check_source(x, "x")
        else:
            x = self.check_data(x)
            if isinstance(x, sources.Source):
                x, batch_size = input.batches(x, batch_size or 32), None
        return super().predict(x, batch_size=batch_size, **kwargs)

    def _validation(self, data, batch_size, steps, callbacks):
        if isinstance(data, (tuple, list)) and not 1 <= len(data) <= 3:
            raise ValueError(
                "`validation_data` must be x, (x, y) or (x, y, sample_weight). "
                f"Received: a {type(data).__name__} of {len(data)}"
            )
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        if input.is_source(x):
            self._check_source(x, "validation_data")
            return data, steps
        return self._batches(
            x, y, weight, batch_size, steps, prefix="validation_data: ", callbacks=callbacks
        )

    def _checked(self, x, y, weight, prefix="", augmentation=()):
        x = self.check_data(x, f"{prefix}x", augmentation)
        y = self.check_labels(y, len(x), f"{prefix}y")
        weight = input.check_weight(weight, len(x), f"{prefix}sample_weight")
        return x, y, weight

    def check_labels(self, y, rows, name):
        """The second of what `fit` is given, checked: ignored, unless for its rows."""
        input.check_labels(y, rows, name)
        return y

    def _batches(
        self, x, y, weight, batch_size, steps=None, shuffle=False, layers=(), prefix="",
        class_weight=None, callbacks=None, fit=False,
    ):  # fmt: skip
        """Checked arrays as a dataset, and `steps` for Keras if that has no end."""
        x, y, weight = self._checked(x, y, weight, prefix, layers)
        rows = len(tf.nest.flatten(x)[0])
        y = tf.nest.map_structure(lambda a: None if a is None else np.asarray(a), y)
        kinds = {getattr(a, "dtype", np.dtype(bool)).kind for a in tf.nest.flatten(y)}
        if self.jit_compile and kinds - set("buif"):
            # XLA takes no strings: labels that nothing is computed from stay out.
            y = y if self.unpack((x, y, weight))[1] is not None else None
        # Not Keras' own packing, which drops weights that come without labels, and no None
        # among them, which a distributed dataset does not take.
        if weight is None:
            packed = x if y is None else (x, y)
        else:
            packed = (x, np.zeros(rows, bool) if y is None else y, weight)
        if batch_size is None:
            batch_size = -(-rows // steps) if steps else 32  # as in Keras
        epoch = (lambda: self.epochs_begun.numpy() - 1) if fit else None
        options = {
            "data": packed, "batch_size": batch_size, "steps": steps, "seed": self.seed,
            "shuffle": shuffle, "epoch": epoch,
        }  # fmt: skip
        strategy = self.distribute_strategy
        none = any(a is None for a in tf.nest.flatten(packed))
        several = self._distribute_strategy or tf.distribute.has_strategy()
        if not (layers or class_weight or none or several):
            pace = execution.Pace(self._asked["steps_per_execution"], callbacks)
            return input.Chunks(pace, **options), None
        options["augmentation"] = layers
        if not distribute.several_workers(strategy):
            return input.batches(**options), None
        # Each worker reads its own share. Without an end, because TensorFlow asks all
        # workers before each step whether one has come to it.
        count = -(-rows // batch_size)
        steps = (steps or count) if fit else min(steps or count, count)
        dataset = strategy.distribute_datasets_from_function(
            lambda context: input.batches(**options, replicas=distribute.replicas(context))
        )
        return dataset, steps

    def _check_source(self, source, name):
        if isinstance(source, tf.data.Dataset):
            if source.cardinality() == 0:
                raise ValueError(f"`{name}` is empty. Received: a Dataset without batches")
            self.check_batch(self.unpack(source.element_spec)[0], name)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Under a strategy Keras builds a model from the mean of the first batch over the
        # replicas, which fails where their shares differ. This one is built already.
        #
        # Nothing else is told which iterator goes over the epochs, in equal executions,
        # and without knowing chunks.
        chunks = getattr(iterator, "data_adapter", None)
        if isinstance(chunks, input.Chunks):
            iterator._enumerate_iterator = functools.partial(
                execution.enumerate_epoch, chunks
            )

    # Saving.

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """`keras.Model.save`; a file that is there stays until the new one is whole."""
        path = pathlib.Path(filepath)
        remote = "://" in str(filepath)
        if (
            remote
            or path.suffix != ".keras"
            or path.is_dir()
            or (path.exists() and not overwrite)
        ):
            super().save(filepath, overwrite, zipped, **kwargs)
            return
        part = path.with_name(f".{path.stem}-{os.getpid()}.keras")
        try:
            super().save(part, True, zipped, **kwargs)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def load_weights(self, filepath, *args, **kwargs):
        """`keras.Model.load_weights`; weights that do not fit change nothing."""
        variables = [*self.variables, *(self.optimizer.variables if self.compiled else [])]
        before = [v.numpy() for v in variables]
        try:
            super().load_weights(filepath, *args, **kwargs)
        except Exception:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
            raise

    def save_own_variables(self, store):
        super().save_own_variables(store)
        # Keras does not save the state of seed generators, Dropout's for one.
        for i, state in enumerate(self._seed_states()):
            store[f"seed_state_{i}"] = state

    def load_own_variables(self, store):
        states = {key: store[key] for key in store.keys() if key.startswith("seed_")}
        own = {key: store[key] for key in store.keys() if key not in states}
        super().load_own_variables(own)
        for i, state in enumerate(self._seed_states()):
            state.assign(states[f"seed_state_{i}"])

    def _seed_states(self):
        weights = {id(w) for w in self.weights}
        return [v for v in self.variables if id(v) not in weights]


class _Mean(keras.metrics.Mean):
    """A mean that is NaN, not 0, while there is nothing to average."""

    def result(self):
        return tf.math.divide(self.total, self.count)


class _RowCount(keras.metrics.Metric):
    """How many rows an evaluation has seen, of all replicas: resets with the metrics."""

    def __init__(self, name):
        super().__init__(name=name)
        self.rows = self.add_variable((), "zeros", dtype="int64", name="rows")

    def count(self, rows):
        """Adds `rows`, and returns how many there were before."""
        before = tf.convert_to_tensor(self.rows)
        self.rows.assign_add(tf.cast(rows, tf.int64))
        return before

    def update_state(self, rows):
        self.count(rows)

    def result(self):
        return tf.convert_to_tensor(self.rows)


class _Watch(keras.callbacks.Callback):
    """Counts the epochs begun, and stops a fit that learns nothing any more."""

    async_safe = True  # reads one weight, in whatever thread

    def on_epoch_begin(self, epoch, logs=None):
        self.model.epochs_begun.assign_add(1)
        self.checked = 0

    def on_train_batch_end(self, batch, logs=None):
        # Not at each batch: reading a weight waits for the device.
        if batch + 1 - self.checked >= self.model.max_skipped:
            self.checked = batch + 1
            self.check()

    def on_epoch_end(self, epoch, logs=None):
        self.check()

    def check(self):
        skipped = int(self.model.skipped_in_a_row.numpy())
        if skipped >= self.model.max_skipped:
            raise RuntimeError(
                f"{skipped} training steps in a row were skipped, because the loss or a "
                "gradient was NaN or infinite. The weights are those before the first. "
                "Look at, in this order: the data (NaN, infinite, or outside the support "
                "of the likelihood), a learning rate that is too high, and a scale that "
                "shrinks towards its floor."
            )


def _with_watch(callbacks, model):
    """The callbacks of a fit: `_Watch` first; History and what backs it up last."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        if not any(isinstance(c, _Watch) for c in callbacks.callbacks):
            watch = _Watch()
            watch.set_model(model)
            callbacks.callbacks.insert(0, watch)
        callbacks.callbacks.sort(key=_place)
        return callbacks
    callbacks = tf.nest.flatten(callbacks) if callbacks else []
    if not any(isinstance(c, keras.callbacks.History) for c in callbacks):
        callbacks.append(keras.callbacks.History())  # Keras would put it at the end
    return sorted([_Watch(), *callbacks], key=_place)


def _place(callback):
    return 2 * hasattr(callback, "around_fit") + isinstance(
        callback, keras.callbacks.History
    )


def _facts(**arguments):
    """What arguments of `fit` determine the weights, in words: a dict of strings.

    Arrays are given by their checksum.
    """
    return {
        name: ", ".join(_fact(part) for part in tf.nest.flatten(value))
        for name, value in arguments.items()
    }


def _flat(value, path=""):
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _flat(part, path if name == "config" else f"{path}.{name}")
    elif isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        for i, part in enumerate(value):
            yield from _flat(part, f"{path}.{i}")
    elif value is not None:
        yield path[1:], json.dumps(value)


def _fact(value):
    if isinstance(value, tf.data.Dataset):
        return f"{value.element_spec}, {int(value.cardinality())} batches"
    if input.is_mapped(value) and value.ndim > 1:  # labels are read whole
        value = input.as_array(value, "x")
    if isinstance(value, sources.Source):
        return f"{value.shape}, some rows {_fact(value.look())}"
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        array = array.astype(str) if array.dtype.hasobject else array
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data)
        return f"{array.dtype} {array.shape}, checksum {crc:08x}"
    if isinstance(value, keras.layers.Layer):  # whose name Keras counts up
        config = keras.saving.serialize_keras_object(value)["config"]
        return f"{type(value).__name__} {config | {'name': None}}"
    return type(value).__name__ if input.is_source(value) else repr(value)


def _all_finite(tensors):
    # By the sum, which is NaN or infinite if any element is: one pass over each. Along the
    # first axis first: XLA adds up in the order given, a vector at a time only if in rows.
    tensors = [getattr(t, "values", t) for t in tensors if t is not None]
    sums = [tf.reduce_sum(tf.reduce_sum(t, 0) if t.shape.rank else t) for t in tensors]
    return tf.math.is_finite(tf.add_n([tf.cast(s, tf.float64) for s in sums]))
