"""Comparison of an artefact with its model, signature by signature.

Runtimes sum float32 in different orders, so good exports are not equal bit for bit. Each
output has its own tolerance: its differences are divided by its magnitude, and compared
with the effect of rounding the model's weights.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_vae import checks
from keras_vae.exporting import card as cards
from keras_vae.exporting import runtimes, signatures
from keras_vae.exporting.inspection import check_graphs, read_card
from keras_vae.exporting.precision import in_float32
from keras_vae.exporting.process import SCRIPT, run
from keras_vae.exporting.runtimes import Arrays
from keras_vae.models import VAE

__all__ = ["SCRIPT", "Difference", "compare", "expected", "read_card", "run", "verify"]

TIMEOUT = 600.0  # seconds
DEFAULT = "serving_default"  # the signature that a server runs for requests without a name

# The tolerance of the root mean square of relative differences: 84 roundings of float32,
# and a multiple of the effect of a rounding of each weight. Good exports differ by about
# 2e-7 and up to 6 times that effect; other weights by far more than both.
ROUNDINGS, EFFECTS = 1e-5, 32
# The tolerance of the largest difference, a multiple of the first one. It finds errors of
# few elements, which do not change the root mean square.
LARGEST = 100
# The limit of `typical` for quantised outputs: as large as the outputs themselves.
QUANTIZED = 1.0


class Difference(NamedTuple):
    """One output of one signature, compared.

    Attributes:
        signature: str.
        output: str.
        typical: float, the root mean square of the differences, relative to the magnitude
            of the output. For draws of whole numbers, the share of draws that differ.
        largest: float, the largest relative difference; for whole numbers as `typical`.
        tolerance: float, the limit of `typical`; that of `largest` is 100 times higher.
        agrees: bool, or None for an output that quantisation may change, if `typical` is at
            most `QUANTIZED`.
    """

    signature: str
    output: str
    typical: float
    largest: float
    tolerance: float
    agrees: bool | None


def verify(
    model: VAE,
    path: str | os.PathLike,
    x: Any,
    rows: int = 1000,
    safe_mode: bool = True,
    timeout: float = TIMEOUT,
) -> list[Difference]:
    """Runs all signatures of an artefact in a new process and compares them with the model.

    Before that, the files of the artefact are compared with its model card, and its
    operators with those of exports of this package, which only compute numbers.

    Args:
        model: `keras_vae.VAE` that was exported.
        path: path of a SavedModel (folder), a .tflite file, or a folder of .onnx files.
        x: array of data, `[n, *event]`.
        rows: int, number of rows and seeds.
        safe_mode: bool. If false, other operators run, too: they can read and write files
            and open connections, with the rights of the user.
        timeout: float, seconds after which the process is killed.

    Returns:
        List of `Difference`, one for each output.

    Raises:
        ValueError: for a path that is not an artefact, an artefact of another model or one
            that its runtime cannot run in time, for other files, signatures or operators
            than those of an export, and for data that the model does not accept.
    """
    artefact_path, model = checks.path(path, "artefact"), in_float32(model)
    timeout = checks.positive(timeout, "timeout")
    card = read_card(artefact_path)
    found = check_graphs(artefact_path, card, safe_mode)
    quantized = card["format"] == "litert" and card.get("quantize") is not None
    if quantized and card["model"]["weights"] != cards.fingerprint(model):
        # Otherwise all differences would be attributed to the quantisation.
        raise ValueError(
            "`artefact` must be an export of the model. Received: "
            f"{path}, which was exported from other weights"
        )
    quantized = quantized and found.quantized  # the card alone could hide differences
    feeds, outputs = expected(model, card, x, rows)
    name = card.get(DEFAULT)
    feeds_of_default = _of(feeds, name, DEFAULT)
    job = {"runtime": card["format"], "artefact": artefact_path}
    ((results, _),) = run([{**job, "feeds": feeds | feeds_of_default}], timeout=timeout)
    with _rounded_weights(model):
        rounded = _outputs(model, card, feeds)
    default = _of(results, DEFAULT, name)
    named = {key: results[key] for key in results if not key.startswith(f"{DEFAULT}/")}
    differences = compare(outputs, rounded, named, quantized)
    same = compare(_of(outputs, name), _of(rounded, name), default, quantized)
    return differences + [d._replace(signature=DEFAULT) for d in same]


def _of(arrays, signature, new=None):
    """Returns the arrays of a signature, by the name `new` of the signature."""
    parts = [(*key.split("/", 1), value) for key, value in arrays.items()]
    return {f"{new or old}/{k}": value for old, k, value in parts if old == signature}


def _check_model(model_signatures, card):
    """Raises a ValueError unless the model has the signatures of the card."""
    for name, signature in card["signatures"].items():
        ints = {"int32": "int", "int64": "int"}
        card_inputs = {
            key: (ints.get(tensor["dtype"], tensor["dtype"]), tuple(tensor["shape"][1:]))
            for key, tensor in signature["inputs"].items()
        }
        model_inputs = model_signatures[name].inputs if name in model_signatures else None
        if card_inputs != model_inputs:
            raise ValueError(
                "`artefact` must be an export of this model, whose signature "
                f"{name!r} has the inputs {model_inputs}. Received: an artefact with "
                f"{card_inputs}"
            )


def expected(
    model: VAE, card: dict[str, Any], x: Any, rows: int = 1000
) -> tuple[Arrays, Arrays]:
    """Makes inputs for the signatures of an artefact, and computes the model's outputs.

    Args:
        model: `keras_vae.VAE`.
        card: dict, the model card.
        x: array of data.
        rows: int.

    Returns:
        (feeds, outputs): dicts of arrays by "signature/name".

    Raises:
        ValueError: for a card of another model, and for data that it does not accept.
    """
    rows = checks.positive_int(rows, "rows")
    x = model.check_data(x)
    model = in_float32(model)
    model_signatures = model.signatures(card["num_samples"] or 1)
    _check_model(model_signatures, card)
    x = model.as_float(x[np.arange(rows) % len(x)]).numpy()
    seeds = np.arange(rows, dtype=np.int64) - rows // 2
    dtypes = {
        tensor["dtype"]
        for signature in card["signatures"].values()
        for tensor in signature["inputs"].values()
    }
    if "int64" in dtypes:
        seeds += seeds % 3 << 33  # covers the upper word of a seed
    condition = model.example_condition(rows)
    z = signatures.encode_mean(model, x, condition)["mean"].numpy() + np.float32(0.1)
    values = {"x": x, "seed": seeds, "z": z, **signatures.by_name(condition)}
    feeds = {
        f"{name}/{key}": values[key].astype(tensor["dtype"])
        for name, entry in card["signatures"].items()
        for key, tensor in entry["inputs"].items()
    }
    return feeds, _outputs(model, card, feeds)


def _outputs(model, card, feeds):
    """Computes the model's outputs for feeds, arrays by "signature/input"."""
    model_signatures = model.signatures(card["num_samples"] or 1)
    outputs: Arrays = {}
    for name, entry in card["signatures"].items():
        inputs = [feeds[f"{name}/{key}"] for key in entry["inputs"]]
        function = model_signatures[name].function
        parts = [
            function(*(value[i : i + runtimes.PART] for value in inputs))
            for i in range(0, len(inputs[0]), runtimes.PART)
        ]
        for key in parts[0]:
            outputs[f"{name}/{key}"] = np.concatenate([part[key] for part in parts])
    return outputs


@contextlib.contextmanager
def _rounded_weights(model: VAE) -> Iterator[None]:
    """Changes each float weight of a model by one rounding, up or down, for a while."""
    weights = model.get_weights()
    rng = np.random.default_rng(0)
    factors = 1.0 + np.finfo(np.float32).eps * np.array([-1.0, 1.0])

    def rounded(weight):
        is_float = weight.dtype.kind == "f"
        return weight * rng.choice(factors, weight.shape) if is_float else weight

    try:
        model.set_weights([rounded(weight) for weight in weights])
        yield
    finally:
        model.set_weights(weights)


def compare(
    outputs: Arrays, rounded: Arrays, results: Arrays, quantized: bool = False
) -> list[Difference]:
    """Compares outputs by name.

    Args:
        outputs: dict of arrays by "signature/output", of the model. Those that one side
            lacks, or that have another shape or dtype, differ.
        rounded: the same outputs of the model after one rounding of each weight.
        results: dict of arrays by "signature/output", of the artefact.
        quantized: bool. If true, `agrees` is None for outputs that differ by less than
            `QUANTIZED`, except for the z of `sample`: quantisation does not change the
            noise.
    """
    differences = []
    kinds = [{k: (v.shape, v.dtype) for k, v in a.items()} for a in (outputs, results)]
    alike = {key for key, _ in kinds[0].items() & kinds[1].items()}
    for key in [*outputs, *sorted(results.keys() - outputs.keys())]:
        signature, name = key.split("/", 1)
        if key not in alike:
            numbers = np.inf, np.inf, ROUNDINGS
        elif key == "sample/x" and "sample/mean" in alike and _whole(outputs[key]):
            means = outputs["sample/mean"], results["sample/mean"]
            numbers = _draws_that_differ(outputs[key], results[key], *means)
        else:
            numbers = _rounding_errors(signature, outputs[key], rounded[key], results[key])
        typical, largest, tolerance = map(float, numbers)
        # False for NaN, too: such a model should not be deployed.
        agrees = typical <= tolerance and largest <= LARGEST * tolerance
        unknown = quantized and key != "sample/z" and typical <= QUANTIZED
        verdict = None if unknown else agrees
        differences.append(
            Difference(signature, name, typical, largest, tolerance, verdict)
        )
    return differences


def _whole(array):
    return np.array_equal(array, np.round(array))


def _draws_that_differ(output, result, mean, result_mean):
    """Computes `typical`, `largest` and `tolerance` of draws of whole numbers.

    A draw differs if its uniform number is between the cumulative probabilities of both
    models. So the expected number of differences is the sum of those of the means, if these
    are rounding errors. The tolerance adds four standard deviations of a Poisson variable,
    and one draw.
    """
    expected_count = np.sum(np.abs(mean.astype(np.float64) - result_mean))
    expected_count = min(expected_count, ROUNDINGS * output.size)
    count = expected_count + 4.0 * np.sqrt(expected_count) + 1.0
    share = np.mean(output != result)
    return share, share, count / output.size


def _rounding_errors(signature, output, rounded, result):
    """Computes `typical`, `largest` and `tolerance` of floats."""
    output = output.astype(np.float64)
    # Nats are sums of terms of about 1, which may cancel.
    least = 1.0 if signature == "score" else np.finfo(np.float32).tiny
    magnitude = np.maximum(np.abs(output), max(np.mean(np.abs(output)), least))
    with np.errstate(invalid="ignore"):  # infinite values, which do not agree
        errors = np.abs(output - result) / magnitude
        effects = np.abs(output - rounded) / magnitude
    tolerance = ROUNDINGS + EFFECTS * _root_mean_square(effects)
    return _root_mean_square(errors), np.max(errors), tolerance


def _root_mean_square(values):
    return np.sqrt(np.mean(values**2))
