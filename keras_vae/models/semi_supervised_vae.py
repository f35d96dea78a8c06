"""A conditional VAE that learns from labels of some rows and from none of the others."""

import functools
import math

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks, objectives
from keras_vae.models.conditional_vae import ConditionalVAE
from keras_vae.nets.conditional import as_vector
from keras_vae.terms import Terms, tile_rows
from keras_vae.training.arrays import check_labels


@keras.saving.register_keras_serializable("keras_vae")
class SemiSupervisedVAE(ConditionalVAE):
    """The generative semi-supervised model M2 (Kingma et al., 2014).

    `p(x, y) = p(y) p(x|y)`: a label of equal probabilities, and a conditional VAE. A
    classifier q(y|x) stands in for the labels that are missing, over whose values the bound
    is summed (equations 6 and 7). In `fit(x, labels)` they are -1. All else is given a
    label, as in any conditional VAE: `log_likelihood(x, condition=y)` is log p(x|y).

    Of few labels it learns sooner if each part begins where another has come to: train
    the classifier on the labels, encoder and decoder on its guesses, then all together
    (tests/benchmarks/semi_supervised.py), with networks that the label modulates
    (`nets.FiLM`).

    Args:
        encoder: Keras layer or model, (x, label) -> features, see `ConditionalVAE`.
        decoder: Keras layer or model, (z, label) -> features.
        likelihood: head of p(x|z, y).
        latent_dim: int, see `VAE`.
        condition: int, how many labels there are.
        classifier: Keras layer or model, x -> features of q(y|x).
        alpha: float, the weight of the classifier's own cross-entropy in the loss of a row
            with a label. Kingma et al. take a tenth of (rows / rows with a label).
        **kwargs: `posterior`, `prior`, `seed`, `name` and `dtype`, see `VAE`.

    Raises:
        ValueError: if a part is of the wrong kind or does not fit the others.

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
        encoder,
        decoder,
        likelihood,
        latent_dim=None,
        condition=None,
        classifier=None,
        alpha=1.0,
        **kwargs,
    ):
        super().__init__(encoder, decoder, likelihood, latent_dim, condition, **kwargs)
        checks.require(isinstance(condition, int), "condition", "an int", condition)
        checks.require(
            not self.condition_dropout, "condition_dropout", "0.0", self.condition_dropout
        )
        network = isinstance(classifier, keras.layers.Layer)
        checks.require(network, "classifier", "a Keras layer, x -> features", classifier)
        self.alpha = checks.non_negative(alpha, "alpha")
        self.classifier = classifier
        self.class_logits = keras.layers.Dense(condition, dtype="float32")

    def build(self, input_shape):
        super().build(input_shape)
        self._logits(keras.KerasTensor(input_shape))

    def _logits(self, x, training=False):
        return self.class_logits(as_vector(self.classifier(x, training=training)))

    def check_labels(self, y, rows, name):
        self.unpack((None, y))
        check_labels(y, rows, name)
        y = np.asarray(y)
        checks.require(y.shape == (rows,), name, f"labels of shape ({rows},)", y.shape)
        return self._conditions.check(y, name, optional=True)

    def compile(self, optimizer="adam", objective=None, **kwargs):
        """As `VAE.compile`; an objective must be one of the reconstruction and the KL."""
        others = isinstance(objective, (objectives.IWAE, objectives.Hybrid))
        fits = not others and not getattr(objective, "free_bits", 0)
        expected = "one of the reconstruction and the KL, such as ELBO(beta=2.0)"
        checks.require(fits, "objective", expected, objective)
        super().compile(optimizer, objective, **kwargs)

    def classify(self, x):
        """The probabilities of the labels, q(y|x).

        Args:
            x: `[rows, *event]`, as given to `fit`.

        Returns:
            float32 tensor `[rows, labels]`.

        Raises:
            ValueError: for data that do not fit the likelihood.
        """
        return tf.nn.softmax(self._logits(self.as_float(self._checked_tensor(x))))

    def terms(self, x, draw, condition=None, num_samples=1, training=False):
        x = self.likelihood.observe(self.as_float(x), draw)
        classes = self._conditions.classes
        label = self._conditions.embed(condition, optional=True)  # [batch, classes]
        each = tf.eye(classes)[:, None] * tf.ones((1, tf.shape(x)[0], 1))
        each = tf.reshape(each, (-1, classes))
        tiled = tile_rows(x, classes)  # class by class

        def draw_each(kind, shape, stream, num_samples=1):
            # The same noise for each label: only differences of bounds teach q(y|x).
            noise = draw(kind, shape, stream, num_samples)
            return tf.concat([noise] * classes, axis=1)

        q_params = self.infer(tiled, each, training)
        given = self.terms_given(tiled, q_params, draw_each, each, num_samples, training)
        return MarginalTerms(given, x, label, self._logits(x, training))

    def example_losses(self, terms, weight=None):
        losses = super().example_losses(terms, weight)
        own = self.alpha * terms.cross_entropy
        return losses + (own if weight is None else tf.cast(weight, own.dtype) * own)

    def get_config(self):
        config = super().get_config()
        del config["condition_dropout"]
        classifier = keras.saving.serialize_keras_object(self.classifier)
        return {**config, "classifier": classifier, "alpha": self.alpha}


class MarginalTerms(Terms):
    """The terms of rows whose label is known or not, made of those given each label.

    With the weights w_y, which are the label where it is known and q(y|x) where it is not,
    `kl = sum_y w_y kl_y + KL(w || p(y))`, and the bound is that of log p(x, y) or of
    log p(x): equations 6 and 7 of Kingma et al. (2014) in one.

    Args:
        given: `Terms` of `[classes * batch]` rows, class by class.
        x: `[batch, *event]`.
        label: `[batch, classes]`, one-hot, or zeros where it is not known.
        logits: `[batch, classes]`, of q(y|x).
    """

    def __init__(self, given, x, label, logits):
        super().__init__(x, None, None, given.prior, None)
        self.given, self.label, self.logits = given, label, logits
        self.known = tf.reduce_sum(label, axis=1)  # [batch], 0 or 1

    @functools.cached_property
    def label_weights(self):
        """w_y, `[classes, batch]`."""
        unknown = (1.0 - self.known)[:, None]
        return tf.transpose(self.label + unknown * tf.nn.softmax(self.logits))

    @functools.cached_property
    def log_weight(self):
        """log sum_y p(x, y, z) / q(z|x, y), of labels that can be: `[samples, batch]`."""
        each = self._by_class(self.given.log_weight) - math.log(self.label.shape[1])
        can_be = tf.transpose((self.label > 0.0) | (self.known == 0.0)[:, None])
        return tf.reduce_logsumexp(tf.where(can_be, each, -np.inf), axis=1)

    @functools.cached_property
    def log_likelihood(self):
        """sum_y w_y log p(x|z, y) in nats, `[samples, batch]`."""
        each = self._by_class(self.given.log_likelihood)
        return tf.reduce_sum(self.label_weights * each, axis=1)

    kl_per_unit = None

    @functools.cached_property
    def kl(self):
        """sum_y w_y KL(q(z|x, y) || p(z)) + KL(w || p(y)) in nats, `[batch]`."""
        w = self.label_weights
        # 0 log 0 is 0, by a number that float32 has: xlogy is not in LiteRT.
        of_label = w * (tf.math.log(tf.maximum(w, 1e-30)) + math.log(self.label.shape[1]))
        return tf.reduce_sum(w * self._by_class(self.given.kl[None])[0] + of_label, axis=0)

    @functools.cached_property
    def cross_entropy(self):
        """-log q(y|x) in nats where the label is known, else 0: `[batch]`."""
        return -tf.reduce_sum(self.label * tf.nn.log_softmax(self.logits), axis=1)

    def _by_class(self, values):
        """`[samples, classes * batch]` -> `[samples, classes, batch]`."""
        return tf.reshape(values, (values.shape[0], self.label.shape[1], -1))
