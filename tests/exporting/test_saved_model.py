"""A SavedModel gives what the model gives: in TensorFlow, the C API, `saved_model_cli`."""

import pathlib

from keras_vae.exporting import verify
from tests.exporting.exports import (
    COVERED,
    SOME,
    assert_same,
    parametrize_rows,
    run_together,
    some_rows,
)

HERE = pathlib.Path(__file__).parent


@parametrize_rows(COVERED)
def test_saved_model(exports, name):
    assert_same(*exports.results("tf_saved_model", run_together(name, COVERED))[name])


@parametrize_rows(COVERED)
def test_no_weight_is_stored_twice(exports, name):
    path = exports.path(name, "tf_saved_model") / "variables"
    size = sum(p.stat().st_size for p in path.glob("*.data-*"))
    weights = sum(w.numpy().nbytes for w in exports.models[name].weights)
    # The weights that no signature reads, such as counters, are not there; the names of
    # the others are.
    assert size < weights + 4000


def graph_names(path, feeds):
    """The names of tensors in the graph, by "signature/tensor"."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    names = {}
    for signature, definition in saved.meta_graphs[0].signature_def.items():
        if any(key.startswith(f"{signature}/") for key in feeds):
            for tensors in (definition.inputs, definition.outputs):
                names |= {f"{signature}/{key}": t.name for key, t in tensors.items()}
    return {"names": names}


@some_rows
def test_the_c_api(exports, name):
    script = HERE / "c_api.py"
    assert_same(*exports.results("tf_saved_model", SOME, script, graph_names)[name])


@some_rows
def test_saved_model_cli(exports, name):
    script = HERE / "saved_model_cli.py"
    only = ("sample", "decode")  # a session each: half a second
    results = exports.results("tf_saved_model", SOME, script, only=only)
    assert_same(*results[name])


def test_an_autoencoder_has_nothing_to_sample(exports):
    card = verify.read_card(exports.path("autoencoder", "tf_saved_model"))
    assert list(card["signatures"]) == ["encode_mean", "decode", "reconstruct", "score"]
    assert list(card["signatures"]["score"]["outputs"]) == ["log_likelihood"]
