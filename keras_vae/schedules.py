"""Functions of the training step: for beta, capacity, a temperature or a learning rate.

A schedule is pure and lives inside the graph. It is checkpointed for free, because the
step is, needs no callback and no second `compile`, and cannot fall out of step after a
resume. Those below are `keras.optimizers.schedules.LearningRateSchedule`s, and any other
of that class works wherever one of these does.
"""

import math

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule as Schedule

from keras_vae import checks


def get(value, name):
    """Turns a number into a `Constant`, and hands a schedule through.

    Args:
        value: a number, or a `LearningRateSchedule`.
        name: str, the argument's name for the error.

    Raises:
        ValueError: for anything else, and for a number that is negative or not finite.
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
class Constant(Schedule):
    """The same value at every step."""

    def __init__(self, value):
        super().__init__()
        self.value = checks.non_negative(value, "value")

    def __call__(self, step):
        return tf.constant(self.value)

    def get_config(self):
        return {"value": self.value}


class _Ramp(Schedule):
    """From `start` to `end` in `steps` steps, then `end`."""

    def __init__(self, start, end, steps):
        super().__init__()
        self.start = checks.non_negative(start, "start")
        self.end = checks.non_negative(end, "end")
        self.steps = checks.positive_int(steps, "steps")

    def __call__(self, step):
        done = tf.minimum(tf.cast(step, tf.float32) / self.steps, 1.0)
        return self.start + (self.end - self.start) * self._shape(done)

    def get_config(self):
        return {"start": self.start, "end": self.end, "steps": self.steps}


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

    def _shape(self, done):
        return done


@keras.saving.register_keras_serializable("keras_vae")
class Cosine(_Ramp):
    """Half a cosine wave from `start` to `end`, then `end`: level at both ends.

    Args:
        start: float, the value at step 0.
        end: float, the value from step `steps` on.
        steps: int, the length of the ramp in training steps.

    Example:

    >>> float(Cosine(0.0, 1.0, steps=1000)(500))
    0.5
    """

    def _shape(self, done):
        return 0.5 - 0.5 * tf.cos(math.pi * done)


@keras.saving.register_keras_serializable("keras_vae")
class Cyclical(Schedule):
    """Repeated ramps: from `start` to `end` in a part of each period, then `end`.

    Fu et al. (2019), "Cyclical Annealing Schedule", equation 6 and 7, with
    `ramp` for R and a linear rise.

    Args:
        start: float, the value at the beginning of each period.
        end: float, the value after the ramp.
        period: int, the length of a cycle in training steps.
        ramp: float in (0, 1], the part of the period that rises.

    Example:

    >>> beta = Cyclical(0.0, 1.0, period=100, ramp=0.5)
    >>> [float(beta(step)) for step in (0, 25, 75, 100)]
    [0.0, 0.5, 1.0, 0.0]
    """

    def __init__(self, start, end, period, ramp=0.5):
        super().__init__()
        self.start = checks.non_negative(start, "start")
        self.end = checks.non_negative(end, "end")
        self.period = checks.positive_int(period, "period")
        self.ramp = checks.non_negative(ramp, "ramp")
        if not 0 < self.ramp <= 1:
            raise ValueError(f"`ramp` must lie in (0, 1]. Received: ramp={ramp}")

    def __call__(self, step):
        # The remainder is taken in integers: float32 counts steps only up to 2**24.
        phase = tf.cast(tf.cast(step, tf.int64) % self.period, tf.float32)
        done = tf.minimum(phase / (self.ramp * self.period), 1.0)
        return self.start + (self.end - self.start) * done

    def get_config(self):
        return {
            "start": self.start,
            "end": self.end,
            "period": self.period,
            "ramp": self.ramp,
        }
