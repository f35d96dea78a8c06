"""Arrays in memory -> batches: checked once, shuffled by index, gathered as they are.

uint8 stays uint8 until it is inside the training step: a quarter of the memory traffic.
"""

import numbers
import warnings

import numpy as np
import tensorflow as tf

from keras_vae import checks, random


def is_source(data):
    """Whether `data` yields batches of its own (tf.data, PyDataset, a generator, ...)."""
    plain = (list, tuple, dict, str, bytes, numbers.Number, type(None))
    sparse = (tf.SparseTensor, tf.RaggedTensor)
    return not (hasattr(data, "__array__") or isinstance(data, (*plain, *sparse)))


def as_array(value, name):
    """Returns an array as NumPy: bool, an integer type or float32.

    Args:
        value: array of any library that NumPy understands.
        name: str, the argument's name for errors.

    Raises:
        ValueError: for anything that is not an array of numbers, and for an empty one.
    """
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
    return _map(lambda a: a[:at], data), _map(lambda a: a[at:], data)


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
    data, batch_size, steps=None, seed=0, shuffle=False, epoch=int, augmentation=()
):
    """A dataset of batches, in another order for each epoch if they are shuffled.

    The order is an index shuffle, a pure function of (seed, epoch): no buffer, no state
    to restore, the same for one worker or many.

    Args:
        data: structure of arrays with equal numbers of rows, or None.
        batch_size: int.
        steps: int, batches per epoch, or None for all rows.
        seed: int.
        shuffle: bool; False for the order of the arrays.
        epoch: function without arguments that returns the number of the epoch (int64).
            Each iterator over the dataset asks it once, when it is first read.
        augmentation: list of Keras' image preprocessing layers for the first array, with
            seeds that are a function of (seed, epoch, batch).

    Returns:
        `tf.data.Dataset` of structures like `data`, `[batch, ...]`. The last batch of an
        epoch may be smaller.
    """
    rows = len(tf.nest.flatten(data)[0])
    count = -(-rows // batch_size)
    if steps and steps > count:
        warnings.warn(
            f"The input ran out of data: {steps} steps of {count} batches.", stacklevel=4
        )
    count = min(count, steps or count)
    tensors = _map(tf.convert_to_tensor, data)

    def batch(order, number, i):
        index = order[i * batch_size : (i + 1) * batch_size]
        # Gathered here, not in the step: XLA takes minutes to compile a function with a
        # constant of the size of the data.
        gathered = _map(lambda tensor: tf.gather(tensor, index), tensors)
        if not augmentation:
            return gathered
        x, *rest = tf.nest.flatten(gathered)
        x = augment(augmentation, x, random.KeyedSeeds(seed, number, i))
        return tf.nest.pack_sequence_as(gathered, [x, *rest])

    def of_epoch(_):
        number = tf.numpy_function(lambda: np.int64(epoch()), [], tf.int64)
        order = random.order(seed, number, rows) if shuffle else tf.range(rows)
        return tf.data.Dataset.range(count).map(
            lambda i: batch(order, number, i), num_parallel_calls=2, deterministic=True
        )

    dataset = tf.data.Dataset.range(1).flat_map(of_epoch)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
    options = tf.data.Options()
    options.autotune.enabled = False  # it can stall the end of an epoch for seconds
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_external_state_policy = (
        tf.data.experimental.ExternalStatePolicy.IGNORE
    )
    return dataset.prefetch(4).with_options(options)


def _map(function, data):
    return tf.nest.map_structure(lambda a: None if a is None else function(a), data)
