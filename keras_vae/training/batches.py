"""The batches of an epoch as a `tf.data.Dataset`, gathered by shuffled indices.

uint8 is converted to float only inside the training step, because it needs a quarter of
the memory traffic.
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
    """Makes a dataset of the batches of an epoch, in an order fixed by the epoch number.

    Batches are counted over all epochs. Each pass over the data has its own permutation of
    the rows, a pure function of (seed, pass). So there is no shuffle buffer and no state to
    restore, and the order does not depend on the number of workers. Epoch e has the batches
    e * steps to (e + 1) * steps - 1, which may belong to several passes.

    Args:
        data: structure of arrays or `RowsOnDisk` with equal numbers of rows, or None.
        batch_size: int.
        steps: int, batches per epoch, or None for one pass.
        seed: int.
        shuffle: bool; False for the order of the arrays.
        epoch: function without arguments that returns the number of the epoch (int64).
            Each iterator over the dataset calls it once, before the first batch. With None
            the epoch is at most one pass.
        augmentation: list of Keras' image preprocessing layers for the first array, with
            seeds that are a function of (seed, pass, batch).
        replicas: (first, last, total), or None. Each element is then the share of one
            replica in a batch, for the replicas first to last - 1 of `total` in turn. A
            share may be empty. The dataset is infinite: it does not stop after the epoch.

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

    @tf.autograph.experimental.do_not_convert  # not needed, and slow
    def batch(k):
        k, replica = k // local, first + k % local
        number, i = k // count, k % count
        begin = i * batch_size
        size = tf.minimum(rows - begin, batch_size)
        low, high = replica * size // total, (replica + 1) * size // total
        if not augmentation:
            return gather(index(number, begin + low, begin + high))
        # Augments the whole batch, so that a row is augmented as on one device.
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
    """Makes a function (pass, begin, end) -> row numbers, in the order of the pass."""

    # Cached in Python for the batches of a pass. A nested dataset, of passes and then of
    # their batches, would cache it too, but takes 0.1 s per epoch to create.
    @functools.lru_cache(maxsize=2)
    def order(number):
        with tf.device("CPU"):
            return random.order(seed, number, rows)

    lock = threading.Lock()

    def shuffled(number, begin, end):
        with lock:  # parallel batches of a new pass compute its order only once
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
    """Returns the number of batches of an epoch: `steps`, or the `count` of a pass.

    Without `epoch`, an epoch is at most one pass. Warns if that has fewer than `steps`.
    """
    if epoch is None and steps and steps > count:
        warnings.warn(
            f"The input ran out of data: {steps} steps of {count} batches.", stacklevel=5
        )
        return count
    return steps or count


def row_gatherer(data: Any, device: str = "CPU") -> Callable:
    """Makes a function: row numbers `[n]` -> these rows of an array, on a device."""
    if isinstance(data, RowsOnDisk):
        return data.gather
    # Gathered outside the step: XLA takes minutes to compile a function with a constant
    # of the size of the data.
    with tf.device(device):
        tensor = tf.convert_to_tensor(data)

    def gather(index):
        with tf.device(device):
            return tf.gather(tensor, index)

    return gather
