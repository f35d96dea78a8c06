"""The variational autoencoder: three distributions, two networks, one objective.

Read this file first. A batch passes through these stages. Each can be replaced:

    x            [batch, *event]            data; uint8 is divided by 255
    features     [batch, ...]               encoder(x): any Keras layer or model
    q(z|x)       {"loc", "scale"}, ...      posterior(features): a head, distributions/
    z            [samples, batch, *latent]  posterior.sample(params, noise), random.py
    features     [samples * batch, ...]     decoder(z), samples as rows
    p(x|z)       {"logits"}, ...            likelihood(features): a head
    terms        nats, [samples, batch]     log p(x|z), log p(z), log q(z|x), the KL
    loss         nats, [batch]              objective(terms, step), objectives.py

Layers pass tensors. Distributions are made from their parameters where needed.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_vae import checks, objectives, random
from keras_vae.distributions import Head, IndependentNormal, Prior, StandardNormal
from keras_vae.models import parts
from keras_vae.models.latent_variable_model import LatentVariableModel
from keras_vae.objectives import ELBO
from keras_vae.terms import Terms, tile_rows
from keras_vae.training import keras_private, replicas
from keras_vae.training.model import BuiltWhenMade


@keras.saving.register_keras_serializable("keras_vae")
class VAE(LatentVariableModel, metaclass=BuiltWhenMade):
    """Variational autoencoder (Kingma and Welling, 2014; Rezende et al., 2014).

    The constructor defines *what is modelled*, `compile` how it is trained. All values are
    in nats per example: sums over event axes, never means over pixels or units.

    Args:
        encoder: Keras layer or model, x `[batch, *event]` -> features, not a sample of z.
        decoder: Keras layer or model, z `[batch, *latent]` -> features, not an image.
        likelihood: head of p(x|z). Its event shape is the shape of one x.
        latent_dim: int, shorthand for `posterior=IndependentNormal((latent_dim,))` and
            `prior=StandardNormal((latent_dim,))`.
        posterior: head of q(z|x).
        prior: prior of z.
        seed: int of 32 bits, the key of all noise and of the order of the data. Default:
            drawn from Keras' global seed.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Raises:
        ValueError: if a part has the wrong type or does not fit the others.

    Example:

    >>> vae = VAE(
    ...     encoder=keras.layers.Dense(16, "relu"),
    ...     decoder=keras.layers.Dense(16, "relu"),
    ...     likelihood=IndependentNormal((8,)),
    ...     latent_dim=2,
    ... )
    >>> vae.compile("adam", ELBO(beta=4.0))
    >>> x = keras.random.normal((64, 8), seed=0)
    >>> history = vae.fit(x, epochs=2, verbose=0)
    >>> vae.encode(x).mean().shape, vae.sample(16, seed=1).shape
    (TensorShape([64, 2]), TensorShape([16, 8]))
    """

    objective: Any = None  # until `compile`
    default_objective: type = ELBO
    # Attributes of `Terms` that `fit` and `evaluate` report as metrics.
    reported: tuple[str, ...] = ("elbo", "reconstruction", "kl")

    def __init__(
        self,
        encoder: keras.layers.Layer,
        decoder: keras.layers.Layer,
        likelihood: Head,
        latent_dim: int | None = None,
        posterior: Head | None = None,
        prior: Prior | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        parts.check_parts(encoder, decoder, likelihood, posterior, prior)
        shape = parts.latent_shape(latent_dim, posterior, prior)
        likelihood.as_likelihood()
        self.encoder = encoder
        self.posterior = IndependentNormal(shape) if posterior is None else posterior
        self.prior = StandardNormal(shape) if prior is None else prior
        self.decoder = decoder
        self.likelihood = likelihood
        self.latent_dim = latent_dim

    @property
    def batch_shape(self) -> tuple[int | None, ...]:
        return None, *self.likelihood.event_shape

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        x, z = input_shape, (None, *self.posterior.event_shape)
        c = tf.nest.map_structure(parts.symbolic, self.embed(self.example_condition(1)))
        names = ("encoder", "posterior", "x")
        parts.trace_parts(names, x, self.encoder, lambda x: self.infer(x, c))
        names = ("decoder", "likelihood", "z")
        parts.trace_parts(names, z, self.decoder, lambda z: self.generate(z, c))
        parts.check_features(self, c)
        if c is not None:
            self.prior(c)

    # The stages of a batch. Variants override these methods.

    def example_condition(self, rows: int) -> Any:
        """Makes an example: an array `[rows, ...]` or a dict of arrays; None for a VAE."""

    def check_condition(self, condition: Any, rows: int, name: str = "condition") -> Any:
        """Returns a condition as arrays `[rows, ...]` or a dict, or raises a ValueError."""
        expected = f"None: {type(self).__name__} has no condition"
        checks.require(condition is None, name, expected, condition)

    def embed(self, condition: Any) -> Any:
        """Converts a condition to tensors `[rows, ...]` for the networks and the prior."""
        return condition

    def unpack(self, data: Any) -> tuple[Any, Any, Any]:
        x, _, weight = keras.utils.unpack_x_y_sample_weight(data)
        return x, None, weight

    def infer(self, x: tf.Tensor, condition: Any = None, training: bool = False) -> dict:
        """Encodes x `[batch, *event]`: the parameters of q(z|x), a dict of tensors."""
        return self.posterior(self.encoder(x, training=training))

    def generate(self, z: tf.Tensor, condition: Any = None, training: bool = False) -> dict:
        """Decodes z `[rows, *latent]`: the parameters of p(x|z), a dict of tensors."""
        return self.likelihood(self.decoder(z, training=training))

    def terms(
        self, x: Any, draw: random.Draw, condition: Any = None, num_samples: int = 1,
        training: bool = False,
    ) -> Terms:  # fmt: skip
        """Computes the terms of the bound for one batch.

        Args:
            x: `[batch, *event]`, uint8 or any other numeric dtype.
            draw: source of noise, a function made by `keras_vae.random`.
            condition: the condition of a conditional model, see `fit`, or None.
            num_samples: int, samples of the posterior per example.
            training: bool, passed to the networks.
        """
        x = self.likelihood.observe(self.as_float(x), draw)
        condition = self.embed(condition)
        q = self.infer(x, condition, training)
        return self.terms_given(x, q, draw, condition, num_samples, training)

    def terms_given(
        self, x: tf.Tensor, q_params: dict, draw: random.Draw, condition: Any = None,
        num_samples: int = 1, training: bool = False,
    ) -> Terms:  # fmt: skip
        """Computes the terms from an observed x, its posterior and embedded condition."""
        q, latent = self.posterior, self.posterior.event_shape
        tiled = tile_rows(condition, num_samples)
        prior = self.prior.distribution(condition)

        def make_terms(z, posterior, **kwargs):
            params = self.generate(tf.reshape(z, (-1, *latent)), tiled, training)
            likelihood = self.likelihood.distribution(params)
            return Terms(x, z, posterior, prior, likelihood, **kwargs)

        def draw_prior():
            z = self.draw_prior(draw, tiled, num_samples)
            return make_terms(tf.reshape(z, (num_samples, -1, *latent)), prior)

        z = q.sample(q_params, draw(q.noise, latent, random.POSTERIOR, num_samples))
        return make_terms(z, q.distribution(q_params), draw_prior=draw_prior)

    def draw_prior(self, draw: random.Draw, condition: Any, num_samples: int) -> tf.Tensor:
        """Draws z `[rows, *latent]` from the prior; `rows` is samples times batch."""
        prior = self.prior
        noise = draw(prior.noise, prior.event_shape, random.PRIOR, num_samples)
        return prior.sample(tf.reshape(noise, (-1, *noise.shape[2:])), condition)

    # Training.

    def compile(
        self, optimizer: Any = "adam", objective: Callable | None = None, **kwargs: Any
    ) -> None:
        """Configures how the model is trained.

        Args:
            optimizer: Keras optimizer or its name.
            objective: from `keras_vae.objectives`, or any function `(terms, step) ->
                [batch]` that Keras can save. Default: `ELBO()`.
            **kwargs: `metrics`, `max_skipped`, `global_clipnorm`, `steps_per_execution`,
                `jit_compile` and others: see `ResumableModel`.

        Raises:
            ValueError: if `loss` is set (the objective replaces it), or the objective
                cannot be called as `(terms, step)` or cannot be saved.
        """
        objective = self.default_objective() if objective is None else objective
        optimizer = parts.check_compile(self, optimizer, objective, kwargs)
        with self.distribute_strategy.scope():
            super().compile(optimizer, **kwargs)
            # An objective with weights is a Keras layer. The model tracks its weights.
            with keras_private.unlocked_state(self):
                keras_private.untrack(self, self.objective)
                if isinstance(objective, keras.layers.Layer) and not objective.built:
                    objective.build(())
                self.objective = objective
            # Built now, so that a load or a restore finds the slots of the optimizer.
            if not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)
            self.build_metrics((1, *self.batch_shape[1:]))

    def train_step(self, data: Any) -> dict:
        x, condition, weight = self.unpack(data)
        self.check_batch(x)
        offset, total = replicas.share(tf.shape(x)[0])
        moving_state = self.moving_state()
        differentiate = self.in_xla(self.differentiate)
        losses, terms, loss, gradients = differentiate(x, condition, weight, offset, total)
        finite = self.update(loss, gradients, moving_state)
        return self.report(losses, terms, weight, finite)

    def differentiate(
        self, x: Any, condition: Any, weight: Any, offset: Any, total: Any
    ) -> tuple[tf.Tensor, dict, tf.Tensor, list]:
        """Runs the forward and backward pass, the part of a step without communication.

        Args:
            x: `[rows, *event]`, the rows of this replica.
            condition: the condition of a conditional model, or None.
            weight: `[rows]` or None.
            offset: int32 scalar, the position of its first row in the global batch.
            total: int32 scalar, the number of rows of the global batch.

        Returns:
            (losses, terms, loss, gradients): the losses `[rows]`; the terms for `report`;
            the replica's part of the loss; the list of its gradients.
        """
        draw = self.step_noise(tf.shape(x)[0], offset)
        with tf.GradientTape() as tape:
            terms = self.terms(x, draw, condition, self._num_samples, training=True)
            losses = self.example_losses(terms, weight)
            # Divides by the global number of rows: gradients are summed over replicas.
            loss = tf.reduce_sum(losses) / tf.cast(total, losses.dtype)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.trainable_variables)
        return losses, self._reported(terms, x), loss, gradients

    def test_step(self, data: Any) -> dict:
        x, condition, weight = self.unpack(data)
        self.check_batch(x)
        draw = self.row_noise(self.next_positions(tf.shape(x)[0]))
        terms = self.terms(x, draw, condition, self._num_samples)
        losses = self.example_losses(terms, weight)
        return self.report(losses, self._reported(terms, x), weight)

    def _reported(self, terms, x):
        reported = {name: getattr(terms, name) for name in self.reported}
        if self.user_metrics is not None:
            reported["compared"] = self.as_float(x), terms.reconstructed
        return reported

    def example_losses(self, terms: Terms, weight: tf.Tensor | None = None) -> tf.Tensor:
        """Computes the loss of each example `[batch]`, times its weight."""
        step = tf.convert_to_tensor(self.step)
        losses = objectives.per_example(self.objective, terms, step)
        if weight is not None:
            objectives.check_per_example("sample_weight", weight)
            losses *= tf.cast(weight, losses.dtype)
        if self.losses:  # regularizers of the networks
            losses += tf.add_n([tf.cast(v, losses.dtype) for v in self.losses])
        return losses

    @property
    def _num_samples(self):
        return getattr(self.objective, "num_samples", 1)

    # Saving.

    def get_compile_config(self) -> dict:
        if not self.compiled:
            return {}
        objective = keras.saving.serialize_keras_object(self.objective)
        return {**super().get_compile_config(), "objective": objective}
