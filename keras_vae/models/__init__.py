"""Models: what adds a network or a latent structure."""

from keras_vae.models.autoencoder import Autoencoder
from keras_vae.models.vae import VAE

__all__ = ["VAE", "Autoencoder"]
