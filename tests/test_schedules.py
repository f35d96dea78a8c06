"""Schedules: values, also in the graph and at large steps, and use as learning rates."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vae import schedules


@pytest.mark.parametrize(
    ("schedule", "steps", "values"),
    [
        (schedules.Constant(0.3), [0, 10**9], [0.3, 0.3]),
        (schedules.Linear(0.2, 1.0, 10), [0, 5, 10, 11, 10**9], [0.2, 0.6, 1.0, 1.0, 1.0]),
        (schedules.Linear(1.0, 0.0, 4), [0, 1, 4], [1.0, 0.75, 0.0]),
        (schedules.Cosine(0.0, 2.0, 8), [0, 2, 4, 8, 9], [0, 1 - 2**-0.5, 1, 2, 2]),
        (schedules.Cyclical(0.0, 1.0, 10), [0, 1, 5, 9, 10, 11], [0, 0.2, 1, 1, 0, 0.2]),
        (schedules.Cyclical(0.5, 1.5, 4, ramp=1.0), [0, 2, 3, 4], [0.5, 1, 1.25, 0.5]),
        # Above 2**24 float32 has no odd numbers, so the remainder must be one of integers.
        (schedules.Cyclical(0.0, 1.0, 10), [2**24 * 10 + 1, 10**12 + 3], [0.2, 0.6]),
    ],
)
def test_a_schedule_has_its_values_and_is_serialised(schedule, steps, values):
    compiled = tf.function(schedule, jit_compile=True)
    for step, value in zip(steps, values, strict=True):
        step = tf.constant(step, tf.int64)
        assert float(schedule(step)) == pytest.approx(value, abs=1e-6)
        assert float(compiled(step)) == pytest.approx(value, abs=1e-6)
    config = keras.saving.serialize_keras_object(schedule)
    restored = keras.saving.deserialize_keras_object(config)
    assert restored.get_config() == schedule.get_config()


def test_a_schedule_can_be_a_learning_rate():
    model = keras.Sequential(
        [keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")]
    )
    model.compile(keras.optimizers.SGD(schedules.Linear(0.0, 0.1, 10)), "mae")
    model.fit(np.ones((1, 1)), np.zeros((1, 1)), epochs=3, verbose=0)
    # The gradient is 1: the weight falls by 0, 0.01 and 0.02.
    assert float(model.get_weights()[0][0, 0]) == pytest.approx(0.97, abs=1e-6)
