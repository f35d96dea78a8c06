"""A model.keras from somebody else: loading it runs no code and opens no other file."""

import io
import json
import pathlib
import sys
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_vae as kv
from keras_vae.runs.folder import Run
from tests.refusals import assert_refused


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The files of a model whose encoder is a Sequential, by name."""
    path = tmp_path_factory.mktemp("model") / "model.keras"
    encoder = keras.Sequential([keras.layers.Dense(4)])
    head = kv.distributions.IndependentNormal((3,))
    vae = kv.VAE(encoder, kv.nets.MLP([4]), head, latent_dim=2, seed=0)
    vae.compile("adam")
    vae.save(path)
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def keras_object(module, name, config, registered_name=None):
    return {"module": module, "class_name": name, "config": config,
            "registered_name": registered_name}  # fmt: skip


def function(module, name):
    return keras_object(module, "function", name, name)


def layer(name, **config):
    return keras_object("keras.layers", name, {"name": "taken", **config})


def find(value, class_name):
    """Returns the first config of a class."""
    if isinstance(value, dict) and value.get("class_name") == class_name:
        return value
    items = value.values() if isinstance(value, dict) else value
    found = (find(v, class_name) for v in items if isinstance(v, (dict, list)))
    return next(filter(None, found), None)


def write(folder, content, config=None, weights=None):
    files = dict(content)
    if config is not None:
        files["config.json"] = json.dumps(config).encode()
    if weights is not None:
        files["model.weights.h5"] = weights
    with zipfile.ZipFile(folder / "model.keras", "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return Run(folder)


# Layers that a stranger adds to the encoder.


def code():
    """Returns the config of a Python lambda that writes a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns that it is unsafe
        return keras.saving.serialize_keras_object(lambda x: open("taken", "w") and x)


LAYERS = {
    "code in a Lambda": lambda: layer("Lambda", function=code()),
    "a function of os in a Lambda": lambda: layer(
        "Lambda", function=function("os", "getcwd"), arguments={}
    ),
    "eval": lambda: layer("Lambda", function=function("builtins", "eval")),
    "get_file": lambda: layer(
        "Lambda",
        function=function("keras.utils", "get_file"),
        arguments={"origin": "file:///etc/passwd"},
    ),
    "save_img": lambda: layer(
        "Lambda",
        function=function("keras.utils", "save_img"),
        arguments={"x": [[[0.0]]]},
    ),
    "load_model": lambda: layer(
        "Lambda", function=function("keras.saving", "load_model")
    ),
    "enable_unsafe_deserialization": lambda: layer(
        "Lambda", function=function("keras.config", "enable_unsafe_deserialization")
    ),
    "TFSMLayer": lambda: layer("TFSMLayer", filepath="artefact"),
    "a class of os": lambda: keras_object("os", "system", {"command": "touch taken"}),
    "a class of subprocess": lambda: keras_object(
        "subprocess", "Popen", {"args": ["touch", "taken"]}
    ),
    "a class of a module beside the run": lambda: keras_object("stranger", "Layer", {}),
    "a class within Keras": lambda: keras_object(
        "keras.src.saving.saving_lib", "H5IOStore", {"root_path": "taken", "mode": "w"}
    ),
    "a registered name": lambda: keras_object("os", "x", {}, "os>system"),
    "StringLookup": lambda: layer("StringLookup", vocabulary="words.txt"),
    "IntegerLookup": lambda: layer("IntegerLookup", vocabulary="words.txt"),
    "TextVectorization": lambda: layer(
        "TextVectorization", vocabulary="words.txt", standardize=None, split=None
    ),
    "a picture of the data": lambda: layer(
        "Lambda",
        output_shape=[3],  # so that Keras does not call the function when it loads it
        function=function("keras.visualization", "plot_image_gallery"),
        arguments={"path": "taken"},
    ),
    "a function in the form of a class": lambda: layer(
        "Lambda",
        output_shape=[3],
        function=keras_object("keras.visualization", "plot_image_gallery", {}),
    ),
    "a function under a registered name": lambda: layer(
        "Lambda",
        output_shape=[3],
        function=keras_object(
            "keras.visualization", "function", "plot_image_gallery", "keras_vae>VAE"
        ),
    ),
    "a network with weights from the web": lambda: layer(
        "Lambda", output_shape=[3], function=function("keras.applications", "VGG16")
    ),
    "TorchModuleWrapper": lambda: layer("TorchModuleWrapper", module="gASVAAAA"),
    "JaxLayer": lambda: layer("JaxLayer", call_fn=code()),
    "an activation": lambda: layer(
        "Dense", units=2, activation=function("os", "system")
    ),
    "an initializer": lambda: layer(
        "Dense", units=2, kernel_initializer=function("keras.utils", "get_file")
    ),
    "a type": lambda: {
        "class_name": "__typespec__", "spec_name": "system", "module": "os",
        "config": ["touch taken"], "registered_name": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("where", ["encoder", "decoder"])
def test_layers_that_run_code_or_open_files_are_refused(
    content, tmp_path, monkeypatch, name, where
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    pathlib.Path("stranger.py").write_text("open('taken', 'w').close()")
    pathlib.Path("words.txt").write_text("a\nb\n")
    config = json.loads(content["config.json"])
    nested = find(config, "Sequential")
    if where == "encoder":
        nested["config"]["layers"].insert(1, LAYERS[name]())
    else:
        sequential = json.loads(json.dumps(nested))
        sequential["config"]["layers"].insert(0, LAYERS[name]())
        sequential["config"]["name"] = "another"
        config["config"]["decoder"] = sequential
    run = write(tmp_path, content, config)
    text = assert_refused(run.model, "model.keras")
    assert "\n" not in text
    assert not pathlib.Path("taken").exists() and "stranger" not in sys.modules


# Weights in other files.


def external_link(file, name):
    file[name] = h5py.ExternalLink("secret.h5", "/0")


def soft_link(file, name):
    file[name] = h5py.SoftLink("/elsewhere")


def external_storage(file, name):
    file.create_dataset(name, (3, 4), "float32", external=[("secret.bin", 0, 48)])


def virtual(file, name):
    layout = h5py.VirtualLayout((3, 4), "float32")
    layout[:] = h5py.VirtualSource("secret.h5", "0", (3, 4))
    file.create_virtual_dataset(name, layout)


def with_kernels(content, replace):
    """Returns the weights of the model, with its kernels `[3, 4]` replaced."""
    weights = io.BytesIO(content["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for name in [n for n in names if getattr(file[n], "shape", ()) == (3, 4)]:
            del file[name]
            replace(file, name)
    return weights.getvalue()


def test_other_weights_load(content, tmp_path):
    ones = np.ones((3, 4), np.float32)
    weights = with_kernels(content, lambda file, name: file.create_dataset(name, data=ones))
    model = write(tmp_path, content, weights=weights).model()
    np.testing.assert_array_equal(model.encoder.weights[0], ones)


@pytest.mark.parametrize("replace", [external_link, soft_link, external_storage, virtual])
def test_weights_in_other_files_are_refused(content, tmp_path, monkeypatch, replace):
    monkeypatch.chdir(tmp_path)
    with h5py.File("secret.h5", "w") as file:
        file["0"] = np.ones((3, 4), np.float32)
    pathlib.Path("secret.bin").write_bytes(bytes(48))
    model = write(tmp_path, content).model()
    run = write(tmp_path, content, weights=with_kernels(content, replace))
    assert "\n" not in assert_refused(run.model, "model.keras")
    before = model.get_weights()
    with pytest.raises(ValueError, match="could not be loaded"):  # as --resume does
        model.load_weights(run.path("model.keras"))
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_name_that_leaves_the_archive_writes_nothing(content, tmp_path):
    before = {p.name for p in tmp_path.parent.iterdir()}
    files = content | {"../taken": b"taken", "assets/../../taken": b"taken"}
    run = write(tmp_path, files)
    try:
        run.model()
    except ValueError:
        pass
    assert {p.name for p in tmp_path.parent.iterdir()} == before
