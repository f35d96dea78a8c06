"""The tolerances of `verify`: a model in another arithmetic agrees, other models differ."""

import keras
import numpy as np
import pytest

import keras_vae as kv
from keras_vae.exporting import graphs, verify

ROWS = 100  # one call of each signature


def model_of(name):
    """Returns (model, data): large and small units, nats of 784 dimensions, pixels."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    dims = 784 if name in ("784", "pixels") else 6
    head = kv.distributions.IndependentNormal((dims,))
    x = rng.normal(size=(40, dims))
    if name == "offset":
        bias = keras.initializers.Constant(1e4)
        head = kv.distributions.IndependentNormal((6,), bias_initializer=bias)
        x += 1e4
    elif name == "micro":
        head = kv.distributions.IndependentNormal((6,), scale=1e-6)
        x *= 1e-6
    elif name == "pixels":
        head = kv.distributions.IndependentBernoulli((dims,))
        x = x > 0.5
    model = kv.VAE(kv.nets.MLP([32]), kv.nets.MLP([32]), head, latent_dim=3, seed=0)
    if name == "micro":  # reconstructs the units of x
        weights = model.likelihood.trainable_weights
        weights[0].assign(1e-6 * weights[0])
    return model, x.astype(np.float32)


def reordered(model):
    """Returns the same model with its hidden units in another order.

    Its sums have another order, as in another runtime.
    """
    other = type(model).from_config(model.get_config())
    other.set_weights(model.get_weights())
    order = np.random.default_rng(1).permutation(32)
    for network, head in (
        (other.encoder, other.posterior),
        (other.decoder, other.likelihood),
    ):
        kernel, bias = network.weights
        kernel.assign(kernel.numpy()[:, order]), bias.assign(bias.numpy()[order])
        for weight in head.weights:
            if weight.shape[:1] == (32,):
                weight.assign(weight.numpy()[order])
    return other


def compare(monkeypatch, model, other, x, seed=0):
    """Calls `verify` with an artefact that returns the outputs of `other`."""
    parts = model.signatures(4)
    dtypes = {"int": "int32"}
    inputs = {
        name: {
            key: {"dtype": dtypes.get(dtype, dtype), "shape": [None, *shape]}
            for key, (dtype, shape) in part.inputs.items()
        }
        for name, part in parts.items()
    }
    card = {"format": "litert", "num_samples": 4, "signatures": {
        name: {"inputs": tensors} for name, tensors in inputs.items()
    }}  # fmt: skip

    def run(jobs, timeout):
        feeds = {
            key: value + seed if key.endswith("/seed") else value
            for key, value in jobs[0]["feeds"].items()
        }
        return [(verify._outputs(other, card, feeds), {})]

    monkeypatch.setattr(verify, "read_card", lambda path: card)
    monkeypatch.setattr(verify, "check_graphs", lambda *_: graphs.Graphs(set(), set()))
    monkeypatch.setattr(verify, "run", run)
    before = model.get_weights()
    differences = verify.verify(model, "m.tflite", x, ROWS)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    return {(d.signature, d.output): d for d in differences}


WRONG = {
    # Outputs that must differ: with a relative change of the weights of 1e-3, they change
    # by more than their rounding errors.
    "offset": {"decode/mean", "sample/x", "reconstruct/mean", "score/log_prob"},
    "micro": {"decode/mean", "sample/mean", "reconstruct/mean"},
    "784": {"encode/mean", "decode/mean", "sample/x", "score/elbo"},
    "pixels": {"encode/mean", "decode/logits", "sample/mean"},
}


@pytest.mark.parametrize("name", WRONG)
def test_rounding_errors_agree_and_changed_weights_differ(monkeypatch, name):
    model, x = model_of(name)
    other = reordered(model)
    same = compare(monkeypatch, model, other, x)
    assert all(difference.agrees for difference in same.values()), same
    assert any(difference.typical > 0 for difference in same.values())
    rng = np.random.default_rng(2)
    for weight in other.trainable_weights:
        weight.assign(weight * (1 + 1e-3 * rng.normal(size=weight.shape)))
    changed = compare(monkeypatch, model, other, x)
    wrong = {"/".join(key) for key, d in changed.items() if not d.agrees}
    assert wrong >= WRONG[name]
    assert changed["sample", "z"].agrees  # the prior has no weights


@pytest.mark.parametrize("name", ["784", "pixels"])
def test_other_seeds_differ(monkeypatch, name):
    model, x = model_of(name)
    differences = compare(monkeypatch, model, reordered(model), x, seed=1)
    wrong = {"/".join(key) for key, d in differences.items() if not d.agrees}
    assert {"encode/z", "sample/z", "sample/x", "sample/mean"} <= wrong
    assert not {"encode/mean", "decode/mean", "reconstruct/mean"} & wrong


def arrays(count=10**6):
    rng = np.random.default_rng(0)
    mean = rng.uniform(0.05, 0.95, count).astype(np.float32)
    uniform = rng.integers(0, 2**23, count) * 2.0**-23
    return mean, uniform, (uniform < mean).astype(np.float32)


def test_pixels_may_differ_where_a_uniform_number_is_at_the_probability():
    mean, uniform, x = arrays()
    outputs = {"sample/x": x, "sample/mean": mean}
    near = (mean + np.float32(2e-6) * np.sign(uniform - 0.5)).astype(np.float32)
    results = {"sample/x": (uniform < near).astype(np.float32), "sample/mean": near}
    flips = np.sum(results["sample/x"] != x)
    assert flips > 0  # about two of a million
    assert all(d.agrees for d in verify.compare(outputs, outputs, results))
    results["sample/x"] = np.where(np.arange(x.size) < 50, 1 - x, results["sample/x"])
    draws, means = verify.compare(outputs, outputs, results)
    assert not draws.agrees and means.agrees


def test_one_wrong_element_of_a_million_differs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=10**6).astype(np.float32)
    wrong = x.copy()
    wrong[5] += 0.005
    (difference,) = verify.compare(
        {"decode/mean": x}, {"decode/mean": x}, {"decode/mean": wrong}
    )
    assert not difference.agrees and difference.typical < difference.tolerance


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_differ(value):
    x = {"score/elbo": np.array([-3.0, value], np.float32)}
    assert [d.agrees for d in verify.compare(x, x, x)] == [False]


def test_outputs_that_one_side_lacks_differ_even_if_quantised():
    x = np.zeros((2, 3), np.float32)
    outputs = {"decode/mean": x, "encode/z": x, "score/elbo": x}
    outputs |= {"sample/x": x, "sample/mean": x}
    results = {"decode/mean": x, "decode/more": x, "score/elbo": x.astype(np.float64)}
    results |= {"sample/x": x}
    differences = verify.compare(outputs, outputs, results, quantized=True)
    verdicts = {f"{d.signature}/{d.output}": d.agrees for d in differences}
    wrong = {"encode/z", "score/elbo", "decode/more", "sample/mean"}
    quantised = {"decode/mean", "sample/x"}
    assert verdicts == dict.fromkeys(quantised) | dict.fromkeys(wrong, False)
