"""Schedules: functions of the training step, for beta, capacity or the learning rate.

A schedule is a pure function that runs inside the graph. It needs no callback, no second
`compile` and no state in a checkpoint: the step is saved, so a resumed run continues at the
right value. All classes here are subclasses of Keras' `LearningRateSchedule`, and any other
subclass can be used in their place.
"""

import math
from typing import Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule as Schedule

from keras_vae import checks
from keras_vae.configured import Configured


def get(value: float | Schedule, name: str) -> Schedule:
    """Returns a schedule: a number becomes a `Constant`, a schedule is returned unchanged.

    Args:
        value: a number, or a `LearningRateSchedule`.
        name: str, the argument's name for errors.

    Raises:
        ValueError: if `value` is neither, or a number that is negative or not finite.
    """
    if isinstance(value, Schedule):
        return value
    try:
        return Constant(checks.non_negative(value, name))
    except ValueError as error:
        raise ValueError(
            f"{error} (or a schedule: an instance of {Schedule.__name__})"
        ) from None


@keras.saving.register_keras_serializable("keras_vae")
class Constant(Configured, Schedule):
    """The same value at every step."""

    def __init__(self, value: float):
        super().__init__()
        self.value = checks.non_negative(value, "value")

    def __call__(self, step: Any) -> tf.Tensor:
        return tf.constant(self.value)


class _Ramp(Configured, Schedule):
    """Base of schedules that change from `start` to `end` in `steps` steps, then stay.

    A subclass computes the shape of the curve in `_shape`.
    """

    def __init__(self, start: float, end: float, steps: int):
        super().__init__()
        self.start = checks.non_negative(start, "start")
        self.end = checks.non_negative(end, "end")
        self.steps = checks.positive_int(steps, "steps")

    def __call__(self, step: Any) -> tf.Tensor:
        progress = tf.minimum(tf.cast(step, tf.float32) / self.steps, 1.0)
        return self.start + (self.end - self.start) * self._shape(progress)

    def _shape(self, progress: tf.Tensor) -> tf.Tensor:
        """Maps the progress, from 0 to 1, to the weight of `end`, from 0 to 1."""
        raise NotImplementedError


@keras.saving.register_keras_serializable("keras_vae")
class Linear(_Ramp):
    """A straight line from `start` to `end`, then `end`.

    The usual KL annealing (Bowman et al., 2016, section 3.1) is `Linear(0.0, 1.0, n)`.

    Args:
        start: float, the value at step 0.
        end: float, the value from step `steps` on.
        steps: int, the length of the ramp in training steps.

    Example:

    >>> beta = Linear(0.0, 1.0, steps=1000)
    >>> float(beta(250)), float(beta(5000))
    (0.25, 1.0)
    """

    def _shape(self, progress: tf.Tensor) -> tf.Tensor:
        return progress


@keras.saving.register_keras_serializable("keras_vae")
class Cosine(_Ramp):
    """Half a cosine wave from `start` to `end`, then `end`. Its slope is 0 at both ends.

    Args:
        start: float, the value at step 0.
        end: float, the value from step `steps` on.
        steps: int, the length of the ramp in training steps.

    Example:

    >>> float(Cosine(0.0, 1.0, steps=1000)(500))
    0.5
    """

    def _shape(self, progress: tf.Tensor) -> tf.Tensor:
        return 0.5 - 0.5 * tf.cos(math.pi * progress)


@keras.saving.register_keras_serializable("keras_vae")
class Cyclical(Configured, Schedule):
    """Linear ramps that repeat: from `start` to `end`, then `end` until the period ends.

    Fu et al. (2019), "Cyclical Annealing Schedule", equations 6 and 7, with a linear ramp;
    `ramp` is their R.

    Args:
        start: float, the value at the beginning of each period.
        end: float, the value after the ramp.
        period: int, the length of a cycle in training steps.
        ramp: float in (0, 1], the length of the ramp as a fraction of the period.

    Example:

    >>> beta = Cyclical(0.0, 1.0, period=100, ramp=0.5)
    >>> [float(beta(step)) for step in (0, 25, 75, 100)]
    [0.0, 0.5, 1.0, 0.0]
    """

    def __init__(self, start: float, end: float, period: int, ramp: float = 0.5):
        super().__init__()
        self.start = checks.non_negative(start, "start")
        self.end = checks.non_negative(end, "end")
        self.period = checks.positive_int(period, "period")
        self.ramp = checks.non_negative(ramp, "ramp")
        checks.require(0 < self.ramp <= 1, "ramp", "in (0, 1]", ramp)

    def __call__(self, step: Any) -> tf.Tensor:
        # The remainder is computed in integers: float32 is exact only up to 2**24 steps.
        phase = tf.cast(tf.cast(step, tf.int64) % self.period, tf.float32)
        progress = tf.minimum(phase / (self.ramp * self.period), 1.0)
        return self.start + (self.end - self.start) * progress
