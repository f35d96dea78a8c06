"""Nats per example -> bits per dimension."""

import math

from keras_vae import checks


def bits_per_dimension(nats, event_shape):
    """Costs in nats per example as bits per element of the event.

    `nats / (D log 2)`. For a density of pixels that were divided by 255, adding log2(255)
    gives the bits of the undivided pixel.

    Args:
        nats: number or array, a cost such as `-log p(x)`.
        event_shape: tuple of ints.

    Returns:
        As `nats`, in bits per dimension.

    Raises:
        ValueError: if `event_shape` is none.

    Example:

    >>> bits_per_dimension(784 * math.log(2), (28, 28, 1))
    1.0
    """
    return nats / (math.prod(checks.shape(event_shape, "event_shape")) * math.log(2))
