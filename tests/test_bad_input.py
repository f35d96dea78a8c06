"""Bad input in Python: errors are raised early, name the argument and change nothing.

A check is tested here, or in `test_checks.py`, with all kinds of bad values. An argument
that uses the check is tested with one bad value. After each test the models must be
unchanged: weights, step, count of epochs, and the arguments of `compile`.
"""

import importlib
import zipfile
from functools import partial

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
import tensorflow_probability as tfp

import keras_vae as kv
from keras_vae import evaluation, nets, objectives, schedules
from keras_vae.distributions import (
    Deterministic,
    IndependentBernoulli,
    IndependentNormal,
    Prior,
    StandardNormal,
)
from tests.refusals import (
    MAX_MESSAGE_LENGTH,
    assert_each_refused,
    assert_refused,
    assert_refused_without_writing,
    rows,
    vary_option,
)

tfd = tfp.distributions


# Models: one of each kind, shared by the tests.


def dense(units=4):
    return keras.layers.Dense(units)


def vae(**parts):
    """Make a tiny VAE for rows of 6 numbers; any part can be replaced by a wrong one."""
    default = {
        "encoder": dense(),
        "decoder": dense(),
        "likelihood": IndependentNormal((6,)),
        "latent_dim": 2,
        "seed": 0,
    }
    return kv.VAE(**{**default, **parts})


def autoencoder(latent_dim=2, seed=0):
    return kv.Autoencoder(dense(), dense(), IndependentNormal((6,)), latent_dim, seed)


@keras.saving.register_keras_serializable("tests")
class Mixture(Prior):
    """A prior whose KL has no closed form."""

    def distribution(self, condition=None):
        parts = tfd.Normal(tf.zeros((*self.event_shape, 2)), [1.0, 2.0])
        mixture = tfd.MixtureSameFamily(tfd.Categorical([0.0, 0.0]), parts)
        return tfd.Independent(mixture, len(self.event_shape))


GREY_IMAGE = {"encoder": nets.MLP([4]), "likelihood": IndependentBernoulli((4, 4, 1))}
BUILDERS = {
    "normal": vae,
    "bernoulli": lambda: vae(likelihood=IndependentBernoulli((6,))),
    "binary": lambda: vae(likelihood=IndependentBernoulli((6,), grey="error")),
    "image": lambda: vae(**GREY_IMAGE),
    "mixture": lambda: vae(prior=Mixture((2,))),
    "autoencoder": autoencoder,
}
_models = {}  # name -> (model, its state at the start)


def model(name="normal"):
    if name not in _models:
        new = BUILDERS[name]()
        new.compile("adam", max_skipped=3)
        _models[name] = new, state(new)
    return _models[name][0]


def state(model):
    variables = (*model.weights, *getattr(model.optimizer, "variables", ()))
    parts = (model.objective, model.max_skipped, model.optimizer)
    return [*map(id, parts), *(np.array(v) for v in variables)]


@pytest.fixture(autouse=True)
def assert_models_unchanged():
    yield
    changed = []
    for name, (model, before) in list(_models.items()):
        after = state(model)
        if len(after) != len(before) or not all(map(np.array_equal, after, before)):
            changed.append(name)
            del _models[name]
    assert not changed


# Data in memory.


def good_rows(count=8):
    return np.linspace(0, 1, count * 6, dtype="float32").reshape(count, 6)


def with_value(value, dtype="float32"):
    """Make rows of zeros with one other value, which is not in the first row."""
    x = np.zeros((8, 6), dtype)
    x[6, 3] = value
    return x


NAN = with_value(np.nan)
NARROW = np.zeros((8, 5), "float32")


def check_data(name="normal"):
    return lambda x: model(name).check_data(x)


def test_values_must_have_a_density():
    shown = {str(v): with_value(v) for v in (16, -0.5, np.nan, np.inf)}
    shown["255"] = with_value(255, "int64")
    assert_each_refused(check_data("bernoulli"), shown, "`x`")
    assert_each_refused(check_data("binary"), {"nan": NAN, "16": with_value(16)}, "`x`")
    # One value that is not finite, or that float32, the dtype of networks, cannot hold.
    bad = [NAN, with_value(-np.inf), with_value(np.nan, "float16")]
    bad += [with_value(1e300, "float64")]
    assert_each_refused(check_data(), bad, "`x`", received="1")
    assert_each_refused(check_data("autoencoder"), [NAN], "`x`", received="1")


def test_grey_values_are_refused_by_likelihoods_without_them():
    grey = [with_value(0.5), with_value(17, "uint8")]
    assert_each_refused(check_data("binary"), grey, "`x`", "grey", received="1")
    for name in ("normal", "bernoulli"):  # 0 and 1 would be divided by 255
        assert_each_refused(
            check_data(name), [with_value(1, "uint8")], "`x`", "uint8", received="1"
        )


def test_data_must_have_the_shape_of_the_likelihood():
    shown = {
        str(x.shape): x for x in (np.zeros((0, 6)), NARROW, np.zeros(6), good_rows()[0, 0])
    }
    assert_each_refused(check_data(), shown, "`x`")
    shapes = [(8, 4, 4), (4, 4, 1), (8, 4, 4, 3)]
    assert_each_refused(check_data("image"), {str(s): np.zeros(s) for s in shapes}, "`x`")


@rows(
    channels=((8, 4, 4), lambda x: x[..., None], "x[..., None]"),
    channels_first=(
        (8, 1, 4, 4),
        lambda x: np.moveaxis(x, 1, -1),
        "np.moveaxis(x, 1, -1)",
    ),
    flat=((8, 16), lambda x: x.reshape(-1, 4, 4, 1), "x.reshape(-1, 4, 4, 1)"),
    one=((4, 4, 1), lambda x: x[None], "x[None]"),
)
def test_the_message_shows_the_code_that_mends_the_shape(row):
    shape, mend, code = row
    x = np.zeros(shape)
    assert_refused(lambda: check_data("image")(x), "`x`", code, received=str(shape))
    check_data("image")(mend(x))


def test_data_must_be_an_array_of_numbers():
    shown = {
        "<U1": np.full((8, 6), "a"),
        "object": np.full((8, 6), None),
        "Object": tf.fill((8, 6), "a"),
        "complex64": np.ones((8, 6), "complex64"),
        "datetime64": np.zeros((8, 6), "M8[s]"),
        "SparseTensor": tf.sparse.from_dense(good_rows()),
        "RaggedTensor": tf.ragged.constant([[1.0], []]),
        "list": [good_rows(), good_rows()],
        "tuple": (good_rows(), np.zeros(8)),
        "dict": {"image": good_rows()},
        "None": None,
        "int": 3,
        "str": "x.npy",
    }
    assert_each_refused(check_data(), shown, "`x`")


def probe(**changes):
    labels = np.arange(8) % 2
    data = {
        "x_train": good_rows(),
        "y_train": labels,
        "x_test": good_rows(),
        "y_test": labels,
    }
    return evaluation.linear_probe(model(), **{**data, **changes})


METHODS = {
    "fit": lambda m, x: m.fit(x, verbose=0),
    "evaluate": lambda m, x: m.evaluate(x, verbose=0),
    "predict": lambda m, x: m.predict(x, verbose=0),
    "encode": lambda m, x: m.encode(x),
    "reconstruct": lambda m, x: m.reconstruct(x),
    "log_likelihood": lambda m, x: m.log_likelihood(x, 2),
    "importance_weighted": lambda m, x: evaluation.importance_weighted(m, x, 2),
    "active_units": lambda m, x: evaluation.active_units(m, x),
    "kl_per_unit": lambda m, x: evaluation.kl_per_unit(m, x),
    "reconstruction_error": lambda m, x: evaluation.reconstruction_error(m, x),
}


def test_methods_check_their_data():
    methods = METHODS.values()
    assert_each_refused(lambda method: method(model(), NAN), methods, "`x`", received="1")
    bad = with_value(7)
    assert_each_refused(lambda m: m(model("bernoulli"), bad), methods, "`x`", received="7")


def test_data_arguments_with_other_names_are_checked():
    assert_refused(lambda: probe(x_train=NAN), "`x_train`", received="1")
    assert_refused(lambda: probe(x_test=NAN), "`x_test`", received="1")
    assert_refused(lambda: probe(y_train=np.zeros(5)), "`y_train`", "8", received="(5,)")
    assert_refused(lambda: probe(y_test=np.zeros(5)), "`y_test`", "8", received="(5,)")
    assert_refused(lambda: model()(NARROW), "`x`", "6", received="(8, 5)")
    assert_refused(lambda: model("autoencoder").encode(NAN), "`x`", received="1")


def fit(x=None, name="normal", **options):
    """Fit with bad options, or on bad data. Default: good data."""
    return model(name).fit(good_rows() if x is None else x, **{"verbose": 0, **options})


def evaluate(x=None, **options):
    return model().evaluate(good_rows() if x is None else x, verbose=0, **options)


def predict(x=None, **options):
    return model().predict(good_rows() if x is None else x, verbose=0, **options)


def test_validation_data_are_checked_before_the_first_epoch():
    shown = {
        "1": NAN,
        "(8, 5)": NARROW,
        "(0, 6)": np.zeros((0, 6)),
        "dict": {"image": good_rows()},
        "(5,)": (good_rows(), np.zeros(5)),
        "(7,)": (good_rows(), np.zeros(8), np.ones(7)),
        "4": (good_rows(),) * 4,
    }
    assert_each_refused(lambda data: fit(validation_data=data), shown, "validation_data")


def test_both_parts_of_a_split_are_checked():
    for x in (NAN, NAN[::-1]):
        assert_refused(lambda x=x: fit(x, validation_split=0.5), "`x`", received="1")


def test_a_split_must_leave_rows_on_both_sides():
    bad = [1.0, 20, -0.1, np.nan, "0.1", 0.99]
    assert_each_refused(lambda part: fit(validation_split=part), bad, "`validation_split`")
    assert_refused(
        lambda: fit(good_rows(1), validation_split=0.5),
        "`validation_split`",
        received="0.5",
    )


@pytest.mark.parametrize("method", [fit, evaluate])
def test_labels_and_weights_must_have_a_value_for_each_row(method):
    labels = {"(5,)": np.zeros(5), "()": 3, "list": [0] * 8}
    assert_each_refused(lambda y: method(y=y), labels, "`y`")
    # A column would broadcast to a loss for every pair of rows.
    weights = {"(5,)": np.ones(5), "()": 2.0, "(8, 1)": np.ones((8, 1))}
    weights |= {"<U1": np.full(8, "a"), "8 ": np.full(8, np.nan)}
    assert_each_refused(lambda w: method(sample_weight=w), weights, "`sample_weight`")
    call = vary_option(method, "sample_weight", y=np.zeros(8))
    assert_each_refused(call, weights, "`sample_weight`")


def test_class_weights_need_labels():
    assert_refused(lambda: fit(class_weight={0: 2.0}), "`class_weight`", received="None")


def test_weights_without_labels_are_not_dropped():
    # Keras packs (x, None, weight) as x alone.
    losses = [
        evaluate(return_dict=True, **weights)["loss"]
        for weights in ({}, {"sample_weight": np.full(8, 2.0)})
    ]
    assert losses[1] == pytest.approx(2 * losses[0])


def validate(**options):
    return fit(validation_data=good_rows(), **options)


def with_data(function):
    """Return a function of options that calls `function` with a model and good data."""
    return lambda **options: function(model(), good_rows(), **options)


COUNTS = [
    (fit, ["batch_size", "steps_per_epoch", "epochs"]),
    (validate, ["validation_batch_size", "validation_steps"]),
    (evaluate, ["batch_size", "steps"]),
    (predict, ["batch_size"]),
    (with_data(kv.VAE.encode), ["batch_size"]),
    (lambda **options: model().sample(**options), ["n"]),
    (with_data(kv.VAE.log_likelihood), ["num_samples"]),
    (with_data(evaluation.importance_weighted), ["num_samples", "batch_size"]),
    (with_data(evaluation.active_units), ["batch_size"]),
    (with_data(evaluation.kl_per_unit), ["batch_size"]),
    (with_data(evaluation.reconstruction_error), ["batch_size"]),
    (evaluation.PCA, ["latent_dim"]),
    (vae, ["latent_dim"]),
    (autoencoder, ["latent_dim"]),
    (lambda **options: model().compile(**options), ["max_skipped", "steps_per_execution"]),
    (objectives.ELBO, ["num_samples"]),
    (objectives.IWAE, ["num_samples"]),
    (objectives.Reconstruction, ["num_samples"]),
    (objectives.Hybrid, ["num_samples"]),
    (lambda **options: schedules.Linear(0.0, 1.0, **options), ["steps"]),
    (lambda **options: schedules.Cosine(0.0, 1.0, **options), ["steps"]),
    (lambda **options: schedules.Cyclical(0.0, 1.0, **options), ["period"]),
]


def test_counts_are_checked():
    for call, names in COUNTS:
        for name in names:
            # True is an int in Python, equal to 1.
            assert_each_refused(vary_option(call, name), [True, 2.5], f"`{name}`")


# Data in batches: their type is checked before the first batch.


def batches(x, size=4):
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


def generator(x):
    while True:
        yield (x,)


class Batches(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.x


def test_batches_must_have_the_shape_and_type_of_the_model():
    shown = {
        "5)": batches(NARROW),
        "(6,)": tf.data.Dataset.from_tensor_slices(good_rows()),
        "Dataset": batches(good_rows()).take(0),
        "string": batches(np.full((8, 6), "a")),
        "complex64": batches(np.ones((8, 6), "F")),
        "dict": batches({"image": good_rows()}),
        "(None,)": batches((np.zeros(8), good_rows())),  # labels first
    }
    assert_each_refused(fit, shown, "`x`")
    images = {"4, 4)": batches(np.zeros((8, 4, 4)))}
    assert_each_refused(lambda data: fit(data, "image"), images, "`x`")
    sparse = scipy.sparse.csr_matrix(good_rows())
    not_dense = {"csr_matrix": Batches((sparse,)), "Sparse": batches(tf.sparse.eye(6))}
    assert_each_refused(fit, not_dense, "`x`", "dense")


@rows(
    validation=(lambda x: fit(validation_data=batches(x)), "validation_data"),
    evaluate=(lambda x: evaluate(batches(x)), "`x`"),
    evaluate_none=(lambda x: evaluate(batches(good_rows()).take(0)), "`x`"),
    predict=(lambda x: predict(batches(x)), "`x`"),
    pydataset=(lambda x: fit(Batches(x[:4])), "`x`"),
    pydataset_dict=(lambda x: fit(Batches({"image": x[:4]})), "`x`"),
    generator=(lambda x: fit(generator(x[:4]), steps_per_epoch=2), "`x`"),
)
def test_methods_check_their_batches(row):
    call, name = row
    assert_refused(lambda: call(NARROW), name)


def test_weights_in_batches_must_have_a_value_for_each_row():
    data = batches((good_rows(), np.zeros(8), np.ones((8, 1))))
    assert_refused(lambda: fit(data), "sample_weight", received="(None, 1)")


@rows(
    y=(lambda: fit(batches(good_rows()), y=np.zeros(8)), "y"),
    weight=(lambda: fit(batches(good_rows()), sample_weight=np.ones(8)), "weight"),
    split=(lambda: fit(batches(good_rows()), validation_split=0.5), "validation_split"),
    function=(lambda: fit(good_rows), "function"),
    object=(lambda: fit(object()), "object"),
)
def test_keras_refuses_arguments_that_batches_do_not_support(row):
    call, word = row
    assert_refused(call, word, received=None)


def test_batches_of_unknown_shape_are_checked_at_the_first_batch():
    wrong = batches(NARROW).map(lambda b: tf.py_function(lambda v: v, [b], tf.float32))
    assert_refused(lambda: fit(wrong), "`x`", received="(4, 5)")


@pytest.mark.parametrize("method", ["encode", "reconstruct", "log_likelihood"])
def test_methods_of_all_rows_need_data_with_an_end(method):
    endless = {"RepeatDataset": batches(good_rows()).repeat(), "object": object()}
    assert_each_refused(lambda x: METHODS[method](model(), x), endless, "`x`")


# NaN in valid rows, and a value that a Bernoulli cannot have.
@rows(normal=("normal", np.nan), bernoulli=("bernoulli", 7.0))
def test_batches_without_a_density_stop_the_fit_and_change_no_weight(row):
    name, value = row
    new = BUILDERS[name]()
    new.compile("adam", max_skipped=3)
    before = [w.numpy() for w in new.trainable_variables]
    bad = batches(np.full((40, 6), value, "float32"))
    new._checked_batches[id(bad)] = bad  # as if only later batches were bad
    with pytest.raises(RuntimeError) as caught:
        new.fit(bad, epochs=5, verbose=0)
    for word in ("3 ", "NaN", "learning rate"):
        assert word in str(caught.value)
    for weight, value in zip(new.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert all(np.isfinite(v).all() for v in new.optimizer.variables)
    assert int(new.step) == int(new.skipped_in_a_row) == 3


def test_a_short_fit_without_any_step_raises_an_error():
    new = vae()
    new.compile(keras.optimizers.Adam(1e38), run_eagerly=True)
    new.fit(good_rows(), verbose=0)  # the first step makes the weights too large
    call = partial(new.fit, good_rows(), epochs=2, verbose=0)
    assert_refused(call, "2 ", "from 0 to 1", received=None, error=RuntimeError)


# Latents.


def test_posterior_prior_and_latent_dim_must_agree_on_the_latent_shape():
    two, three = IndependentNormal((2,)), IndependentNormal((3,))
    prior = StandardNormal((3,))
    assert_refused(lambda: vae(latent_dim=None), "`latent_dim`", "`posterior`", "`prior`")
    for parts, shapes in (
        ({"posterior": three}, ["(2,)", "(3,)"]),
        ({"prior": prior}, ["(2,)", "(3,)"]),
        ({"latent_dim": None, "posterior": two, "prior": prior}, ["(2,)", "(3,)"]),
    ):
        assert_refused(lambda parts=parts: vae(**parts), *parts, received=tuple(shapes))


@pytest.mark.parametrize("name", ["normal", "autoencoder"])
def test_latents_must_be_rows_of_numbers(name):
    shapes = [(3, 5), (2,), (7, 3, 2), ()]
    shown = {str(shape): np.zeros(shape) for shape in shapes}
    shown |= {"None": None, "str": "z", "complex64": np.ones((3, 2), "F")}
    shown |= {"list": [[1.0, 2.0], [3.0]], "Normal": tfd.Normal(0.0, 1.0)}
    assert_each_refused(model(name).decode, shown, "`z`")
    assert_refused(lambda: model(name).decode(1.0), "`z`", received="()")


# Parts of the wrong kind, and parts that do not match each other.

HEAD, PRIOR, DISTRIBUTION = (
    IndependentBernoulli((6,)),
    StandardNormal((2,)),
    tfd.Normal(0, 1),
)
NOT_PARTS = [abs, "mlp", (6,), [dense()], DISTRIBUTION]


@rows(
    encoder=[None, keras.layers.Dense, HEAD, PRIOR],
    decoder=[None, keras.layers.Dense, HEAD, PRIOR],
    likelihood=[None, IndependentNormal, dense(6), PRIOR],
    posterior=[IndependentNormal, dense(6), PRIOR],
    prior=[StandardNormal, dense(6), HEAD],
)
def test_parts_must_have_the_right_type(row, request):
    name = request.node.callspec.id
    assert_each_refused(lambda part: vae(**{name: part}), NOT_PARTS + row, f"`{name}`")


def test_a_posterior_is_checked_without_latent_dim():
    call = partial(vae, latent_dim=None, posterior=IndependentNormal)
    assert_refused(call, "`posterior`", received="class")


def test_posterior_and_likelihood_must_be_different_heads():
    head = IndependentNormal((6,))
    call = partial(vae, posterior=head, likelihood=head, latent_dim=None)
    assert_refused(call, "`posterior`", "`likelihood`")


class Function(keras.layers.Layer):
    """A layer that calls a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def functional(shape, *units):
    """Make a model with a fixed input shape and one output for each number of units."""
    x = keras.Input(shape)
    y = [dense(n)(keras.layers.Flatten()(x)) for n in units]
    return keras.Model(x, y[0] if len(y) == 1 else y)


def two_inputs():
    x = [keras.Input((6,)), keras.Input((6,))]
    return keras.Model(x, keras.layers.Add()(x))


@rows(
    encoder_input=(lambda: {"encoder": functional((5,), 4)}, "5", "6"),
    encoder_colour=(lambda: {**GREY_IMAGE, "encoder": functional((4, 4, 3), 4)}, "3)"),
    encoder_images=(lambda: {"encoder": nets.ConvEncoder([4])}, "ndim=4"),
    encoder_two_outputs=(lambda: {"encoder": functional((6,), 4, 3)}, "4)", "3)"),
    encoder_dict=(
        lambda: {"encoder": Function(lambda x: {"mean": x, "scale": x})},
        "mean",
        "scale",
    ),
    encoder_none=(lambda: {"encoder": Function(lambda x: None)},),
    encoder_distribution=(
        lambda: {"encoder": Function(lambda x: tfd.Normal(x, 1.0))},
        "Normal",
    ),
    encoder_two_inputs=(lambda: {"encoder": two_inputs()}, "2"),
    decoder_input=(lambda: {"decoder": functional((3,), 4)}, "3", "2"),
    decoder_two_outputs=(lambda: {"decoder": functional((2,), 4, 3)}, "4)", "3)"),
    posterior_other_model=(
        lambda: {"posterior": model().posterior, "encoder": dense(7)},
        "posterior",
        "7",
    ),
)
def test_parts_must_match_each_other(row, request):
    parts, *words = row
    name, _, _ = request.node.callspec.id.partition("_")
    assert_refused(lambda: vae(**parts()), f"`{name}`", *words, received=None)


def test_unknown_arguments_are_named():
    assert_refused(lambda: vae(latent_size=2), "latent_size", received=None)
    assert_refused(lambda: IndependentNormal((6,), sigma=1.0), "sigma", received=None)
    # Python's own error for an unknown keyword.
    for name in ("optimiser", "learning_rate"):
        call = partial(model().compile, **{name: "adam"})
        assert_refused(call, f"'{name}'", error=TypeError, received=None)


# Heads and priors.


@pytest.mark.parametrize(
    "part", [IndependentNormal, IndependentBernoulli, Deterministic, StandardNormal]
)
def test_heads_and_priors_check_their_shape(part):
    assert_each_refused(part, [6, (True,), ()], "`event_shape`")


def test_options_of_heads_are_checked():
    bad = ["foo", 0, -1.0, np.nan, np.inf, True, False, [0.1, 0.2], np.ones(6)]
    assert_each_refused(lambda v: IndependentNormal((6,), scale=v), bad, "`scale`")
    bad = [0.0, 1.0, -1e-3, np.nan, None, True, "0.1"]
    assert_each_refused(lambda v: IndependentNormal((6,), min_scale=v), bad, "`min_scale`")
    bad = [True, 0.0, 1e-4, np.inf]
    assert_each_refused(
        lambda v: IndependentNormal((6,), initial_scale=v), bad, "`initial_scale`"
    )
    bad = ["gray", True, ["soft"]]
    assert_each_refused(lambda v: IndependentBernoulli((6,), grey=v), bad, "`grey`")


def test_heads_and_priors_compute_in_float32():
    half = ["float16", "bfloat16", "int32"]
    assert_each_refused(lambda v: IndependentNormal((6,), dtype=v), half, "dtype")
    assert_each_refused(lambda v: StandardNormal((2,), dtype=v), half, "dtype")
    policy = keras.DTypePolicy("mixed_float16")
    assert_refused(
        lambda: IndependentBernoulli((6,), dtype=policy), "dtype", received="mixed_float16"
    )
    assert_refused(lambda: IndependentNormal((6,), dtype="single"), "single", received=None)


def test_names_of_keras_objects_are_checked_in_the_constructor():
    call = partial(IndependentBernoulli, (6,), bias_initializer="zero_")
    assert_refused(call, "zero_", received=None)
    assert_refused(lambda: nets.MLP([4], "rellu"), "rellu", received=None)


def test_a_projection_must_be_a_layer():
    bad = ["dense", keras.layers.Dense, [dense(6)]]
    assert_each_refused(
        lambda v: IndependentNormal((6,), projection=v), bad, "`projection`"
    )


# A wrong layer is found when the shape of the features is known.
@rows(
    units=(IndependentBernoulli, {}, dense(5), "(5,)"),
    keys=(IndependentBernoulli, {}, {"loc": dense(6)}, "'loc'"),
    missing=(IndependentNormal, {"scale": "per_element"}, {"loc": dense(6)}, "{'loc'"),
    without_names=(IndependentNormal, {"scale": "per_element"}, dense(6), "<Dense"),
    too_many=(
        IndependentNormal,
        {"scale": "shared"},
        {"loc": dense(6), "scale": dense(6)},
        "'scale'",
    ),
    none=(IndependentBernoulli, {}, {"logits": None}, "{'logits': None}"),
    empty=(IndependentBernoulli, {}, {}, "{}"),
)
def test_a_projection_must_return_the_parameters_of_its_head(row):
    head, options, projection, received = row
    likelihood = head((6,), projection=projection, **options)
    assert_refused(lambda: vae(likelihood=likelihood), "projection", received=received)


# Objectives and schedules.


def test_numbers_of_an_objective_are_checked():
    bad = [True, -1.0, np.nan, "1.0", None, [0.0, 1.0], abs, schedules.Linear]
    assert_each_refused(lambda v: objectives.ELBO(beta=v), bad, "`beta`", "schedule")
    assert_each_refused(lambda v: objectives.ELBO(capacity=v), [True, -1.0], "`capacity`")
    bad = [True, -0.1, schedules.Constant(0.1)]
    assert_each_refused(lambda v: objectives.ELBO(free_bits=v), bad, "`free_bits`")
    assert_each_refused(objectives.Hybrid, [True, -0.1, 1.5], "`alpha`")
    both = partial(objectives.ELBO, free_bits=0.1, capacity=2.0)
    assert_refused(both, "`free_bits`", "`capacity`", received=("0.1", "2.0"))


def test_numbers_of_a_schedule_are_checked():
    assert_each_refused(schedules.Constant, [True, -1], "`value`")
    for kind in (schedules.Linear, schedules.Cosine, schedules.Cyclical):
        assert_each_refused(lambda v, kind=kind: kind(v, 1.0, 5), [True, -1.0], "`start`")
        assert_each_refused(lambda v, kind=kind: kind(0.0, v, 5), ["1", np.nan], "`end`")
    bad = [0, 2.0, -0.5, "half", True]
    assert_each_refused(lambda v: schedules.Cyclical(0.0, 1.0, 5, v), bad, "`ramp`")


# compile, and methods that need it.


def compile_model(**options):
    """Compile a shared model with bad options, which must change nothing."""
    return model().compile(**options)


def test_compile_refuses_losses_of_keras_and_metrics_with_taken_names():
    assert_each_refused(lambda v: compile_model(loss=v), ["mse"], "`loss`", "`objective`")
    for name, value, received in (
        ("metrics", ["kl"], "kl"),
        ("weighted_metrics", ["loss"], "loss"),
        ("metrics", [lambda x, y: x], "<lambda>"),
    ):
        call = partial(compile_model, **{name: value})
        assert_refused(call, f"`{name}`", received=received)
    assert_refused(lambda: compile_model(metrics=["new"]), "metric", received=None)
    assert_each_refused(lambda v: compile_model(loss_weights=v), [[0.5]], "`loss_weights`")
    assert_refused(lambda: model().compile("adam", "mse"), "`objective`", received="mse")


def test_an_objective_must_be_a_function_of_terms_and_step():
    bad = ["elbo", 4.0, objectives.ELBO, lambda terms: -terms.elbo]
    bad += [keras.losses.MeanSquaredError(), lambda terms, step, more: None]
    assert_each_refused(lambda v: compile_model(objective=v), bad, "`objective`")


def test_an_autoencoder_refuses_objectives_with_a_kl():
    for objective in (objectives.ELBO(), objectives.IWAE(2), objectives.Hybrid()):
        call = partial(model("autoencoder").compile, "adam", objective)
        assert_refused(call, "`objective`", received=type(objective).__name__)


def test_numbers_of_compile_are_checked():
    bad = [True, 0, -1.0, np.inf]
    assert_each_refused(
        lambda v: compile_model(global_clipnorm=v), bad, "`global_clipnorm`"
    )


def test_optimizers_must_be_new_and_known():
    for bad, word in (("adamm", "adamm"), (None, "None"), (keras.optimizers.Adam, "Adam")):
        call = partial(compile_model, optimizer=bad)
        assert_refused(call, "optimizer", word, received=None)
    used = keras.optimizers.Adam()
    vae().compile(used)
    other = vae(encoder=dense(7))
    assert_refused(lambda: other.compile(used), "optimizer", received=None)


@pytest.fixture(scope="module")
def uncompiled():
    """A model to compile with any objective."""
    return vae(prior=Mixture((2,)))


def scalar_loss(terms, step):
    return tf.reduce_mean(-terms.elbo)


def loss_per_sample(terms, step):
    return -terms.log_weight


def loss_per_pixel(terms, step):
    return (terms.x - terms.likelihood.mean()) ** 2


def no_loss(terms, step):
    return None


# Faults that the first call of an objective shows, before any step.
@rows(
    scalar=(scalar_loss, "()"),
    samples_axis=(loss_per_sample, "(1, 8)"),
    per_pixel=(loss_per_pixel, "(8, 6)"),
    none=(no_loss, "None"),
    free_bits=(objectives.ELBO(free_bits=0.1), None),
)
def test_an_objective_must_return_a_loss_for_each_row(uncompiled, row):
    objective, received = row
    uncompiled.compile("adam", objective)
    before = state(uncompiled)
    words = ["`objective`"] if received else ["`free_bits`", "Normal", "Mixture"]
    assert_refused(
        lambda: uncompiled.fit(good_rows(), epochs=2, verbose=0), *words, received=received
    )
    assert int(uncompiled.step) == int(uncompiled.epochs_begun) == 0
    assert all(map(np.array_equal, state(uncompiled), before))


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_training_needs_compile(method):
    new = vae()
    assert_refused(lambda: METHODS[method](new, good_rows()), "compile()", received=None)


# Seeds and sampling.


def test_seeds_are_checked():
    bad = [True, 1.0, 2**31, -(2**31) - 1, "1"]
    assert_each_refused(lambda v: vae(seed=v), bad, "`seed`")
    assert_each_refused(lambda v: autoencoder(2, v), [True, 1.5], "`seed`")
    assert_each_refused(lambda v: model().sample(2, seed=v), [True, 1.0, 2**40], "`seed`")


@rows(
    neither={},
    seed_alone={"seed": 1},
    both={"n": 2, "seeds": [1, 2]},
    seed_and_seeds={"seed": 1, "seeds": [1]},
)
def test_sample_needs_a_count_or_seeds(row):
    received = tuple(map(str, row.values()))
    assert_refused(lambda: model().sample(**row), "`n`", "`seeds`", received=received)


def test_seeds_of_rows_must_be_ints_of_64_bits():
    shown = {
        "float64": [1.0, 2.0],
        "(1, 2)": [[1, 2]],
        "()": 3,
        "(0,)": np.zeros(0, int),
        "<U2": "12",
        "bool": [True],
        "list": [[1], [2, 3]],
        # For example unsigned hashes, which would overflow int64 without an error.
        "uint64": [2**63],
        "object": [2**70],
    }
    assert_each_refused(lambda seeds: model().sample(seeds=seeds), shown, "`seeds`")


def test_seeds_of_a_signature_must_be_ints():
    shown = {"float32": tf.constant([1.5]), "string": tf.constant(["1"])}
    assert_each_refused(lambda seed: kv.signatures.sample(model(), seed), shown, "`seed`")


@rows(
    sample=(lambda m, x: m.sample(3), "decode(z)"),
    sample_without_n=(lambda m, x: m.sample(), "decode(z)"),
    log_likelihood=(METHODS["log_likelihood"], "evaluate"),
    # The function behind `log_likelihood`.
    importance_weighted=(METHODS["importance_weighted"], "evaluate"),
)
def test_an_autoencoder_has_no_samples_and_no_likelihood(row):
    method, alternative = row
    options = {"error": NotImplementedError, "received": None}
    assert_refused(
        lambda: method(model("autoencoder"), good_rows()), "VAE", alternative, **options
    )


# Networks and evaluation.


@rows(
    units=("units", nets.MLP),
    filters=("filters", nets.ConvEncoder),
    decoder_filters=("filters", lambda v: nets.ConvDecoder(v, (4, 4, 1))),
    image_shape=("image_shape", lambda v: nets.ConvDecoder([4], v)),
    bits=("event_shape", lambda v: evaluation.bits_per_dimension(1.0, v)),
)
def test_sizes_of_networks_and_images_are_checked(row):
    name, call = row
    assert_each_refused(call, [32, [True], [0, 4, 1], []], f"`{name}`")


def test_networks_of_images_check_rank_and_kernel():
    assert_refused(
        lambda: nets.ConvDecoder([4], (28, 28)), "`image_shape`", received="(28, 28)"
    )
    for make in (nets.ConvEncoder, lambda f, k: nets.ConvDecoder(f, (4, 4, 1), k)):
        assert_refused(lambda make=make: make([4], 0), "kernel_size", "0")


def test_kl_per_unit_needs_a_closed_form():
    for name, words in (
        ("autoencoder", ["Deterministic", "StandardNormal"]),
        ("mixture", ["Normal", "Mixture"]),
    ):
        call = partial(evaluation.kl_per_unit, model(name), good_rows())
        assert_refused(call, *words, received=None)


def test_a_pca_has_at_most_as_many_components_as_columns():
    assert_refused(
        lambda: evaluation.PCA(7).fit(good_rows()), "`latent_dim`", "6", received="7"
    )
    assert_refused(lambda: evaluation.PCA(2).encode(good_rows()), "fit", received=None)


# Files.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "vae.keras"
    model().save(path)
    return path.read_bytes()


def with_damaged_weights(data):
    start = data.index(b"model.weights.h5") + 2000  # behind the header, in the arrays
    return data[:start] + b"\xff" * 64 + data[start + 64 :]


@rows(
    truncated=lambda data: data[: len(data) // 2],
    weights=with_damaged_weights,
    empty=lambda data: b"",
    text=lambda data: b"404: Not Found",
)
def test_loading_a_damaged_keras_file_names_it(row, saved, tmp_path):
    path = tmp_path / "damaged.keras"
    path.write_bytes(row(saved))
    # Keras raises the error; its type does not matter, but its text must name the file.
    with pytest.raises((ValueError, OSError, zipfile.BadZipFile)) as caught:
        keras.saving.load_model(path)
    text = str(caught.value)
    assert "damaged.keras" in text or "model.weights.h5" in text
    assert len(text) < MAX_MESSAGE_LENGTH


def test_loading_a_missing_keras_file_names_it(tmp_path):
    path = tmp_path / "missing.keras"
    assert_refused(lambda: keras.saving.load_model(path), "missing.keras", received=None)


@rows(
    width=lambda: vae(encoder=dense(7), seed=1),
    depth=lambda: vae(encoder=keras.Sequential([dense(7), dense(4)]), seed=1),
    scale=lambda: vae(likelihood=IndependentNormal((6,), scale=1.0), seed=1),
)
def test_weights_of_another_architecture_are_refused_and_none_is_loaded(row, tmp_path):
    path = tmp_path / "other.weights.h5"
    other = row()
    other.compile("adam")
    other.step.assign(17)
    other.save_weights(path)
    assert_refused(lambda: model().load_weights(path), received=None)


class Unsaveable(keras.layers.Dense):
    def get_config(self):
        raise NotImplementedError("Unsaveable has no config")


def test_a_failed_save_keeps_the_old_file(saved, tmp_path):
    path = tmp_path / "vae.keras"
    path.write_bytes(saved)
    broken = vae(encoder=Unsaveable(4))
    broken.compile("adam")
    options = {"folder": tmp_path, "error": NotImplementedError, "received": None}
    assert_refused_without_writing(lambda: broken.save(path), "Unsaveable", **options)


def test_saving_with_a_wrong_suffix_writes_nothing(tmp_path):
    call = partial(model().save, tmp_path / "vae.model")
    assert_refused_without_writing(call, ".keras", "vae.model", folder=tmp_path)


@pytest.mark.parametrize("suffix", ["h5", "hdf5"])
def test_hdf5_is_refused_at_save_and_before_training(suffix, tmp_path):
    path = str(tmp_path / f"vae.{suffix}")  # would lose the objective
    options = {"received": path, "folder": tmp_path}
    words = "`filepath`", ".keras"
    assert_refused_without_writing(partial(model().save, path), *words, **options)
    if suffix == "h5":  # Keras itself refuses the other one
        checkpoint = keras.callbacks.ModelCheckpoint(path)
        call = partial(fit, callbacks=checkpoint)
        assert_refused_without_writing(call, *words, **options)
    model().save_weights(tmp_path / "vae.weights.h5")
    model().load_weights(tmp_path / "vae.weights.h5")


# The backend.


def test_another_keras_backend_is_refused(monkeypatch):
    # Only the name is changed: to run another backend would need JAX or PyTorch.
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    reload = partial(importlib.reload, kv)
    assert_refused(reload, "TensorFlow", "KERAS_BACKEND", received="jax", error=ImportError)
