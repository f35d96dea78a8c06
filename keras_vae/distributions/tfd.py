"""TensorFlow Probability's distributions: the only import of TensorFlow Probability.

Its last stable release is of 2024, so a fork or a nightly build must be a change of one
line.
"""

from tensorflow_probability import __version__ as version
from tensorflow_probability import distributions as tfd

__all__ = ["tfd", "version"]
