"""Arrays, in memory or on disk -> batches: checked, shuffled by index, gathered.

uint8 stays uint8 until it is inside the training step: a quarter of the memory traffic.
"""

import collections
import concurrent.futures
import functools
import math
import numbers
import threading
import warnings
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters import data_adapter

from keras_vae import checks, random, sources

# A chunk of batches has so many bytes at most: little beside a model, and enough for its
# steps to outweigh what a chunk costs.
CHUNK_BYTES = 2**22
# An array of more bytes stays in the memory of the host.
ON_DEVICE = 2**31


def is_source(data):
    """Whether `data` yields batches of its own (tf.data, PyDataset, a generator, ...)."""
    plain = (list, tuple, dict, str, bytes, numbers.Number, type(None))
    sparse = (tf.SparseTensor, tf.RaggedTensor)
    return not (hasattr(data, "__array__") or isinstance(data, (*plain, *sparse)))


def is_mapped(value):
    """Whether it is an array that is mapped from a file, or a slice of one."""
    return isinstance(value, np.memmap) and value.filename is not None


def as_array(value, name):
    """Returns an array as NumPy: bool, an integer type or float32; or as a `Source`.

    A `Source` is left as it is, and an array that is mapped from a file becomes one.

    Args:
        value: array of any library that NumPy understands.
        name: str, the argument's name for errors.

    Raises:
        ValueError: for anything that is not an array of numbers, and for an empty one.
    """
    if isinstance(value, sources.Source):
        return value
    if is_mapped(value):
        return sources.Mapped(value, name)
    if not hasattr(value, "__array__"):
        raise ValueError(
            f"`{name}` must be an array of numbers (NumPy, TensorFlow, pandas, ...). "
            f"Received: {name} of type {type(value).__name__}"
        )
    array = np.asarray(value)
    check_dtype(array.dtype, name)
    if array.dtype.kind not in "bui":
        with np.errstate(over="ignore"):  # what is too large becomes infinite
            array = array.astype(np.float32, copy=False)
    if not array.size:
        raise ValueError(f"`{name}` is empty. Received: shape {array.shape}")
    return array


def plain_array(value, name):
    """Returns numbers in lists as a NumPy array; what is no list is handed through."""
    if not isinstance(value, (list, tuple, numbers.Number)):
        return value
    try:
        return np.asarray(value)
    except ValueError as error:  # ragged
        kind = type(value).__name__
        raise ValueError(
            f"`{name}` must be a rectangular array. Received: a {kind}: {error}"
        ) from None


def check_dtype(dtype, name):
    """Raises a ValueError unless it is a dtype of real numbers."""
    numpy = np.dtype(getattr(dtype, "as_numpy_dtype", dtype))
    dtype = dtype.name if isinstance(dtype, tf.DType) else dtype
    if numpy.kind not in "buif" and numpy.name != "bfloat16":
        raise ValueError(
            f"`{name}` must hold numbers: bool, an integer type or a float type. "
            f"Received: {name} of dtype {dtype}"
        )


def part_of(values, rows):
    """The rows of a structure of arrays or tensors; None is None."""
    return _map(lambda a: a[rows], values)


def check_labels(y, rows, name):
    """Raises a ValueError unless `y` is None or (a structure of) arrays of so many rows."""
    if isinstance(y, list):
        raise ValueError(f"`{name}` must be an array. Received: {name} of type list")
    for array in tf.nest.flatten(y):
        if array is not None and (np.ndim(array) == 0 or len(array) != rows):
            raise ValueError(
                f"`{name}` must have one row for each row of x, {rows}. "
                f"Received: {name} of shape {np.shape(array)}"
            )


def check_weight(weight, rows, name):
    """Returns weights as an array `[rows]`, or raises a ValueError. None is None."""
    if weight is None:
        return None
    if np.shape(weight) != (rows,):
        raise ValueError(
            f"`{name}` must hold one number for each row of x: shape ({rows},). "
            f"Received: {name} of shape {np.shape(weight)}"
        )
    weight = as_array(np.asarray(weight), name)
    if weight.dtype.kind == "f" and not np.isfinite(weight).all():
        raise ValueError(
            f"`{name}` must be finite. Received: {(~np.isfinite(weight)).sum()} values of "
            "NaN or infinity"
        )
    return weight


def split(data, fraction):
    """Splits off the last rows, as Keras does.

    Args:
        data: structure of arrays with equal numbers of rows, or None.
        fraction: float in (0, 1), the share of the rows to split off.

    Returns:
        (first, last): two structures like `data`.

    Raises:
        ValueError: if the fraction is out of range or leaves one side empty.
    """
    if not (isinstance(fraction, (int, float)) and 0 < fraction < 1):
        raise ValueError(
            "`validation_split` must lie between 0 and 1. "
            f"Received: validation_split={fraction!r}"
        )
    rows = len(tf.nest.flatten(data)[0])
    at = int(rows * (1 - fraction))
    if at in (0, rows):
        raise ValueError(
            f"`validation_split` leaves one side of the {rows} rows empty. "
            f"Received: validation_split={fraction}"
        )

    def part(rows):
        stays = sources.Source  # on the disk
        return _map(lambda a: a.part(rows) if isinstance(a, stays) else a[rows], data)

    return part(slice(at)), part(slice(at, None))


def check_augmentation(layers):
    """Returns Keras layers that transform images as a list, or raises a ValueError."""
    layers = layers if isinstance(layers, (list, tuple)) else [layers]
    for layer in layers:
        # Layers inside a layer (RandAugment, RandomColorJitter) draw from their own seeds.
        fits = hasattr(layer, "get_random_transformation") and not layer._layers
        expected = (
            "image preprocessing layers of Keras, one by one, such as "
            "keras.layers.RandomRotation(0.1)"
        )
        checks.that(fits, "augmentation", expected, layer)
    return list(layers)


def augment(layers, x, seeds):
    """Transforms images as in training.

    Args:
        layers: list of Keras' image preprocessing layers. What they draw, they draw from
            `seeds`, not from generators of their own, whose state would have to be kept.
        x: `[batch, height, width, channels]`.
        seeds: `keras.random.SeedGenerator`.

    Returns:
        A tensor like x, of its dtype; height and width as the layers have it.
    """
    images = x
    for layer in layers:
        transformation = layer.get_random_transformation(images, training=True, seed=seeds)
        images = layer.transform_images(images, transformation, training=True)
    if tf.as_dtype(x.dtype).is_bool:
        return images >= 0.5
    if tf.as_dtype(x.dtype).is_integer:
        return tf.saturate_cast(tf.round(images), x.dtype)
    return tf.cast(images, x.dtype)


def batches(
    data,
    batch_size,
    steps=None,
    seed=0,
    shuffle=False,
    epoch=None,
    augmentation=(),
    replicas=None,
):
    """A dataset of the batches of an epoch, in an order that is a function of its number.

    Batches are counted through all epochs. Each pass over the data has an order of its
    own, an index shuffle, which is a pure function of (seed, pass): no buffer, no state to
    restore, the same for one worker or many. Epoch e has the batches e * steps to
    (e + 1) * steps - 1, wherever passes begin and end.

    Args:
        data: structure of arrays or sources with equal numbers of rows, or None.
        batch_size: int.
        steps: int, batches per epoch, or None for one pass.
        seed: int.
        shuffle: bool; False for the order of the arrays.
        epoch: function without arguments that returns the number of the epoch (int64).
            Each iterator over the dataset asks it once, when it is first read. None: the
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
    steps = _steps(steps, count, epoch)
    first, last, every = replicas or (0, 1, 1)
    gathers = _map(_gatherer, data)

    # Kept in Python between the batches of a pass. A dataset of the passes, with one of
    # their batches inside, would hold it too, but takes 0.1 s of an epoch to be made.
    @functools.lru_cache(maxsize=2)
    def order(number):
        with tf.device("CPU"):
            return random.order(seed, number, rows)

    making = threading.Lock()

    def numbers_of(number, begin, end):
        with making:  # two batches that wait for an order wait for one
            whole = order(number)
        return whole[begin:end].astype(np.int64)

    def index(number, begin, end):
        if not shuffle:
            return tf.range(begin, end)
        part = tf.numpy_function(numbers_of, [number, begin, end], tf.int64)
        return tf.ensure_shape(part, [None])

    @tf.autograph.experimental.do_not_convert  # nothing to convert, which takes a while
    def batch(k):
        k, replica = k // (last - first), first + k % (last - first)
        number, i = k // count, k % count
        begin = i * batch_size
        size = tf.minimum(rows - begin, batch_size)
        low, high = replica * size // every, (replica + 1) * size // every
        if not augmentation:
            rows_of = index(number, begin + low, begin + high)
            return _map(lambda gather: gather(rows_of), gathers)
        # All of the batch, of which a layer draws as it does for one device.
        rows_of = index(number, begin, begin + size)
        gathered = _map(lambda gather: gather(rows_of), gathers)
        x, *rest = tf.nest.flatten(gathered)
        x = augment(augmentation, x, random.KeyedSeeds(seed, number, i))
        gathered = tf.nest.pack_sequence_as(gathered, [x, *rest])
        return gathered if replicas is None else _map(lambda a: a[low:high], gathered)

    @tf.autograph.experimental.do_not_convert
    def of_epoch(_):
        begin = tf.numpy_function(lambda: np.int64(epoch()), [], tf.int64) * steps
        end = begin + steps if replicas is None else tf.int64.max // (last - first)
        return tf.data.Dataset.range(begin * (last - first), end * (last - first))

    if epoch is None:
        end = steps if replicas is None else tf.int64.max
        counted = tf.data.Dataset.range(end)
    else:
        counted = tf.data.Dataset.range(1).flat_map(of_epoch)
    dataset = counted.map(batch, num_parallel_calls=2, deterministic=True)
    cardinality = steps if replicas is None else tf.data.INFINITE_CARDINALITY
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(cardinality))
    options = tf.data.Options()
    options.autotune.enabled = False  # it can stall the end of an epoch for seconds
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_external_state_policy = (
        tf.data.experimental.ExternalStatePolicy.IGNORE
    )
    return dataset.prefetch(4).with_options(options)


class Chunks(data_adapter.DataAdapter):
    """The batches of `batches`, several at once: what one device trains on.

    Those of a chunk are gathered together, from the device's memory where the data fit
    into it, and the next chunk while this one is used. Keras takes it for a data adapter.

    Args:
        pace: `execution.Pace`, whose `most` is the most batches of a chunk.
        data, batch_size, steps, seed, shuffle, epoch: as of `batches`.
    """

    def __init__(
        self, pace, data, batch_size, steps=None, seed=0, shuffle=False, epoch=None
    ):
        self.pace = pace
        arrays = tf.nest.flatten(data)
        self.rows, self.size = len(arrays[0]), batch_size
        self.count = -(-self.rows // batch_size)  # batches of a pass
        self.steps = _steps(steps, self.count, epoch)
        self.seed, self.shuffle = seed, shuffle
        self.epoch = (lambda: 0) if epoch is None else epoch
        row_bytes = sum(a.dtype.itemsize * math.prod(a.shape[1:]) for a in arrays)
        whole = max(1, min(self.rows // batch_size, self.steps))
        at_once = max(
            1, min(pace.most, whole, CHUNK_BYTES // (batch_size * row_bytes or 1))
        )
        self.at_once = -(-whole // -(-whole // at_once))  # chunks of nearly equal sizes
        self.gathers = _map(_gatherer, data)
        self.order = functools.lru_cache(maxsize=2)(self._order)

    @property
    def num_batches(self):
        return self.steps

    def get_tf_dataset(self):
        return self  # handed through by Keras to `execution.enumerate_epoch`

    def __iter__(self):
        ahead: collections.deque = collections.deque()
        pool = concurrent.futures.ThreadPoolExecutor(1)
        try:
            for number, begin, end, steps in self._plan():
                gathered = pool.submit(self._gather, number, begin, end)
                ahead.append((gathered, steps, end - begin < self.size))
                if len(ahead) > 2:
                    yield self._next(ahead)
            while ahead:
                yield self._next(ahead)
        finally:
            pool.shutdown(cancel_futures=True)

    @staticmethod
    def _next(ahead):
        gathered, steps, rest = ahead.popleft()
        return Chunk(gathered.result(), steps, rest)

    def _plan(self):
        """The chunks of an epoch: the pass, the rows in its order, and how many steps."""
        k = int(self.epoch()) * self.steps
        end = k + self.steps
        whole = self.rows // self.size
        while k < end:
            number, i = divmod(k, self.count)
            steps = min(self.at_once, whole - i, end - k) or 1  # 1: the rest of a pass
            begin = i * self.size
            yield number, begin, min(begin + steps * self.size, self.rows), steps
            k += steps

    def _order(self, number):
        return random.order(self.seed, number, self.rows)

    def _gather(self, number, begin, end):
        """Rows `[steps, batch, ...]`: of the shape of a full chunk, unless a pass ends."""
        rows = self.order(number)[begin:end] if self.shuffle else np.arange(begin, end)
        batch = min(self.size, len(rows))
        steps = self.at_once if batch == self.size else 1
        # XLA compiles for each shape: rows that are not used cost less.
        rows = np.pad(rows, (0, steps * batch - len(rows)))

        def gather(gather):
            gathered = gather(tf.constant(rows, tf.int64))
            return tf.reshape(gathered, (steps, batch, *gathered.shape[1:]))

        return _map(gather, self.gathers)


class Chunk(NamedTuple):
    """Batches `[steps or more, batch, ...]`, of which the first `steps` count.

    `rest`: whether it is the smaller batch at the end of the data.
    """

    batches: Any
    steps: int
    rest: bool


def _steps(steps, count, epoch):
    """The batches of an epoch, of `count` in a pass."""
    if epoch is None and steps and steps > count:
        warnings.warn(
            f"The input ran out of data: {steps} steps of {count} batches.", stacklevel=5
        )
        return count
    return steps or count


def _gatherer(data):
    """A function of int64 `[n]` that returns those rows of an array."""
    if isinstance(data, sources.Source):
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


def _map(function, data):
    return tf.nest.map_structure(lambda a: None if a is None else function(a), data)
