"""Structured prediction: several answers y to one question x."""

import functools

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks, random
from keras_vae.models.conditional_vae import ConditionalVAE
from keras_vae.terms import tile_rows
from keras_vae.training.arrays import check_weight, select_rows, yields_batches


@keras.saving.register_keras_serializable("keras_vae")
class StructuredPredictor(ConditionalVAE):
    """Conditional VAE for structured prediction, p(y | x) (Sohn et al., 2015).

    A conditional VAE in the order of supervised learning, x in and y out: `fit(x, y)`,
    `evaluate(x, y)`, `predict(x)`. Everything else names y the observed, as any model does,
    and x its condition: `encode(y, condition=x)`, `sample(condition=x, seed=1)`,
    `log_likelihood(y, condition=x)`.

    Args:
        encoder: the recognition network, (y, condition) -> features of q(z|x, y).
        decoder: the generation network, (z, condition) -> features of p(y|x, z).
        likelihood: head of p(y|x, z). Its event shape is the shape of one y.
        latent_dim: int, see `VAE`.
        condition: the shape of x, a tuple, or what else `ConditionalVAE` takes.
        prior: prior p(z|x), such as `PriorNetwork(nets.MLP([500]), (50,))`.
        baseline: Keras model, x -> its one answer, trained before, which is frozen here.
            Then all networks get `{"x": x, "baseline": baseline(x)}` for a condition
            (section 4 of the paper, where the first guess goes to the prior network).
        **kwargs: the other arguments of `ConditionalVAE`.

    Raises:
        ValueError: if a part is of the wrong kind or does not fit the others.

    Example:

    >>> from keras_vae import distributions, nets
    >>> model = StructuredPredictor(
    ...     encoder=nets.MLP([16]),
    ...     decoder=nets.MLP([16]),
    ...     likelihood=distributions.IndependentBernoulli((6,), grey="error"),
    ...     condition=(3,),
    ...     prior=distributions.PriorNetwork(nets.MLP([16]), (2,)),
    ...     latent_dim=2,
    ... )
    >>> model.compile("adam")
    >>> x, y = keras.random.normal((64, 3), seed=0), keras.ops.ones((64, 6))
    >>> history = model.fit(x, y, epochs=2, verbose=0)
    >>> model.predict(x).shape
    (64, 6)
    """

    def __init__(self, *args, baseline=None, **kwargs):
        fits = baseline is None or isinstance(baseline, keras.Model)
        checks.require(fits, "baseline", "a Keras model, x -> y", baseline)
        super().__init__(*args, **kwargs)
        expected = "None with `condition_dropout`: it needs all of x"
        checks.require(
            not (baseline and self.condition_dropout), "baseline", expected, baseline
        )
        self.baseline = baseline
        if baseline is not None:
            taken = isinstance(self._conditions, dict) and "baseline" in self._conditions
            checks.require(
                not taken, "condition", "without a baseline of its own", "baseline"
            )
            baseline.trainable = False

    def unpack(self, data):
        x, y, weight = super().unpack(data)
        return y, x, weight

    def _checked(self, x, y, weight, prefix="", augmentation=()):
        checks.require(
            not augmentation, "augmentation", "None: x and y differ", augmentation
        )
        if y is None:
            self.unpack((x,))
        y = self.check_data(y, f"{prefix}y")
        given, expected = x, f"one row for each of y, {len(y)}"
        x = self.check_condition(x, len(y), f"{prefix}x")
        several = self._rows_of(given) or len(y) == 1
        checks.require(several, f"{prefix}x", expected, "one for all")
        return x, y, check_weight(weight, len(y), f"{prefix}sample_weight")

    def embed(self, condition):
        x = super().embed(condition)
        if self.baseline is None:
            return x
        guess = self.baseline(x, training=False)
        return {**(x if isinstance(x, dict) else {"x": x}), "baseline": guess}

    def predict(  # type: ignore[override]
        self, x, batch_size=None, num_samples=100, seed=0
    ):
        """The mean answer: of p(y|x, z), over draws of z from the prior p(z|x).

        Args:
            x: arrays as given to `fit`, or a dataset of batches of x or (x, y).
            batch_size: int, rows of arrays at a time, 32 by default.
            num_samples: int, draws of z for each row.
            seed: int, of the draws.

        Returns:
            NumPy float32 `[rows, *event]`.

        Raises:
            ValueError: for an x that does not fit.
        """
        num_samples = checks.positive_int(num_samples, "num_samples")
        size = checks.positive_int(32 if batch_size is None else batch_size, "batch_size")
        seed = checks.int32(seed, "seed")
        if yields_batches(x):
            batches = (keras.utils.unpack_x_y_sample_weight(batch)[0] for batch in x)
        else:
            rows = self._rows_of(x) or 1
            x = self.check_condition(x, rows, "x")
            batches = (select_rows(x, slice(i, i + size)) for i in range(0, rows, size))
        mean_answer = self.compiled_once(
            ("mean answer", num_samples),
            lambda: tf.function(
                functools.partial(self._mean_answer, num_samples=num_samples),
                reduce_retracing=True,
            ),
        )
        answers, first = [], 0
        for batch in batches:
            rows = self._rows_of(batch) or 1
            seeds = random.sample_seeds(rows, seed) + np.int32(first)
            part = self.check_condition(batch, rows, "x")
            answers.append(mean_answer(part, seeds))
            first += rows
        checks.require(answers, "x", "of one row or more", x)
        return tf.concat(answers, 0).numpy()

    def _mean_answer(self, x, seeds, num_samples):
        draw = random.row_noise(*random.seed_words(seeds))
        every = tile_rows(self.embed(x), num_samples)
        z = self.draw_prior(draw, every, num_samples)
        means = self.likelihood.distribution(self.generate(z, every)).mean()
        split = (num_samples, -1, *self.likelihood.event_shape)
        return tf.reduce_mean(tf.reshape(means, split), axis=0)

    def get_config(self):
        baseline = keras.saving.serialize_keras_object(self.baseline)
        return {**super().get_config(), "baseline": baseline}
