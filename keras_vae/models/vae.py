"""The variational autoencoder: three distributions, two networks, one objective.

This is the file to read first. A batch goes one way, and everything else in the package
is a part that can be exchanged on this way:

    x            [batch, *event]            data; uint8 is divided by 255 here
    features     [batch, ...]               encoder(x): any Keras layer or model
    q(z|x)       {"loc", "scale"}, ...      posterior(features): a head, distributions/
    z            [samples, batch, *latent]  posterior.sample(params, noise), random.py
    features     [samples * batch, ...]     decoder(z): samples are rows
    p(x|z)       {"logits"}, ...            likelihood(features): a head
    terms        nats, [samples, batch]     log p(x|z), log p(z), log q(z|x), the KL
    loss         nats, [batch]              objective(terms, step), objectives.py

Tensors travel, distributions are put together from them where they are needed.
"""

from typing import Any

import keras
import tensorflow as tf

from keras_vae import checks, distribute, input, objectives, random, sources
from keras_vae.distributions import Head, IndependentNormal, Prior, StandardNormal
from keras_vae.objectives import ELBO, Terms
from keras_vae.resumable import ResumableModel


class _BuiltAtOnce(type(ResumableModel)):  # type: ignore[misc]
    """Builds a model when its constructor, the last subclass's too, has returned.

    All shapes are known then: wrong parts fail at once, `summary` and `save` work on a
    model that has seen no data, and loading finds every weight and optimizer slot.
    """

    def __call__(cls, *args, **kwargs):
        model = super().__call__(*args, **kwargs)
        if not model.built:
            model.build((None, *model.likelihood.event_shape))
        return model


@keras.saving.register_keras_serializable("keras_vae")
class VAE(ResumableModel, metaclass=_BuiltAtOnce):
    """Variational autoencoder (Kingma and Welling, 2014; Rezende et al., 2014).

    The model says *what is modelled*; `compile` says how it is trained. All values are in
    nats per example, summed over event axes and never averaged over pixels or units.

    Args:
        encoder: Keras layer or model, x `[batch, *event]` -> features.
        decoder: Keras layer or model, z `[batch, *latent]` -> features.
        likelihood: head of p(x|z). Its event shape is the shape of one x.
        latent_dim: int, shorthand for the two arguments below:
            `IndependentNormal((latent_dim,))` and `StandardNormal((latent_dim,))`.
        posterior: head of q(z|x).
        prior: prior of z.
        seed: int of 32 bits, the root of all noise and of the order of the data.
            Default: drawn from Keras' global seed.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Raises:
        ValueError: if a part is of the wrong kind or does not fit the others.

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

    # The terms that `fit` and `evaluate` report beside the loss: attributes of `Terms`.
    reported: tuple[str, ...] = ("elbo", "reconstruction", "kl")

    def __init__(
        self,
        encoder,
        decoder,
        likelihood,
        latent_dim=None,
        posterior=None,
        prior=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(seed=seed, **kwargs)
        for name, part in (("encoder", encoder), ("decoder", decoder)):
            network = isinstance(part, keras.layers.Layer) and not isinstance(
                part, (Head, Prior)
            )
            checks.that(network, name, "a Keras layer or model that gives features", part)
        head = "a head, such as keras_vae.distributions.IndependentNormal((20,))"
        checks.that(isinstance(likelihood, Head), "likelihood", head, likelihood)
        if posterior is not None:
            checks.that(isinstance(posterior, Head), "posterior", head, posterior)
            other = "another than `likelihood`: they are two heads"
            checks.that(posterior is not likelihood, "posterior", other, posterior)
        if prior is not None:
            checks.that(isinstance(prior, Prior), "prior", "a prior of keras_vae", prior)
        shape = _latent_shape(latent_dim, posterior, prior)
        likelihood.as_likelihood()
        self.encoder = encoder
        self.posterior = IndependentNormal(shape) if posterior is None else posterior
        self.prior = StandardNormal(shape) if prior is None else prior
        self.decoder = decoder
        self.likelihood = likelihood
        self.latent_dim = latent_dim

    def build(self, input_shape):
        x, z = input_shape, (None, *self.posterior.event_shape)
        c = tf.nest.map_structure(_symbolic, self.embed(self.example_condition(1)))
        _trace("encoder", "posterior", "x", x, self.encoder, lambda x: self.infer(x, c))
        _trace("decoder", "likelihood", "z", z, self.decoder, lambda z: self.generate(z, c))
        if c is not None:
            self.prior(c)

    # How the parts fit together. Variants override these.

    def example_condition(self, rows):
        """Some condition, as arrays `[rows, ...]` or a dict of them; a VAE has none."""

    def check_condition(self, condition, rows, name="condition"):
        """A condition as arrays `[rows, ...]` or a dict of them, or a ValueError."""
        checks.that(
            condition is None, name, f"left out: {type(self).__name__} has none", condition
        )

    def embed(self, condition):
        """The condition as given -> tensors `[rows, ...]` for networks and prior."""
        return condition

    def unpack(self, data):
        """One batch, as `fit` gets it -> (observed, condition, weight)."""
        x, _, weight = keras.utils.unpack_x_y_sample_weight(data)
        return x, None, weight

    def infer(self, x, condition=None, training=False):
        """x `[batch, *event]` -> parameters of q(z|x), a dict of tensors."""
        return self.posterior(self.encoder(x, training=training))

    def generate(self, z, condition=None, training=False):
        """z `[rows, *latent]` -> parameters of p(x|z), a dict of tensors."""
        return self.likelihood(self.decoder(z, training=training))

    def terms(self, x, draw, condition=None, num_samples=1, training=False):
        """The terms of the bound for one batch.

        Args:
            x: `[batch, *event]`, uint8 or any other dtype of numbers.
            draw: where the noise comes from, a function made by `keras_vae.random`.
            condition: what a variant conditions on, as given to `fit`, or None.
            num_samples: int, samples of the posterior per example.
            training: bool, passed on to the networks.

        Returns:
            `keras_vae.objectives.Terms`.
        """
        x = self.likelihood.observe(self.as_float(x), draw)
        condition = self.embed(condition)
        q_params = self.infer(x, condition, training)
        return self.terms_given(x, q_params, draw, condition, num_samples, training)

    def terms_given(self, x, q_params, draw, condition=None, num_samples=1, training=False):
        """The terms for an observed x, its posterior and an embedded condition."""
        q, p, latent = self.posterior, self.prior, self.posterior.event_shape
        each = objectives.tile_rows(condition, num_samples)
        prior = p.distribution(condition)

        def of(posterior, z, **more):
            params = self.generate(tf.reshape(z, (-1, *latent)), each, training)
            likelihood = self.likelihood.distribution(params)
            return Terms(x, z, posterior, prior, likelihood, **more)

        def draw_prior():
            rows = self.draw_prior(draw, each, num_samples)
            return of(prior, tf.reshape(rows, (num_samples, -1, *latent)))

        z = q.sample(q_params, draw(q.noise, latent, random.POSTERIOR, num_samples))
        return of(q.distribution(q_params), z, draw_prior=draw_prior)

    def draw_prior(self, draw, condition, num_samples):
        """z of the prior, samples as rows like the condition: `[rows, *latent]`."""
        prior = self.prior
        noise = draw(prior.noise, prior.event_shape, random.PRIOR, num_samples)
        return prior.sample(tf.reshape(noise, (-1, *noise.shape[2:])), condition)

    def as_float(self, x):
        """x as the likelihood's floats `[batch, *event]`; uint8 is divided by 255."""
        self.check_batch(x)
        x = tf.ensure_shape(x, (None, *self.likelihood.event_shape))
        scale = 255.0 if x.dtype == tf.uint8 else 1.0
        return tf.cast(x, self.likelihood.compute_dtype) / scale

    # Training.

    def compile(
        self,
        optimizer="adam",
        objective=None,
        *,
        max_skipped=20,
        global_clipnorm=None,
        **kwargs,
    ):
        """Configures how the model is trained.

        Args:
            optimizer: Keras optimizer or its name.
            objective: from `keras_vae.objectives`, or any function `(terms, step) ->
                [batch]`. Default: `ELBO()`.
            max_skipped: int. A step whose gradients are not finite changes no weight and
                is counted in the metric `skipped_steps`; after so many in a row `fit`
                stops with an error.
            global_clipnorm: float, the largest norm of all gradients together, as summed
                over the replicas; longer ones are shortened to it. Default: any.
            **kwargs: `steps_per_execution`, `jit_compile`, `run_eagerly`,
                `auto_scale_loss` of `keras.Model.compile`. `jit_compile="auto"`, the
                default, is XLA, but not for convolutions and recurrent layers on a CPU,
                which are faster without, and not under several replicas.
                `steps_per_execution="auto"` lets an execution on arrays take a tenth of a
                second or more, or one step where a callback is told of each batch; it is
                1 for other data.

        Raises:
            ValueError: for `loss=` and `metrics=`, which the objective replaces, and for
                an objective that is none.
        """
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f"{type(self).__name__}.compile takes no `{name}`: the loss is a "
                    "function of the terms of the bound, which are its metrics. Give "
                    "`objective`, such as keras_vae.objectives.ELBO(beta=1.0). "
                    f"Received: {name}={kwargs[name]!r}"
                )
        objective = self.default_objective() if objective is None else objective
        objectives.check(objective)
        optimizer = keras.optimizers.get(optimizer)
        checks.that(optimizer is not None, "optimizer", "a Keras optimizer", optimizer)
        if optimizer.built:
            optimizer._check_variables_are_known(self.trainable_variables)
        distribute.check_options(self.distribute_strategy, optimizer, objective)
        with self.distribute_strategy.scope():
            super().compile(
                optimizer,
                max_skipped=max_skipped,
                global_clipnorm=global_clipnorm,
                **kwargs,
            )
            # An objective with state is a Keras layer, and its weights are the model's.
            # Keras locks a built model against new state; its own `quantize` unlocks it so.
            self._tracker.unlock()
            self._tracker.untrack(self.objective)
            if isinstance(objective, keras.layers.Layer) and not objective.built:
                objective.build(())
            self.objective = objective
            self._tracker.lock()
            # Now, so that a load or a restored backup finds the slots that it fills.
            if not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)

    def train_step(self, data):
        x, condition, weight = self.unpack(data)
        self.check_batch(x)
        offset, total = distribute.share(tf.shape(x)[0])
        moving_state = self.moving_state()
        differentiate = self.in_xla(self.differentiate)
        losses, terms, loss, gradients = differentiate(x, condition, weight, offset, total)
        finite = self.update(loss, gradients, moving_state)
        return self.report(losses, terms, weight, finite)

    def differentiate(self, x, condition, weight, offset, total):
        """Forward and backward: what a replica does without the others.

        Args:
            x: `[rows, *event]`, the rows of this replica.
            condition: what a variant conditions on, or None.
            weight: `[rows]` or None.
            offset: int32 scalar, where its rows begin in the global batch.
            total: int32 scalar, the rows of the global batch.

        Returns:
            (losses, terms, loss, gradients): `[rows]`; the `reported` terms by name, each
            `[rows]`; this replica's part of the loss; a list of its gradients.
        """
        draw = self.step_noise(tf.shape(x)[0], offset)
        with tf.GradientTape() as tape:
            terms = self.terms(x, draw, condition, self._num_samples, training=True)
            losses = self.example_losses(terms, weight)
            # Over the rows of the global batch: gradients are summed over replicas.
            loss = tf.reduce_sum(losses) / tf.cast(total, losses.dtype)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.trainable_variables)
        return losses, self._reported(terms), loss, gradients

    def test_step(self, data):
        x, condition, weight = self.unpack(data)
        self.check_batch(x)
        draw = self.row_noise(self.next_positions(tf.shape(x)[0]))
        terms = self.terms(x, draw, condition, self._num_samples)
        return self.report(
            self.example_losses(terms, weight), self._reported(terms), weight
        )

    def _reported(self, terms):
        return {name: getattr(terms, name) for name in self.reported}

    def example_losses(self, terms, weight=None):
        """The objective's loss of each example `[batch]`, times its weight."""
        losses = objectives.per_example(
            self.objective, terms, tf.convert_to_tensor(self.step)
        )
        if weight is not None:
            objectives.check_per_example("sample_weight", weight)
            losses *= tf.cast(weight, losses.dtype)
        if self.losses:  # what the networks' own regularizers add
            losses += tf.add_n([tf.cast(v, losses.dtype) for v in self.losses])
        return losses

    @property
    def _num_samples(self):
        return getattr(self.objective, "num_samples", 1)

    def check_data(self, x, name="x", augmentation=()):
        """Data as a NumPy array, or a `Source`, that the likelihood can take.

        Its shape is `[rows, *event]`, after the layers of `augmentation`.

        Raises:
            ValueError: if they have another shape, no rows, a dtype that is no number,
                or values that have no density.
        """
        x = input.as_array(x, name)
        if augmentation:
            if len(x.shape) != 4:
                raise ValueError(
                    f"`augmentation` is for images [rows, height, width, channels]. "
                    f"Received: {name} of shape {x.shape}"
                )
            seeds = keras.random.SeedGenerator(0)
            self.check_batch(input.augment(augmentation, x[:1], seeds), name)
        else:
            self.check_batch(x, name)
        look = x.look() if isinstance(x, sources.Source) else x
        if look.dtype == "uint8" and look.max() == 1:
            raise ValueError(
                f"`{name}` is uint8, which is divided by 255, but holds only 0 and 1. "
                "Pass binary data as bool or float32. Received: largest value 1"
            )
        self.likelihood.check(look, name)
        return x

    def check_batch(self, x, name="x"):
        """Raises a ValueError unless x, an array, tensor or spec, has shape and dtype."""
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            raise ValueError(
                f"`{name}` must be one tensor or array. "
                f"Received: {name} of type {type(x).__name__}"
            )
        input.check_dtype(x.dtype, name)
        shape, event = tf.TensorShape(x.shape), self.likelihood.event_shape
        if not shape.is_compatible_with((None, *event)):
            raise ValueError(
                f"`{name}` must have shape {('batch', *event)}, the event shape of the "
                f"likelihood in each row. Received: shape {tuple(shape)}"
            )

    # Use.

    def call(self, x, condition=None, training=False):
        """x `[batch, *event]` -> its reconstruction, the mean of p(x | E[z|x])."""
        condition = self.embed(condition)
        q_params = self.infer(self.as_float(x), condition, training)
        z = self.posterior.distribution(q_params).mean()
        return self.likelihood.distribution(self.generate(z, condition, training)).mean()

    def encode(self, x, batch_size=None, condition=None):
        """The approximate posterior of data.

        Args:
            x: `[rows, *event]`, as given to `fit`. Values between 0 and 1 are taken as
                they are, not binarised.
            batch_size: int, rows that pass the encoder at a time. Default: all.
            condition: what a conditional model conditions on; None for others.

        Returns:
            `tfd.Distribution` q(z|x) with batch `[rows]`: `mean()`, `stddev()`,
            `sample()`, `log_prob(z)`.

        Raises:
            ValueError: for data that do not fit the likelihood.
        """
        x = self._checked_tensor(x)
        condition = self.embed(self.check_condition(condition, x.shape[0]))
        if batch_size is None:
            return self.posterior.distribution(self.infer(self.as_float(x), condition))
        size = checks.positive_int(batch_size, "batch_size")
        parts = [
            self.infer(
                self.as_float(x[i : i + size]),
                input.part_of(condition, slice(i, i + size)),
            )
            for i in range(0, len(x), size)
        ]
        return self.posterior.distribution(tf.nest.map_structure(_concat, *parts))

    def _checked_tensor(self, x):
        """x, checked where its values are known; a tensor stays one, for its gradient."""
        if tf.is_symbolic_tensor(x):
            return x
        array = self.check_data(x)
        return x if tf.is_tensor(x) else array

    def decode(self, z, condition=None):
        """The likelihood of latents: `tfd.Distribution` p(x|z) with batch `[rows]`.

        Args:
            z: `[rows, *latent]`, any type of numbers.
            condition: as for `encode`.

        Raises:
            ValueError: if z has another shape.
        """
        if not tf.is_tensor(z):
            z = input.as_array(input.plain_array(z, "z"), "z")
        input.check_dtype(z.dtype, "z")
        z = tf.cast(z, tf.float32)
        latent = self.posterior.event_shape
        if not z.shape.is_compatible_with((None, *latent)):
            raise ValueError(
                f"`z` must have shape {('batch', *latent)}. Received: shape {z.shape}"
            )
        condition = self.embed(self.check_condition(condition, z.shape[0]))
        return self.likelihood.distribution(self.generate(z, condition))

    def sample(self, n=None, seed=None, seeds=None, mean=False, condition=None):
        """Draws x from the model: z from the prior, x from p(x|z).

        Equal seeds give equal draws in every process and in every exported form.

        Args:
            n: int, how many rows.
            seed: int; row i gets the seed `seed * 1000003 + i` in 32 bits. Default:
                drawn from Keras' global seed.
            seeds: ints `[rows]`, one for each row, in place of `n` and `seed`.
            mean: bool, return the means of p(x|z) rather than draws.
            condition: as for `encode`.

        Returns:
            float32 tensor `[rows, *event]`.

        Raises:
            ValueError: unless either `n` or `seeds` is given.
        """
        # Inside the method: of a layer above this one, as `evaluation` below.
        from keras_vae import signatures

        name = "mean" if mean else "x"
        return signatures.sample_rows(self, n, seed, seeds, name, condition)

    def reconstruct(self, x, condition=None):
        """The mean of p(x | E[z|x]), a float32 tensor `[rows, *event]`."""
        x = self._checked_tensor(x)
        return self(x, condition=self.check_condition(condition, x.shape[0]))

    def log_likelihood(self, x, num_samples=1000, condition=None):
        """log p(x) of each row in nats, `[rows]`, estimated by importance sampling.

        Burda et al. (2016), equation 8. The estimate is a lower bound in expectation; its
        error and effective sample size come from `evaluation.importance_weighted`.
        """
        from keras_vae import evaluation

        estimate = evaluation.importance_weighted(self, x, num_samples, condition=condition)
        return estimate.log_likelihood

    def export(self, filepath, format="tf_saved_model", **options):
        """Writes the model as functions of named tensors that run without this package.

        `encode`, `encode_mean`, `decode`, `sample`, `reconstruct` (what a server runs when
        none is named) and `score`: see `keras_vae.signatures`. All work row by row, and a
        seed gives the same sample in each format. A model card is written beside them.

        Args:
            filepath: path that does not exist yet.
            format: `"tf_saved_model"`, a folder, for TF Serving (seeds are int64);
                `"litert"`, one .tflite file (int32); `"onnx"`, a folder with a file for
                each signature (int32).
            **options: `names` of signatures (default: all), `num_samples` of `score`,
                `batch_size`, `quantize` (`"float16"`, `"dynamic"`, `"int8"`) and
                `representative_data`, `about`: see `keras_vae.exporting.export`.

        Returns:
            `pathlib.Path` of what was written, whole or not at all.

        Raises:
            ValueError: for a path that exists, options that do not fit, or a signature
                that the model cannot have.
        """
        from keras_vae import exporting

        return exporting.export(self, filepath, format, **options)

    # Saving.

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            "decoder": serialize(self.decoder),
            "likelihood": serialize(self.likelihood),
            "latent_dim": self.latent_dim,
            "posterior": serialize(self.posterior),
            "prior": serialize(self.prior),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))

    def get_compile_config(self):
        if not self.compiled:
            return {}
        objective = keras.saving.serialize_keras_object(self.objective)
        return {**super().get_compile_config(), "objective": objective}

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))


def _latent_shape(latent_dim, posterior, prior):
    """The event shape that all of what is given agrees on."""
    given = {"posterior": posterior, "prior": prior}
    shapes = {name: part.event_shape for name, part in given.items() if part is not None}
    if latent_dim is not None:
        shapes["latent_dim"] = (checks.positive_int(latent_dim, "latent_dim"),)
    if len(set(shapes.values())) != 1:
        raise ValueError(
            "The latents need one shape: give `latent_dim`, or `posterior` and `prior` of "
            f"equal event shapes. Received: {shapes or 'none of them'}"
        )
    return next(iter(shapes.values()))


def _trace(network_name, head_name, name, shape, network, function):
    """Builds a network and its head on a symbolic tensor, or says that they do not fit.

    Not by `layer.build`: that would mark a layer without a `build` of its own as built,
    without making what is inside it.
    """
    given = keras.KerasTensor(shape)
    try:
        # Keras calls a model that is built already on any shape of the right size.
        wanted = getattr(network, "input_shape", None) if network.built else None
        one = isinstance(wanted, tuple) and not isinstance(wanted[0], tuple)
        if one and not tf.TensorShape(wanted).is_compatible_with(shape):
            raise ValueError(f"`{network_name}` was built for inputs of shape {wanted}")
        function(given)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`{network_name}` and `{head_name}` do not take {name} of shape {shape}: "
            f"{error}"
        ) from error


def _symbolic(tensor):
    """The tensor's shape and dtype, for any number of rows; None is None."""
    return tensor if tensor is None else keras.KerasTensor((None, *tensor.shape[1:]))


def _concat(*parts):
    return parts[0] if parts[0].shape.rank == 0 else tf.concat(parts, axis=0)
