"""A training step equals the optimizer's step; a skipped step changes no weight."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from tests.citizenship.common import (
    BATCH,
    EPS,
    Gradients,
    X,
    assert_same,
    compiled,
    dense,
    evaluate,
    fit,
    make,
    state,
    trainable_weights,
    with_nan,
)


class Unusual(keras.optimizers.Optimizer):
    """Counts the weights as its own variables, and does not write with their methods."""

    def build(self, variables):
        super().build(variables)
        self.weights = variables

    def update_step(self, gradient, variable, rate):
        tf.raw_ops.ResourceApplyGradientDescent(
            var=variable.handle, alpha=rate, delta=gradient
        )


OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "schedule": lambda: keras.optimizers.Adam(
        keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    ),
    "AdamW": lambda: keras.optimizers.AdamW(0.1, weight_decay=0.1),
    "clipnorm": lambda: keras.optimizers.SGD(0.1, clipnorm=0.1),
    "global_clipnorm": lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.1),
    "EMA": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5),
    "accumulation": lambda: keras.optimizers.Adam(0.1, gradient_accumulation_steps=2),
    "own class": lambda: Unusual(0.1),
}
if hasattr(keras.optimizers, "MultiOptimizer"):  # from Keras 3.15 on
    OPTIMIZERS |= {
        "MultiOptimizer": lambda: keras.optimizers.MultiOptimizer(
            lambda variable: keras.optimizers.SGD(0.1 if "bias" in variable.path else 0.2)
        ),
        "own class inside": lambda: keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(
                keras.optimizers.Adam(0.1), {".*bias": Unusual(0.1)}
            )
        ),
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fit_applies_the_optimizer_to_the_gradients(name):
    model = compiled(OPTIMIZERS[name](), make(cls=Gradients))
    variables = [keras.Variable(v, name=v.name) for v in model.trainable_variables]
    fit(model, batch_size=8)
    optimizer = OPTIMIZERS[name]()
    optimizer.build(variables)
    for gradients in model.recorded_gradients:
        optimizer.apply(gradients, variables)
    optimizer.finalize_variable_values(variables)
    assert len(model.recorded_gradients) == 3
    assert_same(trainable_weights(model), [np.array(v) for v in variables])
    assert int(model.optimizer.iterations) == int(optimizer.iterations)


def test_weight_decay_shrinks_the_weights():
    rate, decay = 0.1, 0.5
    model = compiled(keras.optimizers.SGD(rate, weight_decay=decay))
    reference = compiled(keras.optimizers.SGD(rate))
    start = np.array(model.encoder.kernel)
    for vae in (model, reference):
        vae.train_on_batch(X)
    # w - rate decay w, then the step: numbers of about 1 are rounded twice.
    expected = np.array(reference.encoder.kernel) - rate * decay * start
    np.testing.assert_allclose(model.encoder.kernel, expected, rtol=0, atol=2 * EPS)


WITH_XLA = OPTIMIZERS.keys() & {"AdamW", "accumulation", "own class", "own class inside"}


@pytest.mark.parametrize(
    "name, jit", [*((n, False) for n in OPTIMIZERS), *((n, True) for n in sorted(WITH_XLA))]
)
def test_a_skipped_step_only_advances_the_step_counter(name, jit):
    model = compiled(OPTIMIZERS[name](), run_eagerly=False, jit_compile=jit)
    model.train_on_batch(X)
    before, step = state(model), int(model.step)
    logs = model.train_on_batch(X * np.nan, return_dict=True)
    assert logs["skipped_steps"] == 1.0
    assert int(model.step) == step + 1 and int(model.skipped_in_a_row) == 1
    counters = {id(model.step), id(model.skipped_in_a_row)}
    variables = (*model.weights, *model.optimizer.variables)
    for variable, value in zip(variables, before, strict=True):
        if id(variable) not in counters:
            np.testing.assert_array_equal(variable, value)
    logs = model.train_on_batch(X, return_dict=True)
    assert "skipped_steps" not in logs and int(model.skipped_in_a_row) == 0
    assert np.isfinite(logs["loss"])


def test_a_skipped_step_does_not_change_moving_averages():
    keras.utils.set_random_seed(1)
    encoder = keras.Sequential([dense(), keras.layers.BatchNormalization()])
    model = compiled(model=make(encoder, dense()))
    model.train_on_batch(X)
    before = [np.array(v) for v in encoder.non_trainable_weights]
    model.train_on_batch(X * np.nan)
    assert_same([np.array(v) for v in encoder.non_trainable_weights], before)
    assert np.isfinite(evaluate(model)).all()


def test_fit_stops_after_max_skipped_steps_in_a_row():
    model = compiled(max_skipped=2)
    with pytest.raises(RuntimeError, match="2 training steps in a row"):
        fit(model, with_nan(1, 2), epochs=4)
    assert int(model.step) == 3
    fit(compiled(max_skipped=3), with_nan(1, 2), epochs=2)  # never three in a row


class NotFinite(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that is NaN from the second step on."""

    def __call__(self, step):
        return tf.where(tf.cast(step, tf.int32) < 1, 0.1, np.nan)


@pytest.mark.parametrize(
    "optimizer, skipped, eager",
    [
        (lambda: keras.optimizers.SGD(np.nan), 2, True),
        (lambda: keras.optimizers.Adam(-np.inf), 2, False),
        (
            lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(np.inf)),
            2,
            True,
        ),
        (lambda: keras.optimizers.Adam(NotFinite()), 1, True),
    ],
)
def test_steps_with_a_learning_rate_that_is_not_finite_are_skipped(
    optimizer, skipped, eager
):
    model = compiled(optimizer(), run_eagerly=eager)
    with pytest.raises(RuntimeError, match=f"{skipped} training steps in a row"):
        fit(model)
    assert all(np.isfinite(w).all() for w in trainable_weights(model))


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.AdamW(0.1, weight_decay=np.inf),
        lambda: keras.optimizers.SGD(0.1, weight_decay=np.inf),
    ],
)
def test_weights_that_are_not_finite_are_an_error(optimizer, tmp_path):
    model = compiled(optimizer())
    backup = kv.callbacks.Backup(tmp_path)
    with pytest.raises(RuntimeError, match=r"weights are NaN or infinite after step 1\b"):
        fit(model, X[:BATCH])
    with pytest.raises(RuntimeError, match="weights are NaN or infinite"):
        fit(compiled(optimizer()), X[:BATCH], callbacks=[backup])
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000000"]


@keras.saving.register_keras_serializable("citizenship")
def finite_at_first(terms, step):
    return (terms.kl - terms.reconstruction) * (1.0 if step < 2 else np.nan)


def test_fit_warns_if_the_last_epoch_was_skipped():
    model = compiled(objective=finite_at_first)
    with pytest.warns(UserWarning, match="2 training steps in a row"):
        history = fit(model, epochs=2)
    assert history["skipped_steps"] == [0.0, 2.0]
