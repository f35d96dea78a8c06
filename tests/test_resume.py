"""fit(4) is fit(2), save, load in another process, fit(2): bit for bit."""

import json

import keras
import numpy as np
import pytest

from tests import resume


@pytest.fixture(scope="module")
def folder(tmp_path_factory, run_module):
    folder = tmp_path_factory.mktemp("resume")
    for kind, (build, data) in resume.KINDS.items():
        keras.utils.set_random_seed(4)
        model = build()
        model.compile(keras.optimizers.Adam(0.01), jit_compile=kind != "conv")
        resume.train(model, data(), 2)
        model.save(folder / f"{kind}.keras")
    run_module("tests.resume", folder)
    return folder


@pytest.mark.parametrize("kind", resume.KINDS)
def test_a_resumed_run_is_the_uninterrupted_one(folder, kind):
    build, data = resume.KINDS[kind]
    keras.utils.set_random_seed(4)
    model = build()
    model.compile(keras.optimizers.Adam(0.01), jit_compile=kind != "conv")
    history = resume.train(model, data(), 4)
    resumed = np.load(folder / f"{kind}.npz")
    variables = [*model.variables, *model.optimizer.variables]
    assert len(variables) == len(resumed.files)
    for variable, name in zip(variables, resumed.files, strict=True):
        np.testing.assert_array_equal(variable, resumed[name], err_msg=variable.path)
    rest = json.loads((folder / f"{kind}.json").read_text())
    assert {key: values[2:] for key, values in history.items()} == rest
