"""`Panel` and `Figure`: what a figure of a report consists of."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

TRAVERSALS = (
    "One latent unit changes, from 2.5 standard deviations below its mean to 2.5 above. "
    "All other units are those of a typical row. Active units with the largest KL: {}."
)


class Panel(NamedTuple):
    """A part of a figure.

    Attributes:
        files: one file for a picture, or a light and a dark one for a chart.
        title: name above it.
        note: text below the title.
        legend: (colour, name) of each line.
    """

    files: list[pathlib.Path]
    title: str = ""
    note: str = ""
    legend: Sequence[tuple[str, str]] = ()


class Figure(NamedTuple):
    """A figure of the report.

    Attributes:
        name: str, the id of its heading.
        title: str.
        caption: str.
        panels: the panels, which the page arranges.
        legend: (colour, name) of each line or class, for all panels.
        width: smallest width of a panel in rem, or 0 if each has the full width.
        wide: bool, whether the figure has the full width of the page.
    """

    name: str
    title: str
    caption: str
    panels: list[Panel]
    legend: Sequence[tuple[str, str]] = ()
    width: float = 0
    wide: bool = False
