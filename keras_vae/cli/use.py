"""The commands that use a trained run, from `evaluate` to `verify`."""

import pathlib
from typing import Annotated, Literal

import typer

from keras_vae.cli.options import Folder, Latents, Moved, NllRows, NumSamples
from keras_vae.cli.progress import (
    err,
    open_run,
    out,
    print_evaluation,
    progress_phases,
)
from keras_vae.cli.run_folder import open_locked
from keras_vae.cli.train import write_report
from keras_vae.runs.options import count

Target = Literal["serving", "litert", "onnx"]
Quantize = Literal["float16", "dynamic", "int8"]


def evaluate(
    context: typer.Context,
    folder: Folder,
    num_samples: NumSamples = None,
    nll_rows: NllRows = 1000,
    data: Moved = None,
) -> None:
    """Evaluate a run on its test data: the bound, the NLL and its error, active units."""
    run = open_locked(context, folder)
    from keras_vae.runs import report

    model, rows = run.model(), run.data(data)
    with progress_phases() as show:
        numbers = report.evaluate(run, model, rows, num_samples, nll_rows, show)
    print_evaluation(run, rows, numbers)
    out.print(f"\n{run.path('evaluation.json')}")


def report(
    context: typer.Context,
    folder: Folder,
    num_samples: NumSamples = None,
    nll_rows: NllRows = 1000,
    baselines: Latents = "none",
    data: Moved = None,
) -> None:
    """Write the report of a run again: figures and one self-contained HTML page."""
    run = open_locked(context, folder)
    # Raise errors before the data are loaded.
    run.model(), run.metrics(), run.read("evaluation.json"), run.read("baselines.json")
    write_report(run, run.data(data), num_samples, nll_rows, baselines)


def export(
    folder: Folder,
    to: Annotated[
        Target,
        typer.Option(
            help="Format. serving: the next version of a SavedModel in a folder of TF "
            "Serving; litert: a file for phones and browsers; onnx: a folder."
        ),
    ],
    path: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--out",
            metavar="PATH",
            help="Path to write. Default: RUN/serving, RUN/model.tflite or RUN/onnx.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the served model. Default: vae."),
    ] = None,
    quantize: Annotated[
        Quantize | None, typer.Option(help="Quantisation, for litert. Default: float32.")
    ] = None,
    batch_size: Annotated[
        int | None,
        count(None, "Fixed number of rows of a call, for litert. Default: any number."),
    ] = None,
    score_samples: Annotated[
        int, count(None, "Samples of z per row in the signature score.", high=10_000)
    ] = 16,
    data: Moved = None,
) -> None:
    """Export a run as functions of tensors that run without Keras and this package."""
    for option_name, value, target in (
        ("quantize", quantize, "litert"),
        ("batch_size", batch_size, "litert"),
        ("name", name, "serving"),
    ):
        if value is not None and to != target:
            raise ValueError(
                f"`{option_name}` must be left out unless `to` is {target}. "
                f"Received: {option_name}={value}"
            )
    run = open_run(folder)
    if path is None:
        run.check_links()
    model = run.model()
    settings = {"num_samples": score_samples, "about": run.about()}
    if to == "serving":
        from keras_vae.exporting import serving

        served = "vae" if name is None else name
        written = serving.export(model, path or run.path("serving"), served, **settings)
    elif to == "litert":
        settings |= {"quantize": quantize, "batch_size": batch_size}
        if quantize == "int8":
            settings["representative_data"] = run.data(data).x_fit
        path = path or run.path("model.tflite")
        written = model.export(path, format="litert", **settings)
    else:
        written = model.export(path or run.path("onnx"), format="onnx", **settings)
    out.print(str(written))


def verify(
    path: Annotated[
        pathlib.Path,
        typer.Argument(metavar="ARTEFACT", help="Path of an export."),
    ],
    folder: Folder,
    rows: Annotated[int, count(None, "Number of rows and seeds.", "-n", high=10**6)] = 1000,
    data: Moved = None,
    safe_mode: Annotated[
        bool,
        typer.Option(
            "--safe-mode/--no-safe-mode",
            help="Refuse an artefact with operators that exports do not use. An artefact "
            "is a program: without the safe mode it can read and write your files, so use "
            "--no-safe-mode only if you trust its author.",
        ),
    ] = True,
    timeout: Annotated[
        int, count(None, "Time limit of the process, in seconds.", high=10**6)
    ] = 600,
) -> None:
    """Compare an exported artefact with the model of its run, in a separate process.

    Each signature must return the same values as the model, within the rounding errors of
    float32. If the artefact is quantised, only the z of sample must be equal; other
    differences are printed, and must be smaller than the outputs themselves. The artefact
    must have the files and signatures of its model card, and no others.
    """
    run = open_run(folder)
    from keras_vae.exporting.verify import verify as compare

    model, x = run.model(), run.data(data).x_test
    differences = compare(model, path, x, rows, safe_mode, timeout)
    _print_differences(differences)
    verdicts = [difference.agrees for difference in differences]
    if False in verdicts:
        err.print(f"{path} differs from the model of {run.folder}.")
        raise typer.Exit(1)
    if True not in verdicts:
        err.print(f"{path} is quantised and has no `sample`: nothing can be compared.")
        raise typer.Exit(1)
    result = "agrees with the model"
    if None in verdicts:
        result = "draws the same z as the model; other outputs are quantised"
    out.print(f"\n{path} {result}. {rows:,} rows and seeds were compared.")
    compared = {difference.signature for difference in differences}
    missing = [name for name in model.signatures() if name not in compared]
    if missing:
        out.print(f"Not in the artefact, so not compared: {', '.join(missing)}.")


_EXPLANATION = """\
Differences are relative to the magnitude of an output. The first is the root mean square,
and must be within the tolerance; the largest must be within 100 times the tolerance. The
tolerance is 1e-5 plus 32 times the effect of rounding each weight of the model once. Draws
of whole numbers, such as pixels of 0 and 1: the difference is the share of draws that
differ, and the tolerance follows from the difference of the means."""


def _print_differences(differences):
    """Prints a table of `Difference`, and what its numbers mean."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("signature", "output", "difference", "tolerance", "largest", ""):
        table.add_column(title)
    verdicts = {True: "same", False: "DIFFERS", None: "quantised"}
    for difference in differences:
        numbers = difference.typical, difference.tolerance, difference.largest
        table.add_row(
            difference.signature,
            difference.output,
            *(f"{number:.1e}" if number else "none" for number in numbers),
            verdicts[difference.agrees],
        )
    out.print(table)
    out.print("", *_EXPLANATION.split("\n"), sep="\n")
