"""LiteRT returns the same outputs as the model: float32, half precision, quantised."""

import json
import shutil

import keras
import numpy as np
import pytest

import keras_vae as kv
from keras_vae.exporting import card as cards
from keras_vae.exporting import verify
from tests.exporting.exports import (
    COVERED,
    SEEDS,
    assert_same,
    parametrize_rows,
    run_together,
)

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")


@parametrize_rows(COVERED)
def test_litert_returns_the_same_as_the_model(exports, name):
    assert_same(*exports.results("litert", run_together(name, COVERED))[name])


@parametrize_rows(COVERED)
def test_litert_has_builtin_operators_only(exports, name):
    from tensorflow.lite.python import schema_py_generated as schema

    content = exports.path(name, "litert").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    assert not any(code.customCode for code in model.operatorCodes)
    custom = schema.BuiltinOperator.CUSTOM
    assert all(code.builtinCode != custom for code in model.operatorCodes)


def test_litert_draws_the_same_sample_for_the_same_seed(exports):
    model = exports.models["conv"]
    _, actual = exports.results("litert", run_together("conv", COVERED))["conv"]
    seeds = np.arange(SEEDS) - SEEDS // 2  # as in `Exports.expected`
    np.testing.assert_array_equal(actual["sample/x"], model.sample(seeds=seeds))
    np.testing.assert_allclose(
        actual["reconstruct/mean"][:24],
        model.predict(exports.x["conv"], verbose=0),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        actual["encode/mean"][:24], model.encode(exports.x["conv"]).mean(), atol=1e-5
    )


def test_verify_finds_changed_weights(exports, tmp_path):
    model, x = exports.models["shared_scale"], exports.x["shared_scale"]
    path = exports.path("shared_scale", "litert")
    assert all(d.agrees for d in verify.verify(model, path, x, rows=50))
    kernel = model.decoder.weights[0]
    before = kernel.numpy()
    kernel.assign(before * 1.001)
    wrong = {d.signature for d in verify.verify(model, path, x, rows=50) if not d.agrees}
    kernel.assign(before)
    assert wrong == {"decode", "sample", "reconstruct", "score"}


def test_a_card_that_names_a_quantisation_hides_no_differences(exports, tmp_path):
    model, x = exports.models["shared_scale"], exports.x["shared_scale"]
    source, path = exports.path("shared_scale", "litert"), tmp_path / "m.tflite"
    shutil.copy(source, path)
    card = json.loads(cards.paths(source)[0].read_text()) | {"quantize": "int8"}
    card["files"] = {path.name: card["files"][source.name]}
    kernel = model.decoder.weights[0]
    before = kernel.numpy()
    kernel.assign(before * 1.001)
    card["model"]["weights"] = cards.fingerprint(model)
    cards.paths(path)[0].write_text(json.dumps(card))
    wrong = {d.signature for d in verify.verify(model, path, x, rows=50) if not d.agrees}
    kernel.assign(before)
    assert wrong == {"decode", "sample", "reconstruct", "score"}


@pytest.mark.parametrize("factor, agrees", [(1.2, None), (2.5, False), (np.nan, False)])
def test_quantised_outputs_may_differ_by_less_than_their_size(factor, agrees):
    one = {"decode/mean": np.ones((4, 3), np.float32)}
    other = {"decode/mean": one["decode/mean"] * np.float32(factor)}
    (difference,) = verify.compare(one, one, other, quantized=True)
    assert difference.agrees is agrees


# Mixed float16 differs from mixed bfloat16 in the dtype alone.
@pytest.mark.parametrize(
    "policy",
    [
        "mixed_bfloat16",
        pytest.param("mixed_float16", marks=pytest.mark.slow),
        pytest.param("bfloat16", marks=pytest.mark.slow),
    ],
)
def test_half_precision_is_exported_in_float32(tmp_path, policy):
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(50, 6)).astype(np.float32)

    def build():
        normalization = keras.layers.Normalization()  # has state derived from its weights
        normalization.adapt(x)
        encoder = keras.Sequential([normalization, kv.nets.MLP([8], "tanh")])
        decoder = keras.Sequential([kv.nets.MLP([8]), keras.layers.BatchNormalization()])
        likelihood = kv.distributions.IndependentNormal((6,))
        return kv.VAE(encoder, decoder, likelihood, latent_dim=2, seed=0)

    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(policy)
        half = build()
    finally:
        keras.config.set_dtype_policy(before)
    full = build()
    for one, other in zip(full.weights, half.weights, strict=True):
        one.assign(keras.ops.cast(other, one.dtype))
    full.encoder.layers[0].finalize_state()
    path = half.export(tmp_path / "m.tflite", format="litert", names=["encode", "sample"])
    # The artefact equals the same model built in float32.
    feeds, expected = verify.expected(full, verify.read_card(path), x, rows=50)
    ((actual, _),) = verify.run([{"runtime": "litert", "artefact": path, "feeds": feeds}])
    assert_same(expected, actual)
    # `verify` also compares with the model built in float32.
    _, half_expected = verify.expected(half, verify.read_card(path), x, rows=50)
    assert_same(expected, half_expected)


def test_half_precision_that_cannot_be_rebuilt_is_refused(tmp_path):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = kv.VAE(
            keras.Sequential([keras.layers.Lambda(lambda x: 2 * x), kv.nets.MLP([4])]),
            kv.nets.MLP([4]),
            kv.distributions.IndependentNormal((6,)),
            latent_dim=2,
        )
    finally:
        keras.config.set_dtype_policy(before)
    with pytest.raises(ValueError, match="half precision is exported in float32"):
        model.export(tmp_path / "1")
    assert not list(tmp_path.iterdir())


QUANTIZED = {"float16": 0.02, "dynamic": 0.1, "int8": 0.3}


@pytest.mark.parametrize("quantize", QUANTIZED)
def test_quantisation_keeps_the_noise_exact(tmp_path, quantize):
    # Large enough: the converter does not quantise weights under 1024 elements.
    x = np.random.default_rng(0).uniform(size=(40, 8, 8, 1)).astype(np.float32)
    model = kv.VAE(
        kv.nets.MLP([64]),
        kv.nets.MLP([64]),
        kv.distributions.IndependentBernoulli((8, 8, 1)),
        latent_dim=16,
        seed=0,
    )
    data = {"representative_data": x} if quantize == "int8" else {}
    names = ["encode", "decode", "sample"]
    options = {"names": names, "quantize": quantize, "batch_size": 1, **data}
    path = model.export(tmp_path / "q.tflite", format="litert", **options)
    differences = verify.verify(model, path, x, rows=200)
    by_output = {(d.signature, d.output): d for d in differences}
    assert by_output["sample", "z"].agrees and by_output["sample", "z"].largest < 1e-5
    # The other outputs are close but not equal.
    mean = by_output["decode", "mean"]
    assert mean.agrees is None and 1e-6 < mean.largest < QUANTIZED[quantize]
    assert by_output["sample", "x"].typical < 0.02
    model.decoder.weights[0].assign_add(model.decoder.weights[0])
    with pytest.raises(ValueError, match="exported from other weights"):
        verify.verify(model, path, x)
    z = np.zeros((3, 16), np.float32)
    z[1, 5] = np.nan  # must stay NaN
    feeds = {"decode/z": z}
    ((actual, _),) = verify.run([{"runtime": "litert", "artefact": path, "feeds": feeds}])
    for value in actual.values():
        bad = np.isnan(value.reshape(3, -1))
        assert bad[1].all() and not bad[[0, 2]].any()


def test_a_fixed_batch_size_is_in_the_card_and_verified(exports, tmp_path):
    model, x = exports.models["conv"], exports.x["conv"]
    options = {"batch_size": 7, "names": ["encode", "sample", "score"], "num_samples": 3}
    path = model.export(tmp_path / "b.tflite", format="litert", **options)
    card = json.loads((tmp_path / "b.card.json").read_text())
    assert card["signatures"]["sample"]["inputs"]["seed"]["shape"] == [7]
    assert all(d.agrees for d in verify.verify(model, path, x, rows=30))
