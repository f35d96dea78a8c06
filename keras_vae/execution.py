"""How the steps of `fit` and `evaluate` are run: compiled, and several in one call.

Keras calls a function for each execution, with an iterator of `tf.data`. For arrays it is
called here with a `Part` of a chunk instead: batches that were gathered at once and lie on
the device. A loop over them, inside what XLA compiles, keeps the weights where they are,
and is faster than a loop around a compiled step.
"""

import functools
import math
import time

import keras
import tensorflow as tf

# An execution is to take so many seconds: callbacks, progress bars and Ctrl-C come to turn
# between executions, and each costs about a millisecond of Python.
SHORTEST, LONGEST = 0.1, 0.4
# Errors of XLA for what it cannot compile.
NOT_COMPILED = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)


def slow_in_xla(model):
    """Whether a built Keras model has layers that XLA is slow with on a CPU.

    It has no convolutions as fast as oneDNN's, and no loops over time as TensorFlow's are
    (measured: docs/speed.md).
    """
    layers = model._flatten_layers(include_self=False)
    return any(
        hasattr(layer, "kernel_size") or isinstance(layer, keras.layers.RNN)
        for layer in layers
    )


class Pace:
    """How many steps an execution takes: as many as were asked for, or by the time.

    Args:
        steps: int, or "auto".
        callbacks: Keras callbacks, a list or one. If one, other than Keras' own, is told
            of each batch, each is an execution if it is "auto".

    Attributes:
        steps: int, of the next execution.
        most: int, that an execution can come to.
    """

    def __init__(self, steps, callbacks=None):
        callbacks = tf.nest.flatten(getattr(callbacks, "callbacks", callbacks or []))
        self.learns = steps == "auto" and not any(map(_watches_batches, callbacks))
        self.steps = 1 if steps == "auto" else steps
        self.most = 512 if self.learns else self.steps

    def took(self, seconds, steps):
        """Learns from an execution of so many steps."""
        if not self.learns or steps < self.steps:
            return  # the last of a chunk or an epoch says nothing
        if seconds < SHORTEST:
            self.steps = min(2 * self.steps, self.most)
        elif seconds > LONGEST:
            self.steps = math.ceil(self.steps / 2)


def _watches_batches(callback):
    hooks = (
        getattr(callback, f"on_{kind}batch_{when}")
        for kind in ("", "train_", "test_")
        for when in ("begin", "end")
    )
    modules = [getattr(hook, "__func__", hook).__module__ for hook in hooks]
    return not all(module.startswith(("keras.", "keras_vae.")) for module in modules)


def enumerate_epoch(chunks):
    """What Keras' epoch iterator enumerates: (first step, last step, `Part`)."""
    pace, done = chunks.pace, 0
    for chunk in chunks:
        first = 0
        while first < chunk.steps:
            count = min(pace.steps, chunk.steps - first)
            begin = time.perf_counter()
            yield done, done + count - 1, Part(chunk.batches, first, count, chunk.rest)
            pace.took(time.perf_counter() - begin, count)
            first, done = first + count, done + count


class Part:
    """Some batches of a chunk: `count` of them, from the number `first` on.

    Args:
        batches: structure of tensors `[steps, batch, ...]`.
        first: int.
        count: int.
        rest: bool, that it is the smaller batch at the end of the data, which comes too
            seldom to be worth a compilation by XLA of its own.
    """

    def __init__(self, batches, first, count, rest=False):
        self.batches, self.first, self.count, self.rest = batches, first, count, rest


def loop(step, jit_compile, eager=False):
    """A function of a `Part` that does one step for each of its batches.

    Args:
        step: function of a batch that returns a dict of scalars.
        jit_compile: bool.
        eager: bool, no graph at all.

    Returns:
        Function of a `Part` that returns what the last step returned.
    """
    if eager:
        return functools.partial(_eager_loop, step)
    compiled = _compiled(step, jit_compile)
    return lambda part: compiled(
        part.batches, tf.constant(part.first), tf.constant(part.count)
    )


def _eager_loop(step, part):
    for i in range(part.first, part.first + part.count):
        outputs = step(_batch(part.batches, i))
    return outputs


def _batch(batches, i):
    return tf.nest.map_structure(lambda a: tf.gather(a, i), batches)


def _compiled(step, jit_compile):
    step = tf.function(step, autograph=False)  # traced once for the two uses below

    @tf.function(jit_compile=jit_compile, autograph=False)
    def loop(batches, first, count):
        spec = tf.nest.map_structure(lambda a: tf.TensorSpec(a.shape[1:], a.dtype), batches)
        outputs = step.get_concrete_function(spec).structured_outputs
        outputs = tf.nest.map_structure(lambda a: tf.zeros(a.shape, a.dtype), outputs)
        return tf.while_loop(
            lambda i, _: i < first + count,
            lambda i, _: (i + 1, step(_batch(batches, i))),
            (first, outputs),
        )[1]

    return loop
