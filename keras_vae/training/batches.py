"""The batches of an epoch as a `tf.data.Dataset`: shuffled by index, gathered.

uint8 stays uint8 until it is inside the training step: a quarter of the memory traffic.
"""

import functools
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.datasets.rows import RowsOnDisk
from keras_vae.training.arrays import map_arrays
from keras_vae.training.augmentation import augment

# An array of more bytes stays in the memory of the host.
ON_DEVICE = 2**31


def batches(
    data: Any,
    batch_size: int,
    steps: int | None = None,
    seed: int = 0,
    shuffle: bool = False,
    epoch: Callable | None = None,
    augmentation: Sequence = (),
    replicas: tuple[int, int, int] | None = None,
) -> tf.data.Dataset:
    """Makes a dataset of the batches of an epoch, in an order given by its number.

    Batches are counted over all epochs. Each pass over the data has an order of its own, an
    index shuffle, which is a pure function of (seed, pass): there is no buffer and no state
    to restore, and one worker or many see the same order. Epoch e has the batches e * steps
    to (e + 1) * steps - 1, wherever passes begin and end.

    Args:
        data: structure of arrays or `RowsOnDisk` with equal numbers of rows, or None.
        batch_size: int.
        steps: int, batches per epoch, or None for one pass.
        seed: int.
        shuffle: bool; False for the order of the arrays.
        epoch: function without arguments that returns the number of the epoch (int64).
            Each iterator over the dataset calls it once, when it is first read. None: the
            epoch is one pass at most.
        augmentation: list of Keras' image preprocessing layers for the first array, with
            seeds that are a function of (seed, pass, batch).
        replicas: (first, last, all), or None. The elements are the shares of the replicas
            first to last - 1, of so many, in each batch, one after the other, and go on
            after the epoch without end. A share may be empty.

    Returns:
        `tf.data.Dataset` of structures like `data`, `[batch, ...]`. The last batch of a
        pass may be smaller.
    """
    rows = len(tf.nest.flatten(data)[0])
    count = -(-rows // batch_size)
    steps = steps_per_epoch(steps, count, epoch)
    first, last, total = replicas or (0, 1, 1)
    local = last - first
    gatherers = map_arrays(row_gatherer, data)
    index = _index_function(seed, rows, shuffle)

    def gather(numbers):
        return map_arrays(lambda gatherer: gatherer(numbers), gatherers)

    @tf.autograph.experimental.do_not_convert  # nothing to convert, and it takes time
    def batch(k):
        k, replica = k // local, first + k % local
        number, i = k // count, k % count
        begin = i * batch_size
        size = tf.minimum(rows - begin, batch_size)
        low, high = replica * size // total, (replica + 1) * size // total
        if not augmentation:
            return gather(index(number, begin + low, begin + high))
        # The whole batch: a layer draws for all its rows as it does on one device.
        x, *rest = tf.nest.flatten(gather(index(number, begin, begin + size)))
        x = augment(augmentation, x, random.KeyedSeeds(seed, number, i))
        augmented = tf.nest.pack_sequence_as(gatherers, [x, *rest])
        if replicas is None:
            return augmented
        return map_arrays(lambda a: a[low:high], augmented)

    def number_of_epoch():
        return np.int64(epoch() if epoch else 0)

    @tf.autograph.experimental.do_not_convert
    def numbers_of_epoch(_):
        begin = tf.numpy_function(number_of_epoch, [], tf.int64) * steps
        end = begin + steps if replicas is None else tf.int64.max // local
        return tf.data.Dataset.range(begin * local, end * local)

    if epoch is None:
        numbers = tf.data.Dataset.range(steps if replicas is None else tf.int64.max)
    else:
        numbers = tf.data.Dataset.range(1).flat_map(numbers_of_epoch)
    dataset = numbers.map(batch, num_parallel_calls=2, deterministic=True)
    cardinality = steps if replicas is None else tf.data.INFINITE_CARDINALITY
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(cardinality))
    return dataset.prefetch(4).with_options(_options())


def _index_function(seed, rows, shuffle):
    """A function of (pass, begin, end): the numbers of these rows in the pass's order."""

    # Kept in Python between the batches of a pass. A dataset of the passes, with one of
    # their batches inside, would keep it too, but takes 0.1 s of an epoch to be made.
    @functools.lru_cache(maxsize=2)
    def order(number):
        with tf.device("CPU"):
            return random.order(seed, number, rows)

    lock = threading.Lock()

    def shuffled(number, begin, end):
        with lock:  # two batches of a new pass compute its order once
            numbers = order(number)
        return numbers[begin:end].astype(np.int64)

    def index(number, begin, end):
        if not shuffle:
            return tf.range(begin, end)
        part = tf.numpy_function(shuffled, [number, begin, end], tf.int64)
        return tf.ensure_shape(part, [None])

    return index


def _options():
    options = tf.data.Options()
    options.autotune.enabled = False  # it can stall the end of an epoch for seconds
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_external_state_policy = (
        tf.data.experimental.ExternalStatePolicy.IGNORE
    )
    return options


def steps_per_epoch(steps: int | None, count: int, epoch: Callable | None) -> int:
    """The batches of an epoch: `steps`, or the `count` batches of a pass.

    Warns if an epoch of one pass at most (`epoch` is None) has fewer than `steps`.
    """
    if epoch is None and steps and steps > count:
        warnings.warn(
            f"The input ran out of data: {steps} steps of {count} batches.", stacklevel=5
        )
        return count
    return steps or count


def row_gatherer(data: Any) -> Callable:
    """Makes a function of int64 `[n]` that returns those rows of an array, as a tensor."""
    if isinstance(data, RowsOnDisk):
        return data.gather
    # Gathered there, not in the step: XLA takes minutes to compile a function with a
    # constant of the size of the data.
    large = np.asarray(data).nbytes > ON_DEVICE
    place = "CPU" if large else None  # None: where TensorFlow computes
    with tf.device(place):
        tensor = tf.convert_to_tensor(data)

    def gather(index):
        with tf.device(place):
            return tf.gather(tensor, index)

    return gather
