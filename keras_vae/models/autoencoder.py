"""The deterministic autoencoder."""

from collections.abc import Callable
from typing import Any, NoReturn

import keras

from keras_vae import checks
from keras_vae.distributions import Deterministic, Head
from keras_vae.models.vae import VAE
from keras_vae.objectives import ELBO, IWAE, Hybrid, Reconstruction


@keras.saving.register_keras_serializable("keras_vae")
class Autoencoder(VAE):
    """Autoencoder: networks and likelihood of a VAE, and a point mass as the posterior.

    It minimises `reconstruction`, -log p(x|z) in nats per example. With
    `IndependentNormal` and a fixed scale, this is the squared error up to a factor and a
    constant. It has no prior, so it has no `kl` and no `elbo`, and cannot be sampled.

    Args:
        encoder: Keras layer or model, x `[batch, *event]` -> features.
        decoder: Keras layer or model, z `[batch, latent_dim]` -> features.
        likelihood: head of p(x|z).
        latent_dim: int, the number of latent units.
        seed: int of 32 bits, see `VAE`.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Raises:
        ValueError: if a part has the wrong type or does not fit the others.
    """

    reported = ("reconstruction",)
    default_objective = Reconstruction

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: keras.layers.Layer,
        likelihood: Head,
        latent_dim: int,
        seed: int | None = None,
        **kwargs: Any,
    ):
        posterior = Deterministic((checks.positive_int(latent_dim, "latent_dim"),))
        super().__init__(
            encoder, decoder, likelihood, latent_dim, posterior, seed=seed, **kwargs
        )

    def compile(
        self, optimizer: Any = "adam", objective: Callable | None = None, **kwargs: Any
    ) -> None:
        """Calls `VAE.compile`. The objective must not use the KL."""
        uses_kl = isinstance(objective, (ELBO, IWAE, Hybrid))
        expected = "Reconstruction() or a function that does not use the KL"
        checks.require(not uses_kl, "objective", expected, objective)
        super().compile(optimizer, objective, **kwargs)

    def sample(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises NotImplementedError: an autoencoder has no prior. See `decode`."""
        raise NotImplementedError(
            "An Autoencoder has no prior to sample from. Decode latents with decode(z), or "
            "train a VAE."
        )

    def get_config(self) -> dict:
        config = super().get_config()
        del config["posterior"], config["prior"]
        return config
