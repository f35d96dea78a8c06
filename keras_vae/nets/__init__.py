"""Networks: ordinary Keras models that know nothing of VAEs.

They are conveniences. Any Keras layer or model serves as encoder or decoder.
"""

from keras_vae.nets.conditional import Concatenated, FiLM, Planes
from keras_vae.nets.conv import ConvDecoder, ConvEncoder
from keras_vae.nets.mlp import MLP

__all__ = ["MLP", "Concatenated", "ConvDecoder", "ConvEncoder", "FiLM", "Planes"]
