"""Callbacks of `fit`: backups, image grids, a warning about posterior collapse.

The terms of the bound need no special callback: `keras.callbacks.TensorBoard` and
`CSVLogger` write all metrics of `fit`.
"""

from keras_vae.callbacks.backup import Backup, Preempted
from keras_vae.callbacks.collapse import PosteriorCollapse
from keras_vae.callbacks.images import ImageGrids, image_grid

__all__ = [
    "Backup",
    "ImageGrids",
    "PosteriorCollapse",
    "Preempted",
    "image_grid",
]
