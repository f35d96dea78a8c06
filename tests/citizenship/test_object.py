"""The model as an object: its parts, copies, seeds and weights."""

import copy
import io
import json
import pickle

import keras
import numpy as np
import pytest

import keras_vae as kv
from tests.citizenship.common import (
    EPS,
    WIDTH,
    X,
    assert_equivalent,
    assert_same,
    compiled,
    dense,
    evaluate,
    fit,
    make,
    state,
    trainable_weights,
)


def test_the_summary_counts_the_weights_of_each_part():
    model, out = make(), io.StringIO()
    model.summary(print_fn=lambda line: out.write(line + "\n"))
    names = ("encoder", "posterior", "prior", "decoder", "likelihood")
    parts = [getattr(model, name) for name in names]
    # Kernels and biases; the likelihood has its scale, too.
    counts = (8 * 4 + 4, 2 * (4 * 2 + 2), 0, 2 * 4 + 4, 4 * 8 + 8 + 1)
    for name, part, count in zip(names, parts, counts, strict=True):
        (line,) = [line for line in out.getvalue().splitlines() if f" {name} " in line]
        assert line.rstrip("│ ").endswith(f" {count}")
        assert part.count_params() == count
    assert f"Trainable params: {sum(counts)} " in out.getvalue()
    counters = 3  # step, epochs_begun, skipped_in_a_row
    assert model.count_params() == sum(counts) + counters
    assert sum(np.size(w) for w in model.trainable_weights) == sum(counts)
    assert list(model.layers) == list(parts)


def test_get_layer_finds_a_part_by_name_and_by_index():
    model = make(encoder=keras.layers.Dense(4, name="my_encoder"))
    assert model.get_layer("my_encoder") is model.encoder
    assert model.get_layer(index=1) is model.posterior


def test_paths_of_weights_are_unique():
    paths = [w.path for w in make(keras.Sequential([dense(), dense()])).weights]
    assert len(set(paths)) == len(paths)


def test_fit_and_evaluate_need_compile():
    for method in (make().fit, make().evaluate):
        with pytest.raises(ValueError, match=r"compile\(\)"):
            method(X, verbose=0)


def as_json(model):
    return json.loads(json.dumps(model.get_config()))  # tuples become lists


@pytest.mark.parametrize(
    "copy_model",
    [
        keras.models.clone_model,
        lambda model: type(model).from_config(model.get_config()),
        lambda model: keras.models.model_from_json(model.to_json()),
    ],
    ids=["clone_model", "from_config", "to_json"],
)
def test_a_copy_from_the_config_has_new_weights(copy_model):
    model = compiled(model=make(seed=5, name="mine"))
    other = copy_model(model)
    assert type(other) is kv.VAE and as_json(other) == as_json(model)
    assert other.name == "mine" and other.seed == 5
    pairs = list(zip(trainable_weights(model), trainable_weights(other), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    assert any((a != b).any() for a, b in pairs)
    before = trainable_weights(model)
    if not other.compiled:  # model_from_json compiles
        compiled(model=other)
    first = evaluate(other)[0]
    fit(other)
    assert evaluate(other)[0] < first
    assert_same(trainable_weights(model), before)


@pytest.mark.parametrize(
    "copy_model",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
def test_a_deep_copy_trains_the_same(copy_model):
    model = compiled("adam")
    fit(model)
    other = copy_model(model)
    assert_equivalent(other, model)
    assert other.encoder is not model.encoder


def test_a_vae_can_be_a_layer_of_another_model():
    x, model = keras.Input((WIDTH,)), make()
    outer = keras.Model(x, model(x))
    # Another number of rows may use another kernel: sums of up to 8 rounded terms.
    tolerance = {"rtol": 0, "atol": 2 * WIDTH * EPS}
    np.testing.assert_allclose(outer.predict(X, verbose=0), model(X), **tolerance)
    assert len(outer.trainable_weights) == len(model.trainable_weights)


def test_the_global_seed_makes_a_model_reproducible():
    def numbers():
        keras.utils.set_random_seed(4)
        model = compiled(model=make(dense(), dense(), seed=None))
        return [model.seed, fit(model), *state(model)]

    first, second = numbers(), numbers()
    assert first[:2] == second[:2]
    assert_same(first[2:], second[2:])


def test_weights_can_be_set():
    model, other = compiled(), compiled(model=make(seed=3))
    fit(model)
    other.set_weights(model.get_weights())
    assert_same(other.get_weights(), model.get_weights())
    np.testing.assert_array_equal(other(X), model(X))
    with pytest.raises(ValueError, match="weight"):
        other.set_weights(model.get_weights()[:-1])


def test_a_frozen_encoder_keeps_its_weights():
    model = compiled()
    fit(model)
    frozen, free = (np.array(v) for v in (model.encoder.kernel, model.decoder.kernel))
    model.encoder.trainable = False
    compiled(model=model)
    fit(model)
    np.testing.assert_array_equal(model.encoder.kernel, frozen)
    assert (np.array(model.decoder.kernel) != free).all()
    model.encoder.trainable = True
    compiled(model=model)
    fit(model)
    assert (np.array(model.encoder.kernel) != frozen).all()
