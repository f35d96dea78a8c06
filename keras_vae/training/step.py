"""The parts of a training step: noise, the update of the weights, metrics."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vae import checks, random
from keras_vae.training import devices, keras_private, replicas
from keras_vae.training.gate import gate_writes

LOSS_SCALING = keras.optimizers.LossScaleOptimizer


class StepModel(keras_private.Model):
    """Model whose step is a function of its weights, its seed and the batch.

    The counters that key the noise are weights, so they are always saved. A step whose
    gradients are not finite changes nothing and is counted.

    Args:
        seed: int of 32 bits, the root of all noise and of the order of the data.
            Default: drawn from Keras' global seed.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Raises:
        ValueError: if the seed is not an int of 32 bits.
    """

    # Metrics that `fit` and `evaluate` report in addition to the loss.
    reported: tuple[str, ...] = ()
    max_skipped = 20
    values_seen = ""  # the range of the values of `fit`, for its error
    global_clipnorm: float | None = None

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = random.fresh_seed() if seed is None else checks.int32(seed, "seed")
        self.step = self._add_counter("step")
        self.epochs_begun = self._add_counter("epochs_begun")
        self.skipped_in_a_row = self._add_counter("skipped_in_a_row")
        self._means = {name: _Mean(name, "float64") for name in ("loss", *self.reported)}
        self._skipped_steps = keras.metrics.Sum(name="skipped_steps")
        self._rows_seen = _RowCount(name="rows_seen")
        self._evaluating = False

    @property
    def device(self) -> str:
        """The name of the device that holds the weights and trains."""
        return self.step.value.device

    def _add_counter(self, name):
        return self.add_weight(
            name=name,
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
            aggregation="only_first_replica",
        )

    # Noise.

    def step_noise(self, rows: tf.Tensor, offset: Any = 0) -> random.Draw:
        """Makes the noise of a training step, for this replica's rows of the global batch.

        Args:
            rows: int32 scalar tensor, the number of rows of this replica.
            offset: int32 scalar tensor, the position of the first one in the global batch.

        Returns:
            Function `draw`, see `keras_vae.random.step_noise`.
        """
        step = tf.convert_to_tensor(self.step)
        return random.step_noise(self.seed, step, rows, offset)

    def next_positions(self, rows: tf.Tensor) -> tf.Tensor:
        """Counts the next evaluated rows; returns their positions, int32 `[rows]`."""
        offset, total = replicas.share(rows)
        return tf.cast(self._rows_seen.count(total), tf.int32) + offset + tf.range(rows)

    def row_noise(self, position: tf.Tensor, xla: bool = False) -> random.Draw:
        """Makes the noise of evaluation, keyed by the seed and the position of a row.

        Args:
            position: int32 `[rows]`, the position of each row in the evaluated data.
            xla: bool, see `keras_vae.random.row_noise`.

        Returns:
            Function `draw`, see `keras_vae.random.row_noise`.
        """
        draw = random.row_noise(position, tf.fill(tf.shape(position), self.seed), xla)

        def shifted(kind, shape, stream, *args, **kwargs):
            return draw(kind, shape, stream + random.EVALUATION, *args, **kwargs)

        return shifted

    # The update.

    def moving_state(self) -> list:
        """Returns the non-trainable state that a forward pass updates.

        Returns:
            List of (variable, value), which `update` restores if the step is skipped.
        """
        return [(v, tf.identity(v)) for v in keras_private.moving_variables(self)]

    def update(
        self, loss: tf.Tensor, gradients: Sequence, moving_state: Sequence = ()
    ) -> tf.Tensor:
        """Applies a step of the optimizer if loss, gradients and learning rate are finite.

        Args:
            loss: scalar tensor, this replica's part of the loss.
            gradients: list of tensors (or None), one for each trainable variable; they are
                summed over the replicas here.
            moving_state: the result of `moving_state` before the forward pass.

        Returns:
            bool scalar tensor, equal on all replicas: True if the step was applied.
        """
        loss, *gradients = replicas.sum_over_replicas([loss, *gradients])
        scalars = [loss, *self.learning_rates()]
        finite = _all_finite([*scalars, *gradients], devices.is_gpu(self.device))
        if self.global_clipnorm is not None:
            # Sums repeated rows of an embedding, before the norm is computed.
            gradients = [g if g is None else tf.convert_to_tensor(g) for g in gradients]
            # Gradients are multiplied by the loss scale, and so is the limit.
            limit = self.optimizer.scale_loss(self.global_clipnorm)
            gradients, _ = tf.clip_by_global_norm(gradients, limit)
        variables = self.trainable_variables
        if self.jit_compile and self._can_gate_writes():
            # A conditional would copy all weights in XLA.
            results = self.distribute_strategy.experimental_local_results
            changed = (*variables, *self.optimizer.variables)
            written = [part for v in changed for part in results(v.value)]
            with gate_writes(written, finite):
                self.optimizer.apply(gradients, variables)
        else:
            replicas.apply_if(finite, self.optimizer, gradients, variables)
        for variable, before in moving_state:
            variable.assign(tf.where(finite, tf.convert_to_tensor(variable), before))
        skipped = tf.cast(~finite, tf.int64)
        with tf.control_dependencies([finite]):  # a step that raises is not counted
            self.step.assign_add(1)
        self.skipped_in_a_row.assign((self.skipped_in_a_row + skipped) * skipped)
        # Each replica adds its part: the metric sums over the replicas.
        count = self.distribute_strategy.num_replicas_in_sync
        self._skipped_steps.update_state(tf.cast(skipped, tf.float32) / count)
        return finite

    def _can_gate_writes(self):
        # A user's class may write in ways that a gate does not see.
        classes = map(type, [self.optimizer, *replicas.each_optimizer(self.optimizer)])
        own = all(c.__module__.startswith("keras.") for c in classes)
        return own and not isinstance(self.optimizer, LOSS_SCALING)

    def learning_rates(self) -> list[tf.Tensor]:
        """Returns the learning rate, a scalar, of each optimizer in the compiled one."""
        optimizers = replicas.each_optimizer(self.optimizer)
        return [tf.convert_to_tensor(o.learning_rate) for o in optimizers]

    def check_weights(self) -> None:
        """Raises a RuntimeError if a trainable weight is NaN or infinite.

        It takes one pass over the weights, too long for each step.
        """
        weights = self.trainable_variables
        flags = [tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(w))) for w in weights]
        wrong = [w.path for w, flag in zip(weights, flags, strict=True) if not flag]
        if wrong:
            raise RuntimeError(
                f"{len(wrong)} of {len(weights)} weights are NaN or infinite after step "
                f"{int(self.step.numpy())}, such as {wrong[0]}. Load former weights, or "
                "build the model again. Check the optimizer: its learning rate, and "
                "arguments such as `weight_decay`, `epsilon` and `clipnorm`."
            )

    # Metrics.

    def report(
        self,
        losses: tf.Tensor,
        terms: dict[str, tf.Tensor],
        weight: tf.Tensor | None = None,
        finite: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Adds a batch to the metrics, unless it was skipped, and returns their values.

        Args:
            losses: `[batch]`.
            terms: dict with the names of `reported` as keys, each `[batch]`; and
                `"compared"`, the pair `[batch, ...]` of which the metrics of `compile` are
                functions, if there are any.
            weight: `[batch]` or None; metrics are weighted means, the loss is a mean.
            finite: the result of `update`, or None in evaluation.

        Returns:
            dict of scalars by name; in training `skipped_steps` is one of them.
        """
        training = finite is not None
        finite = tf.convert_to_tensor(finite if training else True)
        count = tf.cast(tf.fill(tf.shape(losses), finite), tf.float64)
        weights = count if weight is None else count * tf.cast(weight, count.dtype)
        pairs = [(losses, count), *((terms[name], weights) for name in self.reported)]
        values = [tf.cast(tf.where(finite, v, 0.0), tf.float64) * w for v, w in pairs]
        together = devices.is_gpu(self.device)
        totals, counts = (_sums(v, together) for v in (values, [w for _, w in pairs]))
        for mean, total, rows in zip(self._means.values(), totals, counts, strict=True):
            mean.total.assign_add(total)
            mean.count.assign_add(rows)
        logs = {name: metric.result() for name, metric in self._means.items()}
        if (metrics := self.user_metrics) is not None:
            # Not a conditional, which replicas cannot synchronise.
            before = [(v, tf.identity(v)) for v in metrics.variables]
            metrics.update_state(*terms["compared"], weight)
            for variable, value in before:
                variable.assign(tf.where(finite, tf.convert_to_tensor(variable), value))
            logs |= metrics.result()
        if training:
            logs[self._skipped_steps.name] = self._skipped_steps.result()
        return logs

    @property
    def metrics(self) -> list:
        # Must be exactly what a step returns: Keras uses one replica's values otherwise.
        metrics = [*self._means.values(), *filter(None, [self.user_metrics])]
        return metrics if self._evaluating else [*metrics, self._skipped_steps]

    def build_metrics(self, shape: tuple) -> None:
        """Creates the variables of the metrics of `compile`, before the first step.

        Args:
            shape: the shape of a batch of one row.
        """
        if (metrics := self.user_metrics) is not None:
            x = tf.zeros(shape)
            metrics.build(x, x)
            if not tf.distribute.has_strategy():  # shows errors of the user's functions
                metrics.update_state(x, x)
                metrics.reset_state()

    def reset_metrics(self) -> None:
        super().reset_metrics()
        self._rows_seen.reset_state()


class _Mean(keras.metrics.Mean):
    """Mean that is NaN, not 0, if it has no values."""

    def result(self):
        return tf.math.divide(self.total, self.count)


class _RowCount(keras.metrics.Metric):
    """Number of rows evaluated so far on all replicas; reset with the metrics."""

    def __init__(self, name):
        super().__init__(name=name)
        self.rows = self.add_variable((), "zeros", dtype="int64", name="rows")

    def count(self, rows):
        """Adds `rows`; returns the previous number."""
        before = tf.convert_to_tensor(self.rows)
        self.rows.assign_add(tf.cast(rows, tf.int64))
        return before

    def update_state(self, rows):
        self.count(rows)

    def result(self):
        return tf.convert_to_tensor(self.rows)


def _sums(vectors, together):
    """Sums each of several vectors.

    `together` is for a GPU, which starts a kernel for each reduction. On a CPU a single
    reduction would cost a copy.
    """
    if together:
        return tf.unstack(tf.reduce_sum(tf.stack(vectors), axis=1))
    return [tf.reduce_sum(vector) for vector in vectors]


def _all_finite(tensors, together):
    """Returns True if all elements are finite; `together` as in `_sums`."""
    tensors = [getattr(t, "values", t) for t in tensors if t is not None]
    if together:
        # In the order in which cuDNN stores kernels: XLA would copy them for another one.
        tensors = [
            keras.ops.moveaxis(t, -1, 0) if (t.shape.rank or 0) > 2 else t for t in tensors
        ]
        flat = [tf.reshape(tf.cast(t, tf.float64), [-1]) for t in tensors]
        return tf.reduce_all(tf.math.is_finite(tf.concat(flat, 0)))
    # Checks the sum, which is NaN or infinite if any element is: one pass over each tensor.
    # Sums over the first axis first: XLA vectorises the sum only in this order.
    sums = [tf.reduce_sum(tf.reduce_sum(t, 0) if t.shape.rank else t) for t in tensors]
    return tf.math.is_finite(tf.add_n([tf.cast(s, tf.float64) for s in sums]))
