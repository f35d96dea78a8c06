"""A conditional VAE that learns from rows with and without labels."""

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks, objectives, random
from keras_vae.distributions import Head
from keras_vae.models.conditional_vae import ConditionalVAE
from keras_vae.nets.conditional import as_vector
from keras_vae.terms import Terms, tile_rows
from keras_vae.training.arrays import as_numbers, check_labels


@keras.saving.register_keras_serializable("keras_vae")
class SemiSupervisedVAE(ConditionalVAE):
    """The generative semi-supervised model M2 (Kingma et al., 2014).

    `p(x, y) = p(y) p(x|y)` with a uniform p(y) and a conditional VAE p(x|y). If a label is
    missing, the bound is a sum over all labels, weighted by a classifier q(y|x)
    (equations 6 and 7). A missing label is -1 in `fit(x, labels)`. All other methods need
    labels, as in any conditional VAE: `log_likelihood(x, condition=y)` is log p(x|y).

    With few labels, training in three stages is faster: first the classifier on the labels,
    then encoder and decoder on its predictions, then all parts together
    (tests/benchmarks/semi_supervised.py), with networks that are modulated by
    the label (`nets.FiLM`).

    Args:
        encoder: Keras layer or model, (x, label) -> features, see `ConditionalVAE`.
        decoder: Keras layer or model, (z, label) -> features.
        likelihood: head of p(x|z, y).
        latent_dim: int, see `VAE`.
        condition: int, the number of labels.
        classifier: Keras layer or model, x -> features of q(y|x).
        alpha: float, the weight of the classifier's cross-entropy in the loss of a row
            with a label. Kingma et al. use a tenth of (rows / rows with a label).
        **kwargs: `posterior`, `prior`, `seed`, `name` and `dtype`, see `VAE`.

    Raises:
        ValueError: if a part has the wrong type or does not fit the others.

    Example:

    >>> from keras_vae import distributions, nets
    >>> model = SemiSupervisedVAE(
    ...     encoder=nets.MLP([16]),
    ...     decoder=nets.MLP([16]),
    ...     likelihood=distributions.IndependentNormal((8,)),
    ...     latent_dim=2,
    ...     condition=3,
    ...     classifier=nets.MLP([16]),
    ... )
    >>> model.compile("adam")
    >>> x, labels = keras.random.normal((64, 8), seed=0), np.arange(64) % 3
    >>> labels[10:] = -1
    >>> history = model.fit(x, labels, epochs=2, verbose=0)
    >>> model.classify(x).shape
    TensorShape([64, 3])
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: keras.layers.Layer,
        likelihood: Head,
        latent_dim: int | None = None,
        condition: Any = None,
        classifier: Any = None,
        alpha: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(encoder, decoder, likelihood, latent_dim, condition, **kwargs)
        checks.require(isinstance(condition, int), "condition", "an int", condition)
        checks.require(
            not self.condition_dropout, "condition_dropout", "0.0", self.condition_dropout
        )
        is_layer = isinstance(classifier, keras.layers.Layer)
        checks.require(is_layer, "classifier", "a Keras layer, x -> features", classifier)
        self.alpha = checks.non_negative(alpha, "alpha")
        self.classifier = classifier
        self.class_logits = keras.layers.Dense(condition, dtype="float32")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self._logits(keras.KerasTensor(input_shape))

    def _logits(self, x, training=False):
        return self.class_logits(as_vector(self.classifier(x, training=training)))

    def check_labels(self, y: Any, rows: int, name: str) -> np.ndarray:
        self.unpack((None, y))
        check_labels(y, rows, name)
        y = self._conditions.by_row(as_numbers(y, name), name)
        checks.require(y.shape == (rows,), name, f"labels of shape ({rows},)", y.shape)
        return self._conditions.check(y, name, optional=True)

    def compile(
        self, optimizer: Any = "adam", objective: Callable | None = None, **kwargs: Any
    ) -> None:
        """Calls `VAE.compile`. The objective may use only reconstruction and KL."""
        other_terms = isinstance(objective, (objectives.IWAE, objectives.Hybrid))
        other_terms = other_terms or bool(getattr(objective, "free_bits", 0))
        expected = "a function of the reconstruction and the KL, such as ELBO(beta=2.0)"
        checks.require(not other_terms, "objective", expected, objective)
        super().compile(optimizer, objective, **kwargs)

    def classify(self, x: Any) -> tf.Tensor:
        """Computes the probabilities of the labels, q(y|x).

        Args:
            x: `[rows, *event]`, see `fit`.

        Returns:
            float32 tensor `[rows, labels]`.

        Raises:
            ValueError: for data that the likelihood does not accept.
        """
        return tf.nn.softmax(self._logits(self.encoder_input(self._checked_tensor(x))))

    def signatures(self, num_samples: int = 16) -> dict[str, Any]:
        """Adds `classify`: x -> `"probabilities"` q(y|x), `[rows, labels]`."""
        from keras_vae.exporting import signatures

        def classify(x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"probabilities": tf.nn.softmax(self._logits(self.encoder_input(x)))}

        meaning = "the probabilities of the labels, q(y|x)"
        own = signatures.of_x(self, classify, meaning, {"probabilities": meaning})
        return {**super().signatures(num_samples), "classify": own}

    def terms(
        self, x: Any, draw: random.Draw, condition: Any = None, num_samples: int = 1,
        training: bool = False,
    ) -> "MarginalTerms":  # fmt: skip
        x = self.likelihood.observe(self.as_float(x), draw)
        classes = self._conditions.classes
        label = self._conditions.embed(condition, optional=True)  # [batch, classes]
        all_labels = tf.eye(classes)[:, None] * tf.ones((1, tf.shape(x)[0], 1))
        all_labels = tf.reshape(all_labels, (-1, classes))  # [classes * batch, classes]
        tiled = tile_rows(x, classes)  # [classes * batch, *event], class by class

        def draw_tiled(kind, shape, stream, num_samples=1):
            # The same noise for every label, because q(y|x) learns from their differences.
            noise = draw(kind, shape, stream, num_samples)
            return tf.concat([noise] * classes, axis=1)

        q_params = self.infer(tiled, all_labels, training)
        per_label = self.terms_given(
            tiled, q_params, draw_tiled, all_labels, num_samples, training
        )
        return MarginalTerms(per_label, x, label, self._logits(x, training))

    def example_losses(self, terms: Any, weight: tf.Tensor | None = None) -> tf.Tensor:
        losses = super().example_losses(terms, weight)
        extra = self.alpha * terms.cross_entropy
        return losses + (extra if weight is None else tf.cast(weight, extra.dtype) * extra)


class MarginalTerms(Terms):
    """The terms of rows with or without a label, computed from the terms for every label.

    The weights w_y are the one-hot label if it is known, else q(y|x). Then
    `kl = sum_y w_y kl_y + KL(w || p(y))`. The bound is a bound on log p(x, y) for a
    known label, else on log p(x): equations 6 and 7 of Kingma et al. (2014) in one formula.

    Args:
        per_label: `Terms` of `[classes * batch]` rows, class by class.
        x: `[batch, *event]`.
        label: `[batch, classes]`, one-hot, or zeros for a missing label.
        logits: `[batch, classes]`, the logits of q(y|x).
    """

    def __init__(self, per_label: Terms, x: Any, label: tf.Tensor, logits: tf.Tensor):
        super().__init__(x, None, None, per_label.prior, None)
        self.per_label, self.label, self.logits = per_label, label, logits
        self.is_known = tf.reduce_sum(label, axis=1)  # [batch], 0 or 1

    @functools.cached_property
    def label_weights(self) -> tf.Tensor:
        """The weights w_y, `[classes, batch]`."""
        unknown = (1.0 - self.is_known)[:, None]
        return tf.transpose(self.label + unknown * tf.nn.softmax(self.logits))

    @functools.cached_property
    def log_weight(self) -> tf.Tensor:
        """log sum_y p(x, y, z) / q(z|x, y) in nats, `[samples, batch]`.

        The sum is over the known label, or over all labels if it is missing.
        """
        log_weights = self._by_class(self.per_label.log_weight)
        log_weights -= math.log(self.label.shape[1])
        possible = tf.transpose((self.label > 0.0) | (self.is_known == 0.0)[:, None])
        return tf.reduce_logsumexp(tf.where(possible, log_weights, -np.inf), axis=1)

    @functools.cached_property
    def log_likelihood(self) -> tf.Tensor:
        """sum_y w_y log p(x|z, y) in nats, `[samples, batch]`."""
        log_likelihoods = self._by_class(self.per_label.log_likelihood)
        return tf.reduce_sum(self.label_weights * log_likelihoods, axis=1)

    @functools.cached_property
    def reconstructed(self) -> tf.Tensor:
        """sum_y w_y E p(x|z, y), `[batch, *event]`."""
        means = self.per_label.reconstructed
        means = tf.reshape(means, (self.label.shape[1], -1, *means.shape[1:]))
        return tf.einsum("cb,cb...->b...", self.label_weights, means)

    kl_per_unit = None

    @functools.cached_property
    def kl(self) -> tf.Tensor:
        """sum_y w_y KL(q(z|x, y) || p(z)) + KL(w || p(y)) in nats, `[batch]`."""
        w = self.label_weights
        # The maximum makes 0 log 0 equal to 0. tf.math.xlogy is not in LiteRT.
        label_kl = w * (tf.math.log(tf.maximum(w, 1e-30)) + math.log(self.label.shape[1]))
        latent_kl = self._by_class(self.per_label.kl[None])[0]
        return tf.reduce_sum(w * latent_kl + label_kl, axis=0)

    @functools.cached_property
    def cross_entropy(self) -> tf.Tensor:
        """-log q(y|x) in nats for a known label, else 0: `[batch]`."""
        return -tf.reduce_sum(self.label * tf.nn.log_softmax(self.logits), axis=1)

    def _by_class(self, values):
        """Reshapes `[samples, classes * batch]` to `[samples, classes, batch]`."""
        return tf.reshape(values, (values.shape[0], self.label.shape[1], -1))
