"""Runs the command line with `python -m keras_vae.cli`."""

from keras_vae.cli import main

main()
