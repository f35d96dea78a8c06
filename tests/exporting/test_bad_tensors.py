"""Bad tensors for every signature in every runtime: an error or the right answer.

Never a crash, a hang or a wrong answer, and what a bad call leaves behind does not spoil
the next one. The calls are made by `bad_tensors.py`, in one process for each runtime.
"""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_vae as kv
from keras_vae.exporting import signatures

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
# The runtime, the artefact that it runs, and how many rows a good call has.
RUNTIMES = {
    "tf_saved_model": ("tf_saved_model", {}, ROWS),
    "c_api": ("tf_saved_model", {}, ROWS),
    "litert": ("litert", {}, ROWS),
    "litert_fixed": ("litert", {"batch_size": 2}, 2),
    "onnx": ("onnx", {}, ROWS),
}
# Beside the table: ONNX takes a 0 in a new shape for "as it was", where `score` makes one
# axis of draws and rows. So no rows at all are an error there, not an empty answer.
INSTEAD = {
    ("onnx", "score-all-no_rows"): "error",
    ("litert", "score-all-no_rows"): "either",  # XNNPACK refuses some graphs of no rows
}
NEEDS = {"litert": ("ai_edge_litert",), "onnx": ("tf2onnx", "onnxruntime")}


def with_value(value):
    """Row 1 has one bad value."""

    def change(array):
        array = array.copy()
        array[1].flat[1] = value
        return array

    return change


def shaped(*shape):
    """The same numbers in another shape; `n` stands for the rows."""
    return lambda a: a.reshape([len(a) if size == "n" else size for size in shape])


def rows(count):
    return lambda a: np.resize(a, (count, *a.shape[1:]))


def typed(dtype):
    return lambda a: np.abs(a).astype(dtype)


def strings(array):
    return np.full(array.shape, "a")


# What can be wrong with one input: (id, change of the good array, what must come of it).
# "nan" is NaN for row 1 and the right values for the others, "right" what the rows give.

FLOATS = [
    ("scalar", lambda a: np.float32(a.flat[0]), "error"),
    ("no_batch_axis", lambda a: a[0], "error"),
    ("flat", lambda a: a.reshape(-1), "error"),
    ("an_axis_behind", lambda a: a[..., None], "error"),
    ("two_axes_behind", lambda a: a[..., None, None], "error"),
    ("an_axis_before", lambda a: a[None], "error"),
    ("last_axis_too_long", lambda a: np.concatenate([a, a[..., :1]], -1), "error"),
    ("last_axis_tripled", lambda a: np.concatenate([a, a, a], -1), "error"),
    ("last_axis_empty", lambda a: a[..., :0], "error"),
    ("float64", typed("float64"), "error"),
    ("float16", typed("float16"), "error"),
    ("int32", typed("int32"), "error"),
    ("uint8", typed("uint8"), "error"),
    ("bool", typed("bool"), "error"),
    ("strings", strings, "error"),
    ("nan", with_value(np.nan), "nan"),
    ("inf", with_value(np.inf), "nan"),
    ("minus_inf", with_value(-np.inf), "nan"),
    ("no_rows", rows(0), "right"),
    ("one_row", rows(1), "right"),
    ("more_rows", rows(5), "right"),
]
# With as many numbers in all or in a row, and with others; ones that would broadcast.
X = [
    *FLOATS,
    ("above_the_support", with_value(7.0), "nan"),
    ("below_the_support", with_value(-1.0), "nan"),
    ("no_channels", shaped("n", 4, 4), "error"),
    ("flat_rows", shaped("n", 16), "error"),
    ("channels_first", shaped("n", 1, 4, 4), "error"),
    ("other_sides", shaped("n", 2, 8, 1), "error"),
    ("halves_of_rows", shaped(-1, 2, 4, 1), "error"),
    ("two_rows_in_one", shaped(-1, 8, 4, 1), "error"),
    ("three_channels", lambda a: np.repeat(a, 3, axis=3), "error"),
    ("larger", lambda a: np.zeros((len(a), 8, 8, 1), "float32"), "error"),
    ("smaller", lambda a: a[:, :2], "error"),
    ("a_pixel", lambda a: a[:, :1, :1], "error"),
]
Z = [
    *FLOATS,
    ("transposed", lambda a: np.resize(a, (LATENT, len(a) + 4)), "error"),
    ("one_of_a_row", lambda a: a[:, :1], "error"),
    ("too_few_of_a_row", lambda a: a[:, :-1], "error"),
    ("outside_the_data", with_value(7.0), "others"),
]
SEED = [
    ("scalar", lambda a: a[0], "error"),
    ("column", shaped("n", 1), "error"),
    ("row", shaped(1, "n"), "error"),
    ("pairs", lambda a: np.stack([a, a], 1), "error"),
    ("other_int", lambda a: a.astype({4: "int64", 8: "int32"}[a.itemsize]), "error"),
    ("float32", typed("float32"), "error"),
    ("float64", typed("float64"), "error"),
    ("uint8", typed("uint8"), "error"),
    ("bool", typed("bool"), "error"),
    ("strings", strings, "error"),
    ("no_rows", rows(0), "right"),
    ("one_row", rows(1), "right"),  # beside an x of more rows it must not broadcast
    ("more_rows", rows(5), "right"),
]


def cases(good, fixed):
    """{id: (signature, arrays by name, what must come of it)}."""
    made = {}
    for signature, names in INPUTS.items():
        arrays = {name: good[name] for name in names}
        for name in names:
            for what, change, wanted in {"x": X, "z": Z, "seed": SEED}[name]:
                if wanted == "right" and (fixed or len(names) > 1):
                    wanted = "error"  # the other input has other rows
                changed = {**arrays, name: np.asarray(change(good[name]))}
                made[f"{signature}-{name}-{what}"] = (signature, changed, wanted)
            misnamed = {name + "s" if n == name else n: a for n, a in arrays.items()}
            made[f"{signature}-{name}-misnamed"] = (signature, misnamed, "error")
            missing = {n: a for n, a in arrays.items() if n != name}
            made[f"{signature}-{name}-missing"] = (signature, missing, "error")
        for what, count in (("no_rows", 0), ("one_row", 1), ("more_rows", 5)):
            changed = {name: rows(count)(array) for name, array in arrays.items()}
            wanted = "error" if fixed else "right"
            made[f"{signature}-all-{what}"] = (signature, changed, wanted)
        made[f"{signature}-extra"] = (signature, {**arrays, "y": good["x"]}, "error")
    made["unknown"] = ("generate", {"x": good["x"]}, "error")
    return made


def good(count, seed_dtype):
    rng = np.random.default_rng(0)
    return {
        "x": (rng.random((count, *EVENT)) < 0.4).astype(np.float32),
        "z": rng.normal(size=(count, LATENT)).astype(np.float32),
        "seed": (np.arange(1, count + 1) * 977).astype(seed_dtype),
    }


class Outcomes:
    """What came of the cases in one runtime: {id: error in words, or outputs by name}."""

    def __init__(self, folder, runtime, artefact, count, seed_dtype):
        self.folder, self.log = folder, folder / "log"
        fixed = RUNTIMES[runtime][1].get("batch_size")
        self.good = good(count, seed_dtype)
        self.cases = cases(self.good, fixed)
        self.of, self.spoilt = {}, {}
        feeds, listed = {}, []
        for signature, names in INPUTS.items():
            feeds |= {f"{signature}/{name}": self.good[name] for name in names}
        for case, (signature, arrays, _) in self.cases.items():
            keys = {name: f"{case} {name}" for name in arrays}
            feeds |= {keys[name]: array for name, array in arrays.items()}
            listed.append([case, signature, keys])
        np.savez(folder / "feeds.npz", **feeds)
        while listed:  # again after a crash, from the case that follows
            listed = self.run(runtime.removesuffix("_fixed"), artefact, listed)

    def run(self, runtime, artefact, listed):
        """Runs cases until one of them ends the process; returns those that are left."""
        cases = self.folder / "cases.json"
        cases.write_text(json.dumps(listed))
        self.log.write_text("")
        process = subprocess.Popen(
            [sys.executable, SCRIPT, runtime, artefact, cases,
             self.folder / "feeds.npz", self.folder],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            _, said = process.communicate(timeout=60)
            how = f"the process ended with {process.returncode}: {said[-300:]}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            how = "the process hung"
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        for case, error, spoilt in (line for line in lines if len(line) == 3):
            self.of[case], self.spoilt[case] = error, spoilt
            if error is None:
                self.of[case] = dict(np.load(self.folder / f"{case}.npz"))
        if process.returncode == 0:
            return []
        assert lines and len(lines[-1]) == 1, how  # or it was none of the cases
        self.of[lines[-1][0]] = RuntimeError(how)
        return listed[[case for case, *_ in listed].index(lines[-1][0]) + 1 :]


@pytest.fixture(scope="module")
def model():
    encoder = keras.Sequential([kv.nets.ConvEncoder([4]), kv.nets.MLP([8])])
    likelihood = kv.distributions.IndependentBernoulli(EVENT)
    return kv.VAE(encoder, kv.nets.MLP([8]), likelihood, LATENT, seed=3)


@pytest.fixture(scope="module")
def outcomes(model, tmp_path_factory):
    """A function of the name of a runtime; its cases run when it is first asked for."""
    folder, done = tmp_path_factory.mktemp("bad"), {}

    def of(runtime):
        format, options, count = RUNTIMES[runtime]
        for package in NEEDS.get(format, ()):
            pytest.importorskip(package)
        if runtime not in done:
            suffix = f"{options}.tflite" if format == "litert" else ""
            path = folder / f"{format}{suffix}"
            if not path.exists():
                model.export(path, format=format, num_samples=3, **options)
            if runtime == "c_api":
                path.with_name("names.json").write_text(json.dumps(graph_names(path)))
            (folder / f"{runtime}-work").mkdir()
            dtype = "int64" if format == "tf_saved_model" else "int32"
            done[runtime] = Outcomes(
                folder / f"{runtime}-work", runtime, path, count, dtype
            )
        return done[runtime]

    return of


def graph_names(path):
    """For each signature the names in the graph of its inputs and, marked, its outputs."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    return {
        signature: {name: tensor.name for name, tensor in definition.inputs.items()}
        | {f"output {name}": t.name for name, t in definition.outputs.items()}
        for signature, definition in saved.meta_graphs[0].signature_def.items()
    }


@pytest.fixture(scope="module")
def answer(model):
    """What the model itself gives for good input."""
    every, known = signatures.build_signatures(model, 3), {}

    def answer(signature, arrays):
        # Most cases, and the same ones of other runtimes, ask for one and the same.
        key = signature, *((name, a.shape, a.tobytes()) for name, a in arrays.items())
        if key not in known:
            outputs = every[signature].function(**arrays)
            known[key] = {name: value.numpy() for name, value in outputs.items()}
        return known[key]

    return answer


@pytest.mark.parametrize("signature", [*INPUTS, "generate"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_bad_tensors(outcomes, answer, runtime, signature):
    """Each input of each signature with each fault; "generate" is none of them."""
    outcome, wrong = outcomes(runtime), {}
    for case, (name, arrays, wanted) in outcome.cases.items():
        if name == signature:
            wanted = INSTEAD.get((runtime, case), wanted)
            try:
                check(outcome, answer, case, signature, arrays, wanted)
            except (AssertionError, RuntimeError) as error:
                wrong[case] = str(error)
    assert not wrong, wrong


def check(outcome, answer, case, signature, arrays, wanted):
    """Assert that what came of a case is what is wanted."""
    came = outcome.of[case]
    if isinstance(came, Exception):
        raise came
    if wanted == "either":
        wanted = "error" if isinstance(came, str) else "right"
    assert not outcome.spoilt[case], f"the next good call: {outcome.spoilt[case]}"
    if wanted == "error":
        shapes = isinstance(came, dict) and {name: v.shape for name, v in came.items()}
        assert isinstance(came, str) and came.partition(": ")[2], f"an answer: {shapes}"
        return
    assert isinstance(came, dict), came
    if wanted != "right":
        arrays = {name: outcome.good[name] for name in arrays}
    right = answer(signature, arrays)
    assert came.keys() == right.keys()
    for name, value in right.items():
        got = came[name]
        assert got.shape == value.shape, name
        if wanted != "right":
            assert wanted == "others" or np.isnan(got[1]).all(), name
            got, value = np.delete(got, 1, 0), np.delete(value, 1, 0)
        np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-5, err_msg=name)
