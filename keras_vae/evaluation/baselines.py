"""What a VAE is compared with, and by which error."""

import numpy as np
import tensorflow_probability as tfp

from keras_vae import checks
from keras_vae.training.arrays import select_rows


class PCA:
    """Principal component analysis with the methods of a model that evaluation asks for.

    Tipping and Bishop (1999): the best linear code under the squared error, and what a
    linear autoencoder learns (Baldi and Hornik, 1989).

    Args:
        latent_dim: int, the number of components.

    Raises:
        ValueError: unless `latent_dim` is a positive int.

    Example:

    >>> x = np.random.RandomState(0).normal(size=(100, 2)) @ np.ones((2, 5))
    >>> pca = PCA(1).fit(x)
    >>> bool(reconstruction_error(pca, x) < 1e-9)
    True
    """

    def __init__(self, latent_dim):
        self.latent_dim = checks.positive_int(latent_dim, "latent_dim")

    def fit(self, x):
        """Finds the components of the rows of x `[rows, *event]`; returns itself."""
        from sklearn import decomposition  # slow to import

        x = self.check_data(x)
        most = min(len(x), int(np.prod(x.shape[1:])))
        fits = self.latent_dim <= most
        checks.require(
            fits, "latent_dim", f"at most {most} for these data", self.latent_dim
        )
        self.event_shape = x.shape[1:]
        self.pca = decomposition.PCA(self.latent_dim, random_state=0)
        self.pca.fit(_as_float(x).reshape(len(x), -1))
        return self

    def check_data(self, x, name="x"):
        """x as a NumPy array."""
        return np.asarray(x)

    def encode(self, x, batch_size=None):
        """The codes `[rows, latent_dim]`, as a distribution with no spread."""
        if not hasattr(self, "pca"):
            raise ValueError("PCA has no components before `fit`.")
        codes = self.pca.transform(_as_float(x).reshape(len(x), -1))
        return tfp.distributions.Deterministic(codes)

    def reconstruct(self, x):
        """x after the way to the code and back, `[rows, *event]`."""
        codes = self.encode(x).mean().numpy()
        return self.pca.inverse_transform(codes).reshape(-1, *self.event_shape)


def reconstruction_error(model, x, batch_size=1024, condition=None):
    """The squared error of the reconstruction, summed over the event, mean over rows.

    For models whose likelihoods differ, and whose nats therefore do not compare.

    Args:
        model: `keras_vae.VAE`, `Autoencoder` or `PCA`.
        x: array `[rows, *event]`, as given to `fit`; uint8 is divided by 255.
        batch_size: int, rows at a time.
        condition: what a conditional model conditions on.

    Returns:
        float, in squared units of x.

    Raises:
        ValueError: for data that do not fit the model.
    """
    x = model.check_data(x)
    size = checks.positive_int(batch_size, "batch_size")
    total = 0.0
    for start in range(0, len(x), size):
        part = x[start : start + size]
        given = {}
        if condition is not None:
            rows = slice(start, start + size)
            given = {"condition": select_rows(condition, rows)}
        found = np.asarray(model.reconstruct(part, **given), np.float64)
        total += np.sum((found - _as_float(part)) ** 2)
    return float(total / len(x))


def _as_float(x):
    x = np.asarray(x)
    return x / 255.0 if x.dtype == np.uint8 else x.astype(np.float64)
