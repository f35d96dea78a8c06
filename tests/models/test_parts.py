"""Networks must return features: images, samples and masks are refused."""

import keras
import pytest
import tensorflow as tf

import keras_vae as kv
from tests.refusals import assert_refused

layers = keras.layers
EVENT = (8, 8, 1)
normal, bernoulli = (
    kv.distributions.IndependentNormal,
    kv.distributions.IndependentBernoulli,
)


class Subclassed(keras.Model):
    """A decoder whose layers cannot be read from its structure."""

    def __init__(self, last):
        super().__init__()
        self.dense, self.last = layers.Dense(64), last

    def call(self, z):
        return keras.ops.reshape(self.last(self.dense(z)), (-1, *EVENT))


def functional(last):
    z = keras.Input((2,))
    return keras.Model(z, layers.Reshape(EVENT)(last(layers.Dense(64)(z))))


def ending(*last):
    """A decoder with 4 channels, and further layers."""
    dense = [layers.Dense(64, "relu"), layers.Reshape((4, 4, 4))]
    return keras.Sequential([*dense, *last])


def upsample(activation, filters=1):
    return layers.Conv2DTranspose(filters, 3, 2, "same", activation=activation)


def make(decoder, likelihood):
    return kv.VAE(layers.Flatten(), decoder, likelihood, latent_dim=2)


def steps(*last):
    return keras.Sequential([layers.RepeatVector(5), *last])


DECODERS_OF_EVENTS = {
    "keras.io": lambda: (ending(upsample("sigmoid")), bernoulli(EVENT)),
    "tanh": lambda: (ending(upsample("tanh")), normal(EVENT)),
    "relu": lambda: (ending(upsample("relu")), normal(EVENT)),
    "silu": lambda: (ending(upsample("silu")), normal(EVENT)),
    "clipped": lambda: (ending(upsample("hard_sigmoid")), normal(EVENT)),
    "colours": lambda: (ending(upsample("sigmoid", 3)), normal((8, 8, 3))),
    "colours, larger": lambda: (ending(upsample("sigmoid", 3)), normal((7, 7, 3))),
    "activation layer": lambda: (
        ending(upsample(None), layers.Activation("sigmoid")),
        bernoulli(EVENT),
    ),
    "lambda, cropped": lambda: (
        ending(
            layers.ZeroPadding2D(1),
            upsample(None),
            layers.Lambda(tf.sigmoid),
            layers.Cropping2D(2),
        ),
        bernoulli(EVENT),
    ),  # fmt: skip
    "rescaled": lambda: (
        ending(upsample("tanh"), layers.Rescaling(0.5, 0.5)),
        normal(EVENT),
    ),
    "reshaped": lambda: (
        keras.Sequential([layers.Dense(64, "sigmoid"), layers.Reshape(EVENT)]),
        bernoulli(EVENT),
    ),
    "flat": lambda: (layers.Dense(64, "sigmoid"), bernoulli(EVENT)),
    "vector": lambda: (layers.Dense(64, "sigmoid"), bernoulli((64,))),
    "functional": lambda: (functional(keras.ops.sigmoid), bernoulli(EVENT)),
    "nested": lambda: (
        keras.Sequential([functional(keras.ops.softmax)]),
        normal(EVENT),
    ),
    "subclassed": lambda: (Subclassed(keras.ops.sigmoid), bernoulli(EVENT)),
    "steps": lambda: (
        steps(layers.TimeDistributed(layers.Dense(3, "sigmoid"))),
        normal((5, 3)),
    ),
    "logits that are not": lambda: (
        ending(upsample("sigmoid")),
        bernoulli(EVENT, projection=layers.Identity()),
    ),
}
DECODERS_OF_FEATURES = {
    "convolution": lambda: (ending(upsample("relu", 4)), bernoulli(EVENT)),
    "linear": lambda: (ending(upsample(None)), bernoulli(EVENT)),
    "logits": lambda: (
        ending(upsample(None)),
        bernoulli(EVENT, projection=layers.Identity()),
    ),
    "mean": lambda: (
        ending(upsample("sigmoid")),
        normal(EVENT, projection=layers.Identity()),
    ),
    "as wide as a table": lambda: (kv.nets.MLP([6], "tanh"), normal((6,))),
    "as wide as an image": lambda: (kv.nets.MLP([64]), normal(EVENT)),
    "recurrent": lambda: (
        steps(layers.LSTM(3, return_sequences=True)),
        normal((5, 3)),
    ),
    "functional": lambda: (functional(lambda h: h), bernoulli(EVENT)),
}


@pytest.mark.parametrize("name", DECODERS_OF_EVENTS)
def test_a_decoder_that_ends_in_an_event_is_refused(name):
    decoder, likelihood = DECODERS_OF_EVENTS[name]()
    assert_refused(lambda: make(decoder, likelihood), "`decoder`", "projection=")


@pytest.mark.parametrize("name", DECODERS_OF_FEATURES)
def test_a_decoder_of_features_is_accepted(name):
    make(*DECODERS_OF_FEATURES[name]())


def test_the_decoder_of_a_conditional_model_is_checked():
    decoder = keras.Sequential([layers.Dense(64, "sigmoid"), layers.Reshape(EVENT)])
    condition = {"label": 3, "angle": ()}

    def make_conditional():
        kv.ConditionalVAE(kv.nets.MLP([4]), decoder, bernoulli(EVENT), 2, condition)

    assert_refused(make_conditional, "`decoder`", "projection=")


def encoder(*outputs):
    """The encoder of Keras' tutorial, with some of its three outputs."""
    x = keras.Input((6,))
    mean, log_var = layers.Dense(2)(x), layers.Dense(2)(x)
    z = Sampling()([mean, log_var])
    values = {"mean": mean, "log_var": log_var, "z": z}
    chosen = [values[name] for name in outputs]
    return keras.Model(x, chosen if len(chosen) > 1 else chosen[0])


class Sampling(layers.Layer):
    def call(self, inputs):
        mean, log_var = inputs
        noise = keras.random.normal(keras.ops.shape(mean), seed=1)
        return mean + keras.ops.exp(0.5 * log_var) * noise


@pytest.mark.parametrize(
    "outputs", [("mean", "log_var", "z"), ("mean", "log_var"), ("z",)], ids=str
)
def test_an_encoder_that_makes_the_posterior_is_refused(outputs):
    refused = encoder(*outputs)
    with pytest.raises(ValueError, match="Leave out"):
        kv.VAE(refused, kv.nets.MLP([4]), normal((6,)), 2)


def test_an_encoder_may_be_random_in_training():
    network = [layers.GaussianNoise(1.0), layers.Dropout(0.5), Identity()]
    kv.VAE(keras.Sequential(network), kv.nets.MLP([4]), normal((6,)), 2)


class Identity(layers.Layer):
    def call(self, x):
        return x


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_masks_are_refused(part):
    networks = {"encoder": layers.LSTM(4), "decoder": steps(layers.Dense(4))}
    masked = keras.Sequential([layers.Masking(0.0), layers.LSTM(4)])
    networks[part] = keras.Sequential([masked])

    def make_masked():
        kv.VAE(**networks, likelihood=normal((5, 1)), latent_dim=2)

    assert_refused(make_masked, f"`{part}`", "mask")
