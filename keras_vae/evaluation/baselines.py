"""A baseline for comparison, PCA, and the reconstruction error."""

from typing import Any, Self

import numpy as np

from keras_vae import checks
from keras_vae.distributions.tfd import tfd
from keras_vae.training.arrays import select_rows


class PCA:
    """Principal component analysis with the methods that evaluation calls on a model.

    Tipping and Bishop (1999). PCA is the linear code with the smallest squared error, and a
    linear autoencoder learns the same subspace (Baldi and Hornik, 1989).

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

    def __init__(self, latent_dim: int):
        self.latent_dim = checks.positive_int(latent_dim, "latent_dim")

    def fit(self, x: Any) -> Self:
        """Computes the components of the rows of x `[rows, *event]`. Returns `self`."""
        from sklearn import decomposition  # slow to import

        x = self.check_data(x)
        largest = min(len(x), int(np.prod(x.shape[1:])))
        expected = f"at most {largest} for these data"
        checks.require(self.latent_dim <= largest, "latent_dim", expected, self.latent_dim)
        self.event_shape = x.shape[1:]
        self.pca = decomposition.PCA(self.latent_dim, random_state=0)
        self.pca.fit(_as_float(x).reshape(len(x), -1))
        return self

    def check_data(self, x: Any, name: str = "x") -> np.ndarray:
        """Returns x as a NumPy array."""
        return np.asarray(x)

    def encode(self, x: Any, batch_size: int | None = None) -> Any:
        """Computes the codes `[rows, latent_dim]` as `tfd.Deterministic`."""
        if not hasattr(self, "pca"):
            raise ValueError("PCA has no components yet: call `fit` first.")
        codes = self.pca.transform(_as_float(x).reshape(len(x), -1))
        return tfd.Deterministic(codes)

    def reconstruct(self, x: Any) -> np.ndarray:
        """Encodes and decodes x: `[rows, *event]`."""
        codes = self.encode(x).mean().numpy()
        return self.pca.inverse_transform(codes).reshape(-1, *self.event_shape)


def reconstruction_error(
    model: Any, x: Any, batch_size: int = 1024, condition: Any = None
) -> float:
    """Computes the squared error of the reconstruction: sum over the event, mean over rows.

    It compares models with different likelihoods, whose nats cannot be compared.

    Args:
        model: `keras_vae.VAE`, `Autoencoder` or `PCA`.
        x: array `[rows, *event]`, see `fit`; uint8 is divided by 255.
        batch_size: int, number of rows per step.
        condition: the condition of a conditional model.

    Returns:
        float, in squared units of x.

    Raises:
        ValueError: for data that the model does not accept.
    """
    x = model.check_data(x)
    size = checks.positive_int(batch_size, "batch_size")
    total = 0.0
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        # PCA.reconstruct has no argument `condition`.
        options = {}
        if condition is not None:
            options["condition"] = select_rows(condition, rows)
        reconstruction = np.asarray(model.reconstruct(x[rows], **options), np.float64)
        total += np.sum((reconstruction - _as_float(x[rows])) ** 2)
    return float(total / len(x))


def _as_float(x: Any) -> np.ndarray:
    x = np.asarray(x)
    return x / 255.0 if x.dtype == np.uint8 else x.astype(np.float64)
