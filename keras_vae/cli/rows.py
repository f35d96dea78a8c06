"""The commands that write rows of a trained run: encode, score, reconstruct, sample."""

import pathlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from keras_vae.cli.options import Folder, Moved, NumSamples, Overwrite
from keras_vae.cli.progress import open_run, out, progress_bar
from keras_vae.runs.options import count

Part = Annotated[
    Literal["train", "val", "test", "all"] | None,
    typer.Option(
        help="Part of the run's own data to use without NEWFILE; all: all rows, in the "
        "order of their file. Default: test."
    ),
]
NewFile = Annotated[
    pathlib.Path | None,
    typer.Argument(
        metavar="NEWFILE",
        help="Table, array, image or folder of images. All its rows are used, in their "
        "order. They are read and scaled like the data of the run. A table must have the "
        "same columns, in any order. Default: the test rows of the run.",
        show_default=False,
    ),
]
RowLabel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Label of all rows, for a conditional model. Default: the labels in NEWFILE.",
    ),
]


def _out(text: str) -> Any:
    return typer.Option("--out", metavar="FILE", help=f"File to write: {text}")


def encode(
    folder: Folder,
    file: NewFile = None,
    path: Annotated[
        pathlib.Path | None, _out(".csv, .parquet or .npz. Default: RUN/latents.csv.")
    ] = None,
    std: Annotated[
        bool, typer.Option("--std", help="Write the standard deviations, too.")
    ] = False,
    part: Part = None,
    label: RowLabel = None,
    data: Moved = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the latents of rows: the means z0, z1, ... of q(z|x).

    The file has a row for each row of NEWFILE, in the same order. Its first column is the
    row number from 0, or the name of the image file.
    """
    run, path = _open(folder, path, "latents", overwrite)
    rows = _rows(run, file, part, label, data)
    _write(path, _shown(run.encode(rows, std), rows, "encoding"))


def score(
    folder: Folder,
    file: NewFile = None,
    path: Annotated[
        pathlib.Path | None, _out(".csv, .parquet or .npz. Default: RUN/scores.csv.")
    ] = None,
    num_samples: NumSamples = None,
    part: Part = None,
    label: RowLabel = None,
    data: Moved = None,
    overwrite: Overwrite = False,
) -> None:
    """Write how likely rows are: log p(x) and the terms of its bound, in nats.

    A higher log_likelihood is more likely; the lowest rows are the outliers.
    reconstruction is -log p(x|z); reconstruction_error is the squared error, summed, of the
    scaled values. The file has a row for each row of NEWFILE, in the same order. Its first
    column is the row number from 0, or the name of the image file.
    """
    run, path = _open(folder, path, "scores", overwrite)
    rows = _rows(run, file, part, label, data)
    summary = _Summary()
    num_samples = num_samples or run.options.importance_samples
    _write(path, summary.collect(_shown(run.score(rows, num_samples), rows, "scoring")))
    summary.print(num_samples)
    if run.scaler is not None:
        out.print("All nats are those of the standardised columns.")


def reconstruct(
    folder: Folder,
    file: NewFile = None,
    n: Annotated[
        int | None,
        count(
            None,
            "Maximum number of rows. Default: all rows of NEWFILE, 32 rows of the run, 32 "
            "images of a picture.",
            "-n",
        ),
    ] = None,
    path: Annotated[
        pathlib.Path | None,
        _out(
            ".csv, .parquet, .npz, or .png for images. Default: RUN/reconstructions.*: "
            ".png for images, .csv for a table, else .npz."
        ),
    ] = None,
    part: Part = None,
    label: RowLabel = None,
    data: Moved = None,
    overwrite: Overwrite = False,
) -> None:
    """Reconstruct rows, in the units of the data (0 to 255 for images).

    A table has the columns of the data; .npz has originals and reconstructions; a picture
    shows them one below the other. The rows are in the order of NEWFILE. The first column
    is the row number from 0, or the name of the image file.
    """
    run, path = _open(folder, path, "reconstructions", overwrite, ofdata=True)
    rows = _rows(run, file, part, label, data)
    found = len(rows.x)
    if n is None and (file is None or path.suffix == ".png"):
        n = min(32, found)
    if n is not None and n > found:
        out.print(f"There are only {found:,} rows.")
    n = found if n is None else min(n, found)
    rows = rows.first(n)
    _write(path, _shown(run.reconstruct(rows), rows, "reconstructing"), run, n)


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
        _out(
            ".csv, .parquet, .npz, or .png for images. Default: RUN/samples.*: .png for "
            "images, .csv for a table, else .npz."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw samples, in the units of the data (0 to 255 for images), with their labels."""
    run, path = _open(folder, path, "samples", overwrite, ofdata=True)
    _write(path, _shown(run.samples(n, seed, mean, label), None, "sampling", n), run, n)


def _open(folder, path, name, overwrite, ofdata=False):
    """Opens a run and checks the path to write: (TrainedRun, path)."""
    run = open_run(folder)
    from keras_vae import runs
    from keras_vae.runs.report import files

    trained = runs.TrainedRun(run)
    suffixes: tuple[str, ...] = (*files.TABLES, ".npz")
    shape = trained.model.likelihood.event_shape
    if ofdata and trained.columns is None:
        suffixes = (".png", ".npz") if len(shape) == 3 else (".npz", *files.TABLES)
    rows = f"rows of shape {shape}" if ofdata else name
    path = run.path(name + suffixes[0]) if path is None else path
    return trained, files.check_path(path, suffixes, overwrite, rows)


def _rows(run, file, part, label, moved):
    """Reads the rows of a new file, or of a part of the run's own data."""
    if file is None:
        return run.part(run.run.data(moved), part or "test", label)
    for name, value in (("part", part), ("data", moved)):
        if value is not None:
            raise ValueError(
                f"`{name}` must be left out with a NEWFILE. Received: {name}={value}"
            )
    rows = run.read(file, label)
    for note in rows.notes:
        out.print(note)
    return rows


def _shown(batches, rows, text, total=None) -> Iterator[dict[str, Any]]:
    """Yields batches of rows and shows the progress."""
    with progress_bar() as bar:
        task = bar.add_task(text, total=total or len(rows.x), text="")
        for batch in batches:
            yield batch
            bar.advance(task, len(next(iter(batch.values()))))


def _write(path, batches, run=None, n=0):
    """Writes batches of results and prints the path."""
    from keras_vae.runs.report import files

    if path.suffix == ".png":
        shown = run.inverse(run.run.info["data"]["shown_range"])
        files.write_picture(path, batches, n, shown)
    else:
        files.write(path, batches, run and run.columns)
    out.print(str(path))


class _Summary:
    """The mean of the scores, and the rows with the lowest ones."""

    def __init__(self):
        self.scores, self.ids, self.sizes = [], [], []

    def collect(self, batches):
        """Yields batches unchanged, and keeps one score of each row."""
        names = ("log_likelihood", "elbo", "reconstruction")
        for batch in batches:
            self.name = next(name for name in names if name in batch)
            self.scores.extend(batch[self.name])
            self.ids.extend(next(iter(batch.values())))
            self.sizes.extend(batch.get("effective_sample_size", ()))
            yield batch

    def print(self, num_samples):
        """Prints the mean, and the five rows that are the least likely."""
        sign = 1 if self.name != "reconstruction" else -1
        order = sorted(range(len(self.scores)), key=lambda i: sign * self.scores[i])
        mean = sum(self.scores) / len(self.scores)
        out.print(f"{len(order):,} rows, mean {self.name} {mean:,.3f} nats")
        out.print("least likely:")
        for i in order[:5]:
            out.print(f"  {self.ids[i]}  {self.scores[i]:,.3f}")
        if self.sizes and (size := sorted(self.sizes)[len(self.sizes) // 2]) < 10:
            out.print(
                f"log_likelihood is only a lower bound: half of the rows have an effective "
                f"sample size below {size:.1f} of {num_samples}."
            )
