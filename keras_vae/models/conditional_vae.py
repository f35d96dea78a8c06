"""The conditional variational autoencoder: a VAE with a condition."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks, conditions, random
from keras_vae.distributions import Head, Prior
from keras_vae.models.vae import VAE
from keras_vae.nets.conditional import with_condition
from keras_vae.terms import Terms
from keras_vae.training.arrays import as_numbers, check_labels, yields_batches
from keras_vae.training.batches import batches


@keras.saving.register_keras_serializable("keras_vae")
class ConditionalVAE(VAE):
    """Conditional variational autoencoder, p(x | c) (Sohn et al., 2015, equation 4).

    `log p(x|c) >= E_q(z|x,c) log p(x|z,c) - KL(q(z|x,c) || p(z|c))`. The data come first,
    the condition second, as in every labelled data set: `fit(images, labels)`,
    `encode(x, condition=labels)`, `sample(16, condition=3)`.

    Encoder and decoder are networks of two inputs, `(x, condition)` and
    `(z, condition)`, such as `nets.Planes(nets.ConvEncoder([32, 64]))` and
    `nets.FiLM(nets.ConvDecoder([64, 32], (28, 28, 1)))`. Several conditions are passed as a
    dict. A `keras.Sequential` has one input, so it is wrapped: `nets.ConvEncoder` in
    `nets.Planes`, `nets.MLP` in `nets.Concatenated`.

    With `condition_dropout`, one model learns p(x|c) and p(x). Training drops each
    condition of a row at random, and every method accepts missing conditions (Ho and
    Salimans, 2021, algorithm 1). A missing label is -1, missing numbers are NaN.

    Args:
        encoder: Keras layer or model, (x, condition) -> features.
        decoder: Keras layer or model, (z, condition) -> features.
        likelihood: head of p(x|z, c).
        latent_dim: int, see `VAE`.
        condition: the condition c. An int n: labels from 0 to n - 1, as ints, whole
            floats or one-hot rows; the networks receive them one-hot. A tuple: the shape of
            the numbers of a row, `()` for one number (uint8 is divided by 255). A dict from
            names to these: several conditions.
        condition_dropout: float in [0, 1), the probability that training drops a condition
            of a row.
        posterior: head of q(z|x, c).
        prior: prior p(z|c). Its method `distribution` receives the same condition as the
            networks.
        seed: int of 32 bits, see `VAE`.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Raises:
        ValueError: if a part has the wrong type or does not fit the others.

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
        encoder: keras.layers.Layer,
        decoder: keras.layers.Layer,
        likelihood: Head,
        latent_dim: int | None = None,
        condition: Any = None,
        condition_dropout: float = 0.0,
        posterior: Head | None = None,
        prior: Prior | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        parsed = conditions.parse(condition)
        rate = checks.non_negative(condition_dropout, "condition_dropout")
        checks.require(rate < 1, "condition_dropout", "below 1", condition_dropout)
        encoder, decoder = (
            with_condition(part) if isinstance(part, keras.Sequential) else part
            for part in (encoder, decoder)
        )
        super().__init__(
            encoder, decoder, likelihood, latent_dim, posterior, prior, seed, **kwargs
        )
        self.condition_dropout = rate
        self._conditions = parsed

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        try:
            super().build(input_shape)
        except ValueError as error:
            if error.__cause__ is None:  # not from a call of a network
                raise
            raise ValueError(
                f"Encoder and decoder of {type(self).__name__} have two inputs, (x, "
                "condition) and (z, condition). keras_vae.nets.Planes, Concatenated and "
                f"FiLM pass both to a network of one input that is not built yet. {error}"
            ) from error

    # Checks and embedding of the condition.

    def unpack(self, data: Any) -> tuple[Any, Any, Any]:
        x, condition, weight = keras.utils.unpack_x_y_sample_weight(data)
        if condition is None:
            raise ValueError(
                f"`y` must be set: {type(self).__name__} needs pairs, `fit(x, y)` or a "
                "dataset of (x, y). Received: y=None"
            )
        return x, condition, weight

    def check_labels(self, y: Any, rows: int, name: str) -> Any:
        self.unpack((None, y))
        check_labels(y, rows, name)
        return self.check_condition(y, rows, name)

    def check_condition(self, condition: Any, rows: int, name: str = "condition") -> Any:
        """Checks a condition and returns it as arrays with one row for each row of x.

        Args:
            condition: an array, or a dict of arrays if the constructor's `condition` is a
                dict. One condition without an axis of rows is repeated for all rows. None,
                or a name that is not in the dict, is a missing condition.
            rows: int, the number of rows of x.
            name: str, the argument's name for errors.

        Raises:
            ValueError: for an invalid name, shape, dtype or value, and for a missing
                condition if `condition_dropout` is 0.
        """
        if not isinstance(self._conditions, dict):
            return self._checked_condition(self._conditions, condition, rows, name)
        values = self._by_name(condition, name)
        return {
            key: self._checked_condition(part, values.get(key), rows, f"{name}[{key!r}]")
            for key, part in self._conditions.items()
        }

    def _by_name(self, condition, name):
        """Checks the names of several conditions. Returns a dict; names may be missing."""
        values = {} if condition is None else condition
        is_valid = isinstance(values, dict) and {*values} <= {*self._conditions}
        received = list(values) if isinstance(values, dict) else type(values).__name__
        expected = f"a dict with the keys {list(self._conditions)}"
        checks.require(is_valid, name, expected, received)
        return values

    def _checked_condition(self, condition, value, rows, name):
        if tf.is_symbolic_tensor(value):
            return value
        shape = (rows, *condition.shape)
        if value is None:
            expected = f"set: {type(self).__name__} has no `condition_dropout`"
            checks.require(self.condition_dropout, name, expected, None)
            return np.full(shape, condition.missing)
        array = condition.by_row(as_numbers(value, name), name)
        if array.shape not in (shape, condition.shape):
            one_hot = ""
            if isinstance(condition, conditions.LabelCondition):
                one_hot = f", or {(rows, condition.classes)} for one-hot labels"
            raise ValueError(
                f"`{name}` must have the shape {shape}, or {condition.shape} to use one "
                f"for all rows{one_hot}. Received: {name} of shape {array.shape}"
            )
        array = condition.check(array, name, self.condition_dropout > 0)
        return np.broadcast_to(array, shape)

    def example_condition(self, rows: int) -> Any:
        return self._map(lambda condition: condition.example(rows))

    def embed(self, condition: Any) -> Any:
        optional = self.condition_dropout > 0
        return self._map(lambda part, value: part.embed(value, optional), condition)

    def terms(
        self, x: Any, draw: random.Draw, condition: Any = None, num_samples: int = 1,
        training: bool = False,
    ) -> Terms:  # fmt: skip
        if training and self.condition_dropout:
            count = len(tf.nest.flatten(self._conditions))
            noise = draw("uniform", (count,), random.CONDITION)[0]
            kept = iter(tf.unstack(noise >= self.condition_dropout, axis=1))
            condition = self._map(lambda c, value: c.keep(value, next(kept)), condition)
        return super().terms(x, draw, condition, num_samples, training)

    def _map(self, function: Callable, *values: Any) -> Any:
        """Calls `function(condition, value)` for the condition, or for each in a dict."""
        return tf.nest.map_structure(function, self._conditions, *values, check_types=False)

    # Networks with a condition.

    def infer(self, x: tf.Tensor, condition: Any = None, training: bool = False) -> dict:
        return self.posterior(self.encoder((x, condition), training=training))

    def generate(self, z: tf.Tensor, condition: Any = None, training: bool = False) -> dict:
        return self.likelihood(self.decoder((z, condition), training=training))

    def guided(self, z: tf.Tensor, condition: Any, guidance: float) -> dict:
        """Computes parameters of p(x|z, c) with a stronger or weaker effect of c.

        `logits` and `loc` are extrapolated from their values without the condition:
        `without + guidance * (with - without)`, as Ho and Salimans (2021), equation 6,
        extrapolate scores. For a Bernoulli, and a Normal whose scale does not depend on c,
        the result is `p(x|z, c)**g * p(x|z)**(1 - g)`, normalised. Guidance does not change
        the prior: z is drawn from p(z|c).
        """
        params = self.generate(z, condition)
        names = {"logits", "loc"} & {*params}
        expected = "1.0 for a likelihood without `logits` and `loc`"
        checks.require(names, "guidance", expected, guidance)
        # `embed` turns a missing condition into zeros.
        missing = tf.nest.map_structure(tf.zeros_like, condition)
        unconditional = self.generate(z, missing)
        for name in names:
            base = unconditional[name]
            params = {**params, name: base + guidance * (params[name] - base)}
        return params

    def sample(
        self, n: int | None = None, seed: int | None = None, seeds: Any = None,
        mean: bool = False, condition: Any = None, guidance: float = 1.0,
    ) -> tf.Tensor:  # fmt: skip
        """Draws x from p(x|c), like `VAE.sample`.

        Args:
            n: int, the number of rows. Default: the number of rows of the condition.
            seed: int, see `VAE.sample`.
            seeds: ints `[rows]`, see `VAE.sample`.
            mean: bool, return the means of p(x|z, c) instead of draws.
            condition: see `fit`; n rows, or one condition for all rows. None, or a name
                that is not in the dict, is a missing condition.
            guidance: number of 0 or more, the strength of the condition in p(x|z, c): 0
                ignores it, 1 is the learned strength, above 1 is stronger. A value other
                than 1 needs `condition_dropout`.

        Returns:
            float32 tensor `[rows, *event]`.

        Raises:
            ValueError: for an invalid `n`, `seed`, `condition` or `guidance`.
        """
        from keras_vae.exporting import signatures

        guidance = checks.non_negative(guidance, "guidance")
        expected = f"1.0: {type(self).__name__} has no `condition_dropout`"
        checks.require(
            self.condition_dropout or guidance == 1, "guidance", expected, guidance
        )
        if n is None and seeds is None:
            n = self._rows_of(condition)
        name = "mean" if mean else "x"
        return signatures.sample_rows(self, n, seed, seeds, name, condition, guidance)

    def _rows_of(self, condition):
        """Returns the number of rows of a condition, or None if it has no axis of rows."""
        values, parsed = {None: condition}, {None: self._conditions}
        if isinstance(self._conditions, dict):
            values, parsed = self._by_name(condition, "condition"), self._conditions
        shapes = [(np.shape(v), parsed[k].shape) for k, v in values.items()]
        rows = [shape[0] for shape, event in shapes if len(shape) > len(event)]
        return rows[0] if rows else None

    def predict(
        self, x: Any, batch_size: int | None = None, condition: Any = None, **kwargs: Any
    ) -> np.ndarray:
        """Reconstructs x with its condition: a NumPy array `[rows, *event]`."""
        if yields_batches(x):
            expected = "None for a dataset, which must yield (x, condition)"
            checks.require(condition is None, "condition", expected, condition)
        else:
            x = self.check_data(x)
            checks.positive_ints_or_none(batch_size=batch_size)
            pair = x, self.check_condition(condition, len(x))
            x, batch_size = batches(pair, batch_size or 32), None
        return super().predict(x, batch_size, **kwargs)

    def predict_step(self, data: Any) -> tf.Tensor:
        x, condition, _ = self.unpack(data)
        return self(x, condition=condition, training=False)

    @property
    def condition(self) -> Any:
        """The argument of the constructor."""
        return self._map(lambda condition: condition.config)
