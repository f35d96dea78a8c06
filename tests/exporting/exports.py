"""Models of the zoo and their artefacts, shared by the tests of all formats."""

import numpy as np
import pytest

from keras_vae.exporting import inspection, signatures, verify
from tests.zoo import ZOO

# The objective is not exported: rows that differ only in it count as one model.
MODELS = [row for row in ZOO if row.objective is None or row.name == "structured"]
ALL_SIGNATURES_IN_ONNX = ("per_element_scale", "autoencoder")
# For the slower runtimes of a SavedModel.
FEW_MODELS = ("conv", "learned_prior", "bernoulli", *ALL_SIGNATURES_IN_ONNX)
SEEDS = 200  # two calls of each signature

# Rows exported only in slow tests, and the faster row with the same operators.
COVERED = {
    "fixed_scale": "shared_scale",
    "shared_posterior": "shared_scale",
    "soft": "conv",
    "dropout": "per_element_scale",  # Dropout does nothing after training
    "label": "structured",  # joins the condition in the same way
}
# A LiteRT file is converted from a SavedModel with the same graphs: the fast tests of
# LiteRT have these rows.
COVERED_BY_LITERT = {
    **COVERED,
    **dict.fromkeys(
        ("shared_scale", "structured", "semi_supervised", "volumes"), "the row in LiteRT"
    ),
}
# In ONNX a signature takes three seconds.
COVERED_IN_ONNX = {
    **COVERED,
    "shared_scale": "per_element_scale",
    "structured": "conditions",
    "semi_supervised": "conditions",
    "volumes": "conv",  # convolutions of two axes
}


def parametrize_rows(covered):
    """Parametrizes a test by row; rows that another row covers are slow tests."""
    params = [
        pytest.param(row.name, marks=[pytest.mark.slow] if row.name in covered else [])
        for row in MODELS
    ]
    return pytest.mark.parametrize("name", params)


def run_together(name, covered):
    """Returns the rows that share a process with this one: all fast or all slow ones."""
    rows = [row.name for row in MODELS]
    return tuple(row for row in rows if (row in covered) == (name in covered))


parametrize_few_models = pytest.mark.parametrize("name", FEW_MODELS)


class Exports:
    """The models and their artefacts, each exported on first use."""

    def __init__(self, folder):
        self.folder = folder
        self.models = {row.name: row.make() for row in MODELS}
        self.x = {row.name: row.x for row in MODELS}
        rng = np.random.default_rng(0)
        for model in self.models.values():  # away from the special initial values
            for weight in model.trainable_variables:
                weight.assign_add(0.1 * rng.normal(size=weight.shape).astype(np.float32))
        self.actual, self.references = {}, {}

    def names(self, name):
        """Returns the signatures that can be exported."""
        model = self.models[name]
        return [n for n in model.signatures()
                if not signatures.parts_without_formula(model, n)]  # fmt: skip

    def path(self, name, format, **options):
        suffix = ".tflite" if format == "litert" else ""
        path = self.folder / f"{name}-{format}{suffix}"
        if not path.exists():
            names = self.names(name)
            # A file takes three seconds.
            if format == "onnx" and name not in ALL_SIGNATURES_IN_ONNX:
                short = {"encode", "decode", "sample"}
                short |= {"score"} if name == "bernoulli" else set()
                names = [n for n in names if n in short]
            kwargs = {"names": names, "num_samples": 3, **options}
            self.models[name].export(path, format, **kwargs)
            inspection.check_graphs(path, inspection.read_card(path))
        return path

    def expected(self, name, path):
        """Returns (feeds, outputs) of the model for the signatures of an artefact."""
        card = verify.read_card(path)
        long_seeds = card["format"] == "tf_saved_model"  # 64 bits
        key = name, long_seeds, *card["signatures"]
        if key not in self.references:
            model, x = self.models[name], self.x[name]
            self.references[key] = verify.expected(model, card, x, SEEDS)
        feeds, outputs = self.references[key]
        dtypes = {
            f"{signature}/{key}": tensor["dtype"]
            for signature, fields in card["signatures"].items()
            for key, tensor in fields["inputs"].items()
        }
        return {key: feeds[key].astype(dtype) for key, dtype in dtypes.items()}, outputs

    def results(self, format, names, script=verify.SCRIPT, add_to_job=None, only=None):
        """Returns {name: (expected, actual)} of models, run in one process of a runtime."""
        key = (format, script, names)
        if key not in self.actual:
            jobs, expected = [], []
            for name in names:
                path = self.path(name, format)
                feeds, outputs = self.expected(name, path)
                if only:
                    feeds = {k: v for k, v in feeds.items() if k.split("/")[0] in only}
                    outputs = {k: v for k, v in outputs.items() if k.split("/")[0] in only}
                jobs.append({"runtime": format, "artefact": path, "feeds": feeds})
                if add_to_job:
                    jobs[-1] |= add_to_job(path, feeds)
                expected.append(outputs)
            actual = [results for results, _ in verify.run(jobs, script=script)]
            self.actual[key] = dict(
                zip(names, zip(expected, actual, strict=True), strict=True)
            )
        return self.actual[key]


def assert_same(expected, actual):
    """Asserts equality within 1e-5, without `verify.compare`; a few pixels may differ."""
    assert expected.keys() == actual.keys()
    for key, reference in expected.items():
        value = actual[key]
        assert (value.shape, value.dtype) == (reference.shape, reference.dtype), key
        assert np.isfinite(reference).all() and np.isfinite(value).all(), key
        if key == "sample/x" and set(np.unique(reference)) <= {0.0, 1.0}:
            assert np.mean(reference != value) <= 1e-5, key
        else:
            # Nats are sums of many terms, whose rounding error grows with their size.
            np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-5, err_msg=key)
