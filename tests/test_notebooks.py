"""The notebooks run in a quick mode, and their stored outputs are complete.

`make test` runs the first notebook, `make test-slow` the others.
"""

import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ids = [path.stem for path in NOTEBOOKS]
# Compiling with XLA would take most of their time.
WITHOUT_XLA = """
from keras_vae.training.model import ResumableModel
ResumableModel.default_jit_compile = lambda self: False
"""


# Warnings from the sockets and the event loop of the notebook client.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "ResourceWarning")
]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """One kernel for all: importing TensorFlow takes longer than some notebooks."""
    folder = str(tmp_path_factory.mktemp("notebooks"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_VAE_QUICK", "1")
        patch.setenv("PYTHONPATH", str(ROOT))
        client = NotebookClient(
            nbformat.v4.new_notebook(),
            timeout=300,
            resources={"metadata": {"path": folder}},
        )
        with client.setup_kernel():
            yield client


# The functions that the other notebooks call have fast tests of their own.
params = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if number else [])
    for number, path in enumerate(NOTEBOOKS)
]


@pytest.mark.parametrize("path", params)
def test_the_notebook_runs(client, path):
    notebook = nbformat.read(path, as_version=4)
    # Delete the variables of the notebook before.
    first = f"%reset -f\n{WITHOUT_XLA}"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    client.nb = notebook
    for index, cell in enumerate(notebook.cells):
        client.execute_cell(cell, index)  # raises with the traceback of the cell


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_the_stored_notebook_is_complete(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 300_000
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and "?" in first.source
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
    text = path.read_text()
    assert "TODO" not in text
    for folder in ("/home/", "/root/", "/Users/", "/tmp/"):
        assert folder not in text


def test_the_list_of_notebooks():
    assert ids == [
        "01_first_vae",
        "02_choosing_a_likelihood",
        "03_reading_the_bound",
        "04_from_pca_to_vae",
        "05_ship_it",
        "06_conditional",
    ]
