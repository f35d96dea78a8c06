"""The commands that use a trained run, from `evaluate` to `verify`."""

import pathlib
from typing import Annotated, Any, Literal

import typer

from keras_vae.cli.options import Folder, Latents, NllRows, NumSamples, Overwrite
from keras_vae.cli.progress import (
    err,
    out,
    print_evaluation,
    progress_phases,
    start_tensorflow,
)
from keras_vae.cli.train import write_report
from keras_vae.runs.options import count

Target = Literal["serving", "litert", "onnx"]
Quantize = Literal["float16", "dynamic", "int8"]


def _open(folder: pathlib.Path) -> Any:
    """Starts TensorFlow, and opens the run of a folder."""
    start_tensorflow()
    from keras_vae.runs.folder import Run

    return Run.open(folder)


def evaluate(
    folder: Folder, num_samples: NumSamples = 1000, nll_rows: NllRows = 1000
) -> None:
    """Evaluate a run on its test data: the bound, the NLL and its error, active units."""
    run = _open(folder)
    from keras_vae.runs import report

    model, data = run.model(), run.data()
    with progress_phases() as show:
        numbers = report.evaluate(run, model, data, num_samples, nll_rows, show)
    print_evaluation(run, data, numbers)
    out.print(f"\n{run.path('evaluation.json')}")


def sample(
    folder: Folder,
    n: Annotated[int, count(None, "Number of samples.", "-n", high=10**6)] = 64,
    seed: Annotated[
        int,
        count(None, "Seed. Equal seeds give equal samples.", low=-(2**63), high=2**63 - 1),
    ] = 0,
    mean: Annotated[
        bool, typer.Option("--mean", help="Write the means of p(x|z). Default: draws.")
    ] = False,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Label to sample, for a conditional model. Default: all labels in turn.",
        ),
    ] = None,
    path: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="File to write: .png, .npz or .csv. Default: RUN/samples.*.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw samples; write a picture, an array, or a table in the units of the data."""
    run = _open(folder)
    from keras_vae.runs import report

    model = run.model()
    if not model.generative:
        raise ValueError(
            "`run` must have a model with a prior to sample from. Received: "
            f"{folder}, with the model {run.options.model}"
        )
    save = report.saver(run, model, path, "samples", overwrite)
    condition = _condition_kwargs(run, label, n)
    samples = model.sample(n, seed=seed, mean=mean, **condition).numpy()
    out.print(str(save({"samples": samples})))


def reconstruct(
    folder: Folder,
    rows: Annotated[int, count(None, "Number of test rows.", "-n")] = 32,
    path: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="File to write: .png, .npz or .csv. Default: RUN/reconstructions.*.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Reconstruct the first test rows; write them with the originals."""
    run = _open(folder)
    from keras_vae.runs import report

    model, data = run.model(), run.data()
    save = report.saver(run, model, path, "reconstructions", overwrite)
    x = data.x_test[:rows]
    condition = run.condition_kwargs(data, "test", slice(rows))
    pairs = {
        "originals": model.as_float(x).numpy(),
        "reconstructions": model.reconstruct(x, **condition),
    }
    out.print(str(save(pairs)))


def report(
    folder: Folder,
    num_samples: NumSamples = 1000,
    nll_rows: NllRows = 1000,
    baselines: Latents = "none",
) -> None:
    """Write the report of a run again: figures and one self-contained HTML page."""
    run = _open(folder)
    run.model()  # raises errors before the data are loaded
    write_report(run, run.data(), num_samples, nll_rows, baselines)


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
    run = _open(folder)
    model = run.model()
    settings = {"num_samples": score_samples, "about": run.about()}
    if to == "serving":
        from keras_vae.exporting import serving

        served = "vae" if name is None else name
        written = serving.export(model, path or run.path("serving"), served, **settings)
    elif to == "litert":
        settings |= {"quantize": quantize, "batch_size": batch_size}
        if quantize == "int8":
            settings["representative_data"] = run.data().x_fit
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
) -> None:
    """Compare an exported artefact with the model of its run, in a separate process.

    Each signature must return the same values as the model, within the rounding errors of
    float32. If the artefact is quantised, only the z of sample must be equal; other
    differences are printed.
    """
    run = _open(folder)
    from keras_vae.exporting.verify import verify as compare

    differences = compare(run.model(), path, run.data().x_test, rows)
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
    out.print(f"\n{_EXPLANATION}")


def _condition_kwargs(run, label, n):
    """Returns the condition of n samples, as keyword arguments: one or all labels."""
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
