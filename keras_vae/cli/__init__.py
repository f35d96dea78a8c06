"""The command line, `keras-vae`: train, evaluate, sample and export without code."""

from keras_vae.cli.app import app, main

__all__ = ["app", "main"]
