"""The models of the zoo and their artefacts, which all tests of a format share."""

import numpy as np
import pytest

from keras_vae.exporting import signatures, verify
from tests.zoo import ZOO

# The objective is no part of what is exported: rows that only differ in it are one model.
MODELS = [row for row in ZOO if row.objective is None or row.name == "structured"]
IN_FULL = ("bernoulli", "per_element_scale", "autoencoder")  # all signatures in ONNX
SOME = ("conv", "learned_prior", *IN_FULL)  # for further ways to run a SavedModel
SEEDS = 200  # two calls of each signature

# Rows that only the slow tests export, and the faster row that has the same operators.
COVERED = {
    "fixed_scale": "shared_scale",
    "shared_posterior": "shared_scale",
    "soft": "conv",
}
# In ONNX a signature takes three seconds.
COVERED_IN_ONNX = {
    **COVERED,
    "shared_scale": "per_element_scale",
    "dropout": "per_element_scale",
    "label": "conditions",
    "structured": "conditions",
    "semi_supervised": "conditions",
}


def parametrize_rows(covered):
    """Makes a test of each row, slow for the rows that another row covers."""
    params = [
        pytest.param(row.name, marks=[pytest.mark.slow] if row.name in covered else [])
        for row in MODELS
    ]
    return pytest.mark.parametrize("name", params)


def run_together(name, covered):
    """Lists the rows that share a process with this one: all fast or all slow ones."""
    rows = [row.name for row in MODELS]
    return tuple(row for row in rows if (row in covered) == (name in covered))


some_rows = pytest.mark.parametrize("name", SOME)


class Exports:
    """The models and their artefacts, each exported when first asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.models = {row.name: row.make() for row in MODELS}
        self.x = {row.name: row.x for row in MODELS}
        rng = np.random.default_rng(0)
        for model in self.models.values():  # away from the start, which is special
            for weight in model.trainable_variables:
                weight.assign_add(0.1 * rng.normal(size=weight.shape).astype(np.float32))
        self.done, self.wanted = {}, {}

    def names(self, name):
        """The signatures that can be exported."""
        model = self.models[name]
        return [n for n in signatures.build_signatures(model)
                if not signatures.parts_without_formula(model, n)]  # fmt: skip

    def path(self, name, format, **options):
        suffix = ".tflite" if format == "litert" else ""
        path = self.folder / f"{name}-{format}{suffix}"
        if not path.exists():
            names = self.names(name)
            if format == "onnx" and name not in IN_FULL:  # three seconds a file
                names = [n for n in names if n in ("encode", "decode", "sample")]
            kwargs = {"names": names, "num_samples": 3, **options}
            self.models[name].export(path, format, **kwargs)
        return path

    def expected(self, name, path):
        """(feeds, outputs) of the model for the signatures of an artefact."""
        card = verify.read_card(path)
        long_seeds = card["format"] == "tf_saved_model"  # of 64 bits
        key = name, long_seeds, *card["signatures"]
        if key not in self.wanted:
            model, x = self.models[name], self.x[name]
            self.wanted[key] = verify.expected(model, card, x, SEEDS)
        feeds, outputs = self.wanted[key]
        dtypes = {
            f"{signature}/{key}": tensor["dtype"]
            for signature, fields in card["signatures"].items()
            for key, tensor in fields["inputs"].items()
        }
        return {key: feeds[key].astype(dtype) for key, dtype in dtypes.items()}, outputs

    def results(self, format, names, script=verify.SCRIPT, more=None, only=None):
        """{name: (wanted, got)} of some models in one process of a runtime."""
        key = (format, script, names)
        if key not in self.done:
            jobs, wanted = [], []
            for name in names:
                path = self.path(name, format)
                feeds, outputs = self.expected(name, path)
                if only:
                    feeds = {k: v for k, v in feeds.items() if k.split("/")[0] in only}
                    outputs = {k: v for k, v in outputs.items() if k.split("/")[0] in only}
                jobs.append({"runtime": format, "artefact": path, "feeds": feeds})
                if more:
                    jobs[-1] |= more(path, feeds)
                wanted.append(outputs)
            got = [results for results, _ in verify.run(jobs, script=script)]
            self.done[key] = dict(zip(names, zip(wanted, got, strict=True), strict=True))
        return self.done[key]


def assert_same(wanted, got):
    """Not by `verify.compare`: parameters, z and nats within 1e-5, pixels alike."""
    assert wanted.keys() == got.keys()
    for key, one in wanted.items():
        other = got[key]
        assert (other.shape, other.dtype) == (one.shape, one.dtype), key
        assert np.isfinite(one).all() and np.isfinite(other).all(), key
        if key == "sample/x" and set(np.unique(one)) <= {0.0, 1.0}:
            assert np.mean(one != other) <= 1e-5, key
        else:
            # Nats are sums of many terms, and round with their size.
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5, err_msg=key)
