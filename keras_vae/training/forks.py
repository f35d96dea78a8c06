"""A check that a model does not run in a process where TensorFlow would wait forever.

A forked process has none of the threads of its parent, but TensorFlow there still waits for
them, if the parent had used it. A parent that only imported TensorFlow does no harm.
"""

import os

from tensorflow.python.eager import context

_state = {"threads_lost": False}


def _after_fork():
    # Private names: TensorFlow has no public function that tells whether its runtime has
    # started.
    running = context.context_safe()
    _state["threads_lost"] |= getattr(running, "_context_handle", None) is not None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


def check_not_forked() -> None:
    """Raises an error in a forked child of a process that has used TensorFlow.

    Raises:
        RuntimeError: with the remedy.
    """
    if _state["threads_lost"]:
        raise RuntimeError(
            "TensorFlow does not work in a process that was forked from one that had used "
            "it: this call would wait forever. Start processes with "
            'multiprocessing.get_context("spawn") instead.'
        )
