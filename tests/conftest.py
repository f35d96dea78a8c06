"""Fixtures for all tests: one seed, no XLA by default, new processes.

Fixtures import TensorFlow, so that xdist starts its processes without waiting for it.
"""

import gc
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

# Some of these import PyTorch, which is installed in another environment.
collect_ignore = ["benchmarks/contestants"]


def pytest_collection_modifyitems(items):
    # The files that take longest first, so that both processes of `make test` end together.
    # Without --no-loadscope-reorder, xdist would start with the files of most tests.
    slowest = ("test_replicas.py", "test_launch.py", "test_run.py", "test_litert.py")
    slowest += ("test_notebooks.py", "test_resume.py")
    items.sort(key=lambda item: item.path.name not in slowest)


@pytest.fixture(scope="module", autouse=True)
def frozen_heap():
    # Garbage collections visit neither the half a million objects of TensorFlow nor those
    # that earlier files left: this took 7 % of the time of training and conversions.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def global_seed():
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session", autouse=True)
def no_xla_by_default():
    # XLA would compile longer than a short fit takes. Tests of XLA turn it on.
    from keras_vae.training.model import ResumableModel

    resolve = ResumableModel.default_jit_compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResumableModel, "default_jit_compile", lambda self: False)
        yield resolve


@pytest.fixture
def xla_by_default(no_xla_by_default):
    """A function that resolves `jit_compile="auto"` for a model."""
    return no_xla_by_default


@pytest.fixture(scope="session")
def run_module():
    """A function that runs `python -m module args` in the root and returns the output."""

    def run(module, *args, **environment):
        process = subprocess.run(
            [sys.executable, "-m", module, *map(str, args)],
            cwd=pathlib.Path(__file__).parent.parent,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    return run
