"""A gate changes nothing where its flag is false, and nothing else where it is true."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vae.training.gate import WRITES, gate_writes
from keras_vae.training.step import _all_finite

CLASSES = {
    name: value
    for name, value in vars(keras.optimizers).items()
    if isinstance(value, type)
    and issubclass(value, keras.optimizers.Optimizer)
    and not value.__name__.endswith("Optimizer")  # the base class, and wrappers
}
EVERY = {"weight_decay": 0.1, "use_ema": True, "ema_momentum": 0.5}
OPTIONS = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adam": {"amsgrad": True},
}
OPTIMIZERS = {
    **{
        name: lambda make=make, name=name: make(0.1, **EVERY, **OPTIONS.get(name, {}))
        for name, make in CLASSES.items()
    },
    "overwriting EMA": lambda: keras.optimizers.Adam(
        0.1, use_ema=True, ema_overwrite_frequency=1
    ),
    "accumulation": lambda: keras.optimizers.Adam(0.1, gradient_accumulation_steps=2),
    "global_clipnorm": lambda: keras.optimizers.SGD(0.1, global_clipnorm=0.1),
}
if hasattr(keras.optimizers, "MultiOptimizer"):  # from Keras 3.15 on
    OPTIMIZERS["MultiOptimizer"] = lambda: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.Adam(0.1), {"w0": keras.optimizers.SGD(0.1)}
        )
    )


def weights():
    """A matrix, a constrained vector, and a table whose gradients are sparse."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=shape).astype(np.float32) for shape in [(3, 2), (4,), (5, 2)]]
    values[0][0, 0] = -0.0
    found = [keras.Variable(value, name=f"w{i}") for i, value in enumerate(values)]
    found[1].constraint = keras.constraints.UnitNorm()
    return found


def gradients(scale):
    sparse = tf.IndexedSlices(
        scale * tf.ones((2, 2)), tf.constant([1, 3]), tf.constant([5, 2])
    )
    return [scale * tf.ones((3, 2)), scale * tf.range(4.0), sparse]


def trained(make, gated, flags):
    """Returns the variables before and after the last step of `make()`'s optimizer."""
    variables, optimizer = weights(), make()
    optimizer.build(variables)
    state = [*variables, *optimizer.variables]

    @tf.function
    def step(flag, scale):
        if not gated:
            return optimizer.apply(gradients(scale), variables)
        with gate_writes([v.value for v in state], flag):
            optimizer.apply(gradients(scale), variables)

    for flag in flags:
        before = [v.numpy() for v in state]
        step(tf.constant(flag), tf.constant(0.5 if flag else np.nan))
    assert not any(name in vars(v.value) for v in state for name in WRITES)
    return before, [v.numpy() for v in state]


def bits(values):
    return [value.tobytes() for value in values]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_false_flag_keeps_every_bit_and_a_true_one_changes_nothing_else(name):
    make = OPTIMIZERS[name]
    before, after = trained(make, True, [True, False])
    assert bits(before) == bits(after)
    _, plain = trained(make, False, [True, True])
    _, gated = trained(make, True, [True, False, True])
    assert all(np.isfinite(value).all() for value in plain)
    assert bits(plain) == bits(gated)


@pytest.mark.parametrize("together", [True, False])  # as on a GPU, and as on a CPU
def test_one_value_that_is_not_finite_is_found_in_any_tensor(together):
    kernel = tf.ones((3, 3, 2, 4))  # of a convolution
    tensors = [tf.ones(()), None, *gradients(1.0), kernel]
    assert _all_finite(tensors, together)
    for i, bad in {0: np.nan, 2: np.inf, 3: -np.inf, 4: np.nan, 5: np.inf}.items():
        wrong = [tf.constant(bad), None, *gradients(bad), bad * kernel]
        assert not _all_finite([*tensors[:i], wrong[i], *tensors[i + 1 :]], together)
