"""Odd contents of the files of a run: each is refused in one line, or harmless."""

import json
import pathlib

import numpy as np
import pytest

from keras_vae.runs import contents
from tests import odd_files


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return odd_files.make_run(tmp_path_factory.mktemp("run"))


def read(path):
    """Reads a file; None if it is refused, in one line that names it."""
    try:
        return contents.read(path)
    except ValueError as error:
        text = str(error)
        assert type(error) is ValueError, error
        assert text.startswith(f"`run` must have a readable {path.name}") or (
            path.name == "run.json" and "update keras_vae" in text
        )
        assert f"Received: {path}" in text or "update" in text
        assert "\n" not in text and "\x1b" not in text and len(text) < 900, text
        return None


@pytest.mark.parametrize("name", contents.FILES)
def test_the_files_of_a_run_are_read(run, name):
    assert read(run / name)


@pytest.mark.parametrize("name", contents.FILES)
def test_each_odd_content_is_refused_or_of_its_kind(run, name):
    path = run / name
    for what, content in odd_files.odd_contents(path):
        with odd_files.replaced(path, content):
            value = read(path)
        if what in dict(odd_files.odd_text(b"")):
            assert value is None, what
        if value is not None and path.suffix == ".json":
            # What is read is what the file says: no value is converted on the way.
            np.testing.assert_equal(value, json.loads(content))


@pytest.mark.parametrize("name", contents.FILES)
def test_only_regular_files_are_read(run, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("outside").mkdir()
    for make in odd_files.ODD_NODES.values():
        with odd_files.replaced(run / name, make):
            assert read(run / name) is None


# File, path of an entry, and how its kind is described.
TYPES = [
    ("run.json", ("format",), "a whole number"),
    ("run.json", ("command",), "a text"),
    ("run.json", ("versions", "numpy"), "a text"),
    ("run.json", ("options", "latent"), "a whole number"),
    ("run.json", ("options", "epochs"), "a whole number"),
    ("run.json", ("options", "beta"), "a number"),
    ("run.json", ("options", "xla"), "true or false"),
    ("run.json", ("options", "model"), "vae or autoencoder or conditional"),
    ("run.json", ("options", "drop"), "a list"),
    ("run.json", ("data", "event_shape"), "a list"),
    ("run.json", ("early_stopping", "stopped"), "true or false"),
    ("evaluation.json", ("test_nll",), "a number"),
    ("evaluation.json", ("data",), "a text"),
    ("baselines.json", (0, "model"), "a text"),
    ("baselines.json", (0, "reconstruction_error"), "a number"),
    ("scaler.json", ("mean", 0), "a number"),
    ("scaler.json", ("scale",), "a list"),
]


@pytest.mark.parametrize("name, path, expected", TYPES)
def test_an_entry_of_another_type_is_named(run, name, path, expected):
    changed = odd_files.with_value(json.loads((run / name).read_text()), path, {"x": None})
    with odd_files.replaced(run / name, json.dumps(changed).encode()):
        with pytest.raises(ValueError, match="must be") as caught:
            contents.read(run / name)
    key = path[-1] if isinstance(path[-1], str) else f"{path[0]}[{path[-1]}]"
    text = str(caught.value)
    assert f"{key}' must be {expected}" in text and f"{key}': " in text, text


# Values of the right type that commands cannot use.
VALUES = [
    ("run.json", ("options", "latent"), 0),
    ("run.json", ("options", "hidden"), []),
    ("run.json", ("options", "epochs"), None),
    ("run.json", ("options", "scale"), None),
    ("run.json", ("options", "model"), "conditional"),
    ("run.json", ("options", "condition"), "label"),
    ("run.json", ("options", "network"), "conv"),
    ("run.json", ("options", "likelihood"), "bernoulli"),
    ("run.json", ("data", "classes"), ["a"]),
    ("run.json", ("data", "event_shape"), []),
    ("run.json", ("data", "value_range"), [1, 1]),
    ("run.json", ("data", "shown_range"), [0, 1, 2]),
    ("run.json", ("early_stopping", "best_epoch"), 10**15),
    ("evaluation.json", ("active_units",), float("nan")),
    ("evaluation.json", ("latent_units",), 1e300),
    ("evaluation.json", ("other",), "text"),
    ("baselines.json", (0, "latent"), -1),
    ("scaler.json", ("columns",), ["a"]),
    ("scaler.json", ("scale", 0), 0),
    ("scaler.json", ("mean", 0), float("nan")),
]


@pytest.mark.parametrize("name, path, value", VALUES)
def test_a_value_that_no_run_has_is_refused(run, name, path, value):
    changed = odd_files.with_value(json.loads((run / name).read_text()), path, value)
    with odd_files.replaced(run / name, json.dumps(changed).encode()):
        assert read(run / name) is None


@pytest.mark.parametrize(
    "text",
    [
        "epoch,val_loss\n0,1.5\n", "a,b\n1,2\n", "loss\n1\n", "epoch,loss\n1,1\n",
        "epoch,loss\n0.5,1\n", "epoch,loss\n0,1\n0,1\n", "epoch,loss,loss\n0,1,1\n",
        "epoch,loss\n0\n", "epoch,loss\n0,x\n", "epoch,loss\n0,1e300\n", "epoch,loss\n",
    ],
)  # fmt: skip
def test_metrics_need_epochs_in_order_and_a_loss(run, text):
    with odd_files.replaced(run / "metrics.csv", text.encode()):
        assert read(run / "metrics.csv") is None


@pytest.mark.parametrize(
    "text", ["epoch,loss\n0,nan\n", "\ufeffepoch,loss,other\r\n0,-inf,1\r\n\r\n"]
)
def test_metrics_may_be_nan_and_of_other_callbacks(run, text):
    with odd_files.replaced(run / "metrics.csv", text.encode()):
        assert read(run / "metrics.csv")["epoch"] == [0]
