"""The report of a run: its numbers, its figures and an HTML page."""

from keras_vae.runs.report.figures import draw
from keras_vae.runs.report.findings import caveats, findings, is_bound
from keras_vae.runs.report.numbers import LIMIT, cached_baselines, compare, evaluate
from keras_vae.runs.report.page import write

__all__ = [
    "LIMIT",
    "cached_baselines",
    "caveats",
    "compare",
    "draw",
    "evaluate",
    "findings",
    "is_bound",
    "write",
]
