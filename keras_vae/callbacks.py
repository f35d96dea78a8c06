"""What watches a fit: image grids for TensorBoard, and a warning of posterior collapse.

The terms of the bound need nothing of their own: `keras.callbacks.TensorBoard` and
`CSVLogger` write all that `fit` reports.
"""

import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks, evaluation
from keras_vae.distributions import Deterministic


def image_grid(images, columns):
    """Lays images out in rows, with a margin of one pixel.

    Args:
        images: `[n, height, width, 1 or 3]`, uint8 or floats, which are cut to [0, 1].
        columns: int.

    Returns:
        NumPy uint8 `[rows, columns, 1 or 3]`, in pixels; what the last row lacks is grey.

    Raises:
        ValueError: if the images have another shape.
    """
    images = np.asarray(images)
    fits = images.ndim == 4 and images.shape[-1] in (1, 3) and images.size
    what = "images [n, height, width, 1 or 3]"
    checks.that(fits, "images", what, f"shape {images.shape}")
    columns = checks.positive_int(columns, "columns")
    if images.dtype != np.uint8:
        images = np.round(255 * np.clip(images.astype(np.float32), 0, 1)).astype(np.uint8)
    rows = -(-len(images) // columns)
    missing = ((0, rows * columns - len(images)), (0, 0), (0, 0), (0, 0))
    margin = ((0, 0), (0, 1), (0, 1), (0, 0))
    images = np.pad(
        np.pad(images, margin, constant_values=128), missing, constant_values=128
    )
    _, height, width, channels = images.shape
    grid = images.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)[:-1, :-1]


class ImageGrids(keras.callbacks.Callback):
    """Image grids for TensorBoard: reconstructions, and samples with the same seeds.

    Args:
        log_dir: folder of the event files, such as that of `keras.callbacks.TensorBoard`.
        x: a handful of images `[rows, height, width, 1 or 3]` as given to `fit`: the grid
            shows them in one row, above their reconstructions.
        num_samples: int, how many samples (the means of p(x|z)) to show.
        every: int, epochs between grids.

    Raises:
        ValueError: if x has another shape, or a number is not positive.
    """

    def __init__(self, log_dir, x, num_samples=16, every=1):
        super().__init__()
        image_grid(x, 1)  # whether it can be drawn
        self.log_dir = str(log_dir)
        self.x = x
        self.num_samples = checks.positive_int(num_samples, "num_samples")
        self.every = checks.positive_int(every, "every")

    def on_train_begin(self, logs=None):
        """Opens the event file."""
        self.writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_end(self, epoch, logs=None):
        """Draws the grids."""
        if (epoch + 1) % self.every:
            return
        model, columns = self.model, len(self.x)
        pair = tf.concat([model.as_float(self.x), model.reconstruct(self.x)], axis=0)
        grids = {"reconstructions": image_grid(pair, columns)}
        if not isinstance(model.posterior, Deterministic):
            samples = model.sample(self.num_samples, seed=0, mean=True)
            grids["samples"] = image_grid(samples, columns)
        with self.writer.as_default(step=epoch):
            for name, grid in grids.items():
                tf.summary.image(name, grid[None])

    def on_train_end(self, logs=None):
        """Closes the event file."""
        self.writer.close()


class PosteriorCollapse(keras.callbacks.Callback):
    """Counts the active units at the end of each epoch, and warns if there are few.

    A unit is active if its posterior mean varies with x (`evaluation.active_units`; Burda
    et al., 2016, section 5.2). Their number joins the logs as `active_units`: place this
    callback before those that write them.

    Args:
        x: `[rows, *event]`, the data to look at: some hundred held-out rows will do.
        threshold: float, the variance above which a unit counts as active.
        min_active: float, the share of active units below which to warn.
        patience: int, for how many epochs in a row before it warns.

    Attributes:
        active: bool `[*latent]`, which units were active after the last epoch.
        kl: float32 `[*latent]`, KL(q || p) of each unit in nats, with the weights of now,
            or None where it is not known in closed form.

    Raises:
        ValueError: if a number is out of range.

    Example:

    >>> import keras_vae as kv
    >>> vae = kv.VAE(
    ...     keras.layers.Dense(8), keras.layers.Dense(8),
    ...     kv.distributions.IndependentNormal((4,), scale=1.0), latent_dim=3,
    ... )
    >>> vae.compile("sgd")
    >>> x = np.full((64, 4), 0.5, "float32")  # nothing to tell apart
    >>> monitor = PosteriorCollapse(x, patience=1)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     _ = vae.fit(x, epochs=1, verbose=0, callbacks=[monitor])
    >>> print(caught[0].message)
    Posterior collapse: 0 of 3 latent units are active after epoch 1...
    """

    def __init__(self, x, threshold=0.01, min_active=0.25, patience=3):
        super().__init__()
        self.x = x
        self.threshold = checks.non_negative(threshold, "threshold")
        self.min_active = checks.non_negative(min_active, "min_active")
        self.patience = checks.positive_int(patience, "patience")

    def on_train_begin(self, logs=None):
        """Begins to count."""
        self.epochs_below = 0

    def on_epoch_end(self, epoch, logs=None):
        """Counts the active units, and warns."""
        self.active = evaluation.active_units(self.model, self.x, self.threshold)
        if logs is not None:
            logs["active_units"] = float(self.active.sum())
        below = self.active.mean() < self.min_active
        self.epochs_below = self.epochs_below + 1 if below else 0
        if self.epochs_below == self.patience:  # once, until it recovers
            warnings.warn(self._in_words(epoch), stacklevel=2)

    @property
    def kl(self):
        """KL(q || p) of each unit, nats."""
        try:
            return evaluation.kl_per_unit(self.model, self.x)
        except (ValueError, AttributeError):
            return None

    def _in_words(self, epoch):
        active, units, kl = int(self.active.sum()), self.active.size, self.kl
        nats = "" if kl is None else f", and all {units} together code {kl.sum():.3g} nats"
        return (
            f"Posterior collapse: {active} of {units} latent units are active after epoch "
            f"{epoch + 1}. The posterior mean of the others hardly varies with x{nats}. "
            "The decoder does without them. Let beta grow from 0 (schedules.Linear), or "
            "give each unit free bits (ELBO(free_bits=0.1)); a smaller decoder, or a "
            "smaller scale of the likelihood, makes latents worth their cost too. If the "
            "bound is good, fewer latent units will do."
        )
