"""Conversion from half precision to float32, in which all runtimes agree."""

import keras

from keras_vae import disks
from keras_vae.models import VAE
from keras_vae.training.keras_private import flatten_layers

_HALF = ("float16", "bfloat16")


def in_float32(model: VAE) -> VAE:
    """Returns the model, or a float32 copy if its networks compute in half precision.

    Raises:
        ValueError: if it cannot be rebuilt from its config.
    """
    if not any(layer.compute_dtype in _HALF for layer in flatten_layers(model)):
        return model
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        copy = type(model).from_config(_without_half(model.get_config()))
        with disks.temporary_folder() as folder:
            # Not `set_weights`, which skips tensors that layers derive from weights.
            path = folder / "copy.weights.h5"
            model.save_weights(path)
            copy.load_weights(path)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            "A model in half precision is exported in float32, which rebuilds it from its "
            "config: its layers must be registered with Keras, must not be Lambda layers, "
            f"and must not be shared between networks. Received: {error}"
        ) from error
    finally:
        keras.config.set_dtype_policy(before)
    return copy


def _without_half(config):
    """Replaces each half-precision policy or dtype in a config by float32."""
    if isinstance(config, dict):
        name = (config.get("config") or {}).get("name") if _is_policy(config) else None
        if name and str(name).removeprefix("mixed_") in _HALF:
            return keras.dtype_policies.serialize(keras.DTypePolicy("float32"))
        return {
            key: "float32" if key == "dtype" and _is_half(value) else _without_half(value)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_without_half(value) for value in config)
    return config


def _is_half(value):
    return isinstance(value, str) and value.removeprefix("mixed_") in _HALF


def _is_policy(config):
    return str(config.get("class_name", "")).endswith("DTypePolicy")
