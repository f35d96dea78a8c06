"""Runs of the command line: their options, folder, training and report."""

import pkgutil
from typing import Any

__all__ = ["TrainedRun", "load"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that the command line answers `--help` at once.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return pkgutil.resolve_name(f"{__name__}.trained:{name}")
