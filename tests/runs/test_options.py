"""Options of a run, declared once: command line, YAML file and run.json agree."""

import dataclasses
import json

import numpy as np
import pytest
import typer
import yaml

from keras_vae import cli
from keras_vae.runs.options import Options

FIELDS = dataclasses.fields(Options)
# For each option a value other than the default, as typed and as parsed.
VALUES = {
    "data": ("photos", "photos"),
    "label": ("kind", "kind"),
    "drop": ("id", ["id"]),
    "header": ("no", "no"),
    "resize": ("28x20", [28, 20]),
    "value_range": ("-1:16", [-1.0, 16.0]),
    "axes": ("chw", "chw"),
    "array": ("imgs", "imgs"),
    "skip_broken": ("true", True),
    "validation": ("0.25", 0.25),
    "model": ("conditional", "conditional"),
    "condition": ("label", "label"),
    "network": ("conv", "conv"),
    "hidden": ("40,20", [40, 20]),
    "filters": ("8,4", [8, 4]),
    "activation": ("tanh", "tanh"),
    "latent": ("3", 3),
    "likelihood": ("normal", "normal"),
    "grey": ("soft", "soft"),
    "scale": ("0.5", 0.5),
    "objective": ("iwae", "iwae"),
    "samples": ("5", 5),
    "beta": ("4", 4.0),
    "beta_schedule": ("cosine", "cosine"),
    "beta_steps": ("100", 100),
    "free_bits": ("0.1", 0.1),
    "epochs": ("7", 7),
    "patience": ("3", 3),
    "batch": ("9", 9),
    "learning_rate": ("0.01", 0.01),
    "lr_schedule": ("cosine", "cosine"),
    "seed": ("-5", -5),
    "precision": ("mixed_bfloat16", "mixed_bfloat16"),
    "xla": ("true", True),
    "shift": ("0.1", 0.1),
    "rotate": ("15", 15.0),
    "crop": ("5x6", [5, 6]),
    "init": ("runs/x-1", "runs/x-1"),
}


def parse(*arguments):
    """Returns the values of the options as `train` parses them from these arguments."""
    command = typer.main.get_group(cli.app).commands["train"]
    context = command.make_context("train", [str(a) for a in arguments])
    return {field.name: context.params[field.name] for field in FIELDS}


def as_arguments(name, text):
    option = f"--{name.replace('_', '-')}"
    if text == "true":
        return [option]
    return [text] if name == "data" else [f"{option}={text}"]


def test_each_option_is_read_from_the_command_line():
    arguments = [
        part for name, (text, _) in VALUES.items() for part in as_arguments(name, text)
    ]
    assert parse(*arguments) == {name: value for name, (_, value) in VALUES.items()}


def test_a_yaml_file_and_run_json_have_the_same_options(tmp_path):
    options = Options(**{name: value for name, (_, value) in VALUES.items()})
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(options.to_dict()))
    assert parse("--config", path) == options.to_dict()
    as_json = json.loads(json.dumps(options.to_dict()))
    assert Options.from_dict(as_json) == options


def test_the_command_line_overrides_the_yaml_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("data: digits\nlatent: 4\nbatch: 8\n")
    values = parse("--latent", 5, "--config", path)
    assert (values["data"], values["latent"], values["batch"]) == ("digits", 5, 8)


def test_one_dropped_column_needs_no_list(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("drop: name")
    assert parse("digits", "--config", path)["drop"] == ["name"]


def test_defaults_are_those_of_the_options():
    defaults = Options("digits").to_dict() | {"drop": ()}
    assert parse("digits") == defaults


def test_each_option_has_a_help_text_and_a_default():
    command = typer.main.get_group(cli.app).commands["train"]
    for parameter in command.params:
        if parameter.name not in ("data", "help", "resume"):
            has_default = parameter.default is not None and parameter.show_default
            assert parameter.help, parameter.name
            assert has_default or "Default: " in parameter.help, parameter.name


@pytest.mark.parametrize(
    "text, received",
    [
        ("latnt: 3", "latnt"),
        ("- latent", "no map"),
        ("[1, 2", "line 1"),
        ("latent: -3", "-3"),
        ("latent: 2.5", "2.5"),
        ("latent: true", "True"),
        ("hidden: [0, 4]", "0,4"),
        ("resize: 28", "28"),
        ("scale: [1]", "[1]"),
        ("scale: true", "True"),
        ("hidden: [4, [5]]", "[4, [5]]"),
        ("latent: {a: 1}", "{'a': 1}"),
        ("beta: false", "False"),
        ("label: yes", "True"),
        ("label: [a, b]", "['a', 'b']"),
        ("label: 2020-13-45", "month must be in 1..12"),
        ("drop: [null]", "None"),
        ("likelihood: foo", "foo"),
        ("latent: 3\nseed: 1\nlatent: 4", "several lines `latent`"),
    ],
)
def test_bad_values_in_a_yaml_file_are_refused(tmp_path, text, received):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(typer.BadParameter) as caught:
        parse("digits", "--config", path)
    assert received in str(caught.value)


def test_resolving_options_twice_changes_nothing():
    from keras_vae import datasets
    from keras_vae.runs import build

    data = datasets.load("digits").hold_out(0.1)
    resolved = build.resolve(Options("digits", beta_schedule="linear"), data)
    assert build.resolve(resolved, data) == resolved
    assert None not in (
        resolved.network,
        resolved.likelihood,
        resolved.epochs,
        resolved.beta_steps,
    )


@pytest.mark.parametrize(
    ("shape", "filters"),
    [
        ((28, 28, 1), [32, 64]),
        ((28, 20, 1), [32, 64]),
        ((2, 3, 1), [32]),
        ((64, 64, 3), [16, 32, 64, 128]),
        ((256, 256, 3), [16, 32, 64, 128, 256, 256]),
        ((500, 2, 1), [32, 64, 128, 256]),
        ((24, 3), [32, 64]),
        ((187, 1), [32, 64, 128, 256, 256]),
        ((28, 28, 28, 1), [16, 32, 64, 128]),
    ],
    ids=str,
)
def test_the_default_network_grows_with_the_size(shape, filters):
    from keras_vae.runs import build

    assert build.default_filters(shape) == filters


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("x", "network", "likelihood"),
    [
        (RNG.integers(0, 256, (40, 8, 8, 1), np.uint8), "conv", "normal"),
        (255 * RNG.integers(0, 2, (40, 8, 8, 1), np.uint8), "conv", "bernoulli"),
        (RNG.integers(0, 2, (40, 12, 2)).astype(bool), "conv", "bernoulli"),
        (RNG.uniform(size=(40, 12, 3)), "conv", "normal"),
        (RNG.normal(size=(40, 4, 4, 4, 1)), "conv", "normal"),
        (RNG.integers(0, 2, (40, 5)).astype(np.float32), "mlp", "bernoulli"),
        (RNG.normal(size=(40, 5)), "mlp", "normal"),
    ],
    ids=[
        "grey",
        "black and white",
        "binary series",
        "series",
        "volumes",
        "bits",
        "vectors",
    ],
)
def test_the_default_network_and_likelihood_depend_on_the_data(x, network, likelihood):
    from keras_vae.datasets import Dataset
    from keras_vae.runs import build

    data = Dataset("x", x[:30], x[30:])
    options = build.resolve(Options("x", latent=2, hidden=[8]), data)
    assert (options.network, options.likelihood) == (network, likelihood)
    reason = build.kind_of_values(data)
    assert ("nearly all values are 0 or 1" in reason) == (likelihood == "bernoulli")
    if network == "conv":
        options.filters = [4]
    options.epochs = 1
    model = build.build_model(options, data)
    assert model.reconstruct(x[:2]).shape == (2, *x.shape[1:])
    # The initial mean is that of each channel, or of each element of a vector.
    assert len(model.likelihood.bias_initializer.value) == x.shape[-1]
