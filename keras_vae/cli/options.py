"""Options that several commands share, and the options of a run for `train`."""

import dataclasses
import functools
import inspect
import pathlib
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from keras_vae import typed_files
from keras_vae.runs import parsers
from keras_vae.runs.options import Options, count, option

_MAX_CONFIG = 2**20  # bytes; the parser takes seconds for them

Folder = Annotated[pathlib.Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
NumSamples = Annotated[
    int | None,
    count(
        "Report",
        "Importance samples per row, for log p(x). Default: 1,000; 100 for conv, which "
        "takes longer.",
    ),
]
NllRows = Annotated[int, count("Report", "Maximum number of test rows for the NLL.", low=2)]
Latents = Annotated[
    str,
    option(
        "Report",
        "Train baselines with these latent sizes, such as 2,8,32, and compare them in the "
        "report: PCA, autoencoders and a VAE.",
        parser=parsers.ints,
        metavar="INTS|none",
    ),
]
Moved = Annotated[
    pathlib.Path | None,
    typer.Option(
        metavar="PATH",
        help="Where the data of the run are now. Default: the path of the training.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace an existing file. Default: an existing file is an error.",
    ),
]


def with_run_options(function: Callable) -> Callable:
    """Adds an option to a command for each field of `Options`; passes them as `options`.

    Args:
        function: has a parameter `options`, and its own parameters with annotations of
            Typer.
    """
    fields = dataclasses.fields(Options)

    @functools.wraps(function)
    def command(**kwargs):
        values = {field.name: kwargs.pop(field.name) for field in fields}
        values["drop"] = values["drop"] or []
        return function(options=Options(**values), **kwargs)

    own = inspect.signature(function).parameters.values()
    parameters = [
        *map(_parameter, fields),
        *(p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != "options"),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _parameter(field):
    """Makes a parameter for Typer from a field of `Options`."""
    annotation, (info,) = field.type, field.type.__metadata__
    default: Any = inspect.Parameter.empty
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = ",".join(map(str, field.default_factory())) or None
    if info.parser is not None:  # Typer passes text to a parser
        annotation = Annotated[str | None if default is None else str, info]
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def read_config(context: typer.Context, path: pathlib.Path | None) -> pathlib.Path | None:
    """Uses the options in a YAML file as defaults of the command line.

    Raises:
        typer.BadParameter: for a file that cannot be read, and for an unknown option.
    """
    if path is None:
        return None
    import yaml  # slow to import

    try:
        text = typed_files.read_text(path, _MAX_CONFIG)
        values = yaml.safe_load(text)
        _check_keys(yaml.compose(text, yaml.SafeLoader), path)
    # ValueError: of UTF-8, and of a date that does not exist.
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise typer.BadParameter(
            f"expected a readable YAML file. Received: {path}: {error}"
        ) from error
    fields = {field.name: field for field in dataclasses.fields(Options)}
    if not isinstance(values, dict) or not {*values} <= {*fields}:
        keys = "no map"
        if isinstance(values, dict):
            keys = str(sorted(map(str, {*values} - {*fields})))
        raise typer.BadParameter(
            f"expected a YAML map of options, such as `latent: 16`. Received: {path} with "
            f"{keys}"
        )
    values = {key: value for key, value in values.items() if value is not None}
    if isinstance(values.get("drop", []), str):
        values["drop"] = [values["drop"]]
    for name, value in values.items():
        _check_text(fields[name], value)
    context.default_map = values
    return path


def _check_keys(node, path):
    """Raises a BadParameter if a YAML map has a key twice: the last one would win."""
    is_map = node is not None and node.id == "mapping"
    keys = [str(key.value) for key, _ in node.value] if is_map else []
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise typer.BadParameter(
            f"expected each option once. Received: {path} with several lines `{twice[0]}`"
        )


def _check_text(field, value):
    """Raises a BadParameter for what Typer would turn into a text, such as a bool."""
    # Also because the text of nested lists can be huge, in which YAML repeats a part.
    if isinstance(value, dict) or _is_nested(value):
        raise typer.BadParameter(
            f"expected a value or a list of values for `{field.name}`. Received: "
            f"{typed_files.short(value)}"
        )
    kind, info = typing.get_args(field.type)
    if info.parser is not None or bool in (kind, *typing.get_args(kind)):
        return
    texts = value if field.name == "drop" and isinstance(value, list) else [value]
    for text in texts:
        if isinstance(text, (bool, dict, list, type(None))):
            raise typer.BadParameter(
                f"expected a text for `{field.name}`, in quotes if YAML reads it as "
                f"something else. Received: {text!r}"
            )


def _is_nested(value):
    return isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value)
