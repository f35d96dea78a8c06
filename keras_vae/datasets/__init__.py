"""Data sets: by name, or from the user's own files."""

from keras_vae.datasets.dataset import Dataset, center
from keras_vae.datasets.image_files import ImageFiles
from keras_vae.datasets.loading import load
from keras_vae.datasets.named import NAMED
from keras_vae.datasets.rows import RowsOnDisk, Shards
from keras_vae.datasets.tables import Scaler
from keras_vae.datasets.tfrecords import TFRecords

__all__ = [
    "NAMED",
    "Dataset",
    "ImageFiles",
    "RowsOnDisk",
    "Scaler",
    "Shards",
    "TFRecords",
    "center",
    "load",
]
