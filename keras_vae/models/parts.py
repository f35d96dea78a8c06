"""Checks of the arguments of a model's constructor and of `compile`."""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_vae import checks, objectives
from keras_vae.distributions import Head, Prior
from keras_vae.training import keras_private, replicas

_HEAD = "a head, such as keras_vae.distributions.IndependentNormal((20,))"
# TensorFlow operations at the end of a network: they move or rescale values; they return
# probabilities; they are other activations.
_MOVES = {"Identity", "IdentityN", "Cast", "Reshape", "Transpose", "Pack", "Tile", "Pad"}
_MOVES |= {"PadV2", "Slice", "StridedSlice", "ExpandDims", "Squeeze"}
_RESCALES = {"AddV2", "Sub", "Mul", "RealDiv"}
_PROBABILITIES = {"Sigmoid", "Softmax"}
_ACTIVATIONS = {"Tanh", "Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign"}
_ACTIVATIONS |= {"Exp", "Minimum", "Maximum", "Mul"} | _PROBABILITIES


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
        for layer in keras_private.flatten_layers(network):
            if isinstance(layer, keras.layers.Masking) or getattr(
                layer, "mask_zero", False
            ):
                raise ValueError(
                    f"`{name}` must have no mask: it does not reach the likelihood, so "
                    "padded steps would count in log p(x). Train on windows of one length, "
                    "or leave out the layer to model the padding as data. "
                    f"Received: the layer {layer.name!r} in `{name}`"
                )
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


def check_features(model: Any, condition: Any) -> None:
    """Raises a ValueError if a network of a built model already does the work of its head.

    Args:
        model: a `VAE`.
        condition: its embedded condition, symbolic, or None.
    """
    _check_encoder(model, condition)
    _check_decoder(model, condition)


def _check_encoder(model, condition):
    """Raises a ValueError for an encoder that samples."""
    own = ("keras.", "keras_vae.")  # their layers are only random in training
    if not any(
        isinstance(layer, keras.layers.Lambda) or not type(layer).__module__.startswith(own)
        for layer in keras_private.flatten_layers(model.encoder)
    ):
        return
    graph = _graph(model.encoder, model.likelihood.event_shape, condition)
    if graph is not None and "Random" in str(graph.as_graph_def()):
        raise ValueError(
            "`encoder` must return features, from which the posterior makes the mean and "
            "the scale of z, and the model draws z. Leave out the layer that samples, and "
            "those of the mean and the variance before it. "
            "Received: an encoder that draws random numbers outside of training"
        )


def _check_decoder(model, condition):
    """Raises a ValueError for a decoder whose output already is the event.

    The output must not come from a sigmoid or softmax with as many numbers, or the
    channels, of the event, nor from any activation with the shape of the event, if that has
    several axes: the head would put a linear layer on each pixel.
    """
    head, event = model.likelihood, model.likelihood.event_shape
    # A user's projection may use an image as it is, but not as logits.
    if head.projection is not None and "logits" not in head.projected:
        return
    config = head.get_build_config() or {}
    shape = tuple(config.get("input_shape", ()))[1:]
    if not all(isinstance(n, int) for n in shape):  # a user's head of several tensors
        return
    has_channels = len(shape) == len(event) > 1 and shape[-1] == event[-1]
    if not has_channels and math.prod(shape) != math.prod(event):
        return
    graph = _graph(model.decoder, model.posterior.event_shape, condition)
    activation = None if graph is None else _last_activation(graph)
    if activation in _PROBABILITIES or (shape == event and len(event) > 1 and activation):
        raise ValueError(
            "`decoder` must return features, from which the last layer of the likelihood "
            "makes the event. Leave out the decoder's last layer. Or leave out its "
            "activation, and set `projection=keras.layers.Identity()` in the likelihood. "
            f"Received: a decoder that ends in {activation} and returns the shape {shape} "
            f"for events of shape {event}"
        )


def _graph(network: keras.layers.Layer, shape: tuple, condition: Any) -> Any:
    """Traces a built network; None if a variant calls it with other arguments."""
    inputs: Any = tf.TensorSpec((None, *shape))
    if condition is not None:
        specs = tf.nest.map_structure(lambda c: tf.TensorSpec(c.shape), condition)
        inputs = inputs, specs
    function = tf.function(network, autograph=False)
    try:
        return function.get_concrete_function(inputs, training=False).graph
    except (ValueError, TypeError, AttributeError):
        return None


def _last_activation(graph: Any) -> str | None:
    """Returns the type of the last operation of a graph if it is an activation."""
    op = graph.outputs[0].op
    while values := [x for x in op.inputs if x.op.type != "Const"]:
        is_rescaled = op.type in _RESCALES and len(values) == 1 < len(op.inputs)
        if op.type not in _MOVES and not is_rescaled:
            break
        op = values[0].op
    return op.type if op.type in _ACTIVATIONS else None


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
