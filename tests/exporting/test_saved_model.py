"""A SavedModel returns the same outputs in TensorFlow, the C API and `saved_model_cli`."""

import pathlib

from keras_vae.exporting import verify
from tests.exporting.exports import (
    COVERED_BY_LITERT,
    FEW_MODELS,
    assert_same,
    parametrize_few_models,
    parametrize_rows,
    run_together,
)

HERE = pathlib.Path(__file__).parent


@parametrize_rows(COVERED_BY_LITERT)
def test_a_saved_model_returns_the_same_as_the_model(exports, name):
    assert_same(
        *exports.results("tf_saved_model", run_together(name, COVERED_BY_LITERT))[name]
    )


@parametrize_rows(COVERED_BY_LITERT)
def test_a_saved_model_stores_no_weight_twice(exports, name):
    path = exports.path(name, "tf_saved_model") / "variables"
    size = sum(p.stat().st_size for p in path.glob("*.data-*"))
    weights = sum(w.numpy().nbytes for w in exports.models[name].weights)
    # Weights that no signature reads, such as counters, are not stored. The stored ones
    # need some bytes for their names.
    assert size < weights + 4000


def graph_names(path, feeds):
    """Returns the names of tensors in the graph, by "signature/tensor"."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    names = {}
    for signature, definition in saved.meta_graphs[0].signature_def.items():
        if any(key.startswith(f"{signature}/") for key in feeds):
            for tensors in (definition.inputs, definition.outputs):
                names |= {f"{signature}/{key}": t.name for key, t in tensors.items()}
    return {"names": names}


@parametrize_few_models
def test_the_c_api_returns_the_same_as_the_model(exports, name):
    script = HERE / "c_api.py"
    assert_same(*exports.results("tf_saved_model", FEW_MODELS, script, graph_names)[name])


@parametrize_few_models
def test_saved_model_cli_returns_the_same_as_the_model(exports, name):
    script = HERE / "saved_model_cli.py"
    only = ("sample", "decode")  # each needs a session: half a second
    results = exports.results("tf_saved_model", FEW_MODELS, script, only=only)
    assert_same(*results[name])


def test_an_exported_autoencoder_has_no_signatures_that_sample(exports):
    card = verify.read_card(exports.path("autoencoder", "tf_saved_model"))
    assert list(card["signatures"]) == ["encode_mean", "decode", "reconstruct", "score"]
    assert list(card["signatures"]["score"]["outputs"]) == ["log_likelihood"]
