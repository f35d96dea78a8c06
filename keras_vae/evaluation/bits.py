"""Conversion of nats per example to bits per dimension."""

import math
from typing import Any

from keras_vae import checks


def bits_per_dimension(nats: Any, event_shape: Any) -> Any:
    """Converts costs in nats per example to bits per element of the event.

    `nats / (D log 2)` with D elements. If pixels were divided by 255, add log2(255) for the
    bits of the original pixels.

    Args:
        nats: number or array, a cost such as `-log p(x)`.
        event_shape: tuple of ints.

    Returns:
        Bits per dimension, of the type and shape of `nats`.

    Raises:
        ValueError: if `event_shape` is not a tuple of positive ints.

    Example:

    >>> bits_per_dimension(784 * math.log(2), (28, 28, 1))
    1.0
    """
    return nats / (math.prod(checks.shape(event_shape, "event_shape")) * math.log(2))
