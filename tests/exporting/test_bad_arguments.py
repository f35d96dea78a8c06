"""Every bad argument of an export, and of its check: refused by name, nothing written.

A row of a table is (id, ..., message). The call must raise a ValueError that holds each of
the fragments between the dots of `message`, in any order: the argument, what was expected
and what came. `a|b` stands for one or the other. Afterwards the folder must hold what it
held, hidden files too.
"""

import json
import os
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from keras_vae import exporting
from keras_vae.distributions import IndependentBernoulli, IndependentNormal
from keras_vae.exporting import card as cards
from keras_vae.exporting import verify
from tests.zoo import LearnedNormal

READABLE = 1200  # characters: a message, not a stack of calls


def tree(folder):
    """The content of each file, and None for each folder, by path."""
    paths = sorted(pathlib.Path(folder).rglob("*"))
    return {str(p): p.read_bytes() if p.is_file() else None for p in paths}


def refused(call, message, error=ValueError, folder="."):
    before = tree(folder)
    with pytest.raises(Exception) as caught:
        call()
    text = str(caught.value)
    # Not a subclass: those of ValueError are accidents, such as a UnicodeError.
    assert caught.type is error, f"{caught.type.__name__}: {text}"
    for fragment in message.split(" ... "):
        assert any(f in text for f in fragment.split("|")), f"{fragment!r} not in {text}"
    assert len(text) < READABLE, f"{len(text)} characters: {text}"
    after = tree(folder)
    changed = [
        n for n in before.keys() | after.keys() if before.get(n, 0) != after.get(n, 0)
    ]
    assert not changed, f"refused, but the call changed {changed}"


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
    """The working folder of a test."""
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
INT8 = {**LITERT, "quantize": "int8"}
EXPECTED = "'tf_saved_model' or 'litert' or 'onnx'"
ALL = "'encode', 'encode_mean', 'decode', 'sample', 'reconstruct', 'score'"
CIRCLE: dict = {}
CIRCLE["circle"] = CIRCLE


def formatted(format, came):
    return {"format": format}, f"`format` ... {EXPECTED} ... {came}"


def named(names, came):
    return {"names": names}, f"`names` ... {ALL} ... {came}"


def sampled(count, came):
    return {"num_samples": count}, f"`num_samples` ... positive int ... {came}"


def sized(size, came):
    return {**LITERT, "batch_size": size}, f"`batch_size` ... positive int ... {came}"


def quantized(value, came):
    return (
        {**LITERT, "quantize": value},
        f"`quantize` ... 'float16' or 'dynamic' or 'int8' ... {came}",
    )


def shown(data, message):
    return {**INT8, "representative_data": data}, f"`representative_data` ... {message}"


def told(about, message):
    return {"about": about}, f"`about` ... {message}"


def warmed(name, came):
    return {"warmup": name}, f"`warmup` ... letters, digits ... {came}"


OPTIONS = [
    ("format_none", *formatted(None, "format=None")),
    ("format_other", *formatted("saved_model", "'saved_model'")),
    ("format_suffix", *formatted("tflite", "'tflite'")),
    ("format_case", *formatted("ONNX", "'ONNX'")),
    ("format_bytes", *formatted(b"onnx", "b'onnx'")),
    ("format_list", *formatted(["litert"], "['litert']")),
    ("format_number", *formatted(3, "3")),
    ("format_empty", *formatted("", "''")),
    # Options of another format, or of none.
    ("batch_size_saved_model", {"batch_size": 2}, "`batch_size` ... left out ... warmup"),
    ("batch_size_onnx", {**ONNX, "batch_size": 2}, "`batch_size` ... left out ... 'onnx'"),
    ("quantize_onnx", {**ONNX, "quantize": "int8"}, "`quantize` ... left out ... 'int8'"),
    ("quantize_none_onnx", {**ONNX, "quantize": None}, "`quantize` ... left out"),
    ("data_onnx", {**ONNX, "representative_data": [1]}, "`representative_data` ... left"),
    (
        "warmup_litert",
        {**LITERT, "warmup": "a"},
        "`warmup` ... left out ... quantize ... a",
    ),
    ("misspelt", {**LITERT, "quantise": "int8"}, "`quantise` ... 'quantize' ... 'int8'"),
    ("misspelt_none", {"quantise": None}, "`quantise` ... left out ... None"),
    ("of_keras", {"include_optimizer": False}, "`include_optimizer` ... left out"),
    ("of_write", {"seed_dtype": "int32"}, "`seed_dtype` ... left out ... 'int32'"),
    # names
    ("names_empty", *named([], "names=[]")),
    ("names_none_of_it", *named(["generate"], "['generate']")),
    ("names_one_unknown", *named(["sample", "generate"], "'generate'")),
    ("names_string", *named("sample", "'sample'")),
    ("names_empty_string", *named("", "''")),
    ("names_set", *named({"sample"}, "{'sample'}")),
    ("names_dict", *named({"sample": 1}, "{'sample': 1}")),
    ("names_number", *named(3, "3")),
    ("names_false", *named(False, "False")),
    ("names_of_none", *named([None], "[None]")),
    ("names_nested", *named([["sample"]], "[['sample']]")),
    ("names_twice", *named(["sample", "sample"], "['sample', 'sample']")),
    ("names_default", *named(["serving_default"], "['serving_default']")),
    # num_samples
    ("num_samples_0", *sampled(0, "num_samples=0")),
    ("num_samples_negative", *sampled(-1, "-1")),
    ("num_samples_float", *sampled(1.5, "1.5")),
    ("num_samples_bool", *sampled(True, "True")),
    ("num_samples_text", *sampled("3", "'3'")),
    ("num_samples_none", *sampled(None, "None")),
    # Of LiteRT.
    ("batch_size_0", *sized(0, "batch_size=0")),
    ("batch_size_negative", *sized(-2, "-2")),
    ("batch_size_float", *sized(2.0, "2.0")),
    ("batch_size_bool", *sized(True, "True")),
    ("batch_size_text", *sized("2", "'2'")),
    ("batch_size_list", *sized([2], "[2]")),
    ("quantize_other", *quantized("int4", "'int4'")),
    ("quantize_case", *quantized("INT8", "'INT8'")),
    ("quantize_bool", *quantized(True, "True")),
    ("quantize_number", *quantized(8, "8")),
    ("quantize_list", *quantized(["int8"], "['int8']")),
    ("data_missing", INT8, "`representative_data` ... int8 ... none"),
    (
        "data_without_int8",
        {**LITERT, "quantize": "float16", "representative_data": x()},
        "`representative_data` ... left out ... quantize='float16'",
    ),
    (
        "data_alone",
        {**LITERT, "representative_data": x()},
        "`representative_data` ... left",
    ),
    ("data_width", *shown(x(shape=(8, 5)), "'batch', 6 ... (8, 5)")),
    ("data_one_row", *shown(x(shape=(6,)), "'batch', 6 ... (6,)")),
    ("data_images", *shown(x(shape=(8, 6, 1)), "'batch', 6 ... (8, 6, 1)")),
    ("data_nan", *shown(x(np.nan), "[0, 1] ... nan")),
    ("data_outside", *shown(x(16), "[0, 1] ... 16")),
    ("data_empty", *shown(x(shape=(0, 6)), "empty ... (0, 6)")),
    ("data_list", *shown([[0.5] * 6], "array ... list")),
    ("data_text", *shown("x.npy", "array ... str")),
    ("data_strings", *shown(np.full((8, 6), "a"), "numbers ... <U1")),
    ("data_false", *shown(False, "array ... bool")),
    # The model card.
    ("about_list", *told([1], "dict ... [1]")),
    ("about_text", *told("a run", "dict ... 'a run'")),
    ("about_empty_list", *told([], "dict ... []")),
    ("about_number", *told(3, "dict ... 3")),
    ("about_tuple_as_key", *told({(1, 2): 3}, "str ... (1, 2)")),
    ("about_number_as_key", *told({1: 2}, "str ... {1: 2}")),
    ("about_nested_key", *told({"a": {(1, 2): 3}}, "JSON ... keys must be str")),
    ("about_circle", *told(CIRCLE, "JSON ... Circular")),
    ("about_signatures", *told({"signatures": {}}, "'signatures'")),
    ("about_format", *told({"data": 1, "format": "x"}, "'format'")),
    ("about_card_format", *told({"card_format": 2}, "'card_format'")),
    ("about_model", *told({"model": "mine"}, "'model'")),
    ("about_files", *told({"files": []}, "'files'")),
    ("about_versions", *told({"versions": {}}, "'versions'")),
    ("about_num_samples", *told({"num_samples": 1}, "'num_samples'")),
    ("about_an_option", {**LITERT, "about": {"quantize": 1}}, "`about` ... 'quantize'"),
    # Of TF Serving.
    ("warmup_empty", *warmed("", "warmup=''")),
    ("warmup_path", *warmed("a/b", "'a/b'")),
    ("warmup_parent", *warmed("..", "'..'")),
    ("warmup_bool", *warmed(True, "True")),
    ("warmup_number", *warmed(3, "3")),
    ("warmup_newline", *warmed("a\n", "'a\\n'")),
]


@pytest.mark.parametrize(
    ("options", "message"), [pytest.param(*row[1:], id=row[0]) for row in OPTIONS]
)
def test_options(model, options, message):
    path = "new.tflite" if options.get("format") == "litert" else "new"
    refused(lambda: model.export(path, **options), message)


# Paths. `a` is a file, `d` a folder.

PATHS = [
    ("none", None, {}, "`filepath` ... path ... None"),
    ("number", 3, {}, "`filepath` ... path ... 3"),
    ("bytes", b"new", {}, "`filepath` ... path ... b'new'"),
    ("list", ["new"], {}, "`filepath` ... path ... ['new']"),
    ("empty", "", {}, "`filepath` ... must not exist ... ."),
    ("here", ".", {}, "`filepath` ... must not exist"),
    ("a_file", "a", {}, "`filepath` ... must not exist ... a file"),
    ("a_folder", "d", {}, "`filepath` ... must not exist ... a folder"),
    ("a_folder_onnx", "d", ONNX, "`filepath` ... must not exist ... a folder"),
    ("a_file_litert", "a.tflite", LITERT, "`filepath` ... must not exist ... a file"),
    ("a_folder_litert", "d.tflite", LITERT, "`filepath` ... must not exist ... a folder"),
    ("a_dangling_link", "link", {}, "`filepath` ... must not exist ... link"),
    ("in_a_file", "a/new", {}, "`filepath` ... in a folder ... a/new"),
    ("deep_in_a_file", "a/b/new", {}, "`filepath` ... in a folder ... a/b/new"),
    ("in_a_file_litert", "a/new.tflite", LITERT, "`filepath` ... in a folder"),
    ("no_suffix", "new", LITERT, "`filepath` ... .tflite ... new"),
    ("other_suffix", "new.lite", LITERT, "`filepath` ... .tflite ... new.lite"),
    ("suffix_case", "new.TFLITE", LITERT, "`filepath` ... .tflite ... new.TFLITE"),
    ("suffix_alone", ".tflite", LITERT, "`filepath` ... .tflite"),
    ("suffix_of_a_folder", "new.tflite", {}, "`filepath` ... .tflite ... folder ... new"),
    ("suffix_of_onnx", "new.tflite", ONNX, "`filepath` ... .tflite ... folder ... new"),
    ("null_byte", "new\0", {}, "`filepath` ... path ... new\\x00"),
    ("closed", "closed/new", {}, "`filepath` ... can be written ... closed/new"),
    ("below_closed", "closed/b/new.tflite", LITERT, "`filepath` ... can be written"),
]


@pytest.mark.parametrize(
    ("path", "options", "message"), [pytest.param(*row[1:], id=row[0]) for row in PATHS]
)
def test_paths(model, folder, path, options, message, monkeypatch):
    for name in ("a", "a.tflite"):
        (folder / name).write_text("mine")
    for name in ("d", "d.tflite", "closed"):
        (folder / name).mkdir()
    (folder / "link").symlink_to("nowhere")
    # Not by its mode, which root may ignore.
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda p, mode: "closed" not in str(p) and access(p, mode)
    )
    refused(lambda: model.export(path, **options), message)


def test_a_path_that_the_system_refuses(model):
    refused(lambda: model.export("n" * 300), "too long", OSError)


@pytest.mark.parametrize("what", [None, "model", keras.Sequential, 3], ids=str)
def test_models(what):
    other = what() if what is keras.Sequential else what
    refused(lambda: exporting.export(other, "new"), "`model` ... VAE")


# `exporting.serving.export`: (id, folder, name, options, message).

SERVING = [
    ("name_empty", "s", "", {}, "`name` ... letters ... ''"),
    ("name_path", "s", "a/b", {}, "`name` ... letters ... 'a/b'"),
    ("name_parent", "s", "..", {}, "`name` ... letters ... '..'"),
    ("name_none", "s", None, {}, "`name` ... letters ... None"),
    ("name_number", "s", 3, {}, "`name` ... letters ... 3"),
    ("name_newline", "s", "a\n", {}, "`name` ... letters ... 'a\\n'"),
    ("folder_none", None, "a", {}, "`folder` ... None"),
    ("folder_number", 3, "a", {}, "`folder` ... 3"),
    ("folder_a_file", "a", "a", {}, "`folder` ... a file"),
    ("folder_in_a_file", "a/s", "a", {}, "in a folder ... a/s"),
    ("name_a_file", "d", "f", {}, "folder ... d/f"),
    ("format", "s", "a", {"format": "litert"}, "`format` ... left out ... litert"),
    ("warmup", "s", "a", {"warmup": "b"}, "`warmup` ... left out ... 'b'"),
    ("batch_size", "s", "a", {"batch_size": 2}, "`batch_size` ... left out ... 2"),
    ("names", "s", "a", {"names": []}, "`names` ... []"),
    ("about", "s", "a", {"about": {"files": 1}}, "`about` ... 'files'"),
]


@pytest.mark.parametrize(
    ("where", "name", "options", "message"),
    [pytest.param(*row[1:], id=row[0]) for row in SERVING],
)
def test_serving(model, folder, where, name, options, message):
    pytest.importorskip("tensorflow_serving")
    (folder / "a").write_text("mine")
    (folder / "d").mkdir()
    (folder / "d" / "f").write_text("mine")
    refused(lambda: exporting.serving.export(model, where, name, **options), message)


# Models with parts that a format does not have.


@keras.saving.register_keras_serializable("bad_arguments")
class Function(keras.layers.Layer):
    """A dense layer, and a function that only TensorFlow, or only Python, has."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function, self.dense = function, keras.layers.Dense(4)

    def call(self, x):
        return self.function(self.dense(x))


def cholesky(x):
    spd = tf.linalg.diag(tf.nn.softplus(x) + 1.0)
    return tf.reduce_sum(tf.linalg.cholesky(spd), axis=-1)


def lgamma(x):
    return tf.math.lgamma(tf.nn.softplus(x) + 1.0)


def igamma(x):
    return tf.math.igamma(tf.nn.softplus(x) + 1.0, 2.0)


def python(x):
    return tf.ensure_shape(tf.py_function(lambda v: v * 2.0, [x], tf.float32), x.shape)


def numpy(x):
    return tf.ensure_shape(tf.numpy_function(lambda v: v * 2, [x], tf.float32), x.shape)


FUNCTIONS = [
    ("litert_igamma", igamma, LITERT, "`format` ... litert ... Igamma"),
    ("litert_cholesky", cholesky, LITERT, "`format` ... litert ... Cholesky"),
    ("litert_python", python, LITERT, "py_function|PyFunc"),
    ("onnx_lgamma", lgamma, ONNX, "`format` ... onnx ... Lgamma"),
    ("onnx_cholesky", cholesky, ONNX, "`format` ... onnx ... Cholesky"),
    ("onnx_python", python, ONNX, "py_function|PyFunc"),
    ("saved_model_python", python, {}, "py_function|PyFunc"),
    ("saved_model_numpy", numpy, {}, "py_function|PyFunc"),
]


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [pytest.param(*row[1:], id=row[0]) for row in FUNCTIONS],
)
def test_functions_without_a_form(function, options, message):
    if options is ONNX:
        pytest.importorskip("tf2onnx")
    model = vae(decoder=Function(function))
    path = "new.tflite" if options is LITERT else "new"
    refused(lambda: model.export(path, names=["decode"], **options), message)


@pytest.mark.parametrize("options", [{}, LITERT, ONNX], ids=["tf", "litert", "onnx"])
def test_a_prior_without_a_formula(options):
    model = vae(prior=LearnedNormal((2,)))
    path = "new.tflite" if options is LITERT else "new"
    message = "'sample' ... LearnedNormal ... names=['encode' ... Received"
    refused(lambda: model.export(path, **options), message)
    refused(lambda: model.export(path, names=["sample"], **options), message)


# `verify`: the artefacts of `model`, copied for each case and changed.


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    model.export(folder / "m", num_samples=2)
    model.export(folder / "m.tflite", format="litert", num_samples=2)
    return folder


@pytest.fixture
def copied(exported, folder):
    shutil.copytree(exported, folder, dirs_exist_ok=True)
    return folder


def card_with(change, name="m.card.json"):
    def edit(folder):
        card = json.loads((folder / name).read_text())
        change(card)
        (folder / name).write_text(json.dumps(card))

    return edit


def entry(*keys, value=None):
    """A card in which the last of the keys has another value; no value deletes it."""

    def change(card):
        *parents, last = keys
        for key in parents:
            card = card[key]
        if value is None:
            del card[last]
        else:
            card[last] = value

    return card_with(change)


def text(content):
    return lambda folder: (folder / "m.card.json").write_bytes(content)


def cut(folder):
    file = folder / "m.tflite"
    file.write_bytes(file.read_bytes()[:3000])


def cut_with_card(folder):
    """As if the card were of the file that was cut."""
    cut(folder)
    card_with(
        lambda card: card["files"]["m.tflite"].update(
            sha256=cards.checksum(folder / "m.tflite")
        )
    )(folder)


def gone(name):
    return lambda folder: (folder / name).unlink()


def rename_input(card):
    inputs = card["signatures"]["decode"]["inputs"]
    inputs["latent"] = inputs.pop("z")


UNREADABLE = "`artefact` ... model card ... m.card.json"
ARTEFACTS = [
    ("missing", lambda f: None, "gone.tflite", "`artefact` ... gone.tflite ... not exist"),
    ("missing_folder", lambda f: None, "gone", "`artefact` ... gone ... does not exist"),
    ("none", lambda f: None, None, "`artefact` ... None"),
    ("number", lambda f: None, 3, "`artefact` ... 3"),
    ("a_folder", lambda f: (f / "d").mkdir(), "d", "`artefact` ... d ... without"),
    ("the_card", lambda f: None, "m.card.json", "`artefact` ... m.card.json"),
    ("a_file", lambda f: (f / "a").write_text("a"), "a", "`artefact` ... without"),
    ("a_part", lambda f: None, "m/saved_model.pb", "`artefact` ... saved_model.pb"),
    ("cut", cut, "m.tflite", "`artefact` ... whole ... m.tflite has another checksum"),
    ("cut_with_card", cut_with_card, "m.tflite", "`artefact` ... litert ... m.tflite"),
    ("no_card", gone("m.card.json"), "m.tflite", "`artefact` ... without ... m.card.json"),
    ("no_file", gone("m.tflite"), "m.tflite", "`artefact` ... does not exist"),
    ("no_graph", gone("m/saved_model.pb"), "m", "`artefact` ... saved_model.pb is missing"),
    ("card_garbage", text(b"{]"), "m.tflite", UNREADABLE),
    ("card_empty", text(b""), "m.tflite", UNREADABLE),
    ("card_binary", text(b"\xff\xfe\x00"), "m.tflite", UNREADABLE),
    ("card_list", text(b"[]"), "m.tflite", UNREADABLE),
    ("card_text", text(b'"a"'), "m.tflite", UNREADABLE),
    ("card_null", text(b"null"), "m.tflite", UNREADABLE),
    ("no_format", entry("format"), "m.tflite", f"{UNREADABLE} ... format"),
    ("no_num_samples", entry("num_samples"), "m.tflite", f"{UNREADABLE} ... num_samples"),
    ("no_signatures", entry("signatures"), "m.tflite", f"{UNREADABLE} ... signatures"),
    ("no_inputs", entry("signatures", "decode", "inputs"), "m.tflite", UNREADABLE),
    (
        "no_dtype",
        entry("signatures", "decode", "inputs", "z", "dtype"),
        "m.tflite",
        UNREADABLE,
    ),
    ("no_checksum", entry("files", "m.tflite", "sha256"), "m.tflite", UNREADABLE),
    ("no_files", entry("files"), "m.tflite", f"{UNREADABLE} ... files"),
    ("files_list", entry("files", value=["m.tflite"]), "m.tflite", UNREADABLE),
    ("files_none", entry("files", value={}), "m.tflite", f"{UNREADABLE} ... files"),
    ("files_texts", entry("files", "m.tflite", value="abc"), "m.tflite", UNREADABLE),
    ("signatures_list", entry("signatures", value=["decode"]), "m.tflite", UNREADABLE),
    ("signatures_none", entry("signatures", value={}), "m.tflite", UNREADABLE),
    ("other_format", entry("format", value="keras"), "m.tflite", "`artefact` ... keras"),
    ("wrong_format", entry("format", value="onnx"), "m.tflite", "`artefact` ... onnx"),
    ("num_samples_text", entry("num_samples", value="2"), "m.tflite", UNREADABLE),
    (
        "unknown_signature",
        card_with(
            lambda card: card["signatures"].update(generate=card["signatures"]["decode"])
        ),
        "m.tflite",
        "`artefact` ... generate",
    ),
    ("renamed_input", card_with(rename_input), "m.tflite", "`artefact` ... latent"),
    (
        "unknown_dtype",
        entry("signatures", "decode", "inputs", "z", "dtype", value="float33"),
        "m.tflite",
        "`artefact` ... float33",
    ),
    (
        "other_shape",
        entry("signatures", "decode", "inputs", "z", "shape", value=[None, 9]),
        "m.tflite",
        "`artefact` ... decode ... 9",
    ),
    (
        "other_dtype",
        entry("signatures", "decode", "inputs", "z", "dtype", value="int32"),
        "m.tflite",
        "`artefact` ... float32 ... 'int'",
    ),
]


@pytest.mark.parametrize(
    ("change", "path", "message"), [pytest.param(*row[1:], id=row[0]) for row in ARTEFACTS]
)
def test_artefacts(model, copied, change, path, message):
    change(copied)
    refused(lambda: verify.verify(model, path, x(), rows=4), message)


DATA = [
    ("width", x(shape=(8, 5)), 4, "`x` ... 'batch', 6 ... (8, 5)"),
    ("one_row", x(shape=(6,)), 4, "`x` ... 'batch', 6 ... (6,)"),
    ("empty", x(shape=(0, 6)), 4, "`x` ... empty"),
    ("nan", x(np.nan), 4, "`x` ... [0, 1] ... nan"),
    ("outside", x(16), 4, "`x` ... [0, 1] ... 16"),
    ("list", [[0.5] * 6], 4, "`x` ... array ... list"),
    ("none", None, 4, "`x` ... array ... None"),
    ("strings", np.full((8, 6), "a"), 4, "`x` ... numbers"),
    ("rows_0", x(), 0, "`rows` ... positive int ... 0"),
    ("rows_negative", x(), -4, "`rows` ... positive int ... -4"),
    ("rows_float", x(), 4.0, "`rows` ... positive int ... 4.0"),
    ("rows_bool", x(), True, "`rows` ... positive int ... True"),
    ("rows_none", x(), None, "`rows` ... positive int ... None"),
]


@pytest.mark.parametrize(
    ("data", "rows", "message"), [pytest.param(*row[1:], id=row[0]) for row in DATA]
)
def test_data_of_verify(model, exported, data, rows, message):
    path = exported / "m.tflite"
    refused(lambda: verify.verify(model, path, data, rows), message)


OTHERS = [
    ("wider", lambda: vae(IndependentBernoulli((7,))), "'encode' ... (7,) ... (6,)"),
    ("images", lambda: vae(IndependentBernoulli((2, 3))), "'encode' ... (2, 3) ... (6,)"),
    (
        "more_latents",
        lambda: vae(IndependentBernoulli((6,)), latent_dim=3),
        "'decode' ... (3,) ... (2,)",
    ),
    (
        "autoencoder",
        lambda: kv.Autoencoder(
            kv.nets.MLP([4]), kv.nets.MLP([4]), IndependentBernoulli((6,)), 2, seed=0
        ),
        "'encode' ... None",
    ),
]


@pytest.mark.parametrize(
    ("make", "message"), [pytest.param(*row[1:], id=row[0]) for row in OTHERS]
)
def test_another_model(exported, make, message):
    other = make()
    data = x(shape=(8, *other.likelihood.event_shape))
    message = f"`artefact` ... of this model ... {message}"
    refused(lambda: verify.verify(other, exported / "m.tflite", data, rows=4), message)


def test_another_likelihood_differs(exported):
    differences = verify.verify(vae(), exported / "m.tflite", x(), rows=20)
    wrong = {(d.signature, d.output) for d in differences if not d.agrees}
    assert {("decode", "loc"), ("decode", "scale"), ("score", "elbo")} <= wrong


@pytest.mark.parametrize("path", ["m", "m.tflite"])
def test_another_model_of_the_same_shapes_differs(exported, path):
    keras.utils.set_random_seed(7)
    other = vae(IndependentBernoulli((6,)))
    differences = verify.verify(other, exported / path, x(), rows=20)
    by_name = {(d.signature, d.output): d.agrees for d in differences}
    # The prior has no weights.
    assert [name for name, agrees in by_name.items() if agrees] == [("sample", "z")]


def test_a_model_that_was_trained_on_differs(model, exported):
    weights = model.get_weights()
    assert all(d.agrees for d in verify.verify(model, exported / "m.tflite", x(), rows=20))
    try:
        model.encoder.weights[0].assign_add(tf.ones_like(weights[0]))
        differences = verify.verify(model, exported / "m.tflite", x(), rows=20)
    finally:
        model.set_weights(weights)
    wrong = {d.signature for d in differences if not d.agrees}
    assert wrong == {"encode", "encode_mean", "reconstruct", "score"}
