"""What there is to see of a run: its numbers, its figures, one page."""

from keras_vae.report.files import saver
from keras_vae.report.numbers import compare, evaluate
from keras_vae.report.page import write

__all__ = ["compare", "evaluate", "saver", "write"]
