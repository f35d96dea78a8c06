"""Exports of a trained model: functions of tensors that run without this package."""

from keras_vae.exporting.formats import export

__all__ = ["export"]
