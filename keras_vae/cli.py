"""The command line, `keras-vae`: train, look, sample, without writing code.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

import contextlib
import math
import os
import pathlib
import re
import shlex
import signal
import sys
import tempfile
import warnings
from typing import Annotated, Literal

import typer
from rich.console import Console

from keras_vae import workers

app = typer.Typer(
    name="keras-vae",
    help="Variational autoencoders: train on your data, evaluate, sample, read the report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = Console(highlight=False, markup=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


Model = Literal["vae", "autoencoder", "conditional"]
Condition = Literal["label"]
Network = Literal["mlp", "conv"]
Likelihood = Literal["bernoulli", "normal"]
Grey = Literal["binarize", "soft", "error"]
Objective = Literal["elbo", "iwae"]
Ramp = Literal["constant", "linear", "cosine", "cyclical"]
LearningRate = Literal["constant", "cosine"]
Strategy = Literal["auto", "mirrored", "multi-worker"]
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
Target = Literal["serving", "litert", "onnx"]
Quantize = Literal["float16", "dynamic", "int8"]


def _ints(text):
    """`"400,200"` -> [400, 200]; `"none"` -> []."""
    if isinstance(text, list):
        return text
    if text == "none":
        return []
    if not re.fullmatch(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", text):
        _expect("whole numbers, such as 400,200", text)
    return [int(part) for part in text.split(",")]


def _widths(text):
    """As `_ints`, one or more."""
    return _ints(text) or _expect("the size of at least one layer, such as 400,200", text)


def _size(text):
    """`"28x20"` -> [28, 20], height and width."""
    if not re.fullmatch(r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}", text):
        _expect("HEIGHTxWIDTH, such as 28x28", text)
    return [int(part) for part in text.split("x")]


def _range(text):
    """`"0:16"` -> [0.0, 16.0]."""
    with contextlib.suppress(ValueError):
        low, high = map(float, text.split(":"))
        if -math.inf < low < high < math.inf:
            return [low, high]
    return _expect("LOW:HIGH, such as 0:16", text)


def _scale(text):
    """`"shared"`, `"per_element"` or a positive number."""
    if text in ("shared", "per_element"):
        return text
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    return _expect("shared, per_element or a positive number", text)


def _expect(what, text):
    raise typer.BadParameter(f"expected {what}. Received: {text!r}")


def _number(low, high=math.inf, kind=float, above=False):
    """Parser of a number from `low` (or above it) to `high`, which says what came."""
    show = "{:,}" if kind is int else "{:g}"
    limit = f"above {show.format(low)}" if above else f"of {show.format(low)} or more"
    what = f"a {'whole ' if kind is int else ''}number {limit}"
    if high < math.inf:
        what += f", up to {show.format(high)}"

    def parse(text):
        with contextlib.suppress(ValueError):
            number = kind(text)
            if (
                low <= number <= high
                and abs(number) < math.inf
                and not (above and number == low)
            ):
                return number
        return _expect(what, text)

    return parse


def _option(panel, *names, **settings):
    return typer.Option(*names, rich_help_panel=panel, **settings)


def _count(panel, text, *names, low=1, high=2**31 - 1):
    parser = _number(low, high, int)
    return _option(panel, *names, parser=parser, metavar="INT", help=text)


def _real(panel, text, low=0.0, high=math.inf, above=False):
    parser = _number(low, high, above=above)
    return _option(panel, parser=parser, metavar="NUMBER", help=text)


def _patience(panel):
    text = "Seconds that a worker waits for the others to come."
    return _real(panel, text, above=True, high=1e6)


Folder = Annotated[pathlib.Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
NumSamples = Annotated[int, _count("Report", "Importance samples per row.")]
NllRows = Annotated[int, _count("Report", "Test rows, at most, for the NLL.", low=2)]
Latents = Annotated[
    str,
    typer.Option(
        parser=_ints,
        metavar="INTS|none",
        help="Latent sizes of the baselines' table.",
        rich_help_panel="Report",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")]


@app.command()
def train(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="digits, mnist, fashion_mnist, frey_faces, mnist_static_binary, or a "
            "path: .npy, .npz, a folder of images, .csv, .parquet.",
        ),
    ],
    out_: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the run. Default: runs/DATA-N"
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run in DIR; start it if there is none."
        ),
    ] = False,
    # What is modelled.
    model: Annotated[Model, _option("Model", help="")] = "vae",
    condition: Annotated[
        Condition | None,
        _option("Model", help="What a conditional model is given. Default: label."),
    ] = None,
    network: Annotated[
        Network | None, _option("Model", help="Default: conv for images, else mlp.")
    ] = None,
    hidden: Annotated[
        str,
        _option("Model", parser=_widths, metavar="INTS", help="Widths of dense layers."),
    ] = "256",
    filters: Annotated[
        str,
        _option("Model", parser=_widths, metavar="INTS", help="Channels of conv layers."),
    ] = "32,64",
    activation: Annotated[
        str, _option("Model", metavar="NAME", help="A Keras activation.")
    ] = "relu",
    latent: Annotated[int, _count("Model", "Latent size.")] = 16,
    likelihood: Annotated[
        Likelihood | None,
        _option("Model", help="Default: bernoulli for grey images in [0, 1], else normal."),
    ] = None,
    grey: Annotated[
        Grey | None,
        _option(
            "Model",
            help="What bernoulli does with pixels between 0 and 1. Default: binarize, anew "
            "at each step.",
        ),
    ] = None,
    scale: Annotated[
        str | None,
        _option(
            "Model",
            parser=_scale,
            metavar="shared|per_element|NUMBER",
            help="Standard deviation of normal. Default: shared, one trained number.",
        ),
    ] = None,
    # How it is trained.
    objective: Annotated[Objective, _option("Objective", help="")] = "elbo",
    samples: Annotated[int, _count("Objective", "Posterior samples per example.")] = 1,
    beta: Annotated[float, _real("Objective", "Weight of the KL.")] = 1.0,
    beta_schedule: Annotated[
        Ramp, _option("Objective", help="How beta grows from 0 to its value.")
    ] = "constant",
    beta_steps: Annotated[
        int | None,
        _count("Objective", "Steps of the ramp, or of a cycle. Default: a tenth of all."),
    ] = None,
    free_bits: Annotated[
        float, _real("Objective", "Nats of each latent unit that cost nothing.")
    ] = 0.0,
    epochs: Annotated[
        int | None,
        _count("Training", "Default: some 5,000 steps, between 10 and 200 epochs."),
    ] = None,
    batch: Annotated[
        int, _count("Training", "Rows per step, of all devices and workers together.")
    ] = 64,
    learning_rate: Annotated[float, _real("Training", "Of Adam.", above=True)] = 1e-3,
    lr_schedule: Annotated[
        LearningRate,
        _option("Training", help="cosine falls to a hundredth over all epochs."),
    ] = "constant",
    validation: Annotated[
        float,
        _real(
            "Training",
            "Share of the training rows held out, unless the data have theirs.",
            high=0.9,
        ),
    ] = 0.1,
    seed: Annotated[
        int, _count("Training", "Of weights, noise and order.", low=-(2**31))
    ] = 0,
    precision: Annotated[
        Precision, _option("Training", help="Of networks; distributions stay in float32.")
    ] = "float32",
    xla: Annotated[
        bool | None,
        _option(
            "Training", "--xla/--no-xla", help="Default: xla, but not for conv on a CPU."
        ),
    ] = None,
    strategy: Annotated[
        Strategy,
        _option(
            "Training",
            help="mirrored: all GPUs of this host; multi-worker: the workers in TF_CONFIG, "
            "or of a Slurm job. Default: what there is.",
        ),
    ] = "auto",
    timeout: Annotated[float, _patience("Training")] = workers.TIMEOUT,
    # What is read, and what is done to it.
    label: Annotated[
        str | None,
        _option(
            "Data",
            metavar="COLUMN",
            help="Labels of a table: not modelled, but what --model conditional is given.",
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        _option("Data", metavar="COLUMN", help="Leave it out of a table; repeatable."),
    ] = None,
    resize: Annotated[
        str | None,
        _option(
            "Data", parser=_size, metavar="HxW", help="Size of the images of a folder."
        ),
    ] = None,
    value_range: Annotated[
        str | None,
        _option(
            "Data",
            parser=_range,
            metavar="LOW:HIGH",
            help="Of an array, which is scaled to [0, 1].",
        ),
    ] = None,
    shift: Annotated[
        float, _real("Data", "Augment: shift by up to this share of the size.", high=1.0)
    ] = 0.0,
    rotate: Annotated[
        float, _real("Data", "Augment: rotate by up to so many degrees.", high=180.0)
    ] = 0.0,
    crop: Annotated[
        str | None,
        _option(
            "Data",
            parser=_size,
            metavar="HxW",
            help="Augment: crop at random, each batch elsewhere; test images in the "
            "middle.",
        ),
    ] = None,
    num_samples: NumSamples = 1000,
    nll_rows: NllRows = 1000,
    baselines: Latents = "2,8,32",
):
    """Train on DATA and write the run into a folder: model, metrics, figures, report.

    Data of your own without a test set give a fifth of their rows to it.
    Ctrl-C leaves a run that --resume continues exactly, as does a crash.
    """
    workers.end_with_launcher()
    # Before and after `fit`, which has a handler of its own.
    former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(workers.PREEMPTED))
    former = former or signal.SIG_DFL  # None: it was none of Python's
    context.call_on_close(lambda: signal.signal(signal.SIGTERM, former))
    folder = _folder(data, out_, resume)
    run_module = _heavy("run")
    options = {name: context.params[name] for name in run_module.OPTIONS}
    options["drop"] = drop or []
    if data and data not in run_module.datasets.NAMED:
        options["data"] = str(pathlib.Path(data).resolve())
    sources = {name: context.get_parameter_source(name) for name in options}
    given = {name: options[name] for name in options if _typed(sources[name])}
    run = run_module.Run(folder)
    if resume and run.exists:
        run = run_module.Run.open(folder)
        run.resume(given)
        loaded = run.data()
    else:
        loaded = run_module.load_data(options)
        run.options = run_module.resolve(options, loaded)
    begun, last = run.epochs_done(), run.options["epochs"]
    if begun > last:
        raise ValueError(
            f"`epochs` must be {begun} or more, which are done. Received: epochs={last}"
        )
    if begun == last and run.path("report.html").is_file():
        out.print(
            f"The run is finished: {last} epochs. Its report: {run.path('report.html')} "
            f"(keras-vae report {folder} writes it anew)"
        )
        return
    distribute = _heavy("distribute")
    devices = distribute.make(strategy, run.facts(loaded), timeout)
    chief = distribute.is_chief(devices)  # it alone writes, prints and evaluates
    out.quiet = not chief
    with devices.scope():
        vae = run_module.build(run.options, loaded)
    if chief and not run.exists:
        run.start(shlex.join(["keras-vae", *sys.argv[1:]]), loaded)
    if resume and begun:
        out.print(f"Going on after epoch {begun}.")
    _describe(run, loaded, vae)
    try:
        run.train(vae, loaded, [_watcher()])
    except KeyboardInterrupt:
        _stopped(run)
    if chief:
        _finish(run, loaded, num_samples, nll_rows, baselines)
    distribute.outstay_chief(devices)
    if not chief:
        os._exit(0)  # before TensorFlow, too, misses the chief, and says so at length


@app.command(context_settings={"allow_interspersed_args": False})
def launch(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND",
            help="After --, what they all do: train DATA and its options.",
        ),
    ],
    workers_: Annotated[int, _count(None, "How many.", "--workers", high=1000)],
    restarts: Annotated[
        int, _count(None, "How often to start all again when one dies, at most.", low=0)
    ] = 3,
    timeout: Annotated[float, _patience(None)] = workers.TIMEOUT,
    grace: Annotated[
        float, _real(None, "Seconds to end after a signal, before a worker is killed.")
    ] = workers.GRACE,
):
    """Train by several workers on this host, and go on when one of them dies.

    They share its CPUs; for the GPUs of one host, train alone takes them all.
    On several hosts a scheduler starts the workers, each by train, which
    finds the others.
    """
    name, *arguments = command
    if name != "train":
        raise ValueError(f"`command` must be `train` and its options. Received: {name}")
    parser = typer.main.get_group(app).commands["train"]  # which refuses what train would
    options = parser.make_context("keras-vae train", arguments.copy()).params
    if options["strategy"] == "mirrored":
        raise ValueError(
            "`strategy` must be auto or multi-worker, to launch workers. Received: mirrored"
        )
    folder = _folder(options["data"], options["out_"], options["resume"])
    given = ["--out", str(folder), "--timeout", str(timeout)]
    raise typer.Exit(
        workers.launch(["train", *given, *arguments], workers_, restarts, grace)
    )


@app.command()
def evaluate(folder: Folder, num_samples: NumSamples = 1000, nll_rows: NllRows = 1000):
    """Evaluate a run on its test data: the bound, the NLL with its error, the latents."""
    run, model, data = _open(folder)
    _print_numbers(_heavy("report").evaluate(run, model, data, num_samples, nll_rows))
    out.print(f"\n{run.path('evaluation.json')}")


@app.command()
def sample(
    folder: Folder,
    n: Annotated[int, _count(None, "How many.", "-n", high=10**6)] = 64,
    seed: Annotated[
        int, _count(None, "Equal seeds give equal samples.", low=-(2**63), high=2**63 - 1)
    ] = 0,
    mean: Annotated[
        bool, typer.Option("--mean", help="The means of p(x|z) rather than draws.")
    ] = False,
    label: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a conditional model. Default: all in turn."),
    ] = None,
    path: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--out", metavar="FILE", help=".png, .npz or .csv.  [default: RUN/samples.*]"
        ),
    ] = None,
    overwrite: Overwrite = False,
):
    """Draw samples: a picture, an array, or a table in the units of the data."""
    run, model = _open(folder, data=False)
    if run.options["model"] == "autoencoder":
        raise ValueError(
            "`run` must be of a vae: an autoencoder has no prior to sample from. "
            f"Received: {folder}"
        )
    save = _heavy("report").saver(run, model, path, "samples", overwrite)
    given = _class_of(run, label, n)
    draws = model.sample(n, seed=seed, mean=mean, **given).numpy()
    out.print(str(save({"samples": draws})))


@app.command()
def reconstruct(
    folder: Folder,
    rows: Annotated[int, _count(None, "How many test rows.", "-n")] = 32,
    path: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help=".png, .npz or .csv.  [default: RUN/reconstructions.*]",
        ),
    ] = None,
    overwrite: Overwrite = False,
):
    """Reconstruct the first test rows: originals beside the means of p(x|z)."""
    run, model, data = _open(folder)
    save = _heavy("report").saver(run, model, path, "reconstructions", overwrite)
    x = data.x_test[:rows]
    given = run.given(data, "test", slice(rows))
    pairs = {
        "originals": model.as_float(x).numpy(),
        "reconstructions": model.reconstruct(x, **given),
    }
    out.print(str(save(pairs)))


@app.command()
def report(
    folder: Folder,
    num_samples: NumSamples = 1000,
    nll_rows: NllRows = 1000,
    baselines: Latents = "2,8,32",
):
    """Write the report of a run anew: figures and one self-contained HTML page."""
    run, _, data = _open(folder)
    _finish(run, data, num_samples, nll_rows, baselines)


@app.command()
def export(
    folder: Folder,
    to: Annotated[
        Target,
        typer.Option(
            help="serving: a SavedModel, the next version of a folder of TF Serving; "
            "litert: a file for phones and browsers; onnx: a folder."
        ),
    ],
    out_: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--out",
            metavar="PATH",
            help="Default: RUN/serving, RUN/model.tflite or RUN/onnx.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the served model. Default: vae."),
    ] = None,
    quantize: Annotated[
        Quantize | None, typer.Option(help="For litert. Default: float32.")
    ] = None,
    batch_size: Annotated[
        int | None, _count(None, "For litert: rows of each call. Default: any number.")
    ] = None,
    score_samples: Annotated[
        int, _count(None, "Draws of z per row in the signature score.", high=10_000)
    ] = 16,
):
    """Export a run: functions of tensors that need neither this package nor Keras."""
    run, model = _open(folder, data=False)
    options = {"num_samples": score_samples, "about": run.about()}
    litert = {"quantize": quantize, "batch_size": batch_size}
    given = [key for key, value in litert.items() if value is not None]
    if to != "litert" and given:
        raise ValueError(
            f"`{given[0]}` must be left out unless `to` is litert. "
            f"Received: {given[0]}={litert[given[0]]}"
        )
    if to != "serving" and name is not None:
        raise ValueError(
            f"`name` must be left out unless `to` is serving. Received: name={name}"
        )
    if to == "serving":
        path = _heavy("exporting.serving").export(
            model,
            out_ or run.path("serving"),
            "vae" if name is None else name,
            **options,
        )
    elif to == "litert":
        if quantize == "int8":
            litert["representative_data"] = run.data().x_fit
        path = model.export(
            out_ or run.path("model.tflite"), format="litert", **litert, **options
        )
    else:
        path = model.export(out_ or run.path("onnx"), format="onnx", **options)
    out.print(str(path))


@app.command()
def verify(
    path: Annotated[
        pathlib.Path,
        typer.Argument(metavar="ARTEFACT", help="What keras-vae export printed."),
    ],
    folder: Folder,
    rows: Annotated[int, _count(None, "Rows and seeds.", "-n", high=10**6)] = 1000,
):
    """Compare an exported artefact with the model of its run, in a process of its own.

    Each signature must give what the model gives. Of a quantised artefact only the noise
    is judged, which quantisation must not touch; its other differences are shown.
    """
    run, model, data = _open(folder)
    module = _heavy("exporting.verify")
    differences = module.verify(model, path, data.x_test, rows)
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("signature", "output", "largest difference", "elements off", ""):
        table.add_column(title)
    words = {True: "same", False: "DIFFERS", None: "quantised"}
    for one in differences:
        table.add_row(
            one.signature,
            one.output,
            f"{one.largest:.1e}",
            f"{one.differ:.2%}" if one.differ else "none",
            words[one.agrees],
        )
    out.print(table)
    wrong = [one for one in differences if one.agrees is False]
    if wrong:
        err.print(f"{path} does not give what the model of {run.folder} gives.")
        raise typer.Exit(1)
    if not any(one.agrees for one in differences):
        err.print(f"{path} is quantised and has no `sample`: nothing can be judged.")
        raise typer.Exit(1)
    said = "gives what the model gives"
    if any(one.agrees is None for one in differences):
        said = "draws the z that the model draws; the rest is quantised"
    out.print(f"\n{path} {said}. {rows:,} rows and seeds were compared.")


def _typed(source):
    """Whether an option was given, rather than left at its default."""
    return source is not None and source.name == "COMMANDLINE"


def _folder(data, folder, resume):
    """The folder of the run to make, checked before anything slow is done."""
    if resume and folder is None:
        raise ValueError("--resume needs --out, the folder of the run. Received: no --out")
    if folder is None:
        stem, number = pathlib.Path(data).name.split(".")[0] or "data", 1
        while (folder := pathlib.Path("runs", f"{stem}-{number}")).exists():
            number += 1
    # What a process leaves that is killed while it starts a run, is no content.
    content = folder.iterdir() if folder.is_dir() else ()
    there = any(path.name != "scaler.json" and path.name[0] != "." for path in content)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out must be a folder. Received: {folder}, which is a file")
    if there and not resume:
        hint = ", or --resume to go on" if (folder / "run.json").is_file() else ""
        raise ValueError(
            f"--out must be a new or empty folder{hint}. Received: {folder}, which is "
            "not empty"
        )
    if there and not (folder / "run.json").is_file():
        raise ValueError(
            f"--out must be a run, to resume it. Received: {folder}, which is not empty "
            "and has no run.json"
        )
    return folder


def _heavy(name):
    """Imports a module of the package that needs TensorFlow, without its start-up noise."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import importlib

    if "tensorflow" in sys.modules:
        return importlib.import_module(f"keras_vae.{name}")
    # TensorFlow's C++ side writes to the file descriptor before its log level counts.
    with tempfile.TemporaryFile() as noise:
        stderr = os.dup(2)
        os.dup2(noise.fileno(), 2)
        try:
            module = importlib.import_module(f"keras_vae.{name}")
            import tensorflow as tf

            tf.config.list_physical_devices()  # looks for a GPU
        except BaseException:
            noise.seek(0)
            os.write(stderr, noise.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    return module


def _open(folder, data=True):
    run = _heavy("run").Run.open(folder)
    model = run.model()
    return (run, model, run.data()) if data else (run, model)


def _class_of(run, label, n):
    """The condition of n samples: a label by its name, or all in turn."""
    names = run.info["data"].get("classes")
    if not names:
        if label is not None:
            raise ValueError(
                "`label` must be left out: the model has no labels. "
                f"Received: label={label}"
            )
        return {}
    if label is None:
        return {"condition": [i % len(names) for i in range(n)]}
    if label not in names:
        raise ValueError(
            f"`label` must be one of {', '.join(names)}. Received: label={label}"
        )
    return {"condition": names.index(label)}


def _describe(run, data, model):
    """Says what is about to happen, the defaults too."""
    options = run.options
    held_out = "" if data.x_val is None else f", {len(data.x_val):,} validation"
    shape = " x ".join(map(str, data.event_shape))
    scaled = ""
    if data.scaler is not None:
        scaled = ", standardised"
    elif data.value_range is None and not data.shown_range == (0, 1):
        low, high = data.shown_range
        scaled = f", values {low:g} to {high:g} as they are (--value-range scales them)"
    elif data.value_range is not None:
        scaled = (
            f", values {data.value_range[0]:g} to {data.value_range[1]:g} scaled to [0, 1]"
        )
    out.print(
        f"data        {data.name}: {len(data.x_train):,} training{held_out} and "
        f"{len(data.x_test):,} test rows of {shape}{scaled}"
    )
    if data.streamed:
        size = data.x_train.dtype.itemsize * math.prod(data.x_train.shape) / 1e9
        out.print(f"            read from the disk as they are needed: {size:,.1f} GB")
    out.print(
        f"model       {options['model']}, {options['network']}, latent "
        f"{options['latent']}, {model.count_params():,} parameters"
    )
    if options["likelihood"] == "bernoulli":
        grey = {
            "binarize": "grey pixels are binarised anew at each step (--grey soft: soft "
            "targets; --likelihood normal: as they are)",
            "soft": "grey pixels are soft targets: the bound is no log-likelihood",
            "error": "of data that is 0 or 1",
        }[options["grey"]]
        out.print(f"likelihood  bernoulli; {grey}")
    else:
        out.print(f"likelihood  normal, scale {options['scale']}")
    out.print(
        f"training    {options['epochs']} epochs, batch {options['batch']}, seed "
        f"{options['seed']}, into {run.folder}"
    )


def _progress():
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[text]}"),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
        progress.TextColumn("left"),
        console=out,
        disable=not out.is_terminal,
    )


def _watcher():
    """A callback that moves the bar, or prints ten lines where there is no terminal."""
    import keras

    class Watcher(keras.callbacks.Callback):
        async_safe = True  # reads neither weights nor logs while steps run

        def on_train_begin(self, logs=None):
            self.epochs, self.steps = self.params["epochs"], self.params["steps"] or 1
            self.bar = _progress()
            self.task = self.bar.add_task("training", total=None, text="")
            self.bar.start()
            self.first = None

        def on_epoch_begin(self, epoch, logs=None):
            self.first = epoch if self.first is None else self.first
            self.done = (epoch - self.first) * self.steps
            self.bar.update(self.task, total=(self.epochs - self.first) * self.steps)

        def on_train_batch_end(self, batch, logs=None):
            self.bar.update(self.task, completed=self.done + batch + 1)

        def on_epoch_end(self, epoch, logs=None):
            name = "elbo" if "elbo" in logs else "reconstruction"
            shown = {key: logs[key] for key in (name, f"val_{name}") if key in logs}
            text = "  ".join(f"{key} {value:.2f}" for key, value in shown.items())
            text = f"epoch {epoch + 1}/{self.epochs}  {text}"
            self.bar.update(self.task, completed=self.done + self.steps, text=text)
            last = epoch + 1 == self.epochs
            if self.bar.disable and (last or not (epoch + 1) % max(1, self.epochs // 10)):
                out.print(text)

        def on_train_end(self, logs=None):
            self.bar.stop()

    return Watcher()


def _stopped(run):
    """Ends the command after Ctrl-C, with the chief's word on how to go on."""
    if out.quiet:
        raise typer.Exit(workers.INTERRUPTED)
    done = run.epochs_done()
    err.print(
        f"\nStopped. {run.folder} holds the run up to epoch {done}; the same command with "
        f"--out {run.folder} --resume goes on."
    )
    raise typer.Exit(workers.INTERRUPTED)


def _finish(run, data, num_samples, nll_rows, baselines):
    report = _heavy("report")
    try:
        with _progress() as bar:

            def tell(text, done=0, total=None):
                bar.update(task, description=text, completed=done, total=total)

            task = bar.add_task("evaluating", total=None, text="")
            model = run.model()
            numbers = report.evaluate(run, model, data, num_samples, nll_rows)
            table = report.compare(run, model, data, numbers, baselines, tell)
            tell("drawing")
            page = report.write(run, model, data, numbers, table)
            bar.update(task, visible=False)
    except KeyboardInterrupt:
        _stopped(run)
    _print_numbers(numbers)
    out.print(f"\nreport: {page}")


def _print_numbers(numbers):
    for name, value in numbers.items():
        out.print(f"  {name:30} {value:12,.4f}".rstrip("0").rstrip("."))


@contextlib.contextmanager
def _in_words():
    """Turns what a user can mend into one message, and warnings into lines."""

    def show(message, category, *_, **__):
        err.print(f"Warning: {message}")

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.showwarning = show
        try:
            yield
        except (typer.Exit, typer.Abort):  # which are RuntimeErrors
            raise
        except Exception as error:
            missing = isinstance(error, ImportError) and "keras-vae[" in str(error)
            mendable = isinstance(error, _mendable()) or missing
            if not mendable or "KERAS_VAE_TRACEBACK" in os.environ:
                raise
            message = str(error) or type(error).__name__
            if _left_alone(error):
                if not isinstance(error, TimeoutError):
                    message = "another worker is gone: start all again, with --resume"
                err.print(f"Error: {message}")
                raise typer.Exit(workers.GONE) from None
            if (
                isinstance(error, MemoryError)
                or "ResourceExhausted" in type(error).__name__
            ):
                message = f"out of memory: a smaller --batch, or model, may fit. {message}"
            err.print(f"Error: {_as_options(message)}")
            raise typer.Exit(2) from None


def _mendable():
    """The errors that tell a user something; others are ours and keep their traceback."""
    errors = (ValueError, OSError, RuntimeError, MemoryError)
    if "tensorflow" not in sys.modules:
        return errors
    return (*errors, sys.modules["tensorflow"].errors.OpError)


def _left_alone(error):
    """Whether it comes of another worker, which never came or has gone."""
    alone = not {"TF_CONFIG", "SLURM_JOB_ID"} & os.environ.keys()
    if alone or "tensorflow" not in sys.modules:
        return False
    errors = sys.modules["tensorflow"].errors
    kinds = (errors.UnavailableError, errors.AbortedError, errors.CancelledError)
    return isinstance(error, (TimeoutError, errors.DeadlineExceededError, *kinds))


def _as_options(message):
    """Names options as they are typed: `value_range` -> --value-range."""

    def typed(match):
        name = match[1]
        if name in ("data", "run", "artefact", "command"):
            return name.upper()
        name = {"filepath": "out", "folder": "out", "format": "to"}.get(name, name)
        return f"--{name.replace('_', '-')}" if name in _OPTIONS else match[0]

    return re.sub(r"`(\w+)`", typed, message)


_OPTIONS = {"overwrite", "num_samples", "out", *train.__annotations__}
_OPTIONS |= {"workers", *launch.__annotations__, *export.__annotations__}


class _Plain(typer.core.TyperGroup):
    def invoke(self, context):
        with _in_words():
            return super().invoke(context)


app.info.cls = _Plain


def main():
    """The entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
