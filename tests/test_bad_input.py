"""Every bad input that a user can plausibly give: refused early, by name, at no cost.

A row of a table is (id, call, message). The call must raise a ValueError, and its message
hold each of the fragments between the dots, in any order: the argument, what was expected
and what came. `a|b` stands for one or the other. Afterwards no model may have changed:
neither its weights, step and count of epochs, nor what it was compiled with.
"""

import importlib
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import keras_vae as kv
from keras_vae import distributions, evaluation, nets, objectives, schedules
from keras_vae.distributions import IndependentBernoulli, IndependentNormal, StandardNormal

tfd = tfp.distributions

# A message, not a stack of calls: those of the package have up to 300 characters.
READABLE = 1200


def refused(call, message, error=ValueError):
    try:
        with pytest.raises(Exception) as caught:
            call()
        text = str(caught.value)
        # Not a subclass: those of ValueError are accidents, such as a UnicodeError.
        assert caught.type is error, f"{caught.type.__name__}: {text}"
        for fragment in message.split(" ... "):
            assert any(f in text for f in fragment.split("|")), (
                f"{fragment!r} not in {text}"
            )
        assert len(text) < READABLE, f"{len(text)} characters: {text}"
    finally:
        names = changed()
    assert not names, f"refused, but the call changed {names}"


def table(*rows):
    return pytest.mark.parametrize(
        ("call", "message"), [pytest.param(*row[1:], id=row[0]) for row in rows]
    )


# Models: one of each family, built once and shared by the cases.


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


def autoencoder(latent_dim=2, seed=0):
    return kv.Autoencoder(dense(), dense(), IndependentNormal((6,)), latent_dim, seed)


@keras.saving.register_keras_serializable("tests")
class Mixture(distributions.Prior):
    """A prior whose KL has no closed form."""

    def distribution(self, condition=None):
        parts = tfd.Normal(tf.zeros((*self.event_shape, 2)), [1.0, 2.0])
        mixture = tfd.MixtureSameFamily(tfd.Categorical([0.0, 0.0]), parts)
        return tfd.Independent(mixture, len(self.event_shape))


GREY_IMAGE = {"encoder": nets.MLP([4]), "likelihood": IndependentBernoulli((4, 4, 1))}
MAKE = {
    "normal": vae,
    "bernoulli": lambda: vae(likelihood=IndependentBernoulli((6,))),
    "binary": lambda: vae(likelihood=IndependentBernoulli((6,), grey="error")),
    "image": lambda: vae(**GREY_IMAGE),
    "mixture": lambda: vae(prior=Mixture((2,))),
    "autoencoder": autoencoder,
}
_made = {}  # name -> (model, its state when it was made)


def model(name="normal"):
    return _made[name][0] if name in _made else made(name, name)


def made(key, name, **options):
    """Makes and compiles a model, and watches it from then on."""
    new = MAKE[name]()
    new.compile("adam", **{"max_skipped": 3, **options})
    _made[key] = new, state(new)
    return new


def state(model):
    variables = (*model.weights, *getattr(model.optimizer, "variables", ()))
    parts = (model.objective, model.max_skipped, model.optimizer)
    return [*map(id, parts), *(np.array(v) for v in variables)]


def changed():
    """The names of the models that are not what they were; they are made anew."""
    names = []
    for name, (model, before) in list(_made.items()):
        now = state(model)
        if len(now) != len(before) or not all(map(np.array_equal, now, before)):
            names.append(name)
            del _made[name]
    return names


# Data in memory: whatever method takes them must refuse all of these.


def good(rows=8):
    return np.linspace(0, 1, rows * 6, dtype="float32").reshape(rows, 6)


def with_value(value, dtype="float32"):
    """Rows of zeros but for one value, which is not in the first row."""
    x = np.zeros((8, 6), dtype)
    x[6, 3] = value
    return x


NAN = with_value(np.nan)
IMAGES = np.zeros((8, 4, 4, 3))
NOT_01 = "`x` ... [0, 1]"
NOT_FINITE = "`x` ... finite"
NO_NUMBERS = "`x` ... numbers"
NO_ARRAY = "`x` ... array"
BAD_X = [
    # Outside the support of the likelihood.
    ("digits_to_16", "bernoulli", with_value(16), f"{NOT_01} ... 16"),
    ("int_to_255", "bernoulli", with_value(255, "int64"), f"{NOT_01} ... 255"),
    ("negative", "bernoulli", with_value(-0.5), f"{NOT_01} ... -0.5"),
    ("grey", "binary", with_value(0.5), "`x` ... grey ... 1 value"),
    ("grey_uint8", "binary", with_value(17, "uint8"), "`x` ... grey ... 1 value"),
    ("uint8_of_0_1", "bernoulli", with_value(1, "uint8"), "`x` ... uint8 ... 255 ... bool"),
    ("uint8_normal", "normal", with_value(1, "uint8"), "`x` ... uint8 ... 255 ... bool"),
    # Not finite.
    ("nan_bernoulli", "bernoulli", NAN, f"{NOT_01} ... nan|NaN"),
    ("inf_bernoulli", "bernoulli", with_value(np.inf), f"{NOT_01} ... inf"),
    ("nan_binary", "binary", NAN, f"{NOT_01} ... nan|NaN"),
    ("nan_normal", "normal", NAN, f"{NOT_FINITE} ... 1 value ... NaN"),
    ("inf_normal", "normal", with_value(-np.inf), f"{NOT_FINITE} ... 1 value ... inf"),
    ("nan_half", "normal", with_value(np.nan, "float16"), f"{NOT_FINITE} ... 1 value"),
    ("nan_autoencoder", "autoencoder", NAN, f"{NOT_FINITE} ... 1 value"),
    # Finite as float64, but not as the float32 in which networks compute.
    ("overflow", "normal", with_value(1e300, "float64"), f"{NOT_FINITE} ... inf|1e"),
    # Of a wrong shape.
    ("empty", "normal", np.zeros((0, 6)), "`x` ... empty ... (0, 6)"),
    ("no_channel_axis", "image", np.zeros((8, 4, 4)), "`x` ... 4, 4, 1) ... (8, 4, 4)"),
    ("no_batch_axis", "image", np.zeros((4, 4, 1)), "`x` ... 'batch', 4 ... (4, 4, 1)"),
    ("three_channels", "image", IMAGES, "`x` ... 4, 4, 1) ... (8, 4, 4, 3)"),
    ("wrong_width", "normal", np.zeros((8, 5)), "`x` ... 'batch', 6 ... (8, 5)"),
    ("one_row", "normal", np.zeros(6), "`x` ... 'batch', 6 ... (6,)"),
    ("scalar", "normal", np.float32(3.0), "`x` ... 'batch', 6 ... ()"),
    # Of a wrong type.
    ("strings", "normal", np.full((8, 6), "a"), f"{NO_NUMBERS} ... <U1"),
    ("objects", "normal", np.full((8, 6), None), f"{NO_NUMBERS} ... object"),
    ("complex", "normal", np.ones((8, 6), "complex64"), f"{NO_NUMBERS} ... complex64"),
    ("dates", "normal", np.zeros((8, 6), "M8[s]"), f"{NO_NUMBERS} ... datetime64"),
    ("string_tensor", "normal", tf.fill((8, 6), "a"), f"{NO_NUMBERS} ... object|string"),
    ("sparse", "normal", tf.sparse.from_dense(good()), f"{NO_ARRAY} ... SparseTensor"),
    ("ragged", "normal", tf.ragged.constant([[1.0], []]), f"{NO_ARRAY} ... RaggedTensor"),
    ("list", "normal", good().tolist(), f"{NO_ARRAY} ... list"),
    ("list_of_arrays", "normal", [good(), good()], f"{NO_ARRAY} ... list"),
    ("tuple", "normal", (good(), np.zeros(8)), f"{NO_ARRAY} ... tuple"),
    ("dict", "normal", {"image": good()}, f"{NO_ARRAY} ... dict"),
    ("none", "normal", None, f"{NO_ARRAY} ... None"),
    ("number", "normal", 3, f"{NO_ARRAY} ... int"),
    ("path", "normal", "x.npy", f"{NO_ARRAY} ... str"),
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
    ("name", "x", "message"), [pytest.param(*row[1:], id=row[0]) for row in BAD_X]
)
def test_bad_x_in_memory(method, name, x, message):
    if (method, name) != ("log_likelihood", "autoencoder"):  # which has none of any x
        refused(lambda: METHODS[method](model(name), x), message)


def fit(x=None, name="normal", **options):
    """A fit on good data, if no others are given, with something else that is wrong."""
    return lambda: model(name).fit(good() if x is None else x, **{"verbose": 0, **options})


def valid(*data, name="normal"):
    return fit(name=name, validation_data=data if len(data) > 1 else data[0])


def half(x, name="normal"):
    return fit(x, name, validation_split=0.5)


# Refused before the first epoch, not after it.
@table(
    ("16", valid(with_value(16), name="bernoulli"), "validation_data ... [0, 1] ... 16"),
    ("nan", valid(NAN), "validation_data ... finite ... 1 value"),
    ("nan_bernoulli", valid(NAN, name="bernoulli"), "validation_data ... nan|NaN"),
    ("empty", valid(np.zeros((0, 6))), "validation_data ... empty ... (0, 6)"),
    ("shape", valid(np.zeros((8, 5))), "validation_data ... 'batch', 6 ... (8, 5)"),
    ("strings", valid(np.full((8, 6), "a")), "validation_data ... numbers ... <U1"),
    ("dict", valid({"image": good()}), "validation_data ... array ... dict"),
    ("y", valid(good(), np.zeros(5)), "validation_data ... 8 ... (5,)"),
    ("weight", valid(good(), np.zeros(8), np.ones(5)), "validation_data ... 8 ... (5,)"),
    ("four", valid(good(), good(), good(), good()), "validation_data ... y ... 4|tuple"),
    # The bad row lies in the part that is split off, and in the other.
    ("nan_in_split", half(NAN), f"{NOT_FINITE} ... 1 value"),
    ("16_in_split", half(with_value(16), "bernoulli"), f"{NOT_01} ... 16"),
    ("nan_before_split", half(NAN[::-1]), f"{NOT_FINITE} ... 1 value"),
)
def test_validation_data(call, message):
    refused(call, message)


def weighted(weight):
    return fit(y=np.zeros(8), sample_weight=weight)


@table(
    ("y_rows", fit(y=np.zeros(5)), "`y` ... 8 ... (5,)"),
    ("y_scalar", fit(y=3), "`y` ... 8 ... ()"),
    ("y_list", fit(y=[0] * 8), "`y` ... array ... list"),
    ("rows", weighted(np.ones(5)), "`sample_weight` ... 8 ... (5,)"),
    ("rows_without_y", fit(sample_weight=np.ones(5)), "`sample_weight` ... 8 ... (5,)"),
    ("scalar", weighted(2.0), "`sample_weight` ... 8 ... ()"),
    # It would broadcast to a loss for every pair of rows.
    ("column", weighted(np.ones((8, 1))), "`sample_weight` ... row ... (8, 1)"),
    ("strings", weighted(np.full(8, "a")), "`sample_weight` ... number ... <U1"),
    ("nan", weighted(np.full(8, np.nan)), "`sample_weight` ... finite ... 8 values"),
    ("class_weight", fit(class_weight={0: 2.0}), "class_weight ... y"),
)
def test_labels_and_weights(call, message):
    refused(call, message)


def test_weights_without_labels_are_not_dropped():
    # Keras packs (x, None, weight) as x alone.
    losses = [
        model().evaluate(good(), verbose=0, return_dict=True, **weights)["loss"]
        for weights in ({}, {"sample_weight": np.full(8, 2.0)})
    ]
    assert losses[1] == pytest.approx(2 * losses[0])


def evaluate(x=None, **options):
    return lambda: model().evaluate(good() if x is None else x, verbose=0, **options)


def predict(x=None, **options):
    return lambda: model().predict(good() if x is None else x, verbose=0, **options)


def encode(x=None, **options):
    return lambda: model().encode(good() if x is None else x, **options)


def fit_and_validate(**options):
    return fit(validation_data=good(), **options)


def split(fraction, rows=8):
    return fit(good(rows), validation_split=fraction)


@table(
    ("fit_0", fit(batch_size=0), "`batch_size` ... positive int ... =0"),
    ("fit_negative", fit(batch_size=-1), "`batch_size` ... positive int ... =-1"),
    ("fit_float", fit(batch_size=2.5), "`batch_size` ... positive int ... =2.5"),
    ("fit_string", fit(batch_size="32"), "`batch_size` ... positive int ... ='32'"),
    ("fit_bool", fit(batch_size=True), "`batch_size` ... positive int ... =True"),
    ("evaluate_0", evaluate(batch_size=0), "`batch_size` ... positive int ... =0"),
    ("evaluate_float", evaluate(batch_size=2.5), "`batch_size` ... int ... =2.5"),
    ("predict_0", predict(batch_size=0), "`batch_size` ... positive int ... =0"),
    ("predict_float", predict(batch_size=2.5), "`batch_size` ... int ... =2.5"),
    ("encode_0", encode(batch_size=0), "`batch_size` ... positive int ... =0"),
    ("encode_float", encode(batch_size=2.0), "`batch_size` ... int ... =2.0"),
    (
        "validation_0",
        fit_and_validate(validation_batch_size=0),
        "`validation_batch_size` ... positive int ... =0",
    ),
    (
        "validation_float",
        fit_and_validate(validation_batch_size=1.5),
        "`validation_batch_size` ... positive int ... =1.5",
    ),
    ("steps_0", fit(steps_per_epoch=0), "`steps_per_epoch` ... positive int ... =0"),
    ("steps_negative", fit(steps_per_epoch=-1), "`steps_per_epoch` ... int ... =-1"),
    ("steps_float", fit(steps_per_epoch=1.5), "`steps_per_epoch` ... int ... =1.5"),
    ("evaluate_steps", evaluate(steps=-1), "`steps` ... positive int ... =-1"),
    (
        "validation_steps",
        fit_and_validate(validation_steps=-1),
        "`validation_steps` ... positive int ... =-1",
    ),
    ("epochs_float", fit(epochs=1.5), "`epochs` ... int ... =1.5"),
    ("epochs_string", fit(epochs="3"), "`epochs` ... int ... ='3'"),
    ("split_1", split(1.0), "`validation_split` ... between 0 and 1 ... =1.0"),
    ("split_percent", split(20), "`validation_split` ... between 0 and 1 ... =20"),
    ("split_negative", split(-0.1), "`validation_split` ... between 0 and 1 ... =-0.1"),
    ("split_nan", split(np.nan), "`validation_split` ... between 0 and 1 ... =nan"),
    ("split_string", split("0.1"), "`validation_split` ... between 0 and 1 ... ='0.1'"),
    ("split_leaves_none", split(0.99), "`validation_split` ... 8 rows ... =0.99"),
    ("split_of_one_row", split(0.5, rows=1), "`validation_split` ... 1 row ... =0.5"),
)
def test_sizes(call, message):
    refused(call, message)


# Data that come in batches: what their type tells is known before the first of them.


def batches(x, size=4):
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


def of_unknown_shape(x):
    return batches(x).map(lambda b: tf.py_function(lambda v: v, [b], tf.float32))


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


NARROW = batches(np.zeros((8, 5)))
WIDTH = "'batch', 6 ... (None, 5)|(4, 5)"


@table(
    ("wrong_width", fit(NARROW), f"`x` ... {WIDTH}"),
    (
        "no_channel_axis",
        fit(batches(np.zeros((8, 4, 4))), "image"),
        "`x` ... 'batch', 4, 4, 1 ... (None, 4, 4)",
    ),
    (
        "not_batched",
        fit(tf.data.Dataset.from_tensor_slices(good())),
        "`x` ... 'batch', 6 ... (6,)",
    ),
    ("none", fit(batches(good()).take(0)), "`x` ... empty|no "),
    ("none_evaluate", evaluate(batches(good()).take(0)), "`x` ... empty|no "),
    ("strings", fit(batches(np.full((8, 6), "a"))), f"{NO_NUMBERS} ... string"),
    ("complex", fit(batches(np.ones((8, 6), "F"))), f"{NO_NUMBERS} ... complex64"),
    ("dict", fit(batches({"image": good()})), "`x` ... array|tensor ... dict"),
    ("label_first", fit(batches((np.zeros(8), good()))), "`x` ... 'batch', 6 ... (None,)"),
    (
        "weight_column",
        fit(batches((good(), np.zeros(8), np.ones((8, 1))))),
        "sample_weight ... batch|row ... (None, 1)",
    ),
    ("validation", fit(validation_data=NARROW), f"validation_data ... {WIDTH}"),
    ("evaluate", evaluate(NARROW), f"`x` ... {WIDTH}"),
    ("predict", predict(NARROW), f"`x` ... {WIDTH}"),
    ("y_beside", fit(batches(good()), y=np.zeros(8)), "y ... Dataset"),
    ("weight_beside", fit(batches(good()), sample_weight=np.ones(8)), "weight ... Dataset"),
    ("split", fit(batches(good()), validation_split=0.5), "validation_split ... Dataset"),
    ("pydataset", fit(Batches(np.zeros((4, 5), "f4"))), f"`x` ... {WIDTH}"),
    ("pydataset_dict", fit(Batches({"image": good(4)})), "`x` ... array|tensor ... dict"),
    (
        "generator",
        fit(generator(np.zeros((4, 5), "f4")), steps_per_epoch=2),
        f"`x` ... {WIDTH}",
    ),
    ("function", fit(good), "x ... function"),
    ("object", fit(object()), "x ... object"),
    ("call", lambda: model()(np.zeros((2, 5))), "`x` ... 'batch', 6 ... (2, 5)"),
)
def test_batches(call, message):
    refused(call, message)


def test_batches_of_unknown_shape_are_compared_when_they_come():
    # Before that nothing is known; the error is then TensorFlow's, but costs no step.
    wrong = of_unknown_shape(np.zeros((8, 5), "float32"))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[4,5\].*\[\?,6\]"):
        fit(wrong)()
    assert not changed()


@pytest.mark.parametrize("method", ["encode", "reconstruct", "log_likelihood"])
def test_what_takes_only_arrays_does_not_offer_more(method):
    call = lambda: METHODS[method](model(), batches(good()))  # noqa: E731
    refused(call, f"{NO_ARRAY} ... BatchDataset")
    with pytest.raises(ValueError, match=r"^((?!tf\.data).)*$"):
        call()


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


def make(**parts):
    return lambda: vae(**parts)


def latents(latent_dim=None, **parts):
    return lambda: vae(latent_dim=latent_dim, **parts)


def auto(*args):
    return lambda: autoencoder(*args)


def decode(z, name="normal"):
    return lambda: model(name).decode(z)


NORMAL_3 = IndependentNormal((3,))
STANDARD_3 = StandardNormal((3,))


@table(
    ("none", latents(), "`latent_dim` ... `posterior` ... `prior` ... none"),
    ("0", latents(0), "`latent_dim` ... positive int ... =0"),
    ("negative", latents(-2), "`latent_dim` ... positive int ... =-2"),
    ("float", latents(2.0), "`latent_dim` ... positive int ... =2.0"),
    ("true", latents(True), "`latent_dim` ... positive int ... =True"),
    ("false", latents(False), "`latent_dim` ... positive int ... =False"),
    ("string", latents("2"), "`latent_dim` ... positive int ... ='2'"),
    ("tuple", latents((2,)), "`latent_dim` ... positive int ... =(2,)"),
    ("autoencoder_0", auto(0), "`latent_dim` ... positive int ... =0"),
    ("autoencoder_float", auto(2.0), "`latent_dim` ... positive int ... =2.0"),
    ("autoencoder_none", auto(None), "`latent_dim` ... positive int ... =None"),
    ("posterior", latents(2, posterior=NORMAL_3), "latent_dim ... posterior ... (3,)"),
    ("prior", latents(2, prior=STANDARD_3), "latent_dim ... prior ... (2,) ... (3,)"),
    (
        "posterior_and_prior",
        latents(posterior=IndependentNormal((2,)), prior=STANDARD_3),
        "posterior ... prior ... (2,) ... (3,)",
    ),
    ("z_shape", decode(np.zeros((3, 5))), "`z` ... 'batch', 2 ... (3, 5)"),
    ("z_no_batch_axis", decode(np.zeros(2)), "`z` ... 'batch', 2 ... (2,)"),
    ("z_samples_axis", decode(np.zeros((7, 3, 2))), "`z` ... 'batch', 2 ... (7, 3, 2)"),
    ("z_scalar", decode(1.0), "`z` ... 'batch', 2 ... ()"),
    ("z_none", decode(None), "`z` ... array|numbers ... None"),
    ("z_string", decode("z"), "`z` ... array|numbers ... str"),
    ("z_complex", decode(np.ones((3, 2), "F")), "`z` ... numbers ... complex64"),
    ("z_ragged", decode([[1.0, 2.0], [3.0]]), "`z` ... batch|array ... list"),
    ("z_posterior", decode(tfd.Normal(0.0, 1.0)), "`z` ... array|numbers ... Normal"),
    ("z_code", decode(np.zeros((3, 5)), "autoencoder"), "`z` ... 'batch', 2 ... (3, 5)"),
)
def test_latents(call, message):
    refused(call, message)


# Parts of the wrong kind, and parts that do not fit each other.


class Function(keras.layers.Layer):
    """A layer made of a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


def functional(shape, *units):
    """A model that insists on its input's shape, with an output for each of `units`."""
    x = keras.Input(shape)
    y = [dense(n)(keras.layers.Flatten()(x)) for n in units]
    return keras.Model(x, y[0] if len(y) == 1 else y)


def two_inputs():
    x = [keras.Input((6,)), keras.Input((6,))]
    return keras.Model(x, keras.layers.Add()(x))


def same_head():
    head = IndependentNormal((6,))
    return vae(posterior=head, likelihood=head, latent_dim=None)


HEAD, PRIOR = IndependentBernoulli((6,)), StandardNormal((2,))
ENCODER = "`encoder` ... layer or model"
DECODER = "`decoder` ... layer or model"
LIKELIHOOD = "`likelihood` ... a head"
POSTERIOR = "`posterior` ... a head"
CLASS = "class ... IndependentNormal"


@table(
    ("encoder_none", make(encoder=None), f"{ENCODER} ... =None"),
    ("encoder_function", make(encoder=abs), f"{ENCODER} ... function abs"),
    ("encoder_string", make(encoder="mlp"), f"{ENCODER} ... ='mlp'"),
    ("encoder_list", make(encoder=[dense()]), f"{ENCODER} ... [<Dense"),
    ("encoder_class", make(encoder=keras.layers.Dense), f"{ENCODER} ... class ... Dense"),
    ("encoder_head", make(encoder=HEAD), f"{ENCODER} ... IndependentBernoulli"),
    ("decoder_none", make(decoder=None), f"{DECODER} ... =None"),
    ("decoder_function", make(decoder=nets.MLP), f"{DECODER} ... function MLP"),
    ("decoder_head", make(decoder=HEAD), f"{DECODER} ... IndependentBernoulli"),
    ("decoder_prior", make(decoder=PRIOR), f"{DECODER} ... StandardNormal"),
    ("likelihood_none", make(likelihood=None), f"{LIKELIHOOD} ... =None"),
    ("likelihood_layer", make(likelihood=dense(6)), f"{LIKELIHOOD} ... Dense"),
    ("likelihood_shape", make(likelihood=(6,)), f"{LIKELIHOOD} ... =(6,)"),
    ("likelihood_class", make(likelihood=IndependentNormal), f"{LIKELIHOOD} ... {CLASS}"),
    ("likelihood_prior", make(likelihood=PRIOR), f"{LIKELIHOOD} ... StandardNormal"),
    ("likelihood_tfd", make(likelihood=tfd.Normal(0.0, 1.0)), f"{LIKELIHOOD} ... Normal"),
    ("posterior_layer", make(posterior=dense()), f"{POSTERIOR} ... Dense"),
    ("posterior_class", make(posterior=IndependentNormal), f"{POSTERIOR} ... {CLASS}"),
    (
        "posterior_class_without_dim",
        latents(posterior=IndependentNormal),
        f"{POSTERIOR} ... {CLASS}",
    ),
    ("posterior_prior", make(posterior=PRIOR), f"{POSTERIOR} ... StandardNormal"),
    ("prior_head", make(prior=IndependentNormal((2,))), "`prior` ... IndependentNormal"),
    ("prior_class", make(prior=StandardNormal), "`prior` ... a prior ... class"),
    ("prior_tfd", make(prior=tfd.Normal([0.0], 1.0)), "`prior` ... a prior ... Normal"),
    ("same_head", same_head, "`posterior` ... `likelihood` ... two heads ... Received"),
    ("unknown_argument", make(latent_size=2), "latent_size"),
    (
        "encoder_input",
        make(encoder=functional((5,), 4)),
        "`encoder` ... (None, 5) ... (None, 6)",
    ),
    (
        "encoder_of_colour",
        make(**{**GREY_IMAGE, "encoder": functional((4, 4, 3), 4)}),
        "`encoder` ... 4, 4, 1) ... 4, 4, 3)|48",
    ),
    (
        "encoder_of_images",
        make(encoder=nets.ConvEncoder([4])),
        "`encoder` ... (None, 6) ... ndim=4",
    ),
    (
        "encoder_two_outputs",
        make(encoder=functional((6,), 4, 3)),
        "`encoder` ... one tensor ... (None, 4) ... (None, 3)",
    ),
    (
        "encoder_dict",
        make(encoder=Function(lambda x: {"mean": x, "scale": x})),
        "`encoder` ... one tensor ... mean ... scale",
    ),
    ("encoder_gives_none", make(encoder=Function(lambda x: None)), "`encoder` ... tensor"),
    (
        "encoder_gives_distribution",
        make(encoder=Function(lambda x: tfd.Normal(x, 1.0))),
        "`encoder` ... Normal",
    ),
    ("encoder_two_inputs", make(encoder=two_inputs()), "`encoder` ... 2 named|2 input"),
    (
        "decoder_input",
        make(decoder=functional((3,), 4)),
        "`decoder` ... (None, 3) ... (None, 2)",
    ),
    (
        "decoder_two_outputs",
        make(decoder=functional((2,), 4, 3)),
        "`decoder` ... one tensor ... (None, 4) ... (None, 3)",
    ),
    (
        "posterior_of_another_model",
        lambda: vae(posterior=model().posterior, encoder=dense(7)),
        "`posterior` ... value 4 ... (None, 7)",
    ),
)
def test_parts(call, message):
    refused(call, message)


# Heads and priors.


def shaped(event_shape, part=IndependentNormal):
    return lambda: part(event_shape)


def normal(**options):
    return lambda: IndependentNormal((6,), **options)


def bernoulli(**options):
    return lambda: IndependentBernoulli((6,), **options)


def projected(projection, head=IndependentNormal, **options):
    """The projection of a likelihood, as the model finds it when it is built."""
    return lambda: vae(likelihood=head((6,), projection=projection, **options))


SHAPE = "`event_shape` ... tuple of positive ints"
SCALE = '`scale` ... "per_element", "shared" or a positive number'
FLOOR = "`min_scale` ... float between 0 and 1"
GREY = '`grey` ... "binarize", "soft" or "error"'
LOC_SCALE = {"loc": dense(6), "scale": dense(6)}


@table(
    ("shape_int", shaped(6), f"{SHAPE} ... =6"),
    ("shape_none", shaped(None), f"{SHAPE} ... =None"),
    ("shape_0", shaped((0,), IndependentBernoulli), f"{SHAPE} ... =(0,)"),
    ("shape_float", shaped((2.0,), StandardNormal), f"{SHAPE} ... =(2.0,)"),
    ("shape_unknown", shaped((None, 28)), f"{SHAPE} ... =(None, 28)"),
    ("shape_string", shaped("20", StandardNormal), f"{SHAPE} ... ='20'"),
    ("shape_bool", shaped((True,)), f"{SHAPE} ... =(True,)"),
    ("shape_negative", shaped(-1, distributions.Deterministic), f"{SHAPE} ... =-1"),
    ("shape_empty", lambda: vae(likelihood=IndependentNormal(())), "`event_shape` ... ()"),
    ("scale_string", normal(scale="foo"), f"{SCALE} ... ='foo'"),
    ("scale_0", normal(scale=0), f"{SCALE} ... =0"),
    ("scale_negative", normal(scale=-1.0), f"{SCALE} ... =-1.0"),
    ("scale_nan", normal(scale=float("nan")), f"{SCALE} ... =nan"),
    ("scale_inf", normal(scale=np.inf), f"{SCALE} ... =inf"),
    ("scale_true", normal(scale=True), f"{SCALE} ... =True"),
    ("scale_false", normal(scale=False), f"{SCALE} ... =False"),
    ("scale_list", normal(scale=[0.1, 0.2]), f"{SCALE} ... =[0.1, 0.2]"),
    ("scale_array", normal(scale=np.ones(6)), f"{SCALE} ... =array("),
    ("min_scale_0", normal(min_scale=0.0), f"{FLOOR} ... =0.0"),
    ("min_scale_1", normal(min_scale=1.0), f"{FLOOR} ... =1.0"),
    ("min_scale_negative", normal(min_scale=-1e-3), f"{FLOOR} ... =-0.001"),
    ("min_scale_nan", normal(min_scale=np.nan), f"{FLOOR} ... =nan"),
    ("min_scale_none", normal(min_scale=None), f"{FLOOR} ... =None"),
    ("min_scale_true", normal(min_scale=True), f"{FLOOR} ... =True"),
    ("grey_string", bernoulli(grey="gray"), f"{GREY} ... ='gray'"),
    ("grey_none", bernoulli(grey=None), f"{GREY} ... =None"),
    ("grey_bool", bernoulli(grey=True), f"{GREY} ... =True"),
    ("grey_list", bernoulli(grey=["soft"]), f"{GREY} ... =['soft']"),
    ("dtype_half", normal(dtype="float16"), "float32 ... dtype='float16'"),
    ("dtype_bfloat16", bernoulli(dtype="bfloat16"), "float32 ... dtype='bfloat16'"),
    ("dtype_policy", normal(dtype=keras.DTypePolicy("mixed_float16")), "dtype ... mixed_"),
    ("dtype_int", normal(dtype="int32"), "float32 ... dtype='int32'"),
    ("dtype_rubbish", normal(dtype="single"), "dtype|DType ... single"),
    (
        "dtype_of_prior",
        lambda: StandardNormal((2,), dtype="float16"),
        "float32 ... dtype='float16'",
    ),
    ("bias", bernoulli(bias_initializer="zero_"), "initializer ... zero_"),
    ("unknown_argument", normal(sigma=1.0), "sigma"),
    # No layer: known at once. A layer that does not fit: when the features are known.
    (
        "projection_string",
        bernoulli(projection="dense"),
        "projection ... layer ... 'dense'",
    ),
    (
        "projection_class",
        bernoulli(projection=keras.layers.Dense),
        "projection ... layer ... class ... Dense",
    ),
    ("projection_list", bernoulli(projection=[dense(6)]), "projection ... layer ... [<"),
    (
        "projection_units",
        projected(dense(5), IndependentBernoulli),
        "projection ... logits ... (6,) ... (5,)",
    ),
    (
        "projection_keys",
        projected({"loc": dense(6)}, IndependentBernoulli),
        "projection ... ['logits'] ... 'loc'",
    ),
    (
        "projection_missing",
        projected({"loc": dense(6)}, scale="per_element"),
        "projection ... ['loc', 'scale'] ... {'loc'",
    ),
    (
        "projection_without_names",
        projected(dense(6), scale="per_element"),
        "projection ... ['loc', 'scale'] ... <Dense",
    ),
    (
        "projection_too_many",
        projected(LOC_SCALE, scale="shared"),
        "projection ... ['loc'] ... 'scale'",
    ),
    (
        "projection_none",
        projected({"logits": None}, IndependentBernoulli),
        "projection ... layer ... {'logits': None}",
    ),
    (
        "projection_empty",
        projected({}, IndependentBernoulli),
        "projection ... ['logits'] ... {}",
    ),
)
def test_heads(call, message):
    refused(call, message)


# Objectives and schedules.


def elbo(**options):
    return lambda: objectives.ELBO(**options)


def linear(start=0.0, end=1.0, steps=5):
    return lambda: schedules.Linear(start, end, steps)


def cyclical(period=5, ramp=0.5):
    return lambda: schedules.Cyclical(0.0, 1.0, period, ramp)


@table(
    ("beta_negative", elbo(beta=-1.0), "`beta` ... 0 or more ... =-1.0"),
    ("beta_nan", elbo(beta=float("nan")), "`beta` ... finite ... =nan"),
    ("beta_inf", elbo(beta=np.inf), "`beta` ... finite ... =inf"),
    ("beta_string", elbo(beta="1.0"), "`beta` ... number ... ='1.0'"),
    ("beta_none", elbo(beta=None), "`beta` ... number ... =None"),
    ("beta_bool", elbo(beta=True), "`beta` ... number ... =True"),
    ("beta_list", elbo(beta=[0.0, 1.0]), "`beta` ... number ... =[0.0, 1.0]"),
    ("beta_array", elbo(beta=np.ones(2)), "`beta` ... number ... =array("),
    ("beta_function", elbo(beta=abs), "`beta` ... number ... schedule ... function abs"),
    (
        "beta_class",
        elbo(beta=schedules.Linear),
        "`beta` ... number ... or a schedule|or schedule ... class ... Linear",
    ),
    ("free_bits", elbo(free_bits=-0.1), "`free_bits` ... 0 or more ... =-0.1"),
    (
        "free_bits_schedule",
        elbo(free_bits=schedules.Constant(0.1)),
        "`free_bits` ... number ... Constant",
    ),
    ("capacity", elbo(capacity=-1.0), "`capacity` ... 0 or more ... =-1.0"),
    (
        "free_bits_and_capacity",
        elbo(free_bits=0.1, capacity=2.0),
        "`free_bits` and `capacity` ... one ... =0.1 ... =2.0",
    ),
    ("samples_0", elbo(num_samples=0), "`num_samples` ... positive int ... =0"),
    ("samples_float", elbo(num_samples=2.0), "`num_samples` ... positive int ... =2.0"),
    ("iwae", lambda: objectives.IWAE(0), "`num_samples` ... positive int ... =0"),
    (
        "reconstruction",
        lambda: objectives.Reconstruction(-1),
        "`num_samples` ... positive int ... =-1",
    ),
    ("steps_0", linear(steps=0), "`steps` ... positive int ... =0"),
    ("steps_float", linear(steps=1e3), "`steps` ... positive int ... =1000.0"),
    ("steps_negative", linear(steps=-5), "`steps` ... positive int ... =-5"),
    ("start", linear(start=-1.0), "`start` ... 0 or more ... =-1.0"),
    ("end", linear(end="1"), "`end` ... number ... ='1'"),
    ("end_nan", linear(end=np.nan), "`end` ... finite ... =nan"),
    (
        "cosine",
        lambda: schedules.Cosine(0.0, 1.0, 0),
        "`steps` ... positive int ... =0",
    ),
    ("constant", lambda: schedules.Constant(-1), "`value` ... 0 or more ... =-1"),
    ("period", cyclical(period=0), "`period` ... positive int ... =0"),
    ("ramp_0", cyclical(ramp=0), "`ramp` ... (0, 1] ... =0"),
    ("ramp_2", cyclical(ramp=2.0), "`ramp` ... (0, 1] ... =2.0"),
    ("ramp_negative", cyclical(ramp=-0.5), "`ramp` ... =-0.5"),
    ("ramp_string", cyclical(ramp="half"), "`ramp` ... number ... ='half'"),
)
def test_objectives_and_schedules(call, message):
    refused(call, message)


# compile, and what it is needed for.


def compiled(**options):
    return lambda: model().compile(**options)


def fit_with(objective, name="normal"):
    """An objective of which only its first call, before any step, tells what is wrong."""
    return lambda: made("other", name, objective=objective).fit(good(), verbose=0)


def not_compiled(method):
    return lambda: METHODS[method](vae(), good())


def used_optimizer():
    optimizer = keras.optimizers.Adam()
    vae().compile(optimizer)
    vae(encoder=dense(7)).compile(optimizer)


@table(
    ("loss", compiled(loss="mse"), "`loss` ... `objective` ... 'mse'"),
    ("metrics", compiled(metrics=["mae"]), "`metrics` ... `objective` ... 'mae'"),
    ("loss_weights", compiled(loss_weights=[0.5]), "`loss_weights` ... [0.5]"),
    ("weighted", compiled(weighted_metrics=["mae"]), "`weighted_metrics` ... 'mae'"),
    ("string", compiled(objective="elbo"), "`objective` ... instance ... ='elbo'"),
    ("second", lambda: model().compile("adam", "mse"), "`objective` ... ='mse'"),
    ("number", compiled(objective=4.0), "`objective` ... function ... =4.0"),
    ("class", compiled(objective=objectives.ELBO), "`objective` ... instance ... class"),
    (
        "keras_loss",
        compiled(objective=keras.losses.MeanSquaredError()),
        "`objective` ... (terms, step) ... mean_squared_error|MeanSquaredError",
    ),
    (
        "one_argument",
        compiled(objective=lambda terms: -terms.elbo),
        "`objective` ... (terms, step) ... lambda",
    ),
    (
        "scalar",
        fit_with(lambda terms, step: tf.reduce_mean(-terms.elbo)),
        "objective ... [batch] ... ()",
    ),
    (
        "samples_axis",
        fit_with(lambda terms, step: -terms.log_weight),
        "objective ... [batch] ... (1, 8)",
    ),
    (
        "per_pixel",
        fit_with(lambda terms, step: (terms.x - terms.likelihood.mean()) ** 2),
        "objective ... [batch] ... (8, 6)",
    ),
    ("none", fit_with(lambda terms, step: None), "objective ... [batch] ... None"),
    (
        "free_bits",
        fit_with(objectives.ELBO(free_bits=0.1), "mixture"),
        "`free_bits` ... closed form ... Normal ... Mixture",
    ),
    (
        "autoencoder",
        lambda: model("autoencoder").compile("adam", objectives.IWAE(2)),
        "`objective` ... Reconstruction ... IWAE",
    ),
    ("max_skipped_0", compiled(max_skipped=0), "`max_skipped` ... positive int ... =0"),
    ("max_skipped_float", compiled(max_skipped=1.5), "`max_skipped` ... int ... =1.5"),
    ("optimizer", compiled(optimizer="adamm"), "optimizer ... adamm"),
    ("optimizer_none", compiled(optimizer=None), "optimizer ... None"),
    ("optimizer_class", compiled(optimizer=keras.optimizers.Adam), "optimizer ... Adam"),
    ("optimizer_used", used_optimizer, "optimizer ... another|other|originally"),
    ("execution", compiled(steps_per_execution=0), "`steps_per_execution` ... =0"),
    ("fit_before", not_compiled("fit"), "compile()"),
    ("evaluate_before", not_compiled("evaluate"), "compile()"),
)
def test_compile(call, message):
    refused(call, message)


@pytest.mark.parametrize("name", ["optimiser", "learning_rate"])
def test_unknown_argument_of_compile(name):
    # Python's own error for a keyword that a function does not have.
    refused(compiled(**{name: "adam"}), f"unexpected ... '{name}'", TypeError)


# Seeds and sampling.


def sample(*args, name="normal", **options):
    return lambda: model(name).sample(*args, **options)


EITHER = "Give either `n` ... `seeds`"


@table(
    ("too_large", make(seed=2**31), f"`seed` ... 32 bits ... ={2**31}"),
    ("too_small", make(seed=-(2**31) - 1), f"`seed` ... 32 bits ... =-{2**31 + 1}"),
    ("float", make(seed=1.0), "`seed` ... int ... =1.0"),
    ("string", make(seed="1"), "`seed` ... int ... ='1'"),
    ("bool", make(seed=True), "`seed` ... int ... =True"),
    ("autoencoder", auto(2, 1.5), "`seed` ... int ... =1.5"),
    ("sample_too_large", sample(2, seed=2**40), f"`seed` ... 32 bits ... ={2**40}"),
    ("sample_float", sample(2, seed=1.0), "`seed` ... int ... =1.0"),
    ("sample_list", sample(2, seed=[1, 2]), "`seed` ... int ... =[1, 2]"),
    ("neither", sample(), f"{EITHER} ... n=None ... seeds=None"),
    ("seed_alone", sample(seed=1), f"{EITHER} ... n=None ... seed=1"),
    ("both", sample(2, seeds=[1, 2]), f"{EITHER} ... n=2 ... seeds=[1, 2]"),
    ("seed_and_seeds", sample(seed=1, seeds=[1]), f"{EITHER} ... seed=1 ... seeds=[1]"),
    ("n_0", sample(0), "`n` ... positive int ... =0"),
    ("n_negative", sample(-3), "`n` ... positive int ... =-3"),
    ("n_float", sample(2.0), "`n` ... positive int ... =2.0"),
    ("n_bool", sample(True), "`n` ... positive int ... =True"),
    ("n_list", sample([1, 2]), "`n` ... positive int ... =[1, 2]"),
    ("seeds_float", sample(seeds=[1.0, 2.0]), "`seeds` ... ints ... float64"),
    ("seeds_2d", sample(seeds=[[1, 2]]), "`seeds` ... [rows] ... (1, 2)"),
    ("seeds_scalar", sample(seeds=3), "`seeds` ... [rows] ... ()"),
    ("seeds_empty", sample(seeds=np.zeros(0, int)), "`seeds` ... [rows] ... (0,)"),
    ("seeds_string", sample(seeds="12"), "`seeds` ... ints ... <U2"),
    ("seeds_bool", sample(seeds=[True]), "`seeds` ... ints ... bool"),
    ("seeds_ragged", sample(seeds=[[1], [2, 3]]), "`seeds` ... list|[[1], [2, 3]]"),
    # Unsigned hashes, say: as int64 they would wrap around in silence.
    ("seeds_unsigned", sample(seeds=[2**63]), "`seeds` ... int64|64 bits ... uint64|9223"),
    ("seeds_70_bits", sample(seeds=[2**70]), "`seeds` ... int ... object|11805"),
    (
        "signature_float",
        lambda: kv.signatures.sample(model(), tf.constant([1.5])),
        "`seed` ... int ... float32",
    ),
    (
        "signature_strings",
        lambda: kv.signatures.sample(model(), tf.constant(["1"])),
        "`seed` ... int ... string",
    ),
)
def test_seeds(call, message):
    refused(call, message)


@table(
    ("sample", sample(3, name="autoencoder"), "prior ... decode(z) ... VAE"),
    ("sample_of_nothing", sample(name="autoencoder"), "prior ... decode(z) ... VAE"),
    (
        "log_likelihood",
        lambda: model("autoencoder").log_likelihood(good()),
        "density ... evaluate ... VAE",
    ),
    (
        # The other door to the same.
        "importance_weighted",
        lambda: evaluation.importance_weighted(model("autoencoder"), good(), 2),
        "density ... VAE",
    ),
)
def test_what_an_autoencoder_does_not_have(call, message):
    refused(call, message, NotImplementedError)


# Networks and evaluation.


def mlp(*args):
    return lambda: nets.MLP(*args)


def conv(*args):
    return lambda: nets.ConvEncoder(*args)


def deconv(filters=(4,), image_shape=(4, 4, 1), *args):
    return lambda: nets.ConvDecoder(filters, image_shape, *args)


def likelihood(**options):
    return lambda: evaluation.importance_weighted(model(), good(), **options)


def probe(**replaced):
    labels = np.arange(8) % 2
    data = {"x_train": good(), "y_train": labels, "x_test": good(), "y_test": labels}
    return lambda: evaluation.linear_probe(model(), **{**data, **replaced})


@table(
    ("units_int", mlp(400), "`units` ... positive ints ... =400"),
    ("units_0", mlp([0]), "`units` ... positive ints ... =[0]"),
    ("units_float", mlp([4.0]), "`units` ... positive ints ... =[4.0]"),
    ("units_none", mlp(None), "`units` ... positive ints ... =None"),
    ("units_string", mlp("400"), "`units` ... positive ints ... ='400'"),
    ("activation", mlp([4], "rellu"), "activation ... rellu"),
    ("filters_int", conv(32), "`filters` ... positive ints ... =32"),
    ("filters_negative", conv([-1]), "`filters` ... positive ints ... =[-1]"),
    ("filters_empty", conv([]), "`filters` ... positive ints ... =[]"),
    ("kernel_0", conv([4], 0), "kernel_size ... 0"),
    ("decoder_filters_0", deconv([0]), "`filters` ... positive ints ... =[0]"),
    ("decoder_filters_empty", deconv([]), "`filters` ... positive ints ... =[]"),
    ("decoder_kernel", deconv([4], (4, 4, 1), 0), "kernel_size ... 0"),
    ("image_of_rank_2", deconv([4], (28, 28)), "`image_shape` ... channels ... =(28, 28)"),
    ("image_int", deconv([4], 28), "`image_shape` ... positive ints ... =28"),
    ("image_0", deconv([4], (28, 0, 1)), "`image_shape` ... ints ... =(28, 0, 1)"),
    (
        "log_likelihood",
        lambda: model().log_likelihood(good(), num_samples=0),
        "`num_samples` ... positive int ... =0",
    ),
    ("num_samples", likelihood(num_samples=1e3), "`num_samples` ... int ... =1000.0"),
    ("batch_size", likelihood(batch_size=0), "`batch_size` ... positive int ... =0"),
    ("bits", lambda: evaluation.bits_per_dimension(1.0, 784), f"{SHAPE} ... =784"),
    (
        "active_units",
        lambda: evaluation.active_units(model(), good(), batch_size=0),
        "`batch_size` ... positive int ... =0",
    ),
    (
        "active_units_shape",
        lambda: evaluation.active_units(model(), np.zeros((8, 5))),
        "`x` ... 'batch', 6 ... (8, 5)",
    ),
    (
        "kl_of_autoencoder",
        lambda: evaluation.kl_per_unit(model("autoencoder"), good()),
        "KL ... closed form ... Deterministic ... StandardNormal",
    ),
    (
        "kl_of_mixture",
        lambda: evaluation.kl_per_unit(model("mixture"), good()),
        "KL ... closed form ... Normal ... Mixture",
    ),
    ("probe_y", probe(y_train=np.zeros(5)), "`y_train` ... 8 ... (5,)"),
    ("probe_y_test", probe(y_test=np.zeros(5)), "`y_test` ... 8 ... (5,)"),
    ("probe_x_test", probe(x_test=NAN), "`x_test` ... finite ... 1 value"),
)
def test_networks_and_evaluation(call, message):
    refused(call, message)


# Files.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "vae.keras"
    model().save(path)
    return path.read_bytes()


def with_damaged_weights(data):
    at = data.index(b"model.weights.h5") + 2000  # behind the header, where the arrays are
    return data[:at] + b"\xff" * 64 + data[at + 64 :]


DAMAGES = {
    "truncated": lambda data: data[: len(data) // 2],
    "weights": with_damaged_weights,
    "empty": lambda data: b"",
    "text": lambda data: b"404: Not Found",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_keras_files(damage, saved, tmp_path):
    path = tmp_path / "damaged.keras"
    path.write_bytes(DAMAGES[damage](saved))
    # The loader is Keras'; whatever type its error has, it must say that it is the file.
    with pytest.raises((ValueError, OSError, zipfile.BadZipFile)) as caught:
        keras.saving.load_model(path)
    text = str(caught.value)
    assert "damaged.keras" in text or "model.weights.h5" in text
    assert len(text) < READABLE


def test_missing_keras_file(tmp_path):
    path = tmp_path / "missing.keras"
    refused(lambda: keras.saving.load_model(path), "not found ... missing.keras")


OTHERS = {
    "width": lambda: vae(encoder=dense(7), seed=1),
    "depth": lambda: vae(encoder=keras.Sequential([dense(7), dense(4)]), seed=1),
    "scale": lambda: vae(likelihood=IndependentNormal((6,), scale=1.0), seed=1),
}


@pytest.mark.parametrize("other", OTHERS)
def test_weights_of_another_architecture_are_loaded_not_even_in_part(other, tmp_path):
    path = tmp_path / "other.weights.h5"
    saved = OTHERS[other]()
    saved.compile("adam")
    saved.step.assign(17)
    saved.save_weights(path)
    refused(lambda: model().load_weights(path), "could not be loaded|expected")


class Unsaveable(keras.layers.Dense):
    def get_config(self):
        raise NotImplementedError("Unsaveable has no config")


def test_a_failed_save_leaves_the_former_file(saved, tmp_path):
    path = tmp_path / "vae.keras"
    path.write_bytes(saved)
    broken = vae(encoder=Unsaveable(4))
    broken.compile("adam")
    refused(lambda: broken.save(path), "Unsaveable", NotImplementedError)
    assert path.read_bytes() == saved
    assert [p.name for p in tmp_path.iterdir()] == ["vae.keras"]  # and nothing beside it


def test_save_under_a_wrong_name(tmp_path):
    path = tmp_path / "vae.model"
    refused(lambda: model().save(path), ".keras ... vae.model")
    assert not path.exists()


# The backend.


def test_another_keras_backend_is_refused(monkeypatch):
    # Keras is told of another one, not run with it: that would need JAX or PyTorch.
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    call = lambda: importlib.reload(kv)  # noqa: E731
    refused(
        call, "TensorFlow backend ... 'jax' ... KERAS_BACKEND=\"tensorflow\"", ImportError
    )
