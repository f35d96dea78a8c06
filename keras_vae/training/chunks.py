"""Execution of the steps of `fit` and `evaluate`: compiled, many steps in one call.

Keras calls a function for each execution, with a `tf.data` iterator. For arrays, this
module passes a `Part` of a `Chunk` instead: batches that were gathered together and are in
the memory of the device. XLA compiles a loop over these batches. This keeps the weights in
place, and is faster than a loop that calls a compiled step.
"""

import collections
import concurrent.futures
import functools
import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.training import devices, keras_private, replicas
from keras_vae.training.arrays import map_arrays
from keras_vae.training.batches import row_gatherer, steps_per_epoch

# Seconds that an execution should take. Callbacks, progress bars and Ctrl-C are handled
# between executions, and each execution has an overhead of about a millisecond in Python.
SHORTEST, LONGEST = 0.1, 0.4
# Largest size of a chunk in bytes: small compared with a model, but large enough that the
# steps of the chunk take longer than gathering it.
CHUNK_BYTES = 2**22
# On a GPU, the largest shares of its free memory: for the data, which stay in the memory of
# the host if they are larger, and for a chunk, of which up to three exist at a time.
DATA_SHARE, CHUNK_SHARE = 1 / 4, 1 / 64
# On a GPU, the number of steps in a loop of constant length. After each step of a loop of
# unknown length, XLA waits until the host has read whether there is another one.
BLOCK = 32
# Errors that XLA raises for operations that it cannot compile.
NOT_COMPILED = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)


class Pace:
    """The number of steps of an execution: fixed, or adapted to the time that it takes.

    Args:
        steps: int, or "auto".
        callbacks: Keras callbacks, a list or one. With "auto", an execution is one step if
            a callback other than Keras' own is called for each batch.

    Attributes:
        steps: int, the number of steps of the next execution.
        most: int, the largest possible value of `steps`.
    """

    def __init__(self, steps: int | str, callbacks: Any = None):
        callbacks = tf.nest.flatten(getattr(callbacks, "callbacks", callbacks or []))
        self.adapts = steps == "auto" and not any(map(_watches_batches, callbacks))
        self.steps = 1 if steps == "auto" else int(steps)
        self.most = 512 if self.adapts else self.steps

    def record(self, seconds: float, steps: int) -> None:
        """Adapts `self.steps` to the time that an execution of `steps` steps took."""
        if not self.adapts or steps < self.steps:
            return  # a short execution, at the end of a chunk, is not representative
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


class Chunk(NamedTuple):
    """Batches `[steps or more, batch, ...]`, of which only the first `steps` are used.

    Attributes:
        batches: structure of tensors.
        steps: int.
        is_rest: bool, True for the smaller last batch of the data.
    """

    batches: Any
    steps: int
    is_rest: bool


class Part(NamedTuple):
    """Consecutive batches of a chunk: `steps` batches, beginning with number `first`.

    Attributes:
        batches: structure of tensors `[steps, batch, ...]`.
        first: int.
        steps: int.
        is_rest: bool, True for the smaller last batch of the data. XLA does not compile
            it, because it is too rare to be worth another compilation.
    """

    batches: Any
    first: int
    steps: int
    is_rest: bool = False


class Chunks(keras_private.DataAdapter):
    """The same batches as in `batches`, several at a time, for training on one device.

    The batches of a chunk are gathered together, from the memory of the device if the data
    fit into it. The next chunks are prefetched.

    Args:
        pace: `Pace`, whose `most` limits the batches of a chunk.
        data, batch_size, steps, seed, shuffle, epoch: see `batches`.
        device: str, the device that trains.
    """

    def __init__(
        self,
        pace: Pace,
        data: Any,
        batch_size: int,
        steps: int | None = None,
        seed: int = 0,
        shuffle: bool = False,
        epoch: Callable | None = None,
        device: str = "CPU",
    ):
        self.pace = pace
        arrays = tf.nest.flatten(data)
        self.rows, self.size = len(arrays[0]), batch_size
        self.count = -(-self.rows // batch_size)  # batches of a pass
        self.steps = steps_per_epoch(steps, self.count, epoch)
        self.shuffle = shuffle
        self.epoch = (lambda: 0) if epoch is None else epoch
        self.device, home, chunk_bytes = device, "CPU", CHUNK_BYTES
        row_bytes = sum(a.dtype.itemsize * math.prod(a.shape[1:]) for a in arrays)
        if devices.is_gpu(device):
            free = devices.free_memory(device)
            home = device if self.rows * row_bytes <= free * DATA_SHARE else "CPU"
            chunk_bytes = max(chunk_bytes, int(free * CHUNK_SHARE))
        full = max(1, min(self.rows // batch_size, self.steps))
        limit = max(1, min(pace.most, full, chunk_bytes // (batch_size * row_bytes or 1)))
        self.chunk_steps = -(-full // -(-full // limit))  # chunks of nearly equal sizes
        self.gatherers = map_arrays(lambda a: row_gatherer(a, home), data)
        # Without `self`: a cycle would keep the data and the thread until Python's garbage
        # collector runs.
        order = functools.partial(random.order, seed, rows=self.rows)
        self.order = functools.lru_cache(maxsize=2)(order)
        self.pool = concurrent.futures.ThreadPoolExecutor(1)

    @property
    def num_batches(self) -> int:
        return self.steps

    def get_tf_dataset(self) -> "Chunks":
        return self  # Keras passes it unchanged to its epoch iterator

    def __iter__(self) -> Iterator[Chunk]:
        ahead: collections.deque = collections.deque()
        try:
            for number, begin, end, steps in self._plan():
                gathered = self.pool.submit(self._gather, number, begin, end)
                ahead.append((gathered, steps, end - begin < self.size))
                if len(ahead) > 2:
                    yield self._next(ahead)
            if self.shuffle:  # the next epoch would wait for it
                self.pool.submit(self.order, number + 1)
            while ahead:
                yield self._next(ahead)
        finally:
            for gathered, *_ in ahead:
                gathered.cancel()

    @staticmethod
    def _next(ahead):
        gathered, steps, is_rest = ahead.popleft()
        return Chunk(gathered.result(), steps, is_rest)

    def _plan(self):
        """Yields the chunks of an epoch: (pass, first row, end row, steps)."""
        k = int(self.epoch()) * self.steps
        end = k + self.steps
        full = self.rows // self.size
        while k < end:
            number, i = divmod(k, self.count)
            # `or 1`: the smaller last batch of a pass.
            steps = min(self.chunk_steps, full - i, end - k) or 1
            begin = i * self.size
            yield number, begin, min(begin + steps * self.size, self.rows), steps
            k += steps

    def _gather(self, number, begin, end):
        """Gathers rows `[steps, batch, ...]`, padded to a full chunk within a pass."""
        rows = self.order(number)[begin:end] if self.shuffle else np.arange(begin, end)
        batch = min(self.size, len(rows))
        steps = self.chunk_steps if batch == self.size else 1
        # XLA compiles each shape separately. Gathering unused rows is cheaper.
        rows = np.pad(rows, (0, steps * batch - len(rows)))
        with tf.device("CPU"):
            rows = tf.constant(rows, tf.int64)

        def gather(gatherer):
            gathered = gatherer(rows)
            with tf.device(self.device):  # copies it there, if it is in the host's memory
                return tf.reshape(gathered, (steps, batch, *gathered.shape[1:]))

        return map_arrays(gather, self.gatherers)

    def parts(self) -> Iterator[tuple[int, int, Part]]:
        """Yields the executions of an epoch: (first step, last step, `Part`)."""
        done = 0
        for chunk in self:
            first = 0
            while first < chunk.steps:
                count = min(self.pace.steps, chunk.steps - first)
                begin = time.perf_counter()
                yield (
                    done,
                    done + count - 1,
                    Part(chunk.batches, first, count, chunk.is_rest),
                )
                self.pace.record(time.perf_counter() - begin, count)
                first, done = first + count, done + count


def execution_function(model: keras_private.Model, step: Callable) -> Callable:
    """Makes the function that Keras calls for each execution: of an iterator or a `Part`.

    Args:
        model: compiled `ResumableModel`.
        step: its `train_step` or `test_step`.
    """
    strategy = model.distribute_strategy
    if replicas.several_workers(strategy):
        return replicas.step_function(strategy, step)
    run_iterator = model.iterator_function(step)

    @functools.cache
    def part_function(jit_compile):
        block = BLOCK if devices.is_gpu(model.device) else 1
        return loop(step, jit_compile, model.run_eagerly, block)

    def function(data):
        if not isinstance(data, Part):
            return run_iterator(data)
        return model.try_xla(lambda xla: part_function(xla and not data.is_rest)(data))

    return function


def loop(
    step: Callable, jit_compile: bool, eager: bool = False, block: int = 1
) -> Callable:
    """Makes a function of a `Part` that runs a step for each of its batches.

    Args:
        step: function of a batch that returns a dict of scalars.
        jit_compile: bool, whether XLA compiles the loop.
        eager: bool, whether to run without a graph.
        block: int, the number of steps in an inner loop of constant length.

    Returns:
        Function of a `Part` that returns the result of the last step.
    """
    if eager:
        return functools.partial(_eager_loop, step)
    compiled = _compiled_loop(step, jit_compile, block)
    return lambda part: compiled(
        part.batches, tf.constant(part.first), tf.constant(part.steps)
    )


def _eager_loop(step, part):
    for i in range(part.first, part.first + part.steps):
        outputs = step(_batch(part.batches, i))
    return outputs


def _batch(batches, i):
    return tf.nest.map_structure(lambda a: tf.gather(a, i), batches)


def _compiled_loop(step, jit_compile, block):
    # `partial`: TensorFlow counts the traces of a function over all models, and warns.
    step = functools.partial(step)
    step = tf.function(step, autograph=False)  # traced once for all uses below

    def repeat(count, body, outputs):
        """Calls `outputs = body(i, outputs)` for i = 0 to count - 1."""
        return tf.while_loop(
            lambda i, _: i < count, lambda i, out: (i + 1, body(i, out)), (0, outputs)
        )[1]

    def loop(batches, first, count):
        spec = tf.nest.map_structure(lambda a: tf.TensorSpec(a.shape[1:], a.dtype), batches)
        outputs = step.get_concrete_function(spec).structured_outputs
        outputs = tf.nest.map_structure(lambda a: tf.zeros(a.shape, a.dtype), outputs)

        def steps(first, count, outputs):
            return repeat(count, lambda i, _: step(_batch(batches, first + i)), outputs)

        if block > 1:
            blocks = count // block
            outputs = repeat(
                blocks, lambda i, out: steps(first + i * block, block, out), outputs
            )
            first, count = first + blocks * block, count - blocks * block
        return steps(first, count, outputs)

    return tf.function(functools.partial(loop), jit_compile=jit_compile, autograph=False)


def try_xla(model: keras.Model, run: Callable[[bool], Any], required: bool) -> Any:
    """Calls `run(model.jit_compile)`; retries without XLA if XLA cannot compile it.

    Args:
        model: Keras model; its `jit_compile` becomes False if XLA failed.
        run: function of a bool, which has no side effect if XLA cannot compile it.
        required: bool, whether to raise the error of XLA instead of a retry.

    Returns:
        The result of `run`.
    """
    xla = model.jit_compile
    try:
        return run(xla)
    except NOT_COMPILED as error:
        if not xla or required:
            raise
        warnings.warn(
            "XLA cannot compile this model, which is slower without XLA. "
            "compile(jit_compile=False) avoids this warning. The reason: "
            f"{str(error).splitlines()[0]}",
            stacklevel=3,
        )
        model.jit_compile = False
        return run(False)


def slow_in_xla(model: keras.Model) -> bool:
    """Returns True if a built model has layers that are slow with XLA on a CPU.

    XLA's convolutions are slower than oneDNN's, and its loops over time are slower than
    TensorFlow's (measured: docs/speed.md).
    """
    return any(
        hasattr(layer, "kernel_size") or isinstance(layer, keras.layers.RNN)
        for layer in keras_private.flatten_layers(model, include_self=False)
    )
