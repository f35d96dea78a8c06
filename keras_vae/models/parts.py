"""Which parts make a model: checks of what the constructor and `compile` are given."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_vae import checks, objectives
from keras_vae.distributions import Head, Prior
from keras_vae.training import keras_private, replicas

_HEAD = "a head, such as keras_vae.distributions.IndependentNormal((20,))"


def check_parts(
    encoder: Any, decoder: Any, likelihood: Any, posterior: Any, prior: Any
) -> None:
    """Raises a ValueError for the first part that is of the wrong kind."""
    for name, network in (("encoder", encoder), ("decoder", decoder)):
        is_network = isinstance(network, keras.layers.Layer) and not isinstance(
            network, (Head, Prior)
        )
        expected = "a Keras layer or model that returns features"
        checks.require(is_network, name, expected, network)
    checks.require(isinstance(likelihood, Head), "likelihood", _HEAD, likelihood)
    if posterior is not None:
        checks.require(isinstance(posterior, Head), "posterior", _HEAD, posterior)
        other = "another object than `likelihood`: they are two heads"
        checks.require(posterior is not likelihood, "posterior", other, posterior)
    if prior is not None:
        expected = "a prior of keras_vae.distributions"
        checks.require(isinstance(prior, Prior), "prior", expected, prior)


def latent_shape(latent_dim: Any, posterior: Any, prior: Any) -> tuple[int, ...]:
    """The event shape of the latents, on which all arguments that are given must agree."""
    parts = {"posterior": posterior, "prior": prior}
    shapes = {name: part.event_shape for name, part in parts.items() if part is not None}
    if latent_dim is not None:
        shapes["latent_dim"] = (checks.positive_int(latent_dim, "latent_dim"),)
    if len(set(shapes.values())) != 1:
        raise ValueError(
            "`latent_dim`, `posterior` and `prior` must have one shape: give `latent_dim`, "
            f"or the two with equal event shapes. Received: {shapes or 'none of them'}"
        )
    return next(iter(shapes.values()))


def trace_parts(
    names: tuple[str, str, str],
    shape: tuple,
    network: keras.layers.Layer,
    function: Callable,
) -> None:
    """Builds a network and its head with a symbolic tensor, or says that they do not fit.

    `layer.build` would not do: it marks a layer without a `build` method as built, without
    making the weights inside it.

    Args:
        names: arguments' names of the network, the head and the input, for errors.
        shape: of the input.
        network: Keras layer or model.
        function: input -> parameters; calls the network and the head.
    """
    try:
        # Keras accepts any shape of the right size for a model that is built already.
        wanted = getattr(network, "input_shape", None) if network.built else None
        one_input = isinstance(wanted, tuple) and not isinstance(wanted[0], tuple)
        if one_input and not tf.TensorShape(wanted).is_compatible_with(shape):
            raise ValueError(f"`{names[0]}` was built for inputs of shape {wanted}")
        function(keras.KerasTensor(shape))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must take {names[2]} of shape {shape}. "
            f"Received: {error}"
        ) from error


def symbolic(tensor: Any) -> Any:
    """A symbolic tensor with the shape of another and any number of rows; None for None."""
    return None if tensor is None else keras.KerasTensor((None, *tensor.shape[1:]))


def check_compile(model: keras.Model, optimizer: Any, objective: Any, others: dict) -> Any:
    """Returns the optimizer; raises a ValueError for arguments that `compile` refuses.

    Args:
        model: the model to compile.
        optimizer: Keras optimizer or its name.
        objective: see `keras_vae.objectives`.
        others: the other keyword arguments by name.
    """
    for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
        if others.get(name) is not None:
            raise ValueError(
                f"`{name}` must be left out of {type(model).__name__}.compile: the loss is "
                "a function of the terms of the bound, which are its metrics. Give "
                "`objective`, such as keras_vae.objectives.ELBO(beta=1.0). "
                f"Received: {name}={others[name]!r}"
            )
    objectives.check(objective)
    found = keras.optimizers.get(optimizer)
    checks.require(found is not None, "optimizer", "a Keras optimizer", optimizer)
    keras_private.check_slots(found, model.trainable_variables)
    replicas.check_options(model.distribute_strategy, found, objective)
    return found
