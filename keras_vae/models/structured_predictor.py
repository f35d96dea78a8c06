"""Structured prediction: a distribution of outputs y for one input x."""

import functools
import itertools
from typing import Any

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

    A conditional VAE with the arguments of supervised learning, input x and output y:
    `fit(x, y)`, `evaluate(x, y)`, `predict(x)`. In all other methods y is the data and x
    the condition, as in `ConditionalVAE`: `encode(y, condition=x)`,
    `sample(condition=x, seed=1)`, `log_likelihood(y, condition=x)`.

    Args:
        encoder: the recognition network, (y, condition) -> features of q(z|x, y).
        decoder: the generation network, (z, condition) -> features of p(y|x, z).
        likelihood: head of p(y|x, z). Its event shape is the shape of one y.
        latent_dim: int, see `VAE`.
        condition: tuple, the shape of x, or another `condition` of `ConditionalVAE`.
        prior: prior p(z|x), such as `PriorNetwork(nets.MLP([500]), (50,))`.
        baseline: trained Keras model, x -> one prediction of y. Its weights are frozen. All
            networks receive the condition `{"x": x, "baseline": baseline(x)}`. In section 4
            of the paper, the prior network receives the prediction.
        **kwargs: the other arguments of `ConditionalVAE`.

    Raises:
        ValueError: if a part has the wrong type or does not fit the others.

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
    >>> model.predict(x, verbose=0).shape
    (64, 6)
    """

    data_names = "y", "x"

    def __init__(self, *args: Any, baseline: keras.Model | None = None, **kwargs: Any):
        is_baseline = baseline is None or isinstance(baseline, keras.Model)
        checks.require(is_baseline, "baseline", "a Keras model, x -> y", baseline)
        super().__init__(*args, **kwargs)
        conflict = baseline is not None and self.condition_dropout
        expected = "None with `condition_dropout`: it needs a complete x"
        checks.require(not conflict, "baseline", expected, baseline)
        self.baseline = baseline
        if baseline is not None:
            names = self._conditions if isinstance(self._conditions, dict) else {}
            expected = 'without the key "baseline" if `baseline` is set'
            checks.require("baseline" not in names, "condition", expected, list(names))
            baseline.trainable = False

    def unpack(self, data: Any) -> tuple[Any, Any, Any]:
        x, y, weight = super().unpack(data)
        return y, x, weight

    def _checked(self, x, y, weight, prefix="", augmentation=()):
        expected = "None: it would change x but not y"
        checks.require(not augmentation, "augmentation", expected, augmentation)
        if y is None:
            self.unpack((x,))
        y = self.check_data(y, f"{prefix}y")
        checked = self.check_condition(x, len(y), f"{prefix}x")
        has_rows = self._rows_of(x) or len(y) == 1
        expected = f"one row for each row of y, {len(y)}"
        checks.require(has_rows, f"{prefix}x", expected, "one for all")
        return checked, y, check_weight(weight, len(y), f"{prefix}sample_weight")

    def embed(self, condition: Any) -> Any:
        x = super().embed(condition)
        if self.baseline is None:
            return x
        prediction = self.baseline(x, training=False)
        return {**(x if isinstance(x, dict) else {"x": x}), "baseline": prediction}

    def predict(  # type: ignore[override]
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        num_samples: int = 100,
        seed: int = 0,
    ) -> np.ndarray:
        """Computes the mean of p(y|x, z) over samples of z from the prior p(z|x).

        Args:
            x: arrays, see `fit`, or a dataset of batches of x or (x, y).
            batch_size: int, number of rows per step for arrays. Default: 32.
            verbose: "auto", 0, 1 or 2, as in Keras.
            steps: int, number of batches to predict. Default: all.
            callbacks: Keras callbacks.
            num_samples: int, samples of z for each row.
            seed: int, the seed of the samples.

        Returns:
            NumPy float32 `[rows, *event]`.

        Raises:
            ValueError: for an invalid x.
        """
        num_samples = checks.positive_int(num_samples, "num_samples")
        size = checks.positive_int(32 if batch_size is None else batch_size, "batch_size")
        seed = checks.int32(seed, "seed")
        checks.positive_ints_or_none(steps=steps)
        if yields_batches(x):
            if isinstance(x, keras.utils.PyDataset) and x.num_batches is not None:
                x = map(x.__getitem__, range(x.num_batches))
            batches = (keras.utils.unpack_x_y_sample_weight(batch)[0] for batch in x)
        else:
            rows = self._rows_of(x) or 1
            x = self.check_condition(x, rows, "x")
            batches = (select_rows(x, slice(i, i + size)) for i in range(0, rows, size))
            steps = min(-(-rows // size), steps or rows)
        mean_prediction = self.compiled_once(
            ("mean prediction", num_samples),
            lambda: tf.function(
                functools.partial(self._mean_prediction, num_samples=num_samples),
                reduce_retracing=True,
                autograph=False,
            ),
        )
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            bar = {"add_progbar": verbose != 0, "verbose": verbose}
            callbacks = keras.callbacks.CallbackList(
                callbacks, **bar, epochs=1, steps=steps, model=self
            )
        predictions: list[tf.Tensor] = []
        first = 0
        callbacks.on_predict_begin()
        for step, batch in enumerate(itertools.islice(batches, steps)):
            callbacks.on_predict_batch_begin(step)
            rows = self._rows_of(batch) or 1
            seeds = random.sample_seeds(rows, seed) + np.int32(first)
            part = self.check_condition(batch, rows, "x")
            predictions.append(mean_prediction(part, seeds))
            first += rows
            callbacks.on_predict_batch_end(step, {"outputs": predictions[-1]})
        callbacks.on_predict_end()
        checks.require(predictions, "x", "of one row or more", x)
        return tf.concat(predictions, 0).numpy()

    def _mean_prediction(self, x, seeds, num_samples):
        draw = random.row_noise(*random.seed_words(seeds))
        condition = tile_rows(self.embed(x), num_samples)  # [num_samples * rows, ...]
        z = self.draw_prior(draw, condition, num_samples)
        means = self.likelihood.distribution(self.generate(z, condition)).mean()
        means = tf.reshape(means, (num_samples, -1, *self.likelihood.event_shape))
        return tf.reduce_mean(means, axis=0)
