"""The report of a run: its numbers, its figures and an HTML page."""

from keras_vae.runs.report.numbers import compare, evaluate
from keras_vae.runs.report.page import write

__all__ = ["compare", "evaluate", "write"]
