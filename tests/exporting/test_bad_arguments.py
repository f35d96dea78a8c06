"""Bad arguments of `export` and `verify`: errors name the argument, no file is written.

Each option is tested with all kinds of bad values. Arguments that a model checks itself,
such as data, are tested with one bad value.
"""

import hashlib
import json
import os
import shutil
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from keras_vae.distributions import IndependentBernoulli, IndependentNormal
from keras_vae.exporting import serving, verify
from tests.refusals import (
    DAMAGES,
    assert_each_refused,
    assert_refused,
    assert_refused_without_writing,
    assert_unchanged,
    rows,
    tree,
    vary_option,
    write_file,
)
from tests.zoo import LearnedNormal


def vae(likelihood=None, encoder=None, decoder=None, latent_dim=2, **parts):
    return kv.VAE(
        encoder or kv.nets.MLP([4]),
        decoder or kv.nets.MLP([4]),
        likelihood or IndependentNormal((6,)),
        latent_dim,
        seed=0,
        **parts,
    )


@pytest.fixture(scope="module")
def model():
    return vae(IndependentBernoulli((6,)))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder of a test; it must stay unchanged after a refused call."""
    new = tmp_path / "work"
    new.mkdir()
    monkeypatch.chdir(new)
    return new


def x(value=0.5, shape=(8, 6)):
    array = np.full(shape, 0.5, np.float32)
    if array.size:
        array.flat[-1] = value
    return array


# Options of `VAE.export`, to "new", or "new.tflite" for LiteRT.

LITERT, ONNX = {"format": "litert"}, {"format": "onnx"}
CIRCLE: dict = {}
CIRCLE["circle"] = CIRCLE


def export(model, **options):
    return model.export(
        "new.tflite" if options.get("format") == "litert" else "new", **options
    )


@rows(
    format=({}, [None, "saved_model", "tflite", "ONNX", b"onnx", ["litert"], 3, ""]),
    names=(
        {},
        [[], ["generate"], ["sample", "generate"], "sample", "", {"sample"}, {"sample": 1}]
        + [3, False, [None], [["sample"]], ["sample", "sample"], ["serving_default"]],
    ),
    num_samples=({}, [0, True, 1.5, None]),
    batch_size=(LITERT, [0, True, 2.0, [2]]),
    quantize=(LITERT, ["int4", "INT8", True, 8, ["int8"]]),
    about=({}, [[1], "a run", [], 3, {(1, 2): 3}, {1: 2}]),
    warmup=({}, ["", "a/b", "..", True, 3, "a\n"]),
)
def test_options_of_export_are_checked(model, folder, row, request):
    options, values = row
    name = request.node.callspec.id
    call = vary_option(export, name, model, **options)
    assert_each_refused(call, values, f"`{name}`")
    assert not tree(folder)


@rows(
    batch_size_of_saved_model=({"batch_size": 2}, "batch_size", "2"),
    batch_size_of_onnx=({**ONNX, "batch_size": 2}, "batch_size", "2"),
    quantize_of_onnx=({**ONNX, "quantize": "int8"}, "quantize", "int8"),
    quantize_none=({**ONNX, "quantize": None}, "quantize", "None"),
    data_of_onnx=({**ONNX, "representative_data": [1]}, "representative_data", "1"),
    warmup_of_litert=({**LITERT, "warmup": "a"}, "warmup", "a"),
    misspelt=({**LITERT, "quantise": "int8"}, "quantise", "int8"),
    misspelt_none=({"quantise": None}, "quantise", "None"),
    keras_option=({"include_optimizer": False}, "include_optimizer", "False"),
    private_option=({"seed_dtype": "int32"}, "seed_dtype", "int32"),
)
def test_options_of_another_format_are_refused(model, row):
    options, name, received = row
    assert_refused_without_writing(
        lambda: export(model, **options), f"`{name}`", received=received
    )


@rows(
    missing=({"quantize": "int8"}, "none"),
    with_another=({"quantize": "float16", "representative_data": x()}, "float16"),
    alone=({"representative_data": x()}, "None"),
    nan=({"quantize": "int8", "representative_data": x(np.nan)}, "nan"),
    shape=({"quantize": "int8", "representative_data": x(shape=(8, 5))}, "(8, 5)"),
    false=({"quantize": "int8", "representative_data": False}, "bool"),
)
def test_int8_needs_representative_data(model, row):
    options, received = row
    call = partial(export, model, **LITERT, **options)
    assert_refused_without_writing(call, "`representative_data`", received=received)


CARD_KEYS = ["card_format", "format", "warmup", "batch_size", "quantize", "num_samples"]
CARD_KEYS += ["serving_default", "signatures", "model", "versions", "files"]


def test_about_must_be_json_without_keys_of_the_card(model, folder):
    for about in ({"a": {(1, 2): 3}}, CIRCLE, {"a": float("nan")}):
        assert_refused(lambda about=about: export(model, about=about), "`about`", "JSON")
    for name in CARD_KEYS:
        about = {"data": 1, name: 1}
        assert_refused(
            lambda about=about: export(model, about=about), "`about`", received=name
        )
    assert not tree(folder)


# Paths. `a` is a file, `d` a folder.


def test_a_path_must_be_new_and_of_its_format(model, folder, monkeypatch):
    for name in ("a", "a.tflite"):
        (folder / name).write_text("mine")
    for name in ("d", "d.tflite", "closed"):
        (folder / name).mkdir()
    (folder / "link").symlink_to("nowhere")
    # Not by its mode, which root ignores.
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, m: "closed" not in str(p) and access(p, m))
    before = tree()
    for options, paths in (
        ({}, [None, 3, b"new", ".", "new\0"]),
        ({}, ["a", "d", "link", "a/new", "a/b/new", "new.tflite", "closed/new"]),
        (ONNX, ["d", "new.tflite"]),
        (LITERT, ["a.tflite", "d.tflite", "a/new.tflite", "closed/b/new.tflite"]),
        (LITERT, ["new", "new.lite", "new.TFLITE", ".tflite"]),
    ):
        assert_each_refused(partial(model.export, **options), paths, "`filepath`")
    assert_refused(lambda: model.export(""), "`filepath`", received=".")
    assert_unchanged(before)


def test_a_path_that_is_too_long_is_an_os_error(model):
    call = partial(model.export, "n" * 300)
    assert_refused_without_writing(call, "too long", error=OSError, received=None)


def test_only_a_model_of_keras_vae_can_be_exported(folder):
    assert_each_refused(
        lambda value: kv.exporting.export(value, "new"),
        [None, "model", keras.Sequential([]), 3],
        "`model`",
    )
    assert not tree(folder)


# Checks of `exporting.serving.export`.


@rows(
    name=("s", "name", ["", "a/b", "..", None, 3, "a\n"]),
    folder=("name", "s", [None, 3, "a"]),
)
def test_a_served_model_needs_a_name_and_a_folder(model, folder, row, request):
    pytest.importorskip("tensorflow_serving")
    (folder / "a").write_text("mine")
    name = request.node.callspec.id
    before = tree()
    call = vary_option(serving.export, name, model, **{"folder": "s", "name": "vae"})
    assert_each_refused(call, row[2], f"`{name}`")
    assert_unchanged(before)


@rows(
    in_a_file=("a/s", "b", {}, "filepath", "a/s"),
    name_a_file=("d", "f", {}, "filepath", "d/f"),
    format=("s", "b", LITERT, "format", "litert"),
    warmup=("s", "b", {"warmup": "c"}, "warmup", "c"),
    batch_size=("s", "b", {"batch_size": 2}, "batch_size", "2"),
    names=("s", "b", {"names": []}, "names", "[]"),
    about=("s", "b", {"about": {"files": 1}}, "about", "files"),
)
def test_a_served_model_has_the_options_of_a_saved_model(model, row):
    pytest.importorskip("tensorflow_serving")
    path, name, options, argument, received = row
    write_file("a", "mine")
    write_file("d/f", "mine")
    call = partial(serving.export, model, path, name, **options)
    assert_refused_without_writing(call, f"`{argument}`", received=received)


# Models with parts that a format does not support.


@keras.saving.register_keras_serializable("bad_arguments")
class Function(keras.layers.Layer):
    """A dense layer, then a function that only TensorFlow or only Python has."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function, self.dense = function, keras.layers.Dense(4)

    def call(self, x):
        return self.function(self.dense(x))


def lgamma(x):
    return tf.math.lgamma(tf.nn.softplus(x) + 1.0)


def igamma(x):
    return tf.math.igamma(tf.nn.softplus(x) + 1.0, 2.0)


def python(x):
    return tf.ensure_shape(tf.py_function(lambda v: v * 2.0, [x], tf.float32), x.shape)


def numpy(x):
    return tf.ensure_shape(tf.numpy_function(lambda v: v * 2, [x], tf.float32), x.shape)


@rows(
    litert_igamma=(igamma, LITERT, "`format`", "litert", "Igamma"),
    onnx_lgamma=(lgamma, ONNX, "`format`", "onnx", "Lgamma"),
    litert_python=(python, LITERT, "`model`", "PyFunc"),
    onnx_python=(python, ONNX, "`model`", "PyFunc"),
    saved_model_python=(python, {}, "`model`", "PyFunc"),
    saved_model_numpy=(numpy, {}, "`model`", "PyFunc"),
)
def test_unsupported_functions_are_refused_by_name(row):
    function, options, *words = row
    if options is ONNX:
        pytest.importorskip("tf2onnx")
    model = vae(decoder=Function(function))
    assert_refused_without_writing(
        lambda: export(model, names=["decode"], **options), *words
    )


def test_a_prior_that_cannot_sample_from_noise_is_refused_by_name():
    model = vae(prior=LearnedNormal((2,)))
    for options in ({}, LITERT):
        options = {"names": ["sample"], **options}
        call = partial(export, model, **options)
        assert_refused_without_writing(call, "sample", "LearnedNormal", "encode")


# `verify`: the artefacts of `model`, copied for each case and changed.


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model.export(folder / "m", num_samples=2)
    model.export(folder / "m.tflite", format="litert", num_samples=2)
    return folder


@pytest.fixture
def artefacts(exported, folder):
    shutil.copytree(exported, folder, dirs_exist_ok=True)
    return folder


CARD = "m.card.json"


def truncate(folder):
    file = folder / "m.tflite"
    file.write_bytes(file.read_bytes()[:3000])


def truncate_and_update_card(folder):
    """Truncates the file and updates its checksum in the card."""
    truncate(folder)
    sha256 = hashlib.sha256((folder / "m.tflite").read_bytes()).hexdigest()
    card = json.loads((folder / CARD).read_text())
    card["files"]["m.tflite"]["sha256"] = sha256
    (folder / CARD).write_text(json.dumps(card))


def delete(name):
    return lambda folder: (folder / name).unlink()


@rows(
    missing=(None, "gone.tflite", "gone.tflite"),
    missing_folder=(None, "gone", "gone"),
    none=(None, None, "None"),
    number=(None, 3, "3"),
    a_folder=(lambda folder: (folder / "d").mkdir(), "d", "model_card.json"),
    a_file=(lambda folder: (folder / "a").write_text("a"), "a", "model_card.json"),
    the_card=(None, CARD, CARD),
    a_part=(None, "m/saved_model.pb", "saved_model.pb"),
    cut=(truncate, "m.tflite", "checksum"),
    cut_with_card=(truncate_and_update_card, "m.tflite", "m.tflite"),
    no_card=(delete(CARD), "m.tflite", CARD),
    no_file=(delete("m.tflite"), "m.tflite", "m.tflite"),
    no_graph=(delete("m/saved_model.pb"), "m", "saved_model.pb"),
)
def test_an_artefact_must_be_complete_and_have_its_card(model, artefacts, row):
    change, path, received = row
    if change is not None:
        change(artefacts)
    call = partial(verify.verify, model, path, x(), rows=4)
    assert_refused_without_writing(call, "`artefact`", received=received)


def assert_cards_refused(model, cards, *words):
    """Assert that `verify` refuses a file with each of the cards, texts by name."""
    failures, path = {}, "m.tflite"
    for name, card in cards.items():
        write_file(CARD, card)
        try:
            call = partial(verify.verify, model, path, x(), rows=4)
            assert_refused_without_writing(call, "`artefact`", *words)
        except (AssertionError, pytest.fail.Exception) as error:
            failures[name] = str(error)
    assert not failures, failures


def test_a_damaged_card_is_named(model, artefacts):
    content = (artefacts / CARD).read_bytes()
    cards = {n: d(content) if callable(d) else d for n, d in DAMAGES.items()}
    cards |= {"list": "[]", "str": '"a"', "null": "null", "brace": "{]"}
    assert_cards_refused(model, cards, CARD)


MISSING = object()
Z = ("signatures", "decode", "inputs", "z")
# Wrong values of entries of the card; MISSING means that the entry is deleted.
ENTRIES = {
    ("format",): [MISSING, "keras", ["onnx"]],
    ("num_samples",): [MISSING, "2", 0],
    ("files",): [MISSING, {}, ["m.tflite"]],
    ("files", "m.tflite"): ["abc"],
    ("files", "m.tflite", "sha256"): [MISSING],
    ("model",): [MISSING],
    ("model", "weights"): [MISSING],
    ("signatures",): [MISSING, {}, ["decode"]],
    ("signatures", "decode", "inputs"): [MISSING],
    (*Z, "dtype"): [MISSING, "float33"],
    (*Z, "shape"): [MISSING, 3],
}


def test_a_wrong_entry_of_a_card_is_named(model, artefacts):
    content, cards = (artefacts / CARD).read_bytes(), {}
    for (*parents, last), values in ENTRIES.items():
        for value in values:
            card = entry = json.loads(content)
            for key in parents:
                entry = entry[key]
            if value is MISSING:
                del entry[last]
            else:
                entry[last] = value
            cards[f"{parents} {last}: {value}"] = json.dumps(card)
    assert_cards_refused(model, cards, CARD)


def rename_input(card):
    inputs = card["signatures"]["decode"]["inputs"]
    inputs["latent"] = inputs.pop("z")


def rename_signature(card):
    card["signatures"]["generate"] = card["signatures"].pop("decode")


@rows(
    renamed_signature=(rename_signature, "generate"),
    renamed_input=(rename_input, "latent"),
    other_shape=(lambda c: c["signatures"]["decode"]["inputs"]["z"].update(shape=[None, 9]),
                 "9"),
    other_dtype=(lambda c: c["signatures"]["decode"]["inputs"]["z"].update(dtype="int32"),
                 "int"),
)  # fmt: skip
def test_a_card_must_have_the_signatures_of_the_model(model, artefacts, row):
    change, word = row
    card = json.loads((artefacts / CARD).read_text())
    change(card)
    assert_cards_refused(model, {"changed": json.dumps(card)}, word)


def test_data_and_rows_of_verify_are_checked(model, exported):
    path = exported / "m.tflite"
    for data, received in ((x(np.nan), "nan"), (x(shape=(8, 5)), "(8, 5)"), (None, "None")):
        call = partial(verify.verify, model, path, data, 4)
        assert_refused(call, "`x`", received=received)
    bad = [0, -4, 4.0, True, None]
    assert_each_refused(lambda rows: verify.verify(model, path, x(), rows), bad, "`rows`")


@rows(
    wider=(lambda: vae(IndependentBernoulli((7,))), "encode", "(7,)", "(6,)"),
    images=(lambda: vae(IndependentBernoulli((2, 3))), "encode", "(2, 3)", "(6,)"),
    more_latents=(
        lambda: vae(IndependentBernoulli((6,)), latent_dim=3),
        "decode",
        "(3,)",
        "(2,)",
    ),
    autoencoder=(
        lambda: kv.Autoencoder(
            kv.nets.MLP([4]), kv.nets.MLP([4]), IndependentBernoulli((6,)), 2, seed=0
        ),
        "encode",
    ),
)
def test_a_model_of_another_shape_is_refused(exported, row):
    make, *words = row
    other = make()
    data = x(shape=(8, *other.likelihood.event_shape))
    call = partial(verify.verify, other, exported / "m.tflite", data, rows=4)
    assert_refused(call, "`artefact`", *words)


# Models that are similar to the exported one.


def test_verify_finds_another_likelihood(exported):
    differences = verify.verify(vae(), exported / "m.tflite", x(), rows=20)
    wrong = {(d.signature, d.output) for d in differences if not d.agrees}
    assert {("decode", "loc"), ("decode", "scale"), ("score", "elbo")} <= wrong


@pytest.mark.parametrize("path", ["m", "m.tflite"])
def test_verify_finds_another_model_of_the_same_shapes(exported, path):
    keras.utils.set_random_seed(7)
    other = vae(IndependentBernoulli((6,)))
    differences = verify.verify(other, exported / path, x(), rows=20)
    by_name = {(d.signature, d.output): d.agrees for d in differences}
    # The prior has no weights.
    assert [name for name, agrees in by_name.items() if agrees] == [("sample", "z")]


def test_verify_finds_a_model_that_was_trained_further(model, exported):
    weights = model.get_weights()
    assert all(d.agrees for d in verify.verify(model, exported / "m.tflite", x(), rows=20))
    try:
        model.encoder.weights[0].assign_add(tf.ones_like(weights[0]))
        differences = verify.verify(model, exported / "m.tflite", x(), rows=20)
    finally:
        model.set_weights(weights)
    wrong = {d.signature for d in differences if not d.agrees}
    assert wrong == {"encode", "encode_mean", "reconstruct", "score"}
