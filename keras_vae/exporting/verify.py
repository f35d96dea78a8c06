"""Whether an artefact gives what the model gives, signature by signature."""

import json
import pathlib
import subprocess
import sys
import tempfile
from typing import NamedTuple

import numpy as np

from keras_vae import checks
from keras_vae.exporting import card as cards
from keras_vae.exporting import formats, runtimes, signatures
from keras_vae.exporting.precision import in_float32

# float32 of two runtimes: other orders of summation. Relative to values above 1, such as
# sums of log-densities.
TOLERANCE = 1e-5
# Of drawn binary pixels, so many may fall to the other side of their threshold, or one.
FLIPS = 1e-5


class Difference(NamedTuple):
    """One output of one signature, compared.

    Attributes:
        signature: str.
        output: str.
        largest: float, the largest difference, relative to values above 1.
        differ: float, the share of elements that differ by more than the tolerance.
        agrees: bool, or None if it is not judged.
    """

    signature: str
    output: str
    largest: float
    differ: float
    agrees: bool | None


def verify(model, path, x, rows=1000):
    """Runs all signatures of an artefact in a new process and compares them with the model.

    Args:
        model: `keras_vae.VAE` that was exported.
        path: of a SavedModel (folder), a .tflite file, or a folder of .onnx files.
        x: array of data, `[n, *event]`.
        rows: int, how many rows and seeds.

    Returns:
        List of `Difference`, one for each output.

    Raises:
        ValueError: if the path is no artefact, or one of another model, or its runtime does
            not run it; for data that are not the model's.
    """
    path, model = checks.path(path, "artefact"), in_float32(model)
    card = read_card(path)
    quantized = card.get("quantize") is not None
    if quantized and card["model"]["weights"] != cards.fingerprint(model):
        # Else its differences would all be laid to the quantisation.
        raise ValueError(
            "`artefact` must be of the model that it is compared with. Received: "
            f"{path}, which was exported from other weights"
        )
    feeds, wanted = expected(model, card, x, rows)
    ((got, _),) = run([{"runtime": card["format"], "artefact": path, "feeds": feeds}])
    return compare(wanted, got, quantized)


def read_card(path):
    """The model card of an artefact.

    Raises:
        ValueError: if there is none, or it is not of this file.
    """
    place, _ = cards.paths(path)
    if not path.exists() or not place.is_file():
        raise ValueError(
            "`artefact` must be what `keras-vae export` wrote: a folder of a SavedModel or "
            f"of .onnx files, or a .tflite file, with its model card. Received: {path}, "
            + (f"without {place}" if path.exists() else "which does not exist")
        )
    try:
        card = json.loads(place.read_text())
        _check_card(card)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`artefact` must have a model card that can be read. Received: {place}: "
            f"{type(error).__name__} {error}"
        ) from error
    root = path if path.is_dir() else path.parent
    for name, file in card["files"].items():
        there = root / name
        if not there.is_file() or cards.checksum(there) != file["sha256"]:
            why = "has another checksum" if there.is_file() else "is missing"
            raise ValueError(
                f"`artefact` must be whole, as its model card says. Received: {path}, "
                f"where {name} {why}"
            )
    return card


def _check_card(card):
    """Raises one error or another unless the entries are there that are used here."""
    known = card["format"] in formats.FORMATS
    checks.require(known, "format", f"one of {list(formats.FORMATS)}", card["format"])
    checks.positive_ints_or_none(num_samples=card["num_samples"])
    for name in ("signatures", "files"):
        checks.require(card[name], name, "a dict with entries", card[name])
    for signature in card["signatures"].values():
        for tensor in signature["inputs"].values():
            np.dtype(tensor["dtype"]), list(tensor["shape"])
    [file["sha256"] for file in card["files"].values()]
    card["model"]["weights"]


def _check_model(every, card):
    """Raises a ValueError unless the signatures of a card are those of the model."""
    for name, signature in card["signatures"].items():
        ints = {"int32": "int", "int64": "int"}
        of_card = {
            key: (ints.get(tensor["dtype"], tensor["dtype"]), tuple(tensor["shape"][1:]))
            for key, tensor in signature["inputs"].items()
        }
        of_model = every[name].inputs if name in every else None
        if of_card != of_model:
            raise ValueError(
                "`artefact` must be of this model, whose signature "
                f"{name!r} has the inputs {of_model}. Received: an artefact with {of_card}"
            )


def expected(model, card, x, rows=1000):
    """Inputs for the signatures of an artefact, and what the model gives for them.

    Args:
        model: `keras_vae.VAE`.
        card: dict, the model card.
        x: array of data.
        rows: int.

    Returns:
        (feeds, outputs): dicts of arrays by "signature/name".

    Raises:
        ValueError: for a card of another model, and for data that are not the model's.
    """
    rows = checks.positive_int(rows, "rows")
    x = model.check_data(x)
    model = in_float32(model)
    listed = card["signatures"]
    every = signatures.build_signatures(model, card["num_samples"] or 1)
    _check_model(every, card)
    x = model.as_float(x[np.arange(rows) % len(x)]).numpy()
    seeds = np.arange(rows, dtype=np.int64) - rows // 2
    tensors = [one for signature in listed.values() for one in signature["inputs"].values()]
    if any(tensor["dtype"] == "int64" for tensor in tensors):
        seeds += seeds % 3 << 33  # the upper word counts, too
    condition = model.example_condition(rows)
    z = signatures.encode_mean(model, x, condition)["mean"].numpy() + np.float32(0.1)
    values = {"x": x, "seed": seeds, "z": z, **signatures.by_name(condition)}
    at_once = runtimes.PART
    feeds: dict = {}
    outputs = {}
    for name in listed:
        inputs = {
            key: values[key].astype(tensor["dtype"])
            for key, tensor in listed[name]["inputs"].items()
        }
        feeds |= {f"{name}/{key}": value for key, value in inputs.items()}
        parts = [
            every[name].function(*(value[i : i + at_once] for value in inputs.values()))
            for i in range(0, rows, at_once)
        ]
        for key in parts[0]:
            outputs[f"{name}/{key}"] = np.concatenate([part[key] for part in parts])
    return feeds, outputs


SCRIPT = pathlib.Path(__file__).with_name("runtimes.py")


def run(jobs, repeat=0, script=SCRIPT):
    """Runs artefacts in one new process.

    Args:
        jobs: list of dicts with the keys `"runtime"`, `"artefact"` and `"feeds"`, arrays by
            "signature/input": see `runtimes.py`.
        repeat: int, calls to time.
        script: path of the program that does the jobs.

    Returns:
        List of (results, times) in the order of the jobs.

    Raises:
        ValueError: if the process fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        listed = []
        for i, job in enumerate(jobs):
            paths = {key: str(folder / f"{key}-{i}.npz") for key in ("feeds", "results")}
            np.savez(paths["feeds"], **job["feeds"])
            artefact_path = str(job["artefact"])
            listed.append({**job, **paths, "artefact": artefact_path, "repeat": repeat})
        (folder / "jobs.json").write_text(json.dumps(listed))
        # -P: the folder of the script, with its onnx.py, is no place to import from.
        process = subprocess.run(
            [sys.executable, "-P", str(script), str(folder / "jobs.json")],
            capture_output=True,
            text=True,
        )
        if process.returncode:
            lines = process.stderr.strip().splitlines() or [str(process.returncode)]
            if lines[-1].startswith("ModuleNotFoundError"):
                raise ImportError(
                    f"running a {jobs[0]['runtime']} artefact needs more: pip install "
                    f'"keras-vae[export]". Received: {lines[-1]}'
                )
            raise ValueError(
                f"`artefact` must be one that {jobs[0]['runtime']} runs. Received: "
                f"{jobs[0]['artefact']}: {lines[-1]}"
            )
        times = json.loads(process.stdout.splitlines()[-1])
        results = [dict(np.load(job["results"])) for job in listed]
    return list(zip(results, times, strict=True))


def compare(wanted, got, quantized=False):
    """Compares outputs by name: a list of `Difference`.

    Args:
        wanted: dict of arrays by "signature/output", of the model.
        got: the same of the artefact.
        quantized: bool. If so only what must be exact in spite of it is judged: the noise,
            as the z of `sample`.
    """
    differences = []
    for key, one in wanted.items():
        name, output = key.split("/")
        other = got.get(key)
        if other is None or other.shape != one.shape:
            differences.append(Difference(name, output, np.inf, 1.0, False))
            continue
        far = np.abs(one.astype(np.float64) - other) / np.maximum(1.0, np.abs(one))
        off = ~(far <= TOLERANCE)  # NaN too: a model that gives it is not to be shipped
        binary = key == "sample/x" and set(np.unique(one)) <= {0.0, 1.0}
        agrees = off.sum() <= (max(1, FLIPS * one.size) if binary else 0)
        judged = not quantized or key == "sample/z"
        verdict = bool(agrees) if judged else None
        differences.append(
            Difference(name, output, float(far.max()), float(off.mean()), verdict)
        )
    return differences
