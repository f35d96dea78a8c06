"""The notebooks run, in a quick form, and what is stored with them is whole."""

import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ids = [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
# Of the client's own sockets and event loop.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_it_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_VAE_QUICK", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises with the traceback of the cell


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_what_is_stored(path):
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
    for place in ("/home/", "/root/", "/Users/", "/tmp/"):
        assert place not in text


def test_there_are_notebooks():
    assert ids == [
        "01_first_vae",
        "02_choosing_a_likelihood",
        "03_reading_the_bound",
        "04_from_pca_to_vae",
        "05_ship_it",
    ]
