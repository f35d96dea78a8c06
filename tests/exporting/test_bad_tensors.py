"""Bad tensors for every signature in every runtime cause an error or give the right result.

They never cause a crash, a hang or a wrong result, and a bad call does not affect the next
one. `bad_tensors.py` makes the calls, in one process for each runtime.
"""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_vae as kv

SCRIPT = pathlib.Path(__file__).with_name("bad_tensors.py")
EVENT, LATENT, ROWS = (4, 4, 1), 3, 4
INPUTS = {
    "encode": ("x", "seed"),
    "encode_mean": ("x",),
    "decode": ("z",),
    "sample": ("seed",),
    "reconstruct": ("x",),
    "score": ("x", "seed"),
}
# For each runtime: the format, the export options and the number of rows of a good call.
RUNTIMES = {
    "tf_saved_model": ("tf_saved_model", {}, ROWS),
    "c_api": ("tf_saved_model", {}, ROWS),
    "litert": ("litert", {}, ROWS),
    "litert_fixed": ("litert", {"batch_size": 2}, 2),
    "onnx": ("onnx", {}, ROWS),
}
# The graphs are those of the SavedModel. The C API and ONNX take half a minute.
FAST_AND_SLOW = [
    pytest.param(name, marks=[pytest.mark.slow] if name in ("c_api", "onnx") else [])
    for name in RUNTIMES
]
# Exceptions from the table. In ONNX a 0 in a new shape means "unchanged", where `score`
# joins the axes of draws and rows, so a call without rows is an error.
EXCEPTIONS = {
    ("onnx", "score-all-no_rows"): "error",
    # XNNPACK refuses some graphs of no rows.
    ("litert", "score-all-no_rows"): "either",
    ("litert", "encode_mean-x-no_rows"): "either",
    ("litert", "encode_mean-all-no_rows"): "either",
    ("litert", "reconstruct-x-no_rows"): "either",
    ("litert", "reconstruct-all-no_rows"): "either",
}
PACKAGES = {"litert": ("ai_edge_litert",), "onnx": ("tf2onnx", "onnxruntime")}


def with_value(value):
    """Returns a function that sets one value of row 1."""

    def change(array):
        array = array.copy()
        array[1].flat[1] = value
        return array

    return change


def reshape(*shape):
    """Returns a function that reshapes an array; `n` stands for the number of rows."""
    return lambda a: a.reshape([len(a) if size == "n" else size for size in shape])


def resize_rows(count):
    return lambda a: np.resize(a, (count, *a.shape[1:]))


def cast(dtype):
    return lambda a: np.abs(a).astype(dtype)


def strings(array):
    return np.full(array.shape, "a")


# Faults of one input: (id, change of the good array, expected outcome). "nan" means NaN for
# row 1 and the right values for the other rows, "right" the right values for all rows.

FLOATS = [
    ("scalar", lambda a: np.float32(a.flat[0]), "error"),
    ("no_batch_axis", lambda a: a[0], "error"),
    ("flat", lambda a: a.reshape(-1), "error"),
    ("axis_appended", lambda a: a[..., None], "error"),
    ("two_axes_appended", lambda a: a[..., None, None], "error"),
    ("axis_prepended", lambda a: a[None], "error"),
    ("last_axis_too_long", lambda a: np.concatenate([a, a[..., :1]], -1), "error"),
    ("last_axis_tripled", lambda a: np.concatenate([a, a, a], -1), "error"),
    ("last_axis_empty", lambda a: a[..., :0], "error"),
    ("float64", cast("float64"), "error"),
    ("float16", cast("float16"), "error"),
    ("int32", cast("int32"), "error"),
    ("uint8", cast("uint8"), "error"),
    ("bool", cast("bool"), "error"),
    ("strings", strings, "error"),
    ("nan", with_value(np.nan), "nan"),
    ("inf", with_value(np.inf), "nan"),
    ("minus_inf", with_value(-np.inf), "nan"),
    ("no_rows", resize_rows(0), "right"),
    ("one_row", resize_rows(1), "right"),
    ("more_rows", resize_rows(5), "right"),
]
# Shapes of the same and of another size, and shapes that would broadcast.
X = [
    *FLOATS,
    ("above_the_support", with_value(7.0), "nan"),
    ("below_the_support", with_value(-1.0), "nan"),
    ("no_channels", reshape("n", 4, 4), "error"),
    ("flat_rows", reshape("n", 16), "error"),
    ("channels_first", reshape("n", 1, 4, 4), "error"),
    ("other_sides", reshape("n", 2, 8, 1), "error"),
    ("rows_split", reshape(-1, 2, 4, 1), "error"),
    ("rows_joined", reshape(-1, 8, 4, 1), "error"),
    ("three_channels", lambda a: np.repeat(a, 3, axis=3), "error"),
    ("larger", lambda a: np.zeros((len(a), 8, 8, 1), "float32"), "error"),
    ("smaller", lambda a: a[:, :2], "error"),
    ("one_pixel", lambda a: a[:, :1, :1], "error"),
]
Z = [
    *FLOATS,
    ("transposed", lambda a: np.resize(a, (LATENT, len(a) + 4)), "error"),
    ("one_latent", lambda a: a[:, :1], "error"),
    ("one_latent_less", lambda a: a[:, :-1], "error"),
    ("outside_the_data", with_value(7.0), "others"),
]
SEED = [
    ("scalar", lambda a: a[0], "error"),
    ("column", reshape("n", 1), "error"),
    ("row", reshape(1, "n"), "error"),
    ("pairs", lambda a: np.stack([a, a], 1), "error"),
    ("other_int", lambda a: a.astype({4: "int64", 8: "int32"}[a.itemsize]), "error"),
    ("float32", cast("float32"), "error"),
    ("float64", cast("float64"), "error"),
    ("uint8", cast("uint8"), "error"),
    ("bool", cast("bool"), "error"),
    ("strings", strings, "error"),
    ("no_rows", resize_rows(0), "right"),
    ("one_row", resize_rows(1), "right"),  # must not broadcast to an x with more rows
    ("more_rows", resize_rows(5), "right"),
]


def cases(good, fixed):
    """Returns {id: (signature, arrays by name, expected outcome)}."""
    cases = {}
    for signature, names in INPUTS.items():
        arrays = {name: good[name] for name in names}
        for name in names:
            for fault, change, outcome in {"x": X, "z": Z, "seed": SEED}[name]:
                if outcome == "right" and (fixed or len(names) > 1):
                    outcome = "error"  # the other input has other rows
                changed = {**arrays, name: np.asarray(change(good[name]))}
                cases[f"{signature}-{name}-{fault}"] = (signature, changed, outcome)
            misnamed = {name + "s" if n == name else n: a for n, a in arrays.items()}
            cases[f"{signature}-{name}-misnamed"] = (signature, misnamed, "error")
            missing = {n: a for n, a in arrays.items() if n != name}
            cases[f"{signature}-{name}-missing"] = (signature, missing, "error")
        for fault, count in (("no_rows", 0), ("one_row", 1), ("more_rows", 5)):
            changed = {name: resize_rows(count)(array) for name, array in arrays.items()}
            outcome = "error" if fixed else "right"
            cases[f"{signature}-all-{fault}"] = (signature, changed, outcome)
        cases[f"{signature}-extra"] = (signature, {**arrays, "y": good["x"]}, "error")
    cases["unknown"] = ("generate", {"x": good["x"]}, "error")
    return cases


def good_inputs(count, seed_dtype):
    rng = np.random.default_rng(0)
    return {
        "x": (rng.random((count, *EVENT)) < 0.4).astype(np.float32),
        "z": rng.normal(size=(count, LATENT)).astype(np.float32),
        "seed": (np.arange(1, count + 1) * 977).astype(seed_dtype),
    }


class Outcomes:
    """The outcomes of the cases in one runtime.

    Attributes:
        results: dict from case to the text of an error, or to outputs by name.
        later_errors: dict from case to the error of the next good call, or None.
    """

    def __init__(self, folder, runtime, artefact, count, seed_dtype):
        self.folder, self.log = folder, folder / "log"
        fixed = RUNTIMES[runtime][1].get("batch_size")
        self.good = good_inputs(count, seed_dtype)
        self.cases = cases(self.good, fixed)
        self.results, self.later_errors = {}, {}
        feeds, remaining = {}, []
        for signature, names in INPUTS.items():
            feeds |= {f"{signature}/{name}": self.good[name] for name in names}
        for case, (signature, arrays, _) in self.cases.items():
            keys = {name: f"{case} {name}" for name in arrays}
            feeds |= {keys[name]: array for name, array in arrays.items()}
            remaining.append([case, signature, keys])
        np.savez(folder / "feeds.npz", **feeds)
        while remaining:  # after a crash, continues with the next case
            remaining = self.run(runtime.removesuffix("_fixed"), artefact, remaining)

    def run(self, runtime, artefact, remaining):
        """Runs cases until one of them ends the process; returns the remaining cases."""
        cases = self.folder / "cases.json"
        cases.write_text(json.dumps(remaining))
        self.log.write_text("")
        process = subprocess.Popen(
            [sys.executable, SCRIPT, runtime, artefact, cases,
             self.folder / "feeds.npz", self.folder],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            _, output = process.communicate(timeout=60)
            failure = f"the process ended with {process.returncode}: {output[-300:]}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            failure = "the process hung"
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        for case, error, later_error in (line for line in lines if len(line) == 3):
            self.results[case], self.later_errors[case] = error, later_error
            if error is None:
                with np.load(self.folder / f"{case}.npz") as file:
                    self.results[case] = dict(file)
        if process.returncode == 0:
            return []
        assert lines and len(lines[-1]) == 1, failure  # outside of the cases
        self.results[lines[-1][0]] = RuntimeError(failure)
        return remaining[[case for case, *_ in remaining].index(lines[-1][0]) + 1 :]


@pytest.fixture(scope="module")
def model():
    encoder = keras.Sequential([kv.nets.ConvEncoder([4]), kv.nets.MLP([8])])
    likelihood = kv.distributions.IndependentBernoulli(EVENT)
    return kv.VAE(encoder, kv.nets.MLP([8]), likelihood, LATENT, seed=3)


@pytest.fixture(scope="module")
def outcomes(model, tmp_path_factory):
    """A function from the name of a runtime to its outcomes, computed on first use."""
    folder, cache = tmp_path_factory.mktemp("bad"), {}

    def run_cases(runtime):
        format, options, count = RUNTIMES[runtime]
        for package in PACKAGES.get(format, ()):
            pytest.importorskip(package)
        if runtime not in cache:
            suffix = f"{options}.tflite" if format == "litert" else ""
            path = folder / f"{format}{suffix}"
            if not path.exists():
                model.export(path, format=format, num_samples=3, **options)
            if runtime == "c_api":
                path.with_name("names.json").write_text(json.dumps(graph_names(path)))
            (folder / f"{runtime}-work").mkdir()
            dtype = "int64" if format == "tf_saved_model" else "int32"
            cache[runtime] = Outcomes(
                folder / f"{runtime}-work", runtime, path, count, dtype
            )
        return cache[runtime]

    return run_cases


def graph_names(path):
    """Returns for each signature the graph names of its inputs and "output ..." names."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    return {
        signature: {name: tensor.name for name, tensor in definition.inputs.items()}
        | {f"output {name}": t.name for name, t in definition.outputs.items()}
        for signature, definition in saved.meta_graphs[0].signature_def.items()
    }


@pytest.fixture(scope="module")
def reference(model):
    """A function that returns the outputs of the model for good input."""
    functions, cache = model.signatures(3), {}

    def compute(signature, arrays):
        # Most cases, also those of other runtimes, need the same outputs.
        key = signature, *((name, a.shape, a.tobytes()) for name, a in arrays.items())
        if key not in cache:
            outputs = functions[signature].function(**arrays)
            cache[key] = {name: value.numpy() for name, value in outputs.items()}
        return cache[key]

    return compute


@pytest.mark.parametrize("signature", [*INPUTS, "generate"])
@pytest.mark.parametrize("runtime", FAST_AND_SLOW)
def test_bad_tensors_cause_an_error_or_give_the_right_outputs(
    outcomes, reference, runtime, signature
):
    """Each input of each signature has each fault; "generate" is no signature."""
    outcome, failures = outcomes(runtime), {}
    for case, (name, arrays, expected) in outcome.cases.items():
        if name == signature:
            expected = EXCEPTIONS.get((runtime, case), expected)
            try:
                assert_outcome(outcome, reference, case, signature, arrays, expected)
            except (AssertionError, RuntimeError) as error:
                failures[case] = str(error)
    assert not failures, failures


def assert_outcome(outcome, reference, case, signature, arrays, expected):
    """Assert that a case has the expected outcome."""
    result = outcome.results[case]
    if isinstance(result, Exception):
        raise result
    if expected == "either":
        expected = "error" if isinstance(result, str) else "right"
    assert not outcome.later_errors[case], (
        f"the next good call: {outcome.later_errors[case]}"
    )
    if expected == "error":
        shapes = isinstance(result, dict) and {name: v.shape for name, v in result.items()}
        assert isinstance(result, str) and result.partition(": ")[2], f"outputs: {shapes}"
        return
    assert isinstance(result, dict), result
    if expected != "right":
        arrays = {name: outcome.good[name] for name in arrays}
    right = reference(signature, arrays)
    assert result.keys() == right.keys()
    for name, value in right.items():
        actual = result[name]
        assert actual.shape == value.shape, name
        if expected != "right":
            assert expected == "others" or np.isnan(actual[1]).all(), name
            actual, value = np.delete(actual, 1, 0), np.delete(value, 1, 0)
        np.testing.assert_allclose(actual, value, rtol=1e-5, atol=1e-5, err_msg=name)
