"""Networks: ordinary Keras models, independent of VAEs.

They are a convenience. Any Keras layer or model can be an encoder or decoder.
"""

from keras_vae.nets.conditional import Concatenated, FiLM, Planes
from keras_vae.nets.conv import (
    Conv1DDecoder,
    Conv1DEncoder,
    Conv3DDecoder,
    Conv3DEncoder,
    ConvDecoder,
    ConvEncoder,
)
from keras_vae.nets.mlp import MLP

__all__ = [
    "MLP",
    "Concatenated",
    "Conv1DDecoder",
    "Conv1DEncoder",
    "Conv3DDecoder",
    "Conv3DEncoder",
    "ConvDecoder",
    "ConvEncoder",
    "FiLM",
    "Planes",
]
