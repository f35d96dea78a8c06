"""The commands that train: `train` and `launch`."""

import math
import os
import pathlib
import shlex
import signal
import sys
from typing import Annotated, Any, Literal, NoReturn

import typer

from keras_vae import disks
from keras_vae.cli import run_folder
from keras_vae.cli.options import (
    Latents,
    NllRows,
    NumSamples,
    read_config,
    with_run_options,
)
from keras_vae.cli.progress import (
    err,
    out,
    print_evaluation,
    progress_phases,
    start_tensorflow,
)
from keras_vae.cluster import launcher, meeting, messages
from keras_vae.runs import lock
from keras_vae.runs.options import Options, count, option, real

Strategy = Literal["auto", "mirrored", "multi-worker"]
_TIMEOUT = "Seconds that a worker waits for the other workers at the start."


@with_run_options
def train(
    context: typer.Context,
    options: Options,
    folder: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the run. Default: runs/DATA-N."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in DIR, or start it if DIR has no run. Default: DIR "
            "must be new or empty.",
        ),
    ] = False,
    config: Annotated[
        pathlib.Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML file of options, such as the run.yaml of a run. Options of the "
            "command line override it. Default: none.",
            is_eager=True,
            callback=read_config,
        ),
    ] = None,
    strategy: Annotated[
        Strategy,
        option(
            "Training",
            "Devices to train on. mirrored: all GPUs of this host; multi-worker: the "
            "workers in TF_CONFIG or of a Slurm job; auto: multi-worker if TF_CONFIG "
            "lists several workers, otherwise all GPUs, otherwise the CPU. "
            "TensorFlow's ports let anyone who reaches them read and write files as you: "
            "keep workers in a private network or behind a firewall.",
        ),
    ] = "auto",
    timeout: Annotated[
        float, real("Training", _TIMEOUT, exclusive=True, high=1e6)
    ] = meeting.TIMEOUT,
    token_file: Annotated[
        pathlib.Path | None,
        option(
            "Training",
            "File with a secret of 16 bytes or more, the same on all hosts: workers ignore "
            "connections of others. Default: none.",
            metavar="FILE",
        ),
    ] = None,
    num_samples: NumSamples = None,
    nll_rows: NllRows = 1000,
    baselines: Latents = "none",
) -> None:
    """Train on DATA and write a run: model, metrics, figures, report.

    Without a test split, 20 % of the rows are held out.
    After Ctrl-C or a crash, --resume continues the run exactly.
    """
    launcher.end_with_launcher()
    token = messages.read_token(token_file)
    # This handler is active before and after `fit`, which has its own.
    former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(launcher.PREEMPTED))
    restored = former or signal.SIG_DFL  # None: Python did not install it
    context.call_on_close(lambda: signal.signal(signal.SIGTERM, restored))
    writes = run_folder.is_first_worker(strategy)
    claim = run_folder.claim(options.data, folder, resume, locked=writes)
    folder = context.with_resource(claim)
    changes = _explicit(context, options)
    options, data = _load(options, changes, folder)
    start_tensorflow()
    from keras_vae.cluster.strategy import make_strategy, wait_for_chief
    from keras_vae.runs import build, init
    from keras_vae.runs import train as training
    from keras_vae.training import replicas

    run, data = _open_or_new(folder, options, changes, data)
    done = run.epochs_done()
    if _is_finished(run, done):
        return
    devices = make_strategy(strategy, run.facts(data), timeout, token)
    chief = replicas.is_chief(devices)  # only the chief writes, prints and evaluates
    out.quiet = not chief
    with devices.scope():
        vae = build.build_model(run.options, data)
        if run.options.init and not run.has_backup:
            init.copy_weights(vae, run.options.init)
    if chief and not run.info:
        run.start(shlex.join(["keras-vae", *sys.argv[1:]]), data)
    if resume and done:
        out.print(f"Continuing after epoch {done}.")
    _describe(run, data, vae)
    from keras_vae.cli.watcher import Watcher

    try:
        training.train(run, vae, data, [Watcher()])
    except KeyboardInterrupt:
        _interrupted(run)
    _print_best(run)
    if chief:
        write_report(run, data, num_samples, nll_rows, baselines)
    wait_for_chief(devices)
    if not chief:
        context.close()  # unlocks the run
        os._exit(0)  # otherwise TensorFlow prints long errors about the lost chief


def launch(
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND",
            help="Command that each worker runs, after --: train DATA and its options.",
        ),
    ],
    workers: Annotated[int, count(None, "Number of workers.", "--workers", high=1000)],
    restarts: Annotated[
        int,
        count(None, "Maximum number of restarts after a worker dies or freezes.", low=0),
    ] = 3,
    timeout: Annotated[
        float, real(None, _TIMEOUT, exclusive=True, high=1e6)
    ] = meeting.TIMEOUT,
    grace: Annotated[
        float, real(None, "Seconds from SIGINT or SIGTERM until a worker is killed.")
    ] = launcher.GRACE,
) -> None:
    """Train with several workers on this host, and resume when one dies or freezes.

    The workers share the CPUs. For several GPUs of one host, use `train` alone.
    On several hosts, a scheduler starts one `train` per worker, which finds the
    other workers.

    TensorFlow's ports are open on all network interfaces and let anyone who reaches
    them read and write files as you: use this host behind a firewall.
    """
    name, *arguments = command
    if name != "train":
        raise ValueError(f"`command` must be `train` and its options. Received: {name}")
    root: Any = context.find_root().command
    parser = root.commands["train"]  # raises the errors of train
    options = parser.make_context("keras-vae train", arguments.copy()).params
    if options["strategy"] == "mirrored":
        raise ValueError(
            "`strategy` must be auto or multi-worker for several workers. Received: "
            "strategy=mirrored"
        )
    claim = run_folder.claim(
        options["data"], options["folder"], options["resume"], locked=False
    )
    folder = context.with_resource(claim)
    with lock.hold(folder, "out"):  # refused before workers start; then the chief locks it
        pass
    shared = ["--out", str(folder), "--timeout", str(timeout)]
    raise typer.Exit(
        launcher.launch(["train", *shared, *arguments], workers, restarts, grace)
    )


def _explicit(context, options):
    """Returns the options that are set on the command line or in a YAML file."""
    values = options.to_dict()
    sources = {name: context.get_parameter_source(name) for name in values}
    return {
        name: value
        for name, value in values.items()
        if getattr(sources[name], "name", None) in ("COMMANDLINE", "DEFAULT_MAP")
    }


def _load(options, changes, folder):
    """Loads the data of a new run, before TensorFlow starts: (options, data or None).

    The data are None if the run exists. With `init`, the options include those of the model
    of that run.
    """
    from keras_vae.datasets import NAMED
    from keras_vae.datasets.loading import check_exists
    from keras_vae.runs.data import load_data

    if options.init is not None:
        options.init = changes["init"] = str(pathlib.Path(options.init).resolve())
    if options.data and options.data not in NAMED:
        check_exists(options.data)  # here, because the message shows it as it was typed
        options.data = changes["data"] = str(pathlib.Path(options.data).resolve())
    if (folder / "run.json").is_file():
        return options, None
    if options.init is not None:
        start_tensorflow()
        from keras_vae.runs.init import inherit

        return inherit(options, changes)
    if options.data in NAMED:
        start_tensorflow()  # Keras may download the data
    return options, load_data(options)


def _open_or_new(folder, options, changes, data):
    """Opens the run of a folder, or makes a new one of `data`; returns it and its data."""
    from keras_vae.runs import build
    from keras_vae.runs.folder import Run

    if data is not None:
        return Run(folder, build.resolve(options, data)), data
    run = Run.open(folder)
    run.check_links("out")
    run.resume(changes)
    data = run.data(unchanged=True)
    run.options = build.resolve(run.options, data)  # raises errors for options of others
    return run, data


def _is_finished(run, done):
    """Returns True if `done` epochs complete a run; prints the path of its report."""
    epochs, page = run.options.epochs, run.path("report.html")
    if done > epochs:
        raise ValueError(
            f"`epochs` must be {done} or more, the number of completed epochs. Received: "
            f"epochs={epochs}"
        )
    stopped = run.info.get("early_stopping", {}).get("stopped")
    finished = (stopped or done == epochs) and page.is_file()
    if finished:
        reason = " (stopped early, see `--patience`)" if stopped else ""
        out.print(
            f"The run is finished: {done} epochs{reason}. Its report: {page} "
            f"(keras-vae report {run.folder} writes it again)"
        )
    return finished


def _describe(run: Any, data: Any, model: Any) -> None:
    """Prints the data, the model and the options of the training."""
    from keras_vae.runs import build

    options = run.options
    held_out = "" if data.x_val is None else f", {len(data.x_val):,} validation"
    shape = " x ".join(map(str, data.event_shape))
    out.print(
        f"data        {data.name}: {len(data.x_train):,} training{held_out} and "
        f"{len(data.x_test):,} test rows of {shape}{_scaling(data)}"
    )
    for note in data.notes:
        out.print(f"            {note}")
    if data.streamed:
        size = data.x_train.dtype.itemsize * math.prod(data.x_train.shape) / 1e9
        out.print(f"            read from the disk when needed: {size:,.1f} GB")
    out.print(
        f"model       {options.model}, {options.network}, latent {options.latent}, "
        f"{model.count_params():,} parameters"
    )
    if options.likelihood == "bernoulli":
        settings = {
            "binarize": "values between 0 and 1 are binarised at random at each step",
            "soft": "values between 0 and 1 are soft targets, so the bound is not a "
            "log-likelihood",
            "error": "values between 0 and 1 are an error",
        }[options.grey]
    else:
        settings = f"scale {options.scale}"
    out.print(f"likelihood  {options.likelihood}, {settings}; {build.kind_of_values(data)}")
    at_most = "at most " if options.patience else ""
    out.print(
        f"training    {at_most}{options.epochs:,} epochs, batch {options.batch}, seed "
        f"{options.seed}, into {run.folder}"
    )
    if options.init is not None:
        out.print(f"start       weights of {options.init}; the data are scaled as there")


def _scaling(data):
    """Describes the scaling of the data."""
    if data.scaler is not None:
        return ", standardised"
    if data.value_range is not None:
        low, high = data.value_range
        return f", values {low:g} to {high:g} scaled to [0, 1]"
    if data.shown_range == (0, 1):
        return ""
    low, high = data.shown_range
    return f", values {low:g} to {high:g} unchanged (--value-range scales them)"


def _print_best(run: Any) -> None:
    """Prints the epoch whose weights are kept, if training may stop early."""
    best = run.info.get("early_stopping")
    if best and best["best_epoch"]:
        stopped = f"stopped early after epoch {run.epochs_done()}; " * best["stopped"]
        out.print(
            f"            {stopped}kept the weights of epoch {best['best_epoch']}, with "
            "the lowest validation loss"
        )


def _interrupted(run: Any) -> NoReturn:
    """Ends the command after Ctrl-C; the chief prints how to continue."""
    if out.quiet:
        raise typer.Exit(launcher.INTERRUPTED)
    done = run.epochs_done()
    err.print(
        f"\nStopped. {run.folder} has the run up to epoch {done}; to continue, add "
        f"--out {run.folder} --resume to the same command."
    )
    raise typer.Exit(launcher.INTERRUPTED)


def write_report(
    run: Any, data: Any, num_samples: int | None, nll_rows: int, baselines: Any
) -> None:
    """Evaluates the model of a run and writes the report; then adds the baselines."""
    from keras_vae.runs import report

    try:
        with progress_phases() as show:
            model = run.model()
            if baselines:
                report.cached_baselines(run)  # raises errors before anything is written
            numbers = report.evaluate(run, model, data, num_samples, nll_rows, show)
            figures = report.draw(run, model, data, show)
        page = report.write(run, model, data, numbers, figures)
        print_evaluation(run, data, numbers)
        out.print(f"\nreport: {page}")
        if not baselines:
            return
        out.print(f"Training baselines, for at most {report.LIMIT / 60:g} minutes.")
        with progress_phases() as show:
            table, left_out = report.compare(run, model, data, numbers, baselines, show)
        report.write(run, model, data, numbers, figures, table, left_out)
    except KeyboardInterrupt:
        _interrupted(run)
    except (Exception, SystemExit) as error:
        kept = (
            f"The model of {run.folder} is complete. To write its report: keras-vae report "
            f"{run.folder}"
        )
        if isinstance(error, SystemExit):  # after SIGTERM
            err.print(f"Stopped. {kept}")
        elif disks.full_disk(error):
            error.add_note(kept)
        raise
    if left_out:
        names = ", ".join(left_out)
        out.print(
            f"Left out, because the time was up: {names}. To train them: keras-vae report "
            f"{run.folder} --baselines {','.join(map(str, baselines))}"
        )
    out.print(f"report: {page}, with a comparison with baselines")
