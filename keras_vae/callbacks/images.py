"""Image grids for TensorBoard."""

import contextlib
import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks, disks
from keras_vae.training.arrays import select_rows


def image_grid(images: Any, columns: int) -> np.ndarray:
    """Arranges images in a grid, with a margin of one pixel.

    Args:
        images: `[n, height, width, 1 or 3]`, uint8, or floats, which are clipped to [0, 1].
        columns: int.

    Returns:
        NumPy uint8 `[rows, columns, 1 or 3]`, in pixels; empty places of the last row are
        grey.

    Raises:
        ValueError: if the images have another shape.
    """
    images = np.asarray(images)
    checks.require(
        images.ndim == 4 and images.shape[-1] in (1, 3) and images.size,
        "images",
        "images [n, height, width, 1 or 3]",
        f"shape {images.shape}",
    )
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


def optional(hook: Callable) -> Callable:
    """Decorates a hook of a callback: if it cannot write, as on a full disk, it warns.

    Training continues, and the decorated hooks of this callback do nothing from then on.
    """

    @functools.wraps(hook)
    def optional_hook(self, *args, **kwargs):
        if getattr(self, "_failed", False):
            return
        try:
            hook(self, *args, **kwargs)
        except (OSError, tf.errors.OpError) as error:
            self._failed = True
            warnings.warn(
                f"Training continues without {type(self).__name__}, whose files could not "
                f"be written: {disks.full_disk(error) or error}",
                stacklevel=2,
            )

    return optional_hook


class ImageGrids(keras.callbacks.Callback):
    """Image grids for TensorBoard: reconstructions, and samples with the same seeds.

    If they cannot be written, as on a full disk, training continues with a warning.

    Args:
        log_dir: folder of the event files, such as the `log_dir` of
            `keras.callbacks.TensorBoard`.
        x: a few images `[rows, height, width, 1 or 3]`, as passed to `fit`; the grid shows
            them in one row, above their reconstructions.
        num_samples: int, number of samples (means of p(x|z)) to show.
        every: int, number of epochs between grids.
        condition: the condition of the rows of x, for a conditional model; samples use the
            same conditions in turn.

    Raises:
        ValueError: if x has another shape, or a number is not positive.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike,
        x: Any,
        num_samples: int = 16,
        every: int = 1,
        condition: Any = None,
    ):
        super().__init__()
        image_grid(x, 1)  # raises an error for other shapes
        self.log_dir = str(log_dir)
        self.x, self.condition = x, condition
        self.num_samples = checks.positive_int(num_samples, "num_samples")
        self.every = checks.positive_int(every, "every")

    @optional
    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the event file."""
        self.writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Draws the grids."""
        if (epoch + 1) % self.every:
            return
        model, columns = self.model, len(self.x)
        kwargs, sample_kwargs = {}, {}
        if self.condition is not None:
            rows = np.arange(self.num_samples) % columns
            kwargs = {"condition": self.condition}
            sample_kwargs = {"condition": select_rows(self.condition, rows)}
        pair = tf.concat(
            [model.as_float(self.x), model.reconstruct(self.x, **kwargs)], axis=0
        )
        grids = {"reconstructions": image_grid(pair, columns)}
        if model.generative:
            samples = model.sample(self.num_samples, seed=0, mean=True, **sample_kwargs)
            grids["samples"] = image_grid(samples, columns)
        self._write(epoch, grids)

    @optional
    def _write(self, epoch, grids):
        context = self.writer.as_default(step=epoch)
        try:
            with context:
                for name, grid in grids.items():
                    tf.summary.image(name, grid[None])
        except tf.errors.OpError:
            # To leave its context, TensorFlow flushes a writer, unless it is closed.
            with contextlib.suppress(tf.errors.OpError):
                self.writer.close()
            context.__exit__(None, None, None)
            raise

    @optional
    def on_train_end(self, logs: Any = None) -> None:
        """Closes the event file."""
        self.writer.close()
