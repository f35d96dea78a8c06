"""Checks of the arguments of a model's constructor and of `compile`."""

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
    """Raises a ValueError for the first part that has the wrong type."""
    for name, network in (("encoder", encoder), ("decoder", decoder)):
        is_network = isinstance(network, keras.layers.Layer) and not isinstance(
            network, (Head, Prior)
        )
        expected = "a Keras layer or model that returns features"
        checks.require(is_network, name, expected, network)
    checks.require(isinstance(likelihood, Head), "likelihood", _HEAD, likelihood)
    if posterior is not None:
        checks.require(isinstance(posterior, Head), "posterior", _HEAD, posterior)
        expected = "a different object from `likelihood`: a model has two heads"
        checks.require(posterior is not likelihood, "posterior", expected, posterior)
    if prior is not None:
        expected = "a prior, such as keras_vae.distributions.StandardNormal((20,))"
        checks.require(isinstance(prior, Prior), "prior", expected, prior)


def latent_shape(latent_dim: Any, posterior: Any, prior: Any) -> tuple[int, ...]:
    """Returns the event shape of the latents. All arguments that are set must agree."""
    parts = {"posterior": posterior, "prior": prior}
    shapes = {name: part.event_shape for name, part in parts.items() if part is not None}
    if latent_dim is not None:
        shapes["latent_dim"] = (checks.positive_int(latent_dim, "latent_dim"),)
    if len(set(shapes.values())) != 1:
        raise ValueError(
            "`latent_dim` or `posterior` must be set, and all of `latent_dim`, `posterior` "
            f"and `prior` that are set must agree. Received: {shapes or 'none of them'}"
        )
    return next(iter(shapes.values()))


def trace_parts(
    names: tuple[str, str, str],
    shape: tuple,
    network: keras.layers.Layer,
    function: Callable,
) -> None:
    """Builds a network and its head, by calling them with a symbolic tensor.

    `layer.build` is not enough: it marks a layer without a `build` method as built, but
    creates no weights of the layers inside it.

    Args:
        names: argument names of the network, the head and the input, for errors.
        shape: shape of the input.
        network: Keras layer or model.
        function: input -> parameters; calls the network and the head.

    Raises:
        ValueError: if the network or the head does not accept its input.
    """
    try:
        # Checked here: once a model is built, Keras accepts any shape of the right size.
        built_for = getattr(network, "input_shape", None) if network.built else None
        one_input = isinstance(built_for, tuple) and not isinstance(built_for[0], tuple)
        if one_input and not tf.TensorShape(built_for).is_compatible_with(shape):
            raise ValueError(f"`{names[0]}` is built for inputs of shape {built_for}")
        function(keras.KerasTensor(shape))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must accept {names[2]} of shape {shape}. "
            f"Received: {error}"
        ) from error


def symbolic(tensor: Any) -> Any:
    """Makes a symbolic tensor like `tensor`, with any number of rows. None stays None."""
    return None if tensor is None else keras.KerasTensor((None, *tensor.shape[1:]))


def check_compile(
    model: keras.Model, optimizer: Any, objective: Any, others: dict[str, Any]
) -> Any:
    """Returns the optimizer. Raises a ValueError for invalid arguments of `compile`.

    Args:
        model: the model to compile.
        optimizer: Keras optimizer or its name.
        objective: see `keras_vae.objectives`.
        others: the other keyword arguments by name.
    """
    for name in ("loss", "loss_weights"):
        if others.get(name) is not None:
            raise ValueError(
                f"`{name}` must not be set in {type(model).__name__}.compile: the loss is "
                "a function of the terms of the bound. Set `objective`, such as "
                "keras_vae.objectives.ELBO(beta=1.0). "
                f"Received: {name}={others[name]!r}"
            )
    taken = {"loss", "skipped_steps", *model.reported}
    for name in ("metrics", "weighted_metrics"):
        for metric in tf.nest.flatten(others.get(name) or []):
            metric_name = getattr(metric, "name", getattr(metric, "__name__", metric))
            expected = f"named other than {sorted(taken)}, which are reported already"
            checks.require(metric_name not in taken, name, expected, metric_name)
            objectives.check_saved(metric, name)
            # Keras chooses the kind of these by the shape of the data.
            if metric not in ("accuracy", "acc", "crossentropy", "ce"):
                keras.metrics.get(metric)  # raises a ValueError for an unknown name
    objectives.check(objective)
    instance = keras.optimizers.get(optimizer)
    checks.require(instance is not None, "optimizer", "a Keras optimizer", optimizer)
    keras_private.check_slots(instance, model.trainable_variables)
    replicas.check_options(model.distribute_strategy, instance, objective)
    return instance
