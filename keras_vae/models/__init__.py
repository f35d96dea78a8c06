"""Models: the VAE and its variants, which add a network or a latent structure."""

from keras_vae.models.autoencoder import Autoencoder
from keras_vae.models.conditional_vae import ConditionalVAE
from keras_vae.models.semi_supervised_vae import SemiSupervisedVAE
from keras_vae.models.structured_predictor import StructuredPredictor
from keras_vae.models.vae import VAE

__all__ = [
    "VAE",
    "Autoencoder",
    "ConditionalVAE",
    "SemiSupervisedVAE",
    "StructuredPredictor",
]
