"""`python -m keras_vae.cli` is the command line, too."""

from keras_vae.cli import main

main()
