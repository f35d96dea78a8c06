"""Findings about a run in words: each appears only if its condition holds."""

import numpy as np
import pytest

from keras_vae.datasets import Dataset, Scaler
from keras_vae.runs.options import Options
from keras_vae.runs.report import caveats, findings, is_bound

GOOD = {
    "reconstruction_error": 1.1,
    "train_reconstruction_error": 1.0,
    "relative_error": 0.4,
    "latent_units": 16.0,
    "active_units": 9.0,
}
EPOCHS = 40
CONVERGED = {"val_elbo": list(-np.exp(-np.arange(EPOCHS) / 4.0))}
RISING = {"val_elbo": list(np.arange(EPOCHS) * 1.0)}


def found(numbers=(), metrics=CONVERGED, **options):
    settings = {"epochs": EPOCHS, "likelihood": "bernoulli", "beta_schedule": "constant"}
    options = Options("x", **(settings | options))
    return [str(finding) for finding in findings(GOOD | dict(numbers), metrics, options)]


def test_a_good_run_has_no_findings():
    assert found() == []
    assert found({"active_units": 4}) == []  # a quarter
    assert found({"latent_units": 1, "active_units": 1}) == []
    assert found({"latent_units": 2, "active_units": 2}) == []


@pytest.mark.parametrize(
    ("numbers", "metrics", "words"),
    [
        ({"active_units": 3}, CONVERGED, ["3 of 16 latent units are", "--latent 3"]),
        ({"active_units": 1, "latent_units": 3}, CONVERGED, ["1 of 3 latent units is"]),
        ({"active_units": 0}, CONVERGED, ["none of the 16", "Do not use"]),
        ({"active_units": 0, "latent_units": 1}, CONVERGED, ["the only latent unit"]),
        ({"relative_error": 1.0}, CONVERGED, ["no better than the mean", "1.00"]),
        ({"reconstruction_error": 2.0}, CONVERGED, ["overfits", "2.0 times"]),
        ({}, RISING, ["ended too early", "4 nats", "--epochs 80"]),
    ],
)
def test_a_problem_is_reported(numbers, metrics, words):
    (text,) = found(numbers, metrics)
    for word in words:
        assert word in text


def test_measures_that_are_taken_already_are_not_suggested():
    (text,) = found({"active_units": 2})
    for measure in ("--free-bits 0.1", "--beta 0.5", "--beta-schedule linear"):
        assert measure in text
    (text,) = found({"active_units": 2}, free_bits=0.5, beta=0.2, beta_schedule="linear")
    for measure in ("--free-bits", "--beta"):
        assert measure not in text


def test_training_that_stopped_early_or_fell_has_not_ended_too_early():
    assert found(metrics=RISING, epochs=2 * EPOCHS) == []
    falling = RISING["val_elbo"][:-1] + [0.0]
    assert found(metrics={"val_elbo": falling}) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_do_not_end_in_an_error(value):
    numbers = dict.fromkeys(GOOD, value) | {"active_units": 0, "latent_units": 4}
    (finding,) = found(numbers)
    assert "diverged" in finding and "below 0.001" in finding
    found(metrics={"val_elbo": [value] * EPOCHS})


def test_few_effective_samples_make_the_nll_a_bound():
    def texts(size):
        numbers = {"test_nll": 1.0, "effective_sample_size": size}
        return caveats(numbers, Dataset("x", None, None), Options("x"))

    assert texts(10.0) == [] and not is_bound({"effective_sample_size": 10.0})
    assert is_bound({"effective_sample_size": 9.9})
    assert "upper bound" in texts(9.9)[0]
    assert not is_bound({})  # a model without NLL


def test_the_nll_of_a_table_is_also_in_its_units():
    x = np.zeros((4, 2), "float32")
    scaler = Scaler(("a", "b"), np.zeros(2), np.array([np.e, np.e**2]))
    data = Dataset("x", x, x, scaler=scaler)
    (text,) = caveats({"test_nll": -1.0}, data, Options("x"))
    assert "NLL is 2.00 nats" in text  # log p(x) = log p(z) - log(scale), summed


def test_bits_per_dimension_of_whole_numbers_have_a_caveat():
    def count(x, likelihood="normal"):
        data = Dataset("x", x, x, value_range=(0, 255))
        options = Options("x", likelihood=likelihood)
        return len(caveats({"bits_per_dimension": 3.0}, data, options))

    x = np.arange(256).reshape(32, 8)
    assert count(x.astype("uint8")) == count((x / 255).astype("float32")) == 1
    assert count(np.random.default_rng(0).random((32, 8))) == 0
    assert count(x.astype("uint8"), "bernoulli") == 0
