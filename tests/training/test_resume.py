"""fit(4) equals fit(2), save, load in another process, fit(2), bit for bit."""

import json

import keras
import numpy as np
import pytest

from tests.training import resume


def values(model):
    """Returns pairs (variable, its current value)."""
    return [(v, v.numpy()) for v in (*model.variables, *model.optimizer.variables)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, run_module):
    """(folder of the resumed results, {kind: (history, pairs) of four epochs}).

    Each model is trained twice from the same start, because tracing its step takes longer
    than training it.
    """
    folder, ends = tmp_path_factory.mktemp("resume"), {}
    for kind, (build, data) in resume.KINDS.items():
        keras.utils.set_random_seed(4)
        model = build()
        model.compile(keras.optimizers.Adam(0.01), jit_compile=kind == "mlp")
        model.optimizer.build(model.trainable_variables)
        start = values(model)
        ends[kind] = resume.train(model, data(), 4), values(model)
        for variable, value in start:
            variable.assign(value)
        resume.train(model, data(), 2)
        model.save(folder / f"{kind}.keras")
    run_module("tests.training.resume", folder)
    return folder, ends


@pytest.mark.parametrize("kind", resume.KINDS)
def test_a_resumed_fit_equals_the_uninterrupted_one(runs, kind):
    folder, ends = runs
    history, end = ends[kind]
    with np.load(folder / f"{kind}.npz") as resumed:
        assert len(end) == len(resumed.files)
        for (variable, value), name in zip(end, resumed.files, strict=True):
            np.testing.assert_array_equal(value, resumed[name], err_msg=variable.path)
    rest = json.loads((folder / f"{kind}.json").read_text())
    assert {key: values[2:] for key, values in history.items()} == rest
