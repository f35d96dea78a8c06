"""The conditional variational autoencoder: what is conditional, and nothing else."""

import math

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks, input, nets, random
from keras_vae.models.vae import VAE


@keras.saving.register_keras_serializable("keras_vae")
class ConditionalVAE(VAE):
    """Conditional variational autoencoder, p(x | c) (Sohn et al., 2015, equation 4).

    `log p(x|c) >= E_q(z|x,c) log p(x|z,c) - KL(q(z|x,c) || p(z|c))`. The observed comes
    first, the condition second, as in every labelled data set: `fit(images, labels)`,
    `encode(x, condition=labels)`, `sample(16, condition=3)`.

    Encoder and decoder are networks of two inputs, `(x, condition)` and
    `(z, condition)`, such as `nets.Planes(nets.ConvEncoder([32, 64]))` and
    `nets.FiLM(nets.ConvDecoder([64, 32], (28, 28, 1)))`; of a dict of conditions they get
    a dict. A `keras.Sequential`, such as `nets.MLP([400])`, knows one input, and is taken
    as `nets.Concatenated` of it.

    With `condition_dropout` one model learns p(x|c) and p(x): training leaves out each
    condition of a row at random, and use may leave out any of them (Ho and Salimans,
    2021, algorithm 1). A label that is missing is -1, numbers are NaN.

    Args:
        encoder: Keras layer or model, (x, condition) -> features.
        decoder: Keras layer or model, (z, condition) -> features.
        likelihood: head of p(x|z, c).
        latent_dim: int, see `VAE`.
        condition: what x depends on: an int n for labels from 0 to n - 1, which the
            networks get one-hot; a tuple, the shape of the numbers of a row, `()` for one
            (uint8 is divided by 255); or a dict of these by name.
        condition_dropout: float in [0, 1), the probability with which training leaves out
            a condition of a row.
        posterior: head of q(z|x, c).
        prior: prior p(z|c), whose `distribution(condition)` gets the condition as the
            networks do.
        seed: int of 32 bits, see `VAE`.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Raises:
        ValueError: if a part is of the wrong kind or does not fit the others.

    Example:

    >>> from keras_vae import distributions, nets
    >>> cvae = ConditionalVAE(
    ...     encoder=nets.MLP([16]),
    ...     decoder=nets.MLP([16]),
    ...     likelihood=distributions.IndependentNormal((8,)),
    ...     latent_dim=2,
    ...     condition=10,
    ... )
    >>> cvae.compile("adam")
    >>> x, labels = keras.random.normal((64, 8), seed=0), np.arange(64) % 10
    >>> history = cvae.fit(x, labels, epochs=2, verbose=0)
    >>> cvae.sample(16, seed=1, condition=3).shape
    TensorShape([16, 8])
    """

    def __init__(
        self,
        encoder,
        decoder,
        likelihood,
        latent_dim=None,
        condition=None,
        condition_dropout=0.0,
        posterior=None,
        prior=None,
        seed=None,
        **kwargs,
    ):
        kinds = _kinds(condition)
        rate = checks.non_negative(condition_dropout, "condition_dropout")
        checks.that(rate < 1, "condition_dropout", "below 1", condition_dropout)
        encoder, decoder = (
            nets.Concatenated(part) if isinstance(part, keras.Sequential) else part
            for part in (encoder, decoder)
        )
        super().__init__(
            encoder, decoder, likelihood, latent_dim, posterior, prior, seed, **kwargs
        )
        self.condition_dropout = rate
        self._kinds = kinds

    # How the condition is read.

    def unpack(self, data):
        x, condition, weight = keras.utils.unpack_x_y_sample_weight(data)
        if condition is None:
            raise ValueError(
                f"{type(self).__name__} takes pairs: `fit(x, y)`, or a dataset of (x, y). "
                "Received: y=None"
            )
        return x, condition, weight

    def check_labels(self, y, rows, name):
        self.unpack((None, y))
        input.check_labels(y, rows, name)
        return self.check_condition(y, rows, name)

    def check_condition(self, condition, rows, name="condition"):
        """A condition as arrays with a row for each row, checked.

        Args:
            condition: an array or a dict of them, as was said when the model was made; of
                one that has no rows, each row gets all. None, or a name that the dict
                leaves out, is missing.
            rows: int.
            name: str, the argument's name for errors.

        Raises:
            ValueError: for a name, a shape, a dtype or a value that does not fit, and for
                a missing condition, unless there is `condition_dropout`.
        """
        if not isinstance(self._kinds, dict):
            return self._checked_condition(self._kinds, condition, rows, name)
        given = self._named(condition, name)
        return {
            key: self._checked_condition(kind, given.get(key), rows, f"{name}[{key!r}]")
            for key, kind in self._kinds.items()
        }

    def _named(self, condition, name):
        """Several conditions, of which some may be left out: a dict with names we know."""
        given = {} if condition is None else condition
        known = isinstance(given, dict) and {*given} <= {*self._kinds}
        received = list(given) if isinstance(given, dict) else type(given).__name__
        checks.that(known, name, f"a dict with the keys {list(self._kinds)}", received)
        return given

    def _checked_condition(self, kind, value, rows, name):
        if tf.is_symbolic_tensor(value):
            return value
        wanted = (rows, *kind.shape)
        if value is None:
            expected = f"given: {type(self).__name__} has no `condition_dropout`"
            checks.that(self.condition_dropout, name, expected, None)
            return np.full(wanted, kind.missing)
        array = np.asarray(input.plain_array(value, name))
        if array.shape not in (wanted, kind.shape):
            raise ValueError(
                f"`{name}` must have the shape {wanted}, or {kind.shape} for all rows "
                f"alike. Received: {name} of shape {array.shape}"
            )
        array = kind.check(array, name, self.condition_dropout > 0)
        return np.broadcast_to(array, wanted)

    def example_condition(self, rows):
        return self._each(lambda kind: kind.example(rows))

    def embed(self, condition):
        return self._each(
            lambda kind, value: kind.embed(value, self.condition_dropout > 0), condition
        )

    def terms(self, x, draw, condition=None, num_samples=1, training=False):
        if training and self.condition_dropout:
            count = len(tf.nest.flatten(self._kinds))
            noise = draw("uniform", (count,), random.CONDITION)[0]
            kept = iter(tf.unstack(noise >= self.condition_dropout, axis=1))
            condition = self._each(
                lambda kind, value: kind.keep(value, next(kept)), condition
            )
        return super().terms(x, draw, condition, num_samples, training)

    def _each(self, function, *conditions):
        """`function(kind, value)` of each condition, in the structure that they have."""
        return tf.nest.map_structure(function, self._kinds, *conditions, check_types=False)

    # How it reaches the networks.

    def infer(self, x, condition=None, training=False):
        return self.posterior(self.encoder((x, condition), training=training))

    def generate(self, z, condition=None, training=False):
        return self.likelihood(self.decoder((z, condition), training=training))

    def guided(self, z, condition, guidance):
        """Parameters of p(x|z, c) that say more of c, or less, than was learned.

        `logits` and `loc` are those without the condition and `guidance` times what it
        adds to them (as Ho and Salimans, 2021, equation 6, extrapolate scores). Under a
        Bernoulli that is `p(x|z, c)**g * p(x|z)**(1 - g)`, normalised, and under a Normal
        whose scale does not depend on c. z is that of p(z|c) in any case.
        """
        params = self.generate(z, condition)
        named = {"logits", "loc"} & {*params}
        expected = "1.0: the likelihood has neither `logits` nor `loc`"
        checks.that(named, "guidance", expected, guidance)
        nothing = tf.nest.map_structure(tf.zeros_like, condition)  # as `embed` has it
        without = self.generate(z, nothing)
        for name in named:
            difference = params[name] - without[name]
            params = {**params, name: without[name] + guidance * difference}
        return params

    def sample(
        self, n=None, seed=None, seeds=None, mean=False, condition=None, guidance=1.0
    ):
        """Draws x from p(x|c), as `VAE.sample`.

        Args:
            n: int, how many rows. Default: those of the condition.
            seed: int, see `VAE.sample`.
            seeds: ints `[rows]`, see `VAE.sample`.
            mean: bool, return the means of p(x|z, c) rather than draws.
            condition: as in `fit`, with n rows, or one for all; None, or a name that a dict
                leaves out, is missing.
            guidance: number of 0 or more, how much the condition counts in p(x|z, c): 0
                nothing, 1 as learned, more than that exaggerates it. Needs
                `condition_dropout`.

        Returns:
            float32 tensor `[rows, *event]`.

        Raises:
            ValueError: for counts, seeds or conditions that do not fit.
        """
        from keras_vae import signatures

        guidance = checks.non_negative(guidance, "guidance")
        expected = f"1.0: {type(self).__name__} has no `condition_dropout`"
        checks.that(self.condition_dropout or guidance == 1, "guidance", expected, guidance)
        if n is None and seeds is None:
            n = self._rows_of(condition)
        name = "mean" if mean else "x"
        return signatures.sample_rows(self, n, seed, seeds, name, condition, guidance)

    def _rows_of(self, condition):
        """How many rows a condition has, or None if it is one for all."""
        single = not isinstance(self._kinds, dict)
        kinds = {None: self._kinds} if single else self._kinds
        given = {None: condition} if single else self._named(condition, "condition")
        rows = [len(v) for k, v in given.items() if np.ndim(v) > len(kinds[k].shape)]
        return rows[0] if rows else None

    def predict(self, x, batch_size=None, condition=None, **kwargs):
        """`keras.Model.predict`: reconstructions of (x, condition), `[rows, *event]`."""
        if input.is_source(x):
            expected = "part of a dataset of (x, condition)"
            checks.that(condition is None, "condition", expected, condition)
        else:
            x = self.check_data(x)
            checks.positive_ints_or_none(batch_size=batch_size)
            pair = x, self.check_condition(condition, len(x))
            x, batch_size = input.batches(pair, batch_size or 32), None
        return super().predict(x, batch_size, **kwargs)

    def predict_step(self, data):
        x, condition, _ = self.unpack(data)
        return self(x, condition=condition, training=False)

    def get_config(self):
        return {
            **super().get_config(),
            "condition": self._each(lambda kind: kind.given),
            "condition_dropout": self.condition_dropout,
        }


class _Label:
    """A label from 0 to classes - 1, -1 where it is missing; embedded one-hot."""

    missing, shape = np.int32(-1), ()

    def __init__(self, classes):
        self.given = self.classes = classes

    def check(self, array, name, may_miss):
        labels = f"labels from 0 to {self.classes - 1}"
        if array.dtype.kind not in "iu":
            raise ValueError(
                f"`{name}` must hold {labels}, ints. "
                f"Received: {name} of dtype {array.dtype}"
            )
        array = array.astype(np.int64)
        wrong = (array < (-1 if may_miss else 0)) | (array >= self.classes)
        if wrong.any():
            raise ValueError(
                f"`{name}` must hold {labels}{', or -1 for a missing one' * may_miss}. "
                f"Received: {np.unique(array[wrong])[:5].tolist()}"
            )
        return array.astype(np.int32)

    def example(self, rows):
        return np.arange(rows, dtype=np.int32) % np.int32(self.classes)

    def keep(self, label, kept):
        return tf.where(kept, tf.cast(label, tf.int32), self.missing)

    def embed(self, label, may_miss):
        label = tf.cast(label, tf.int32)
        known = (label >= (-1 if may_miss else 0)) & (label < self.classes)
        # NaN, not zeros, for a label that there is not: such a step is skipped.
        hole = tf.sqrt(tf.cast(known, tf.float32) - 1.0)
        return tf.one_hot(label, self.classes) + hole[:, None]


class _Numbers:
    """Numbers of a shape, NaN where a row is missing; embedded with a flag beside them."""

    missing = np.float32("nan")

    def __init__(self, shape):
        self.given = self.shape = shape

    def check(self, array, name, may_miss):
        input.check_dtype(array.dtype, name)
        if array.dtype.kind != "f":
            return array
        wrong = ~np.isfinite(array) & ~(np.isnan(array) & may_miss)
        if wrong.any():
            raise ValueError(
                f"`{name}` must be finite. "
                f"Received: {wrong.sum()} values of NaN or infinity"
            )
        return array.astype(np.float32)

    def example(self, rows):
        numbers = np.sin(np.arange(rows * math.prod(self.shape)), dtype=np.float32)
        return numbers.reshape(rows, *self.shape)

    def keep(self, value, kept):
        kept = tf.reshape(kept, (-1, *[1] * len(self.shape)))
        return tf.where(kept, self._as_float(value), self.missing)

    def embed(self, value, may_miss):
        value = self._as_float(value)
        if not self.shape:
            value = value[:, None]
        if not may_miss:
            return value
        axes = range(1, value.shape.rank)
        known = tf.reduce_all(tf.equal(value, value), axis=axes, keepdims=True)
        flag = tf.cast(known, tf.float32) * tf.ones((1, *value.shape[1:-1], 1))
        return tf.concat([tf.where(known, value, 0.0), flag], axis=-1)

    @staticmethod
    def _as_float(value):
        scale = 255.0 if value.dtype == "uint8" else 1.0
        return tf.cast(value, tf.float32) / scale


def _kinds(condition):
    """What each condition is: `_Label` or `_Numbers`, or a dict of them by name."""
    if isinstance(condition, dict):
        taken = {"x", "z", "seed", "condition"}
        fits = condition and all(
            isinstance(key, str) and key.isidentifier() and key not in taken
            for key in condition
        )
        expected = f"a dict by names other than {sorted(taken)}"
        checks.that(fits, "condition", expected, condition)
        return {
            key: _kind(value, f"condition[{key!r}]") for key, value in condition.items()
        }
    return _kind(condition, "condition")


def _kind(value, name):
    if isinstance(value, (tuple, list)):
        return _Numbers(checks.shape(value, name) if value else ())
    if isinstance(value, (bool, type(None), float, str)):
        expected = (
            "an int, how many labels there are, a tuple, the shape of numbers, or a dict"
        )
        checks.that(False, name, expected, value)
    return _Label(checks.positive_int(value, name))
