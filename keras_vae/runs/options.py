"""The options of a run, declared once: the command line, run.json, run.yaml and the report.

This module has no slow imports, so that `keras-vae train --help` answers at once.
"""

import dataclasses
import functools
import math
import operator
import typing
from typing import Annotated, Any, Literal

import typer

from keras_vae.runs import parsers
from keras_vae.typed_files import Fields, Rule

MAX_INT = 2**31 - 1
# Defaults of the training, mostly in steps, so that small data sets are trained long
# enough. They were chosen on validation data: see docs/defaults.md.
STEPS, PATIENCE, WARM_UP, EPOCHS = 10_000, 2000, 2000, 10
PATIENCE_EPOCHS = 100  # small data sets overfit within few steps
# Values of the options that older versions did not have: what those versions did.
ABSENT: dict[str, Any] = {
    "condition": None,
    "axes": None,
    "array": None,
    "header": "yes",
    "patience": 0,
    "skip_broken": False,
    "init": None,
}
# Options whose default depends on the data, so that None means the default. A run has a
# value of the first, and of the others for the given value of another option.
RESOLVED = {"network", "latent", "likelihood", "beta_schedule", "epochs", "patience", "xla"}
RESOLVED_FOR = {
    "filters": ("network", "conv"),
    "grey": ("likelihood", "bernoulli"),
    "scale": ("likelihood", "normal"),
    "condition": ("model", "conditional"),
}


def option(panel: str | None, text: str, *names: str, **settings: Any) -> Any:
    """Declares an option of the command line in a panel of its help."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **settings)


def count(
    panel: str | None, text: str, *names: str, low: int = 1, high: int = MAX_INT
) -> Any:
    """Declares an option that is a whole number from `low` to `high`."""
    parser = parsers.number(low, high, int)
    return option(panel, text, *names, parser=parser, metavar="INT")


def real(
    panel: str | None, text: str, low: float = 0.0, high: float = math.inf,
    exclusive: bool = False,
) -> Any:  # fmt: skip
    """Declares an option that is a number from `low` (or above it) to `high`."""
    parser = parsers.number(low, high, exclusive=exclusive)
    return option(panel, text, parser=parser, metavar="NUMBER")


Axes = Literal["hw", "hwc", "chw", "t", "tc", "ct", "dhw", "dhwc", "cdhw"]
Model = Literal["vae", "autoencoder", "conditional"]
Network = Literal["mlp", "conv"]
Likelihood = Literal["bernoulli", "normal"]
Grey = Literal["binarize", "soft", "error"]
Objective = Literal["elbo", "iwae"]
BetaSchedule = Literal["constant", "linear", "cosine", "cyclical"]
LearningRateSchedule = Literal["constant", "cosine"]
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


@dataclasses.dataclass
class Options:
    """The options of a run, in the order of its report.

    None means a default that depends on the data, see `keras_vae.runs.build.resolve`.
    """

    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Data set: digits, mnist, fashion_mnist, frey_faces, mnist_static_binary, "
            "or a path: .npy, .npz, a folder of images, a table (.csv, .tsv, .txt, "
            ".parquet and others, also .csv.gz).",
        ),
    ]
    label: Annotated[
        str | None,
        option(
            "Data",
            "Column of a table, or array of an .npz file, that holds labels. It is not "
            "modelled; --model conditional uses it as the condition. Default: no column; "
            "y, labels or another usual name of an array.",
            metavar="NAME",
        ),
    ] = None
    drop: Annotated[
        list[str],
        option(
            "Data",
            "Column of a table to leave out. Can be repeated. Default: none.",
            metavar="COLUMN",
        ),
    ] = dataclasses.field(default_factory=list)
    header: Annotated[
        Literal["yes", "no"] | None,
        option(
            "Data",
            "Whether the first line of a table in text has the column names. Default: "
            "noticed from the lines below it.",
        ),
    ] = None
    resize: Annotated[
        list[int] | None,
        option(
            "Data",
            "Size to which the images of a folder are resized. Default: their own size.",
            parser=parsers.size,
            metavar="HxW",
        ),
    ] = None
    value_range: Annotated[
        list[float] | None,
        option(
            "Data",
            "Lowest and highest value of an array or of images, which is scaled to [0, 1]. "
            "Default: depends on the largest value.",
            parser=parsers.value_range,
            metavar="LOW:HIGH",
        ),
    ] = None
    axes: Annotated[
        Axes | None,
        option(
            "Data",
            "Axes of a row of an array: d depth, h height, w width, t time, c channels. "
            "Default: chosen by the shape.",
        ),
    ] = None
    array: Annotated[
        str | None,
        option(
            "Data",
            "Array of an .npz file that holds the data. Default: x, images, data or "
            "another usual name.",
            metavar="NAME",
        ),
    ] = None
    skip_broken: Annotated[
        bool,
        option(
            "Data",
            "Leave out images of a folder that cannot be read. Default: they are an error.",
            "--skip-broken",
        ),
    ] = False
    validation: Annotated[
        float,
        real(
            "Training",
            "Share of the training rows that is held out for validation, unless the data "
            "have validation rows.",
            high=0.9,
        ),
    ] = 0.1
    model: Annotated[Model, option("Model", "Kind of model.")] = "vae"
    condition: Annotated[
        Literal["label"] | None,
        option("Model", "Condition of a conditional model. Default: label."),
    ] = None
    network: Annotated[
        Network | None,
        option(
            "Model",
            "Kind of encoder and decoder. Default: conv for signals, images and volumes, "
            "mlp for vectors.",
        ),
    ] = None
    hidden: Annotated[
        list[int],
        option(
            "Model", "Widths of the dense layers.", parser=parsers.widths, metavar="INTS"
        ),
    ] = dataclasses.field(default_factory=lambda: [256])
    filters: Annotated[
        list[int] | None,
        option(
            "Model",
            "Channels of the convolutional layers, each of which halves the size. Default: "
            "32, 64, ... until the size is about 4 to 7; 32,64 for 28 x 28.",
            parser=parsers.widths,
            metavar="INTS",
        ),
    ] = None
    activation: Annotated[
        str, option("Model", "Activation of the hidden layers.", metavar="NAME")
    ] = "relu"
    latent: Annotated[
        int | None,
        count(
            "Model",
            "Number of latent units. Default: 32; 16 for rows of at most 100 numbers, and "
            "never more units than numbers.",
        ),
    ] = None
    likelihood: Annotated[
        Likelihood | None,
        option(
            "Model",
            "Distribution p(x|z). Default: bernoulli if nearly all values are 0 or 1, else "
            "normal.",
        ),
    ] = None
    grey: Annotated[
        Grey | None,
        option(
            "Model",
            "Treatment of pixels between 0 and 1 by bernoulli: binarize draws 0 or 1 at "
            "each step, soft uses them as targets, error raises an error. Default: "
            "binarize; error for binary data.",
        ),
    ] = None
    scale: Annotated[
        str | float | None,
        option(
            "Model",
            "Standard deviation of normal: shared is one trained number, per_element one "
            "for each element. Default: shared.",
            parser=parsers.scale,
            metavar="shared|per_element|NUMBER",
        ),
    ] = None
    objective: Annotated[Objective, option("Objective", "Bound to maximise.")] = "elbo"
    samples: Annotated[
        int,
        count(
            "Objective",
            "Samples of z for each row in training (--num-samples: in the report).",
        ),
    ] = 1
    beta: Annotated[float, real("Objective", "Weight of the KL.")] = 1.0
    beta_schedule: Annotated[
        BetaSchedule | None,
        option(
            "Objective",
            "Schedule of beta: constant, or growth from 0 to its value (KL warm-up). "
            "Default: linear for elbo.",
        ),
    ] = None
    beta_steps: Annotated[
        int | None,
        count(
            "Objective",
            "Steps until beta reaches its value, or steps of a cycle. Default: "
            f"{EPOCHS} epochs, at most {WARM_UP:,} steps and a fifth of all steps.",
        ),
    ] = None
    free_bits: Annotated[
        float, real("Objective", "Nats of KL per latent unit that are not penalised.")
    ] = 0.0
    epochs: Annotated[
        int | None,
        count(
            "Training",
            f"Maximum number of epochs. Default: {STEPS:,} steps, at least {EPOCHS} "
            "epochs.",
        ),
    ] = None
    patience: Annotated[
        int | None,
        count(
            "Training",
            "Epochs without a lower validation loss until training stops. The weights of "
            "the best epoch are kept. 0 trains all epochs and keeps the last weights. "
            f"Default: {PATIENCE:,} steps, from {EPOCHS} to {PATIENCE_EPOCHS} epochs.",
            low=0,
        ),
    ] = None
    batch: Annotated[
        int, count("Training", "Rows per step, over all devices and workers together.")
    ] = 64
    learning_rate: Annotated[
        float, real("Training", "Learning rate of Adam.", exclusive=True)
    ] = 1e-3
    lr_schedule: Annotated[
        LearningRateSchedule,
        option(
            "Training",
            "Schedule of the learning rate: cosine lowers it to 1 % over all epochs.",
        ),
    ] = "constant"
    seed: Annotated[
        int,
        count(
            "Training", "Seed of weights, noise and the order of the data.", low=-(2**31)
        ),
    ] = 0
    precision: Annotated[
        Precision,
        option("Training", "Precision of the networks; distributions use float32."),
    ] = "float32"
    xla: Annotated[
        bool | None,
        option(
            "Training",
            "Compile with XLA. Default: yes, except for conv on a CPU.",
            "--xla/--no-xla",
        ),
    ] = None
    shift: Annotated[
        float,
        real(
            "Data",
            "Augmentation: shift images by up to this share of their size.",
            high=1.0,
        ),
    ] = 0.0
    rotate: Annotated[
        float,
        real("Data", "Augmentation: rotate images by up to this many degrees.", high=180.0),
    ] = 0.0
    crop: Annotated[
        list[int] | None,
        option(
            "Data",
            "Augmentation: crop training images at random, and test images in the middle. "
            "Default: no crop.",
            parser=parsers.size,
            metavar="HxW",
        ),
    ] = None

    init: Annotated[
        str | None,
        option(
            "Training",
            "Run whose weights are the start. The model has the options of that run, and "
            "the data are read and scaled as there. Default: random weights.",
            metavar="RUN",
        ),
    ] = None

    @property
    def importance_samples(self) -> int:
        """The default number of importance samples for each row."""
        return 1000 if self.network == "mlp" else 100

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Options":
        """Makes the options of a run.json, which are of the kinds of `fields`."""
        values = ABSENT | values
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})

    @classmethod
    def fields(cls) -> Fields:
        """Returns the kinds of the options in run.json."""
        kinds = {field.name: _kind(field) for field in dataclasses.fields(cls)}
        rules = tuple(_resolved(name, *other) for name, other in RESOLVED_FOR.items())
        absent = {name: kinds.pop(name) for name in ABSENT}
        return Fields(kinds, absent, rules=rules)

    def to_dict(self) -> dict[str, Any]:
        """Returns all options by name, in order."""
        return dataclasses.asdict(self)

    @classmethod
    def of_model(cls) -> list[str]:
        """Returns the names of the options that define the model."""
        return [
            field.name
            for field in dataclasses.fields(cls)
            if field.type.__metadata__[0].rich_help_panel == "Model"  # type: ignore[union-attr]
        ]

    def replace(self, **changes: Any) -> "Options":
        """Returns a copy with some options changed."""
        return dataclasses.replace(self, **changes)


def _resolved(name, other, value):
    """Returns the rule that an option has a value if another option has a given one."""

    def holds(options):
        return options[other] != value or options.get(name) is not None

    return Rule(f"an object with a value of '{name}' for {other} {value}", holds)


def _kind(field):
    """Returns the kind of an option in run.json: its type, and what its parser accepts."""
    kind, info = typing.get_args(field.type)
    if field.name in RESOLVED:
        arms = [arm for arm in typing.get_args(kind) if arm is not type(None)]
        kind = functools.reduce(operator.or_, arms)

    def accepted(value):
        try:
            return value is None or info.parser(value) == value
        except typer.BadParameter:
            return False

    if info.parser is None:
        return kind
    flag = field.name.replace("_", "-")
    return Annotated[kind, Rule(f"a value of --{flag}", accepted)]
