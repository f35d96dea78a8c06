"""The configuration of a Keras object, from the arguments of its constructor."""

import inspect
from typing import Any, Self

import keras


class Configured:
    """Mixin that provides `get_config` and `from_config`.

    As in scikit-learn, a constructor keeps each argument in an attribute of the same name.
    Its `**kwargs` are arguments of the base class.
    """

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, serialised.

        Raises:
            TypeError: if an argument has no attribute.
        """
        is_layer = isinstance(self, keras.layers.Layer)  # with a name and a dtype
        inherited = super().get_config() if is_layer else {}  # type: ignore[misc]
        names = [name for name in _arguments(type(self)) if name not in inherited]
        missing = [name for name in names if not hasattr(self, name)]
        if missing and type(self).get_config is Configured.get_config:
            raise TypeError(
                f"{type(self).__name__} must keep the argument `{missing[0]}` of its "
                f"constructor as `self.{missing[0]}`, or have its own `get_config`."
            )
        own = {name: getattr(self, name) for name in names if name not in missing}
        return {**inherited, **{name: _serialize(value) for name, value in own.items()}}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Makes an object from the result of `get_config`."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))


def _arguments(cls: type) -> list[str]:
    """Returns the names of the arguments of a constructor, and of those of its bases."""
    names: list[str] = []
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] == "keras":
            break
        if "__init__" not in vars(base):
            continue
        arguments = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names += [a.name for a in arguments if a.kind in named and a.name not in names]
        if not any(a.kind is inspect.Parameter.VAR_KEYWORD for a in arguments):
            break
    return names


def _serialize(value: Any) -> Any:
    if isinstance(value, tuple):  # a shape; Keras would write a dict
        return value
    return keras.saving.serialize_keras_object(value)
