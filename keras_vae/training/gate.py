"""A gate for the writes of an optimizer: it changes nothing where a flag is false."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

# What makes a write change nothing: `x + -0.0` is x also for x = -0.0, unlike `x + 0.0`.
NEUTRAL = {"assign_add": -0.0, "assign_sub": 0.0, "scatter_add": -0.0, "scatter_sub": 0.0}
WRITES = ("assign", "scatter_update", *NEUTRAL)


@contextlib.contextmanager
def gate_writes(variables: Sequence[tf.Variable], flag: tf.Tensor) -> Iterator[None]:
    """Makes each write to a variable conditional, while a graph is traced.

    It is cheaper than to restore old values after the writes: XLA updates each variable in
    place, because nothing reads its old value later.

    Args:
        variables: list of `tf.Variable`.
        flag: bool scalar tensor. Where it is false, the methods `WRITES` of the variables
            write the value that the variable has. Keras' optimizers write in no other way.
    """
    for variable in variables:
        for name in WRITES:
            write = getattr(variable, name)
            setattr(variable, name, functools.partial(_write_if, flag, variable, write))
    try:
        yield
    finally:
        for variable in variables:
            for name in WRITES:
                delattr(variable, name)


def _write_if(
    flag: tf.Tensor,
    variable: tf.Variable,
    write: Callable,
    value: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    name = write.__name__
    sparse = isinstance(value, tf.IndexedSlices)
    new = tf.convert_to_tensor(value.values if sparse else value, variable.dtype)
    if name in NEUTRAL:
        old = tf.cast(NEUTRAL[name], variable.dtype)
    else:
        old = tf.gather(variable, value.indices) if sparse else variable
    new = tf.where(flag, new, old)
    value = tf.IndexedSlices(new, value.indices, value.dense_shape) if sparse else new
    return write(value, *args, **kwargs)
