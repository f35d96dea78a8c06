"""Builds the model and the objective of a run from its options."""

import functools
import math
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from keras_vae import nets, objectives, schedules
from keras_vae.datasets import Dataset
from keras_vae.distributions import Head, IndependentBernoulli, IndependentNormal
from keras_vae.distributions.independent_bernoulli import is_nearly_binary
from keras_vae.models import VAE, Autoencoder, ConditionalVAE
from keras_vae.runs.options import (
    EPOCHS,
    PATIENCE,
    PATIENCE_EPOCHS,
    STEPS,
    WARM_UP,
    Options,
)
from keras_vae.training import replicas

MODELS: dict[str, Any] = {
    "vae": VAE,
    "autoencoder": Autoencoder,
    "conditional": ConditionalVAE,
}
# The convolutional networks for events of a number of axes, channels included.
CONVOLUTIONAL: dict[int, Any] = {
    2: (nets.Conv1DEncoder, nets.Conv1DDecoder),
    3: (nets.ConvEncoder, nets.ConvDecoder),
    4: (nets.Conv3DEncoder, nets.Conv3DDecoder),
}


def augmentation(options: Options) -> list[keras.layers.Layer]:
    """Makes the augmentation layers of the options."""
    layers = []
    # In float32, not in the global policy, which is for the networks.
    settings = {"fill_mode": "nearest", "dtype": "float32"}
    if options.rotate:
        factor = options.rotate / 360
        layers.append(keras.layers.RandomRotation(factor, **settings))
    if options.shift:
        shift = options.shift
        layers.append(keras.layers.RandomTranslation(shift, shift, **settings))
    if options.crop:
        layers.append(keras.layers.RandomCrop(*options.crop, dtype="float32"))
    return layers


def resolve(options: Options, data: Dataset) -> Options:
    """Fills in the defaults that depend on the data.

    Raises:
        ValueError: for options that do not fit the data or each other.
    """
    options = options.replace(axes=data.axes)
    _resolve_condition(options, data)
    _resolve_network(options, data)
    _resolve_likelihood(options, data)
    if options.latent is None:
        size = math.prod(data.event_shape)
        options.latent = min(size, 16) if size <= 100 else 32
    for name in ("rotate", "shift", "crop"):
        if getattr(options, name) and len(data.event_shape) != 3:
            _refuse(name, "left out for data that are not images", getattr(options, name))
    _resolve_training(options, data)
    if options.xla is None:  # on a CPU, XLA slows convolutions down
        gpu = bool(tf.config.list_physical_devices("GPU"))
        options.xla = options.network == "mlp" or gpu
    _check_objective(options)
    return options


def steps_per_epoch(options: Options, data: Dataset) -> int:
    """Returns the number of batches of an epoch, including a smaller last one."""
    return -(-len(data.x_train) // options.batch)


def _resolve_condition(options, data):
    """Sets the default of `condition`, or raises a ValueError."""
    conditional = options.model == "conditional"
    if not conditional and options.condition is not None:
        _refuse("condition", "left out unless the model is conditional", options.condition)
    if not conditional:
        return
    options.condition = "label"
    if data.class_problem:
        notes = data.notes if data.y_train is None else ()  # may say why
        raise ValueError(
            "`condition` label needs 2 to 100 classes: folders of images, y or `label` of "
            "an .npz, or `label`, a column of a table. Received: "
            f"{' '.join([f'{data.class_problem} in {data.name}.', *notes])}"
        )
    for part in ("val", "test"):
        if getattr(data, f"x_{part}") is not None:
            data.class_numbers(part)  # raises an error now, and not after the training


def _resolve_network(options, data):
    """Sets the default of `network`, or raises a ValueError."""
    has_axes = len(data.event_shape) in CONVOLUTIONAL
    if options.network is None:
        options.network = "conv" if has_axes else "mlp"
    if options.network == "conv" and not has_axes:
        _refuse("network", "mlp unless rows are signals, images or volumes", "conv")
    if options.network == "mlp" and options.filters is not None:
        _refuse("filters", "left out unless the network is conv", options.filters)
    if options.network == "conv" and options.filters is None:
        options.filters = default_filters(data.event_shape)
    try:
        keras.activations.get(options.activation)
    except ValueError:
        _refuse("activation", "the name of a Keras activation", options.activation)


def default_filters(event_shape: tuple[int, ...]) -> list[int]:
    """Returns the channels of convolutions that halve an event to about 4 to 7 a side.

    They double up to 256. The first has fewer than 32 for events of 64 x 64 positions or
    more, where it takes most of the time and the memory.
    """
    size = event_shape[:-1]
    target = 7 ** min(len(size), 2)
    layers, first = 1, 32
    while math.prod(-(-n // 2**layers) for n in size) > target:
        layers += 1
    while first > 16 and math.prod(size) * first**2 > (64 * 24) ** 2:
        first //= 2
    return [min(first * 2**i, 256) for i in range(layers)]


def _resolve_likelihood(options, data):
    """Sets the defaults of `likelihood`, `grey` and `scale`, or raises a ValueError."""
    binary, in_unit = data.x_train.dtype == bool, _in_unit_interval(data)
    if options.likelihood is None:
        black_and_white = in_unit and is_nearly_binary(data.x_seen)
        options.likelihood = "bernoulli" if black_and_white else "normal"
    for name, likelihood in (("grey", "bernoulli"), ("scale", "normal")):
        value = getattr(options, name)
        if value is not None and options.likelihood != likelihood:
            _refuse(name, f"left out unless the likelihood is {likelihood}", value)
    if options.likelihood == "bernoulli" and not in_unit:
        low, high = data.x_seen.min(), data.x_seen.max()
        raise ValueError(
            "`likelihood` bernoulli needs values in [0, 1]: scale an array with "
            f"`value_range`, or use normal. Received: values from {low:g} to {high:g} in "
            f"the training rows, {data.x_test.min():g} to {data.x_test.max():g} in the test"
        )
    if options.grey is None and options.likelihood == "bernoulli":
        options.grey = "error" if binary else "binarize"
    if options.scale is None and options.likelihood == "normal":
        options.scale = "shared"


def _resolve_training(options, data):
    """Sets the defaults of the number of epochs, of the KL warm-up and of `patience`."""
    steps = steps_per_epoch(options, data)
    if options.epochs is None:
        options.epochs = max(EPOCHS, -(-STEPS // steps))
    if options.beta_schedule is None:
        warm_up = _has_bound(options) and options.objective == "elbo"
        options.beta_schedule = "linear" if warm_up else "constant"
    if options.beta_schedule != "constant" and options.beta_steps is None:
        longest = min(WARM_UP, steps * options.epochs // 5)
        options.beta_steps = max(1, min(EPOCHS * steps, longest))
    # The losses of a cycle have different weights of the KL: no epoch is the best.
    comparable = data.x_val is not None and options.beta_schedule != "cyclical"
    if options.patience is None:
        epochs = int(np.clip(-(-PATIENCE // steps), EPOCHS, PATIENCE_EPOCHS))
        options.patience = epochs if comparable else 0
    if options.patience and not comparable:
        expected = "0 without validation rows, and for the cyclical schedule"
        _refuse("patience", expected, options.patience)


def _check_objective(options):
    """Raises a ValueError for an option that the chosen objective does not use."""
    defaults = {"samples": 1, "beta": 1.0, "beta_schedule": "constant", "beta_steps": None}
    defaults |= {"free_bits": 0.0}
    if options.beta_schedule == "constant" and options.beta_steps is not None:
        _refuse("beta_steps", "left out without `beta_schedule`", options.beta_steps)
    if not _has_bound(options):
        owner, defaults = "model is vae", {"objective": "elbo", **defaults}
    elif options.objective == "iwae":
        owner = "objective is elbo"
        del defaults["samples"]
    else:
        return
    for name, default in defaults.items():
        if getattr(options, name) != default:
            _refuse(name, f"left out unless the {owner}", getattr(options, name))


def _has_bound(options):
    """Returns True if the model is trained by a bound on log p(x)."""
    return MODELS[options.model].default_objective is objectives.ELBO


def _refuse(name: str, expected: str, value: Any) -> NoReturn:
    raise ValueError(f"`{name}` must be {expected}. Received: {name}={value}")


def _in_unit_interval(data):
    """Returns True if all values are in [0, 1], in model units."""
    parts = [x for x in (data.x_seen, data.x_val, data.x_test) if x is not None]
    return parts[0].dtype == np.uint8 or all(x.min() >= 0 and x.max() <= 1 for x in parts)


def kind_of_values(data: Dataset) -> str:
    """Describes the values that decide the default of `likelihood`."""
    if not _in_unit_interval(data):
        return "some values are outside [0, 1]"
    if is_nearly_binary(data.x_seen):
        return "nearly all values are 0 or 1"
    return "many values are between 0 and 1"


def likelihood(options: Options, data: Dataset) -> Head:
    """Makes the likelihood head. Its initial mean is the mean of the data."""
    # The mean of each channel for convolutions, otherwise of each element.
    is_conv = options.network == "conv"
    mean = data.mean(tuple(range(len(data.event_shape))) if is_conv else 0)
    if options.likelihood == "bernoulli":
        mean = np.clip(mean, 0.001, 0.999)  # Burda et al. (2016)
        bias = keras.initializers.Constant(np.log(mean / (1 - mean)).tolist())
        return IndependentBernoulli(
            data.event_shape, grey=options.grey, bias_initializer=bias
        )
    return IndependentNormal(
        data.event_shape,
        scale=options.scale,
        bias_initializer=keras.initializers.Constant(mean.tolist()),
        initial_scale=max(0.01, data.spread),
    )


def build_model(options: Options, data: Dataset) -> Any:
    """Makes the compiled model that the options describe.

    Args:
        options: the result of `resolve`.
        data: the data set of the run.

    Raises:
        ValueError: for options that do not fit each other.
    """
    keras.utils.set_random_seed(options.seed % 2**32)
    keras.config.set_dtype_policy(options.precision)
    hidden, activation = options.hidden, options.activation
    encoder = nets.MLP(hidden, activation)
    decoder = nets.MLP(hidden[::-1], activation)
    if options.network == "conv":
        shape, filters = data.event_shape, options.filters or []
        make_encoder, make_decoder = CONVOLUTIONAL[len(shape)]
        convolutions = make_encoder(filters, activation=activation)
        encoder = keras.Sequential([convolutions, encoder])
        to_maps = make_decoder(filters[::-1], shape, activation=activation)
        decoder = keras.Sequential([decoder, to_maps])
    make = MODELS[options.model]
    if options.condition is not None:
        make = functools.partial(make, condition=len(data.classes))
    head = likelihood(options, data)
    model = make(encoder, decoder, head, options.latent, seed=options.seed)
    steps = steps_per_epoch(options, data)
    rate: Any = options.learning_rate
    if options.lr_schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            rate, steps * (options.epochs or 1), alpha=0.01
        )
    steps_at_once: int | str = "auto"
    if tf.distribute.has_strategy():
        strategy = tf.distribute.get_strategy()
        steps_at_once = replicas.steps_per_execution(strategy, min(100, steps))
    model.compile(
        keras.optimizers.Adam(rate),
        objective(options),
        steps_per_execution=steps_at_once,
        jit_compile=options.xla,
    )
    model.check_data(data.x_train, "data", augmentation(options))
    for x in (data.x_test, data.x_val):
        if x is not None:
            model.check_data(x, "data")
    return model


def objective(options: Options) -> Any:
    """Makes the objective of the options; None means the model's default."""
    if not _has_bound(options):
        return None
    if options.objective == "iwae":
        return objectives.IWAE(options.samples)
    beta: Any = options.beta
    steps = options.beta_steps or 1
    if options.beta_schedule == "cyclical":
        beta = schedules.Cyclical(0.0, beta, period=steps)
    elif options.beta_schedule != "constant":
        ramps = {"linear": schedules.Linear, "cosine": schedules.Cosine}
        beta = ramps[options.beta_schedule or "linear"](0.0, beta, steps=steps)
    return objectives.ELBO(beta, options.free_bits, num_samples=options.samples)
