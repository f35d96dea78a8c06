"""What all tests share: quiet TensorFlow, one seed, processes of their own."""

import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest

# The files that take longest begin first, so that no worker of pytest-xdist ends with one
# of them while the others have nothing left to do. Its own order, by the number of tests,
# would leave those of few and long tests to the end.
LONGEST = [
    "test_distribute.py",
    "test_keras_citizenship.py",
    "test_run.py",
    "test_parity.py",
    "test_conformance.py",
    "test_notebooks.py",
    "test_cli_export.py",
    "test_cli_bad_input.py",
]


def pytest_collection_modifyitems(items):
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True)
def global_seed():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def run_module():
    """Runs `python -m module args` from the root of the checkout; returns its output."""

    def run(module, *args, **environment):
        process = subprocess.run(
            [sys.executable, "-m", module, *map(str, args)],
            cwd=pathlib.Path(__file__).parent.parent,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    return run
