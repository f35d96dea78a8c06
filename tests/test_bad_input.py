"""Every bad input a user can plausibly give: refused early, by name, and at no cost.

A row of a table is (id, call, words): the call must raise a ValueError whose message
matches every one of the regular expressions, which stand for the argument, what was
expected and what came. Afterwards no model may have changed: neither its weights, step
and count of epochs, nor what it was compiled with.
"""

import os
import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import keras_vae as kv
from keras_vae import distributions, evaluation, objectives, schedules
from keras_vae.distributions import IndependentBernoulli, IndependentNormal, StandardNormal

tfd = tfp.distributions

# One error, not an echo of the call stack: the longest of the package has 500 characters.
READABLE = 1500

# The models.


def dense(units=4):
    return keras.layers.Dense(units)


def vae(**parts):
    """A tiny VAE of rows of 6 numbers; every part can be replaced by a wrong one."""
    default = {
        "encoder": dense(),
        "decoder": dense(),
        "likelihood": IndependentNormal((6,)),
        "latent_dim": 2,
        "seed": 0,
    }
    return kv.VAE(**{**default, **parts})


MAKE = {
    "normal": vae,
    "bernoulli": lambda: vae(likelihood=IndependentBernoulli((6,))),
    "binary": lambda: vae(likelihood=IndependentBernoulli((6,), grey="error")),
    "image": lambda: vae(
        encoder=kv.nets.MLP([4]), likelihood=IndependentBernoulli((4, 4, 1))
    ),
    "autoencoder": lambda: kv.Autoencoder(dense(), dense(), IndependentNormal((6,)), 2),
}
_made = {}  # name -> (model, its state when it was made)


def model(name="normal"):
    """The model of a family, compiled: built once and shared by the cases."""
    if name not in _made:
        made = MAKE[name]()
        made.compile("adam", max_skipped=3)
        _made[name] = made, state(made)
    return _made[name][0]


def state(model):
    variables = (*model.weights, *model.optimizer.variables)
    parts = (model.objective, model.max_skipped, model.optimizer)
    return [*map(id, parts), *(np.array(v) for v in variables)]


def changed():
    """The names of the models that are not what they were; they are built anew."""
    names = [
        name
        for name, (made, before) in _made.items()
        if not all(map(np.array_equal, state(made), before))
    ]
    for name in names:
        del _made[name]
    return names


def refused(call, words, error=ValueError):
    try:
        with pytest.raises(Exception) as caught:
            call()
        # Not a subclass: those of ValueError are accidents, such as a UnicodeError.
        assert caught.type is error, f"{caught.type.__name__}: {caught.value}"
        message = str(caught.value)
        for word in words:
            assert re.search(word, message), f"no {word!r} in: {message}"
        assert len(message) < READABLE, f"{len(message)} characters: {message}"
    finally:
        names = changed()
    assert not names, f"the call was refused, but it changed {names}"


def table(rows):
    return pytest.mark.parametrize(
        ("call", "words"), [pytest.param(call, words, id=id) for id, call, words in rows]
    )


def fit(x, name="normal", **options):
    return model(name).fit(x, **{"verbose": 0, **options})


def good(rows=8):
    return np.linspace(0, 1, rows * 6, dtype="float32").reshape(rows, 6)


def with_value(value, dtype="float32"):
    """Rows of zeros but for one value, which is not in the first row."""
    x = np.zeros((8, 6), dtype)
    x[6, 3] = value
    return x


# Data in memory. Every method that takes x must refuse all of them.

X = "`x`"
NO_ARRAY = (X, "array")
BAD_X = [
    # Outside the support of the likelihood.
    ("digits_to_16", "bernoulli", with_value(16), (X, r"\[0, 1\]", r"16")),
    ("int_to_255", "bernoulli", with_value(255, "int64"), (X, r"\[0, 1\]", r"255")),
    ("negative", "bernoulli", with_value(-0.5), (X, r"\[0, 1\]", r"-0\.5")),
    ("grey", "binary", with_value(0.5), (X, "grey", "1 value")),
    ("grey_uint8", "binary", with_value(17, "uint8"), (X, "grey", "1 value")),
    ("uint8_0_1", "bernoulli", with_value(1, "uint8"), (X, "uint8", "255", "bool", " 1$")),
    ("uint8_0_1_normal", "normal", with_value(1, "uint8"), (X, "uint8", "255", " 1$")),
    # Not finite.
    ("nan_bernoulli", "bernoulli", with_value(np.nan), (X, r"\[0, 1\]", "(?i)nan")),
    ("inf_bernoulli", "bernoulli", with_value(np.inf), (X, r"\[0, 1\]", "inf")),
    ("nan_binary", "binary", with_value(np.nan), (X, "(?i)nan")),
    ("nan_normal", "normal", with_value(np.nan), (X, "finite", "1 values? of NaN")),
    ("inf_normal", "normal", with_value(-np.inf), (X, "finite", "inf")),
    ("nan_half", "normal", with_value(np.nan, "float16"), (X, "finite", "NaN")),
    ("nan_autoencoder", "autoencoder", with_value(np.nan), (X, "finite", "NaN")),
    # Finite in float64, but not in the float32 in which a network computes.
    ("overflow", "normal", with_value(1e300, "float64"), (X, "finite|float32", "inf|1e")),
    # Wrong shape.
    ("empty", "normal", np.zeros((0, 6)), (X, "empty", r"\(0, 6\)")),
    ("no_channel_axis", "image", np.zeros((8, 4, 4)), (X, r"4, 4, 1\)", r"\(8, 4, 4\)")),
    ("no_batch_axis", "image", np.zeros((4, 4, 1)), (X, "'batch'", r"\(4, 4, 1\)")),
    ("three_channels", "image", np.zeros((8, 4, 4, 3)), (X, r"4, 4, 1\)", r"4, 4, 3\)")),
    ("wrong_width", "normal", np.zeros((8, 5)), (X, r"'batch', 6", r"\(8, 5\)")),
    ("one_row", "normal", np.zeros(6), (X, r"'batch', 6", r"\(6,\)")),
    ("scalar", "normal", np.float32(3.0), (X, r"'batch', 6|array", r"\(\)")),
    # Wrong dtype.
    ("strings", "normal", np.full((8, 6), "a"), (X, "numbers", "dtype <U1")),
    ("objects", "normal", np.full((8, 6), None), (X, "numbers", "dtype object")),
    ("complex", "normal", np.ones((8, 6), "complex64"), (X, "numbers", "complex64")),
    ("dates", "normal", np.zeros((8, 6), "datetime64[s]"), (X, "numbers", "datetime64")),
    ("string_tensor", "normal", tf.fill((8, 6), "a"), (X, "numbers", "object|string")),
    # No array.
    ("list", "normal", good().tolist(), (*NO_ARRAY, "list")),
    ("list_of_arrays", "normal", [good(), good()], (*NO_ARRAY, "list")),
    ("tuple", "normal", (good(), np.zeros(8)), (*NO_ARRAY, "tuple")),
    ("dict", "normal", {"image": good()}, (*NO_ARRAY, "dict")),
    ("none", "normal", None, (*NO_ARRAY, "NoneType")),
    ("number", "normal", 3, (*NO_ARRAY, "int")),
    ("path", "normal", "x.npy", (*NO_ARRAY, "str")),
]
METHODS = {
    "fit": lambda m, x: m.fit(x, verbose=0),
    "evaluate": lambda m, x: m.evaluate(x, verbose=0),
    "predict": lambda m, x: m.predict(x, verbose=0),
    "encode": lambda m, x: m.encode(x),
    "reconstruct": lambda m, x: m.reconstruct(x),
    "log_likelihood": lambda m, x: evaluation.importance_weighted(m, x, 2),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "x", "words"), [pytest.param(*row[1:], id=row[0]) for row in BAD_X]
)
def test_bad_x_in_memory(method, name, x, words):
    if method == "log_likelihood" and name == "autoencoder":
        pytest.skip("an autoencoder has no likelihood of x, whatever the x")
    refused(lambda: METHODS[method](model(name), x), words)


def fit_then(**options):
    """A fit on good data, with something else that is wrong."""
    name = options.pop("name", "normal")
    return lambda: fit(good(), name, **options)


def valid(x, name="normal", *rest):
    return fit_then(name=name, validation_data=(x, *rest) if rest else x)


VALIDATION = "validation_data"


@table(
    [
        # Refused before the first epoch, not after it.
        ("16", valid(with_value(16), "bernoulli"), (VALIDATION, r"\[0, 1\]", "16")),
        ("nan", valid(with_value(np.nan)), (VALIDATION, "finite", "NaN")),
        ("nan_bernoulli", valid(with_value(np.nan), "bernoulli"), (VALIDATION, "nan")),
        ("empty", valid(np.zeros((0, 6))), (VALIDATION, "empty", r"\(0, 6\)")),
        ("shape", valid(np.zeros((8, 5))), (VALIDATION, "'batch', 6", r"\(8, 5\)")),
        ("strings", valid(np.full((8, 6), "a")), (VALIDATION, "numbers", "<U1")),
        ("dict", valid({"image": good()}), (VALIDATION, "array", "dict")),
        ("y", valid(good(), "normal", np.zeros(5)), (VALIDATION, "8", r"\(5,\)")),
        (
            "weight",
            valid(good(), "normal", np.zeros(8), np.ones(5)),
            (VALIDATION, "8", r"\(5,\)"),
        ),
        (
            "too_many_parts",
            valid(good(), "normal", good(), np.ones(8), np.ones(8)),
            (VALIDATION, "sample_weight|Expected", r"\b4\b|length|tuple"),
        ),
        # The row lies in the part that is split off.
        (
            "nan_in_split",
            lambda: fit(with_value(np.nan), validation_split=0.5),
            (X, "finite", "NaN"),
        ),
        (
            "16_in_split",
            lambda: fit(with_value(16), "bernoulli", validation_split=0.5),
            (X, r"\[0, 1\]", "16"),
        ),
        (
            "nan_before_split",
            lambda: fit(with_value(np.nan)[::-1], validation_split=0.5),
            (X, "finite", "NaN"),
        ),
    ]
)
def test_validation_data(call, words):
    refused(call, words)


def evaluate_with(**options):
    return lambda: model().evaluate(good(), verbose=0, **options)


def split(fraction, rows=8):
    return lambda: fit(good(rows), validation_split=fraction)


WEIGHT = "`sample_weight`"


@table(
    [
        # Rows that belong to those of x.
        ("y_rows", fit_then(y=np.zeros(5)), ("`y`", "8", r"\(5,\)")),
        ("y_scalar", fit_then(y=3), ("`y`", "8", r"\(\)")),
        ("y_list", fit_then(y=[0] * 8), ("`y`", "array", "list")),
        ("y_evaluate", evaluate_with(y=np.zeros((9, 2))), ("`y`", "8", r"\(9, 2\)")),
        ("weight_rows", fit_then(sample_weight=np.ones(5)), (WEIGHT, "8", r"\(5,\)")),
        ("weight_scalar", fit_then(sample_weight=2.0), (WEIGHT, "8", r"\(\)")),
        # It would broadcast to a loss for every pair of rows.
        (
            "weight_column",
            fit_then(sample_weight=np.ones((8, 1))),
            (WEIGHT, "row", r"\(8, 1\)"),
        ),
        (
            "weight_strings",
            fit_then(sample_weight=np.full(8, "a")),
            (WEIGHT, "number", "dtype <U1"),
        ),
        (
            "weight_nan",
            fit_then(sample_weight=np.full(8, np.nan)),
            (WEIGHT, "finite", "NaN"),
        ),
        (
            "weight_evaluate",
            evaluate_with(sample_weight=np.ones(5)),
            (WEIGHT, "8", r"\(5,\)"),
        ),
        ("class_weight", fit_then(class_weight={0: 2.0}), ("class_weight", r"`?y`?\b")),
        # Sizes.
        ("batch_0", fit_then(batch_size=0), ("`batch_size`", "positive int", "=0")),
        ("batch_negative", fit_then(batch_size=-1), ("`batch_size`", "=-1")),
        ("batch_float", fit_then(batch_size=2.5), ("`batch_size`", "int", "=2.5")),
        ("batch_string", fit_then(batch_size="32"), ("`batch_size`", "int", "='32'")),
        ("batch_bool", fit_then(batch_size=True), ("`batch_size`", "int", "=True")),
        ("batch_evaluate", evaluate_with(batch_size=0), ("`batch_size`", "int", "=0")),
        (
            "batch_evaluate_float",
            evaluate_with(batch_size=2.5),
            ("`batch_size`", "=2.5"),
        ),
        (
            "batch_predict",
            lambda: model().predict(good(), batch_size=0, verbose=0),
            ("`batch_size`", "int", "=0"),
        ),
        (
            "batch_predict_float",
            lambda: model().predict(good(), batch_size=2.5, verbose=0),
            ("`batch_size`", "int", "=2.5"),
        ),
        (
            "batch_encode",
            lambda: model().encode(good(), batch_size=0),
            ("`batch_size`", "int", "=0"),
        ),
        (
            "batch_encode_float",
            lambda: model().encode(good(), batch_size=2.0),
            ("`batch_size`", "int", "=2.0"),
        ),
        (
            "validation_batch_0",
            fit_then(validation_data=good(), validation_batch_size=0),
            ("`validation_batch_size`", "int", "=0"),
        ),
        (
            "validation_batch_float",
            fit_then(validation_data=good(), validation_batch_size=1.5),
            ("`validation_batch_size`", "int", "=1.5"),
        ),
        ("steps_0", fit_then(steps_per_epoch=0), ("`steps_per_epoch`", "int", "=0")),
        ("steps_negative", fit_then(steps_per_epoch=-1), ("`steps_per_epoch`", "=-1")),
        ("steps_float", fit_then(steps_per_epoch=1.5), ("`steps_per_epoch`", "=1.5")),
        ("steps_evaluate", evaluate_with(steps=-1), ("`steps`", "int", "=-1")),
        (
            "validation_steps",
            fit_then(validation_data=good(), validation_steps=-1),
            ("`validation_steps`", "int", "=-1"),
        ),
        ("epochs_float", fit_then(epochs=1.5), ("`epochs`", "int", "=1.5")),
        ("epochs_string", fit_then(epochs="3"), ("`epochs`", "int", "='3'")),
        # The split.
        ("split_1", split(1.0), ("`validation_split`", "between 0 and 1", "=1.0")),
        ("split_percent", split(20), ("`validation_split`", "between", "=20")),
        ("split_negative", split(-0.1), ("`validation_split`", "between", "=-0.1")),
        ("split_nan", split(np.nan), ("`validation_split`", "between", "=nan")),
        ("split_string", split("0.1"), ("`validation_split`", "between", "='0.1'")),
        ("split_no_training", split(0.99), ("`validation_split`", "8 rows", "=0.99")),
        ("split_one_row", split(0.5, rows=1), ("`validation_split`", "1 row", "=0.5")),
        (
            "split_of_dataset",
            lambda: fit(batches(good()), validation_split=0.5),
            ("`validation_split`", "array", "Dataset"),
        ),
        (
            "callback_class",
            fit_then(callbacks=[keras.callbacks.TerminateOnNaN]),
            ("`callbacks`|callback", "instance", "TerminateOnNaN"),
        ),
    ]
)
def test_fit_and_evaluate(call, words):
    refused(call, words)


# Data that come in batches.


def batches(x, size=4):
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


def of_unknown_shape(x):
    """Batches that have passed a function of which TensorFlow knows nothing."""
    return batches(x).map(lambda b: tf.py_function(lambda v: v, [b], tf.float32))


class Batches(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.x


def generator(x):
    while True:
        yield x


def fit_batches(data, name="normal", **options):
    return lambda: fit(data() if callable(data) else data, name, **options)


IMAGE = {"image": good(), "label": np.zeros(8)}


@table(
    [
        (
            "wrong_width",
            fit_batches(lambda: batches(np.zeros((8, 5)))),
            (X, "'batch', 6", r"\(None, 5\)"),
        ),
        (
            "no_channel_axis",
            fit_batches(lambda: batches(np.zeros((8, 4, 4))), "image"),
            (X, r"4, 4, 1\)", r"\(None, 4, 4\)"),
        ),
        (
            "not_batched",
            fit_batches(lambda: tf.data.Dataset.from_tensor_slices(good())),
            (X, "'batch', 6", r"\(6,\)"),
        ),
        (
            "unknown_shape",
            fit_batches(lambda: of_unknown_shape(good())),
            (X, "'batch', 6", "unknown"),
        ),
        (
            "strings",
            fit_batches(lambda: batches(np.full((8, 6), "a"))),
            (X, "numbers", "string"),
        ),
        (
            "complex",
            fit_batches(lambda: batches(np.ones((8, 6), "complex64"))),
            (X, "numbers", "complex64"),
        ),
        ("dicts", fit_batches(lambda: batches(IMAGE)), (X, "tensor|array", "dict")),
        (
            "label_first",
            fit_batches(lambda: batches((np.zeros(8), good()))),
            (X, "'batch', 6", r"\(None,\)"),
        ),
        (
            "weight_column",
            fit_batches(lambda: batches((good(), np.zeros(8), np.ones((8, 1))))),
            (WEIGHT, "row|batch", r"\(None, 1\)"),
        ),
        (
            "validation_shape",
            fit_then(validation_data=batches(np.zeros((8, 5)))),
            (VALIDATION, "'batch', 6", r"\(None, 5\)"),
        ),
        (
            "evaluate_shape",
            lambda: model().evaluate(batches(np.zeros((8, 5))), verbose=0),
            (X, "'batch', 6", r"\(None, 5\)"),
        ),
        (
            "predict_shape",
            lambda: model().predict(batches(np.zeros((8, 5))), verbose=0),
            (X, "'batch', 6", r"\(None, 5\)"),
        ),
        (
            "y_beside",
            fit_batches(lambda: batches(good()), y=np.zeros(8)),
            ("`?y`?", "Dataset"),
        ),
        (
            "weight_beside",
            fit_batches(lambda: batches(good()), sample_weight=np.ones(8)),
            ("sample_weight", "Dataset"),
        ),
        (
            "pydataset_shape",
            fit_batches(lambda: Batches(np.zeros((4, 5), "float32"))),
            (X, "'batch', 6", r"\((4|None), 5\)"),
        ),
        (
            "pydataset_dict",
            fit_batches(lambda: Batches({"image": good(4)})),
            (X, "tensor|array", "dict"),
        ),
        (
            "generator_shape",
            fit_batches(lambda: generator(np.zeros((4, 5), "f4")), steps_per_epoch=2),
            (X, "'batch', 6", r"\((4|None), 5\)"),
        ),
        (
            "function",
            fit_batches(good),
            (X, "array", "function"),
        )[:0]
        or ("function", lambda: fit(good), (X, "array", "function")),
        ("object", lambda: fit(object()), (X, "array", "object")),
        # These methods take arrays only; the message must not offer what it refuses.
        (
            "encode_dataset",
            lambda: model().encode(batches(good())),
            (X, "(?s)^(?!.* a tf.data.Dataset)", "BatchDataset"),
        ),
        (
            "log_likelihood_dataset",
            lambda: model().log_likelihood(batches(good())),
            (X, "(?s)^(?!.* a tf.data.Dataset)", "BatchDataset"),
        ),
        ("call_shape", lambda: model()(np.zeros((2, 5))), (X, "'batch', 6", r"\(2, 5\)")),
    ]
)
def test_batches(call, words):
    refused(call, words)


@pytest.mark.parametrize("name", ["normal", "bernoulli"])
def test_batches_of_nan_stop_the_fit_and_change_no_weight(name):
    trained = MAKE[name]()
    trained.compile("adam", max_skipped=3)
    before = [w.numpy() for w in trained.trainable_variables]
    bad = batches(np.full((40, 6), np.nan, "float32"))
    with pytest.raises(RuntimeError) as caught:
        trained.fit(bad, epochs=5, verbose=0)
    for word in ("3 training steps", "NaN", "data", "learning rate", "scale"):
        assert word in str(caught.value)
    for weight, value in zip(trained.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert all(np.isfinite(v).all() for v in trained.optimizer.variables)
    assert int(trained.step) == int(trained.skipped_in_a_row) == 3


# Latents.


class Callable(keras.layers.Layer):
    """A layer made of a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def latents(**parts):
    return lambda: vae(**{"latent_dim": None, **parts})


def auto(latent_dim):
    return lambda: kv.Autoencoder(dense(), dense(), IndependentNormal((6,)), latent_dim)


def decode(z, name="normal"):
    return lambda: model(name).decode(z)


DIM = "`latent_dim`"
Z = "`z`"


@table(
    [
        ("none", latents(), (DIM, "`posterior` and `prior`", "none")),
        ("0", latents(latent_dim=0), (DIM, "positive int", "=0")),
        ("negative", latents(latent_dim=-2), (DIM, "positive int", "=-2")),
        ("float", latents(latent_dim=2.0), (DIM, "positive int", "=2.0")),
        ("bool", latents(latent_dim=True), (DIM, "positive int", "=True")),
        ("false", latents(latent_dim=False), (DIM, "positive int", "=False")),
        ("string", latents(latent_dim="2"), (DIM, "positive int", "='2'")),
        ("tuple", latents(latent_dim=(2,)), (DIM, "positive int", r"=\(2,\)")),
        ("autoencoder_0", auto(0), (DIM, "positive int", "=0")),
        ("autoencoder_float", auto(2.0), (DIM, "positive int", "=2.0")),
        ("autoencoder_none", auto(None), (DIM, "positive int", "=None")),
        (
            "posterior_disagrees",
            latents(latent_dim=2, posterior=IndependentNormal((3,))),
            (DIM, "posterior", r"\(2,\)", r"\(3,\)"),
        ),
        (
            "prior_disagrees",
            latents(latent_dim=2, prior=StandardNormal((3,))),
            (DIM, "prior", r"\(2,\)", r"\(3,\)"),
        ),
        (
            "prior_and_posterior_disagree",
            latents(posterior=IndependentNormal((2,)), prior=StandardNormal((3,))),
            ("posterior", "prior", r"\(2,\)", r"\(3,\)"),
        ),
        (
            "posterior_class",
            latents(posterior=IndependentNormal),
            ("`posterior`", "head", "Received: .*class.*IndependentNormal"),
        ),
        ("z_shape", decode(np.zeros((3, 5))), (Z, r"'batch', 2", r"\(3, 5\)")),
        ("z_no_batch_axis", decode(np.zeros(2)), (Z, r"'batch', 2", r"\(2,\)")),
        ("z_samples_axis", decode(np.zeros((7, 3, 2))), (Z, "'batch', 2", r"7, 3, 2")),
        ("z_scalar", decode(1.0), (Z, r"'batch', 2", r"\(\)")),
        ("z_none", decode(None), (Z, "array|numbers", "None")),
        ("z_string", decode("z"), (Z, "array|numbers", "str")),
        ("z_complex", decode(np.ones((3, 2), "complex64")), (Z, "numbers", "complex64")),
        ("z_ragged", decode([[1.0, 2.0], [3.0]]), (Z, "'batch', 2|array", "list|shape")),
        ("z_nan", decode(np.full((3, 2), np.nan)), (Z, "finite", "NaN")),
        (
            "z_distribution",
            lambda: model().decode(model().encode(good())),
            (Z, "array|numbers", "Independent"),
        ),
        (
            "z_autoencoder",
            decode(np.zeros((3, 5)), "autoencoder"),
            (Z, r"'batch', 2", r"\(3, 5\)"),
        ),
    ]
)
def test_latents(call, words):
    refused(call, words)


# Parts.


def functional(given, *outputs):
    """A model whose input has a fixed shape, with a dense layer for each output."""
    x = keras.Input(given)
    flat = keras.layers.Flatten()(x)
    y = [dense(units)(flat) for units in outputs]
    return keras.Model(x, y[0] if len(y) == 1 else y)


def two_inputs():
    x = [keras.Input((6,)), keras.Input((6,))]
    return keras.Model(x, keras.layers.Add()(x))


def make(**parts):
    return lambda: vae(**parts)


def same_head():
    head = IndependentNormal((6,))
    return vae(posterior=head, likelihood=head, latent_dim=None)


HEAD = "a head"
NETWORK = "layer or model"


@table(
    [
        # Of the wrong kind.
        ("encoder_none", make(encoder=None), ("`encoder`", NETWORK, "=None")),
        ("encoder_function", make(encoder=abs), ("`encoder`", NETWORK, "function abs")),
        ("encoder_string", make(encoder="mlp"), ("`encoder`", NETWORK, "='mlp'")),
        ("encoder_list", make(encoder=[dense()]), ("`encoder`", NETWORK, "Dense")),
        (
            "encoder_class",
            make(encoder=keras.layers.Dense),
            ("`encoder`", NETWORK, "class.*Dense"),
        ),
        (
            "encoder_head",
            make(encoder=IndependentNormal((2,))),
            ("`encoder`", NETWORK, "IndependentNormal"),
        ),
        ("encoder_vae", lambda: vae(encoder=model()), ("`encoder`", NETWORK, "VAE")),
        ("decoder_none", make(decoder=None), ("`decoder`", NETWORK, "=None")),
        (
            "decoder_function",
            make(decoder=kv.nets.MLP),
            ("`decoder`", NETWORK, "function MLP"),
        ),
        (
            "decoder_head",
            make(decoder=IndependentBernoulli((6,))),
            ("`decoder`", NETWORK, "IndependentBernoulli"),
        ),
        (
            "decoder_prior",
            make(decoder=StandardNormal((2,))),
            ("`decoder`", NETWORK, "StandardNormal"),
        ),
        ("likelihood_none", make(likelihood=None), ("`likelihood`", HEAD, "=None")),
        ("likelihood_layer", make(likelihood=dense(6)), ("`likelihood`", HEAD, "Dense")),
        ("likelihood_shape", make(likelihood=(6,)), ("`likelihood`", HEAD, r"=\(6,\)")),
        (
            "likelihood_class",
            make(likelihood=IndependentBernoulli),
            ("`likelihood`", HEAD, "class.*IndependentBernoulli"),
        ),
        (
            "likelihood_prior",
            make(likelihood=StandardNormal((6,))),
            ("`likelihood`", HEAD, "StandardNormal"),
        ),
        (
            "likelihood_distribution",
            make(likelihood=tfd.Normal(0.0, 1.0)),
            ("`likelihood`", HEAD, "tfp.distributions.Normal"),
        ),
        ("posterior_layer", make(posterior=dense()), ("`posterior`", HEAD, "Dense")),
        (
            "posterior_class_and_dim",
            make(posterior=IndependentNormal),
            ("`posterior`", HEAD, "class.*IndependentNormal"),
        ),
        (
            "posterior_prior",
            make(posterior=StandardNormal((2,))),
            ("`posterior`", HEAD, "StandardNormal"),
        ),
        (
            "prior_head",
            make(prior=IndependentNormal((2,))),
            ("`prior`", "a prior", "IndependentNormal"),
        ),
        ("prior_class", make(prior=StandardNormal), ("`prior`", "a prior", "class")),
        (
            "prior_distribution",
            make(prior=tfd.Normal(tf.zeros(2), 1.0)),
            ("`prior`", "a prior", "tfp.distributions.Normal"),
        ),
        ("same_head", same_head, ("`posterior`", "`likelihood`", "two heads", "Received")),
        ("unknown_argument", make(latent_size=2), ("latent_size",)),
        # That do not fit each other.
        (
            "encoder_input",
            make(encoder=functional((5,), 4)),
            ("`encoder`", r"\(None, 5\)", r"\(None, 6\)"),
        ),
        (
            "encoder_channels",
            make(
                encoder=functional((4, 4, 3), 4),
                likelihood=IndependentBernoulli((4, 4, 1)),
            ),
            ("`encoder`", r"4, 4, 3\)", r"4, 4, 1\)"),
        ),
        (
            "encoder_of_images",
            make(encoder=kv.nets.ConvEncoder([4])),
            ("`encoder`", r"\(None, 6\)", "ndim"),
        ),
        (
            "encoder_two_outputs",
            make(encoder=functional((6,), 4, 3)),
            ("`encoder`", "one tensor", r"\(None, 4\).*\(None, 3\)"),
        ),
        (
            "encoder_dict",
            make(encoder=Callable(lambda x: {"mean": x, "scale": x})),
            ("`encoder`", "one tensor", "mean.*scale"),
        ),
        (
            "encoder_none_output",
            make(encoder=Callable(lambda x: None)),
            ("`encoder`", "tensor", "None"),
        ),
        (
            "encoder_two_inputs",
            make(encoder=two_inputs()),
            ("`encoder`", "2 input", r"\(None, 6\)"),
        ),
        (
            "encoder_of_unknown_width",
            make(encoder=keras.Sequential([keras.Input((None,)), Callable(lambda x: x)])),
            ("`encoder`", "known shape", r"\(None, None\)"),
        )[:0]
        or (
            "encoder_gives_distribution",
            make(encoder=Callable(lambda x: tfd.Normal(x, 1.0))),
            ("`encoder`", "tensor", "Normal"),
        ),
        (
            "decoder_input",
            make(decoder=functional((3,), 4)),
            ("`decoder`", r"\(None, 3\)", r"\(None, 2\)"),
        ),
        (
            "decoder_two_outputs",
            make(decoder=functional((2,), 4, 3)),
            ("`decoder`", "one tensor", r"\(None, 4\).*\(None, 3\)"),
        ),
        # A trained head that now stands in another model.
        (
            "posterior_of_another_model",
            lambda: vae(posterior=model().posterior, encoder=dense(7)),
            ("`posterior`", r"\(None, 7\)|\b7\b", r"\b4\b"),
        ),
    ]
)
def test_parts(call, words):
    refused(call, words)


# Heads and priors.


def normal(**options):
    return lambda: IndependentNormal((6,), **options)


def bernoulli(**options):
    return lambda: IndependentBernoulli((6,), **options)


def shape_of(head, shape):
    return lambda: head(shape)


def projected(head, projection, **options):
    """The projection of a likelihood, as the model finds it when it is built."""
    return lambda: vae(likelihood=head((6,), projection=projection, **options))


EVENT = "`event_shape`"
SCALE = "`scale`"
KINDS = '"per_element", "shared" or a positive number'
FLOOR = "`min_scale`"
PROJECTION = "projection"


@table(
    [
        ("shape_int", shape_of(IndependentNormal, 6), (EVENT, "tuple", "=6")),
        ("shape_none", shape_of(IndependentNormal, None), (EVENT, "tuple", "=None")),
        ("shape_0", shape_of(IndependentBernoulli, (0,)), (EVENT, "positive", r"\(0,\)")),
        ("shape_float", shape_of(StandardNormal, (2.0,)), (EVENT, "ints", r"\(2\.0,\)")),
        (
            "shape_unknown",
            shape_of(IndependentBernoulli, (None, 28)),
            (EVENT, "positive ints", r"\(None, 28\)"),
        ),
        ("shape_string", shape_of(StandardNormal, "20"), (EVENT, "tuple", "='20'")),
        ("shape_bool", shape_of(StandardNormal, (True,)), (EVENT, "ints", r"\(True,\)")),
        (
            "shape_empty",
            lambda: vae(likelihood=IndependentNormal(())),
            (EVENT, r"\(\)"),
        ),
        (
            "shape_deterministic",
            shape_of(distributions.Deterministic, -1),
            (EVENT, "tuple", "=-1"),
        ),
        ("scale_string", normal(scale="foo"), (SCALE, KINDS, "='foo'")),
        ("scale_0", normal(scale=0), (SCALE, KINDS, "=0")),
        ("scale_negative", normal(scale=-1.0), (SCALE, KINDS, "=-1.0")),
        ("scale_nan", normal(scale=float("nan")), (SCALE, KINDS, "=nan")),
        ("scale_inf", normal(scale=np.inf), (SCALE, KINDS, "=inf")),
        ("scale_true", normal(scale=True), (SCALE, KINDS, "=True")),
        ("scale_false", normal(scale=False), (SCALE, KINDS, "=False")),
        ("scale_empty", normal(scale=""), (SCALE, KINDS, "=''")),
        ("scale_list", normal(scale=[0.1, 0.2]), (SCALE, KINDS, r"\[0\.1, 0\.2\]")),
        ("scale_array", normal(scale=np.ones(6)), (SCALE, KINDS, r"array\(")),
        ("min_scale_0", normal(min_scale=0.0), (FLOOR, "between 0 and 1", "=0.0")),
        ("min_scale_1", normal(min_scale=1.0), (FLOOR, "between 0 and 1", "=1.0")),
        ("min_scale_negative", normal(min_scale=-1e-3), (FLOOR, "between", "=-0.001")),
        ("min_scale_nan", normal(min_scale=np.nan), (FLOOR, "between 0 and 1", "=nan")),
        ("min_scale_none", normal(min_scale=None), (FLOOR, "float", "=None")),
        ("min_scale_true", normal(min_scale=True), (FLOOR, "float", "=True")),
        ("grey_string", bernoulli(grey="gray"), ("`grey`", '"binarize"', "='gray'")),
        ("grey_none", bernoulli(grey=None), ("`grey`", '"soft"', "=None")),
        ("grey_bool", bernoulli(grey=True), ("`grey`", '"error"', "=True")),
        ("grey_list", bernoulli(grey=["soft"]), ("`grey`", '"error"', r"=\['soft'\]")),
        ("dtype_half", normal(dtype="float16"), ("dtype", "float32", "float16")),
        ("dtype_bfloat16", bernoulli(dtype="bfloat16"), ("dtype", "float32", "bfloat16")),
        (
            "dtype_policy",
            normal(dtype=keras.DTypePolicy("mixed_bfloat16")),
            ("dtype", "float32", "mixed_bfloat16"),
        ),
        (
            "dtype_prior",
            lambda: StandardNormal((2,), dtype="float16"),
            ("dtype", "float32", "float16"),
        ),
        ("dtype_int", normal(dtype="int32"), ("dtype", "float32", "int32")),
        ("dtype_rubbish", normal(dtype="single"), ("(?i)dtype", "single")),
        ("bias_string", bernoulli(bias_initializer="zero_"), ("initializer", "zero_")),
        (
            "bias_shape",
            lambda: vae(
                likelihood=IndependentBernoulli(
                    (6,), bias_initializer=lambda shape, dtype: tf.zeros(5, dtype)
                )
            ),
            ("bias|initializer", r"\(6,\)", r"\(5,\)"),
        ),
        ("unknown_argument", normal(sigma=1.0), ("sigma",)),
        (
            "projection_string",
            bernoulli(projection="dense"),
            (PROJECTION, "layer", "='dense'"),
        ),
        (
            "projection_class",
            bernoulli(projection=keras.layers.Dense),
            (PROJECTION, "layer", "class.*Dense"),
        ),
        (
            "projection_list",
            bernoulli(projection=[dense(6)]),
            (PROJECTION, "layer", "Dense"),
        ),
        (
            "projection_units",
            projected(IndependentBernoulli, dense(5)),
            (PROJECTION, r"\(6,\)", r"\(5,\)"),
        ),
        (
            "projection_keys",
            projected(IndependentBernoulli, {"loc": dense(6)}),
            (PROJECTION, "'logits'", "'loc'"),
        ),
        (
            "projection_missing",
            projected(IndependentNormal, {"loc": dense(6)}, scale="per_element"),
            (PROJECTION, "'loc', 'scale'", "'loc'"),
        ),
        (
            "projection_not_by_name",
            projected(IndependentNormal, dense(6), scale="per_element"),
            (PROJECTION, "'loc', 'scale'", "Dense"),
        ),
        (
            "projection_one_too_many",
            projected(
                IndependentNormal, {"loc": dense(6), "scale": dense(6)}, scale="shared"
            ),
            (PROJECTION, r"\['loc'\]", "'scale'"),
        ),
        (
            "projection_none",
            projected(IndependentBernoulli, {"logits": None}),
            (PROJECTION, "layer", "None"),
        ),
        (
            "projection_empty",
            projected(IndependentBernoulli, {}),
            (PROJECTION, "layer", "{}"),
        ),
    ]
)
def test_heads(call, words):
    refused(call, words)


# Objectives and schedules.


def elbo(**options):
    return lambda: objectives.ELBO(**options)


def schedule(name, *args, **options):
    return lambda: getattr(schedules, name)(*args, **options)


STEPS = "`steps`"


@table(
    [
        ("beta_negative", elbo(beta=-1.0), ("`beta`", "0 or more", "=-1.0")),
        ("beta_nan", elbo(beta=float("nan")), ("`beta`", "finite", "=nan")),
        ("beta_inf", elbo(beta=np.inf), ("`beta`", "finite", "=inf")),
        ("beta_string", elbo(beta="1.0"), ("`beta`", "number", "='1.0'")),
        ("beta_none", elbo(beta=None), ("`beta`", "number", "=None")),
        ("beta_bool", elbo(beta=True), ("`beta`", "number", "=True")),
        ("beta_list", elbo(beta=[0.0, 1.0]), ("`beta`", "number", r"\[0.0, 1.0\]")),
        ("beta_array", elbo(beta=np.ones(2)), ("`beta`", "number", r"array\(")),
        ("beta_function", elbo(beta=abs), ("`beta`", "number.*schedule", "abs")),
        (
            "beta_class",
            elbo(beta=schedules.Linear),
            ("`beta`", "number.*schedule", "class.*Linear"),
        ),
        ("free_bits", elbo(free_bits=-0.1), ("`free_bits`", "0 or more", "=-0.1")),
        (
            "free_bits_schedule",
            elbo(free_bits=schedules.Constant(0.1)),
            ("`free_bits`", "number", "Constant"),
        ),
        ("capacity", elbo(capacity=-1.0), ("`capacity`", "0 or more", "=-1.0")),
        (
            "free_bits_and_capacity",
            elbo(free_bits=0.1, capacity=2.0),
            ("`free_bits`", "`capacity`", "one", "0.1", "2.0"),
        ),
        ("samples_0", elbo(num_samples=0), ("`num_samples`", "positive int", "=0")),
        ("samples_float", elbo(num_samples=2.0), ("`num_samples`", "int", "=2.0")),
        ("samples_iwae", lambda: objectives.IWAE(0), ("`num_samples`", "int", "=0")),
        (
            "samples_reconstruction",
            lambda: objectives.Reconstruction(-1),
            ("`num_samples`", "int", "=-1"),
        ),
        ("steps_0", schedule("Linear", 0.0, 1.0, steps=0), (STEPS, "positive", "=0")),
        ("steps_float", schedule("Linear", 0.0, 1.0, 1e3), (STEPS, "int", "=1000.0")),
        ("steps_negative", schedule("Cosine", 0.0, 1.0, -5), (STEPS, "positive", "=-5")),
        ("start", schedule("Linear", -1.0, 1.0, 5), ("`start`", "0 or more", "=-1.0")),
        ("end", schedule("Cosine", 0.0, "1", 5), ("`end`", "number", "='1'")),
        ("end_nan", schedule("Linear", 0.0, np.nan, 5), ("`end`", "finite", "=nan")),
        ("constant", schedule("Constant", -1), ("`value`", "0 or more", "=-1")),
        ("period", schedule("Cyclical", 0.0, 1.0, 0), ("`period`", "positive", "=0")),
        (
            "ramp_0",
            schedule("Cyclical", 0.0, 1.0, 5, ramp=0),
            ("`ramp`", r"\(0, 1\]", "=0"),
        ),
        (
            "ramp_2",
            schedule("Cyclical", 0.0, 1.0, 5, ramp=2.0),
            ("`ramp`", r"\(0, 1\]", "=2.0"),
        ),
        (
            "ramp_negative",
            schedule("Cyclical", 0.0, 1.0, 5, ramp=-0.5),
            ("`ramp`", r"\(0, 1\]", "=-0.5"),
        ),
        (
            "ramp_string",
            schedule("Cyclical", 0.0, 1.0, 5, ramp="half"),
            ("`ramp`", "number", "='half'"),
        ),
    ]
)
def test_objectives_and_schedules(call, words):
    refused(call, words)


# compile, and what it is needed for.


def compiled(name="normal", **options):
    return lambda: model(name).compile(**options)


def fit_objective(objective, name="normal"):
    """An objective of which only a call can tell that it is wrong: at the first trace."""

    def call():
        made = MAKE[name]()
        before = None
        try:
            made.compile("adam", objective)
            before = state(made)
            made.fit(good(), verbose=0)
        finally:
            if before is not None:
                assert all(map(np.array_equal, state(made), before)), "trained on it"

    return call


@keras.saving.register_keras_serializable("tests")
class Mixture(distributions.Prior):
    """A prior whose KL has no closed form."""

    noise = "normal"

    def distribution(self, condition=None):
        parts = tfd.Normal(tf.zeros((*self.event_shape, 2)), [1.0, 2.0])
        mixture = tfd.MixtureSameFamily(tfd.Categorical([0.0, 0.0]), parts)
        return tfd.Independent(mixture, len(self.event_shape))


MAKE["mixture"] = lambda: vae(prior=Mixture((2,)))


def not_compiled(method):
    return lambda: METHODS[method](vae(), good())


def optimizer_of_another_model():
    used = keras.optimizers.Adam()
    vae().compile(used)
    vae(encoder=dense(7)).compile(used)


OBJECTIVE = "`objective`"
SIGNATURE = r"\(terms, step\)"


@table(
    [
        ("loss", compiled(loss="mse"), ("`loss`", "`objective`", "'mse'")),
        ("metrics", compiled(metrics=["mae"]), ("`metrics`", "`objective`", "'mae'")),
        ("loss_weights", compiled(loss_weights=[1.0]), ("`loss_weights`", r"\[1.0\]")),
        (
            "weighted_metrics",
            compiled(weighted_metrics=["mae"]),
            ("`weighted_metrics`", "'mae'"),
        ),
        ("objective_string", compiled(objective="elbo"), (OBJECTIVE, "='elbo'")),
        ("objective_second", lambda: model().compile("adam", "mse"), (OBJECTIVE, "'mse'")),
        ("objective_number", compiled(objective=4.0), (OBJECTIVE, "function", "=4.0")),
        (
            "objective_class",
            compiled(objective=objectives.ELBO),
            (OBJECTIVE, "instance", "class.*ELBO"),
        ),
        (
            "objective_loss",
            compiled(objective=keras.losses.MeanSquaredError()),
            (OBJECTIVE, SIGNATURE, "MeanSquaredError"),
        ),
        (
            "objective_of_one_argument",
            compiled(objective=lambda terms: -terms.elbo),
            (OBJECTIVE, SIGNATURE, "lambda"),
        ),
        (
            "objective_scalar",
            fit_objective(lambda terms, step: tf.reduce_mean(-terms.elbo)),
            ("objective", r"\[batch\]", r"\(\)"),
        ),
        (
            "objective_of_samples",
            fit_objective(lambda terms, step: -terms.log_weight),
            ("objective", r"\[batch\]", r"\(1, None\)"),
        ),
        (
            "objective_per_pixel",
            fit_objective(lambda terms, step: (terms.x - terms.likelihood.mean()) ** 2),
            ("objective", r"\[batch\]", r"\(None, 6\)"),
        ),
        (
            "objective_none",
            fit_objective(lambda terms, step: None),
            ("objective", r"\[batch\]", "None"),
        ),
        (
            "free_bits_without_closed_form",
            fit_objective(objectives.ELBO(free_bits=0.1), "mixture"),
            ("`free_bits`", "closed form", "Normal", "Mixture"),
        ),
        (
            "autoencoder_elbo",
            lambda: model("autoencoder").compile("adam", objectives.IWAE(2)),
            (OBJECTIVE, "Reconstruction", "IWAE"),
        ),
        ("max_skipped_0", compiled(max_skipped=0), ("`max_skipped`", "int", "=0")),
        ("max_skipped_float", compiled(max_skipped=1.5), ("`max_skipped`", "=1.5")),
        ("optimizer", compiled(optimizer="adamm"), ("(?i)optimizer", "adamm")),
        ("optimizer_none", compiled(optimizer=None), ("(?i)optimizer", "None")),
        (
            "optimizer_class",
            compiled(optimizer=keras.optimizers.Adam),
            ("(?i)optimizer", "Adam"),
        ),
        ("optimizer_used", optimizer_of_another_model, ("(?i)optimizer", "model")),
        (
            # The rest of the arguments must not have been taken over.
            "optimizer_after_objective",
            compiled(optimizer="adamm", objective=objectives.IWAE(2), max_skipped=7),
            ("(?i)optimizer", "adamm"),
        ),
        (
            "steps_per_execution",
            compiled(steps_per_execution=0),
            ("`?steps_per_execution`?", "0"),
        ),
        ("fit_before", not_compiled("fit"), (r"compile\(\)", "fit")),
        ("evaluate_before", not_compiled("evaluate"), (r"compile\(\)", "evaluate")),
    ]
)
def test_compile(call, words):
    refused(call, words)


def test_unknown_arguments_of_compile():
    # Python's own error for a wrong keyword.
    words = ("optimiser|learning_rate",)
    refused(compiled(optimiser="adam"), words, TypeError)
    refused(compiled(learning_rate=1e-3), words, TypeError)


# Seeds and sampling.


def sample(*args, name="normal", **options):
    return lambda: model(name).sample(*args, **options)


SEED = "`seed`"
SEEDS = "`seeds`"
ROWS = r"\[rows\]"


@table(
    [
        ("too_large", make(seed=2**31), (SEED, "32 bits", f"={2**31}")),
        ("too_small", make(seed=-(2**31) - 1), (SEED, "32 bits", f"=-{2**31 + 1}")),
        ("float", make(seed=1.0), (SEED, "int", "=1.0")),
        ("string", make(seed="1"), (SEED, "int", "='1'")),
        ("bool", make(seed=True), (SEED, "int", "=True")),
        (
            "autoencoder",
            lambda: kv.Autoencoder(dense(), dense(), IndependentNormal((6,)), 2, 1.5),
            (SEED, "int", "=1.5"),
        ),
        ("sample_too_large", sample(2, seed=2**40), (SEED, "32 bits", f"={2**40}")),
        ("sample_float", sample(2, seed=1.0), (SEED, "int", "=1.0")),
        ("sample_list", sample(2, seed=[1, 2]), (SEED, "int", r"=\[1, 2\]")),
        ("neither", sample(), ("`n`", SEEDS, "None")),
        ("seed_alone", sample(seed=1), ("`n`", SEEDS, "seed=1")),
        ("both", sample(2, seeds=[1, 2]), ("`n`", SEEDS, "n=2", r"\[1, 2\]")),
        ("seed_and_seeds", sample(seed=1, seeds=[1, 2]), ("`n`", SEEDS, "seed=1")),
        ("n_0", sample(0), ("`n`", "positive int", "=0")),
        ("n_negative", sample(-3), ("`n`", "positive int", "=-3")),
        ("n_float", sample(2.0), ("`n`", "positive int", "=2.0")),
        ("n_bool", sample(True), ("`n`", "positive int", "=True")),
        ("n_list", sample([1, 2]), ("`n`", "positive int", r"=\[1, 2\]")),
        ("seeds_float", sample(seeds=[1.0, 2.0]), (SEEDS, ROWS, "float64", r"\(2,\)")),
        ("seeds_2d", sample(seeds=[[1, 2]]), (SEEDS, ROWS, r"\(1, 2\)")),
        ("seeds_scalar", sample(seeds=3), (SEEDS, ROWS, r"\(\)")),
        ("seeds_empty", sample(seeds=[]), (SEEDS, ROWS, r"\(0,\)")),
        ("seeds_empty_array", sample(seeds=np.zeros(0, int)), (SEEDS, ROWS, r"\(0,\)")),
        ("seeds_string", sample(seeds="12"), (SEEDS, "ints", "<U2")),
        ("seeds_bool", sample(seeds=[True]), (SEEDS, "ints", "bool")),
        (
            "seeds_ragged",
            sample(seeds=[[1], [2, 3]]),
            (SEEDS, ROWS, r"\[\[1\], \[2, 3\]\]"),
        ),
        # Unsigned hashes, say: as int64 they would wrap around in silence.
        ("seeds_64_bits", sample(seeds=[2**63]), (SEEDS, "int64|64 bits", "uint64|9223")),
        ("seeds_70_bits", sample(seeds=[2**70]), (SEEDS, "int", "object|11805")),
        (
            "signature_float",
            lambda: kv.signatures.sample(model(), tf.constant([1.5])),
            (SEED, "int", "float32"),
        ),
        (
            "signature_list",
            lambda: kv.signatures.sample(model(), [1, 2]),
            (SEED, "tensor", "list"),
        ),
    ]
)
def test_seeds(call, words):
    refused(call, words)


def test_an_autoencoder_has_nothing_to_sample_and_no_likelihood():
    advice = ("decode|reconstruction", "VAE")
    refused(sample(3, name="autoencoder"), advice, NotImplementedError)
    refused(sample(name="autoencoder"), advice, NotImplementedError)
    call = model("autoencoder").log_likelihood
    refused(lambda: call(good()), advice, NotImplementedError)
    # The same by the other door.
    call = evaluation.importance_weighted
    refused(lambda: call(model("autoencoder"), good(), 2), advice, NotImplementedError)


# Networks and evaluation.


def net(name, *args, **options):
    return lambda: getattr(kv.nets, name)(*args, **options)


def weighted(**options):
    return lambda: evaluation.importance_weighted(model(), good(), **options)


def probe(x_test=None, y_train=None, y_test=None):
    labels = np.arange(8) % 2
    return lambda: evaluation.linear_probe(
        model(),
        good(),
        labels if y_train is None else y_train,
        good() if x_test is None else x_test,
        labels if y_test is None else y_test,
    )


FILTERS = "`filters`"
UNITS = "`units`"
SHAPE = "`image_shape`"


@table(
    [
        ("units_int", net("MLP", 400), (UNITS, "ints", "=400")),
        ("units_0", net("MLP", [0]), (UNITS, "positive", r"=\[0\]")),
        ("units_float", net("MLP", [4.0]), (UNITS, "ints", r"=\[4\.0\]")),
        ("units_none", net("MLP", None), (UNITS, "ints", "=None")),
        ("units_string", net("MLP", "400"), (UNITS, "ints", "='400'")),
        ("activation", net("MLP", [4], "rellu"), ("activation", "rellu")),
        ("filters_int", net("ConvEncoder", 32), (FILTERS, "ints", "=32")),
        ("filters_negative", net("ConvEncoder", [-1]), (FILTERS, "positive", r"\[-1\]")),
        ("filters_empty", net("ConvEncoder", []), (FILTERS, "ints", r"=\[\]")),
        ("kernel_0", net("ConvEncoder", [4], 0), ("kernel_size", r"\b0\b")),
        (
            "decoder_filters",
            net("ConvDecoder", [0], (4, 4, 1)),
            (FILTERS, "positive", r"=\[0\]"),
        ),
        (
            "decoder_filters_empty",
            net("ConvDecoder", [], (4, 4, 1)),
            (FILTERS, "ints", r"=\[\]"),
        ),
        (
            "decoder_kernel",
            net("ConvDecoder", [4], (4, 4, 1), kernel_size=0),
            ("kernel_size", r"\b0\b"),
        ),
        (
            "image_shape_rank_2",
            net("ConvDecoder", [4], (28, 28)),
            (SHAPE, "channels", r"\(28, 28\)"),
        ),
        ("image_shape_int", net("ConvDecoder", [4], 28), (SHAPE, "tuple", "=28")),
        (
            "image_shape_0",
            net("ConvDecoder", [4], (28, 0, 1)),
            (SHAPE, "positive", r"\(28, 0, 1\)"),
        ),
        (
            "num_samples_0",
            lambda: model().log_likelihood(good(), num_samples=0),
            ("`num_samples`", "positive int", "=0"),
        ),
        (
            "num_samples_float",
            lambda: model().log_likelihood(good(), num_samples=1e3),
            ("`num_samples`", "positive int", "=1000.0"),
        ),
        ("weighted_batch", weighted(batch_size=0), ("`batch_size`", "int", "=0")),
        (
            "bits_shape",
            lambda: evaluation.bits_per_dimension(1.0, 784),
            (EVENT, "tuple", "=784"),
        ),
        (
            "active_threshold",
            lambda: evaluation.active_units(model(), good(), threshold="0.01"),
            ("`threshold`", "number", "='0.01'"),
        ),
        (
            "active_batch",
            lambda: evaluation.active_units(model(), good(), batch_size=0),
            ("`batch_size`", "positive int", "=0"),
        ),
        (
            "active_data",
            lambda: evaluation.active_units(model(), np.zeros((8, 5))),
            (X, "'batch', 6", r"\(8, 5\)"),
        ),
        (
            "kl_of_autoencoder",
            lambda: evaluation.kl_per_unit(model("autoencoder"), good()),
            ("KL", "closed form", "Deterministic", "StandardNormal"),
        ),
        ("probe_y", probe(y_train=np.zeros(5)), ("`y_train`", "8", r"\(5,\)")),
        ("probe_y_test", probe(y_test=np.zeros(5)), ("`y_test`", "8", r"\(5,\)")),
        (
            "probe_x_test",
            probe(x_test=with_value(np.nan)),
            ("`x_test`", "finite", "NaN"),
        ),
    ]
)
def test_networks_and_evaluation(call, words):
    refused(call, words)


# Files.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "vae.keras"
    model().save(path)
    return path


def truncated(data):
    return data[: len(data) // 2]


def damaged_weights(data):
    # In the middle, where the arrays are: the directory of the zip is at its end.
    at = data.index(b"model.weights.h5") + 2000
    return data[:at] + bytes(64) + b"\xff" * 64 + data[at + 128 :]


DAMAGES = {
    "truncated": truncated,
    "damaged_weights": damaged_weights,
    "empty": lambda data: b"",
    "text": lambda data: b"404: Not Found",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_keras_files(damage, saved, tmp_path):
    path = tmp_path / "damaged.keras"
    path.write_bytes(DAMAGES[damage](saved.read_bytes()))
    # The loader is Keras': any of these says that it is the file.
    with pytest.raises((ValueError, OSError, zipfile.BadZipFile)) as caught:
        keras.saving.load_model(path)
    assert re.search(r"damaged\.keras|model\.weights\.h5", str(caught.value))
    assert len(str(caught.value)) < READABLE


def test_missing_keras_file(tmp_path):
    path = tmp_path / "missing.keras"
    refused(lambda: keras.saving.load_model(path), ("(?i)not found", "missing.keras"))


def test_weights_of_another_architecture(tmp_path):
    path = tmp_path / "other.weights.h5"
    other = vae(encoder=keras.Sequential([dense(7), dense(5)]), seed=1)
    other.step.assign(17)
    other.save_weights(path)
    # All or nothing: a model with half of the weights of another is worth nothing.
    words = ("objects? could not be loaded|shape|layer",)
    refused(lambda: model().load_weights(path), words)


def test_weights_of_another_width(tmp_path):
    path = tmp_path / "other.weights.h5"
    vae(encoder=dense(7), seed=1).save_weights(path)
    refused(lambda: model().load_weights(path), ("shape", r"\(6, 4\)", r"\(6, 7\)"))


class Unsaveable(keras.layers.Dense):
    """A layer that does not say how it is put together again."""

    def get_config(self):
        raise NotImplementedError("Unsaveable has no get_config")


def test_a_failed_save_leaves_the_former_file(saved, tmp_path):
    path = tmp_path / "vae.keras"
    path.write_bytes(saved.read_bytes())
    words = ("Unsaveable",)
    refused(lambda: vae(encoder=Unsaveable(4)).save(path), words, NotImplementedError)
    assert path.read_bytes() == saved.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["vae.keras"]  # no rest of the other


def test_save_under_a_wrong_name(tmp_path):
    path = tmp_path / "vae.model"
    refused(lambda: model().save(path), (r"\.keras", "vae.model"))
    assert not path.exists()


# The backend.


def test_another_keras_backend_is_refused():
    python = [sys.executable, "-c", "import keras_vae"]
    done = subprocess.run(
        python,
        env={**os.environ, "KERAS_BACKEND": "numpy"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    for word in ("TensorFlow backend", "'numpy'", 'KERAS_BACKEND="tensorflow"'):
        assert word in last
