"""One row for each public model, head, prior, objective, schedule and net.

The conformance tests run for every row and fail if a public name has no row.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import keras_vae as kv

ROWS = 24


def _rng():
    return np.random.default_rng(0)


def vectors(dim=6):
    """Rows on a noisy line, which can be learned in a few steps."""
    rng = _rng()
    return (
        rng.normal(size=(ROWS, 1)) * np.linspace(-2, 2, dim)
        + 0.1 * rng.normal(size=(ROWS, dim))
    ).astype(np.float32)


def binary(shape=(6,)):
    return (_rng().uniform(size=(ROWS, *shape)) < 0.2).astype(np.float32)


def grey(shape=(5, 7, 2)):
    """Images of odd size, uint8."""
    return _rng().integers(0, 120, (ROWS, *shape)).astype(np.uint8)


@keras.saving.register_keras_serializable("zoo")
class Unbuilt(keras.layers.Layer):
    """A user's encoder with Dropout and without a `build` method."""

    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units, "tanh")
        self.dropout = keras.layers.Dropout(0.2)

    def call(self, x, training=False):
        return self.dropout(self.dense(x), training=training)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("zoo")
class LearnedNormal(kv.distributions.Prior):
    """A user's prior with weights, and without a formula for samples from noise."""

    def __init__(self, event_shape, **kwargs):
        super().__init__(event_shape, **kwargs)
        self.loc = self.add_weight(name="loc", shape=self.event_shape, initializer="zeros")

    def distribution(self, condition=None):
        import tensorflow_probability as tfp

        normal = tfp.distributions.Normal(tf.convert_to_tensor(self.loc), 1.0)
        return tfp.distributions.Independent(normal, len(self.event_shape))


@dataclasses.dataclass
class Row:
    """A model and data for it.

    Attributes:
        name: id of the row in pytest.
        build: function that returns a new, uncompiled model.
        x: array for `fit`.
        covers: public names that this row tests.
        objective: function that returns the objective. Default: the model's default.
        condition: the condition of a conditional model.
    """

    name: str
    build: Callable
    x: np.ndarray
    covers: tuple
    objective: Callable | None = None
    condition: np.ndarray | dict | None = None

    def condition_kwargs(self, rows=ROWS, training=False):
        """Returns the condition of the first rows as keyword arguments of a model."""
        if self.condition is None:
            return {}
        condition = tf.nest.map_structure(lambda c: c[:rows], self.condition)
        if self.name == "semi_supervised" and not training:
            condition = abs(condition)  # labels may be missing only in training
        return {"condition": condition}

    def data(self):
        """Returns the arguments x and y of `fit`."""
        pair = self.x, self.condition
        return pair[::-1] if self.name == "structured" else pair

    def predict(self, model):
        if self.name == "structured":
            return model.predict(self.condition, num_samples=3)
        return model.predict(self.x, verbose=0, **self.condition_kwargs())

    def make(self, optimizer="adam", **options):
        """Builds and compiles a new model, with the same weights each time."""
        keras.utils.set_random_seed(1)
        model = self.build()
        model.compile(optimizer, self.objective and self.objective(), **options)
        return model


def _vae(likelihood, latent_dim=2, encoder=None, decoder=None, **kwargs):
    return kv.VAE(
        encoder or kv.nets.MLP([8], activation="tanh"),
        decoder or kv.nets.MLP([8], activation="tanh"),
        likelihood,
        latent_dim,
        seed=3,
        **kwargs,
    )


normal = kv.distributions.IndependentNormal
bernoulli = kv.distributions.IndependentBernoulli


ZOO = [
    Row(
        "shared_scale",
        lambda: _vae(normal((6,))),
        vectors(),
        ("VAE", "IndependentNormal", "StandardNormal", "MLP", "ELBO"),
    ),
    Row(
        "per_element_scale", lambda: _vae(normal((6,), scale="per_element")), vectors(), ()
    ),
    Row("fixed_scale", lambda: _vae(normal((6,), scale=0.5)), vectors(), ()),
    Row(
        "shared_posterior",
        lambda: _vae(normal((6,)), None, posterior=normal((2,), scale="shared")),
        vectors(),
        (),
    ),
    Row("bernoulli", lambda: _vae(bernoulli((6,), grey="error")), binary(), ()),
    Row("soft", lambda: _vae(bernoulli((5, 7, 2), grey="soft")), grey(), ()),
    Row(
        "conv",
        lambda: _vae(
            bernoulli((5, 7, 2), grey="binarize"),
            encoder=kv.nets.ConvEncoder([4, 8]),
            decoder=kv.nets.ConvDecoder([8, 4], (5, 7, 2)),
        ),
        grey(),
        ("IndependentBernoulli", "ConvEncoder", "ConvDecoder"),
    ),
    Row(
        "volumes",
        lambda: _vae(
            normal((3, 2, 2, 1)),
            encoder=keras.Sequential(
                [
                    kv.nets.Conv3DEncoder([4], activation="tanh"),
                    keras.layers.Reshape((2, 4)),
                    kv.nets.Conv1DEncoder([8], activation="tanh"),
                ]
            ),
            decoder=keras.Sequential(
                [
                    kv.nets.Conv1DDecoder([8], (2, 4), activation="tanh"),
                    kv.nets.Conv3DDecoder([4], (3, 2, 2, 1), activation="tanh"),
                ]
            ),
        ),
        vectors(12).reshape(ROWS, 3, 2, 2, 1),
        ("Conv1DEncoder", "Conv1DDecoder", "Conv3DEncoder", "Conv3DDecoder"),
    ),
    Row("dropout", lambda: _vae(normal((6,)), encoder=Unbuilt()), vectors(), ()),
    Row(
        "learned_prior",
        lambda: _vae(normal((6,)), None, prior=LearnedNormal((2,))),
        vectors(),
        (),
    ),
    Row(
        "iwae",
        lambda: _vae(normal((6,))),
        vectors(),
        ("IWAE",),
        lambda: kv.objectives.IWAE(5),
    ),
    Row(
        "free_bits",
        lambda: _vae(normal((6,))),
        vectors(),
        ("Cyclical",),
        lambda: kv.objectives.ELBO(kv.schedules.Cyclical(0.1, 1.0, 8), 0.1, num_samples=2),
    ),
    Row(
        "capacity",
        lambda: _vae(normal((6,))),
        vectors(),
        ("Linear", "Constant"),
        lambda: kv.objectives.ELBO(
            kv.schedules.Constant(2.0), capacity=kv.schedules.Linear(0.0, 2.0, 20)
        ),
    ),
    Row(
        "annealed",
        lambda: _vae(normal((6,))),
        vectors(),
        ("Cosine",),
        lambda: kv.objectives.ELBO(kv.schedules.Cosine(0.0, 1.0, 20)),
    ),
    Row(
        "autoencoder",
        lambda: kv.Autoencoder(
            kv.nets.MLP([8], "tanh"), kv.nets.MLP([8], "tanh"), normal((6,)), 2, seed=3
        ),
        vectors(),
        ("Autoencoder", "Deterministic", "Reconstruction"),
    ),
    Row(
        "label",
        lambda: kv.ConditionalVAE(
            kv.nets.MLP([8], "tanh"), kv.nets.MLP([8], "tanh"), normal((6,)), 2, 3, seed=3
        ),
        vectors(),
        ("ConditionalVAE", "Concatenated"),
        condition=np.arange(ROWS) % 3,
    ),
    Row(
        "conditions",
        lambda: kv.ConditionalVAE(
            encoder=kv.nets.Planes(kv.nets.ConvEncoder([4, 8])),
            decoder=kv.nets.FiLM(kv.nets.ConvDecoder([8, 4], (5, 7, 2), activation="tanh")),
            likelihood=bernoulli((5, 7, 2), grey="binarize"),
            latent_dim=2,
            condition={"label": 3, "angle": (), "image": (5, 7, 1)},
            condition_dropout=0.3,
            seed=3,
        ),
        grey(),
        ("FiLM", "Planes"),
        condition={
            "label": np.arange(ROWS) % 3,
            "angle": np.linspace(-1, 1, ROWS, dtype=np.float32),
            "image": grey((5, 7, 1)),
        },
    ),
    Row(
        "structured",
        lambda: kv.StructuredPredictor(
            kv.nets.MLP([8], "tanh"),
            kv.nets.MLP([8], "tanh"),
            bernoulli((6,), grey="error"),
            condition=(2,),
            prior=kv.distributions.PriorNetwork(kv.nets.MLP([8], "tanh"), (2,)),
            latent_dim=2,
            seed=3,
        ),
        binary(),
        ("StructuredPredictor", "PriorNetwork", "Hybrid"),
        lambda: kv.objectives.Hybrid(0.7, num_samples=2),
        condition=vectors(2),
    ),
    Row(
        "semi_supervised",
        lambda: kv.SemiSupervisedVAE(
            kv.nets.MLP([8], "tanh"),
            kv.nets.MLP([8], "tanh"),
            normal((6,)),
            2,
            condition=3,
            classifier=kv.nets.MLP([8], "tanh"),
            alpha=0.5,
            seed=3,
        ),
        vectors(),
        ("SemiSupervisedVAE",),
        condition=np.where(np.arange(ROWS) % 4, -1, np.arange(ROWS) % 3),
    ),
]
