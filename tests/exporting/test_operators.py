"""The list of operators is that of all exports of the tests and of Keras' usual layers.

The exports of the zoo are compared with it when they are made, see `exports.py`.
"""

import textwrap

import pytest

from keras_vae.exporting import graphs, inspection
from keras_vae.exporting.operators import CALLS, OPERATORS
from tests.exporting import layers
from tests.exporting.exports import MODELS

# What TensorFlow can use to reach files, other processes, Python or the network.
OUTSIDE = (
    "File", "Print", "Py", "Save", "Restore", "Merge", "Remote", "Rpc", "Host", "Reader",
    "Dataset", "Table", "Summary", "Custom", "Plugin", "Shard", "CUSTOM",
)  # fmt: skip


def test_no_listed_operator_leaves_the_graph():
    listed = {name for names in OPERATORS.values() for name in names}
    assert not [name for name in listed if any(word in name for word in OUTSIDE)]


def verified(path, format, names):
    """Asserts that an export of a model with some layers passes the checks of `verify`."""
    names = [name for name in names if name not in layers.NOT_IN.get(format, ())]
    layers.model(names).export(path, format, names=["encode_mean"])
    inspection.check_graphs(path, inspection.read_card(path))


def test_the_usual_layers_of_keras_are_verified(tmp_path):
    names = [n for n in layers.layers() if not n.startswith(("ops.", "activation"))]
    verified(tmp_path / "m", "tf_saved_model", names[::2])  # each takes a tenth of a second


@pytest.mark.slow
@pytest.mark.parametrize("format", OPERATORS)
def test_all_usual_layers_of_keras_are_verified(tmp_path, format):
    name = "m.tflite" if format == "litert" else "m"
    verified(tmp_path / name, format, layers.layers())


@pytest.mark.slow
@pytest.mark.parametrize("format", OPERATORS)
def test_the_list_has_all_operators_of_exports_and_no_others(exports, tmp_path, format):
    operators, suffix = set(), ".tflite" if format == "litert" else ""
    for row in MODELS:
        path, names = tmp_path / f"{row.name}{suffix}", exports.names(row.name)
        exports.models[row.name].export(path, format, names=names, num_samples=3)
        operators |= graphs.read(path, format).operators
    if format == "litert":
        for number, options in enumerate(
            (
                {"quantize": "float16"},
                {"quantize": "dynamic"},
                {"quantize": "int8", "representative_data": exports.x["conv"]},
                {"batch_size": 2},
            )
        ):
            path = tmp_path / f"options-{number}.tflite"
            exports.models["conv"].export(path, format, num_samples=3, **options)
            operators |= graphs.read(path, format).operators
    chosen = [n for n in layers.layers() if n not in layers.NOT_IN.get(format, ())]
    for number, name in enumerate(chosen):
        path = tmp_path / f"layer-{number}{suffix}"
        layers.model([name]).export(path, format, names=["encode_mean"])
        operators |= graphs.read(path, format).operators
    text = textwrap.fill(" ".join(sorted(operators - CALLS[format])), 88)
    assert operators | CALLS[format] == OPERATORS[format], f"write in operators.py:\n{text}"
