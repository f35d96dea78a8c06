"""Values that `fit` and `evaluate` report, and the rows used for validation."""

import keras
import numpy as np
import pytest

import keras_vae as kv
from tests.citizenship.common import (
    BATCH,
    EPS,
    OTHER,
    ROWS,
    TERMS,
    Batches,
    W,
    X,
    Y,
    assert_same,
    batches,
    compiled,
    evaluate,
    fit,
    state,
)


def test_the_history_has_all_terms():
    history = fit(compiled(run_eagerly=False), epochs=2, validation_data=OTHER)
    keys = {*TERMS, *(f"val_{name}" for name in TERMS)}
    assert set(history) == keys
    assert all(len(values) == 2 for values in history.values())


@pytest.mark.parametrize("eager", [True, False])
def test_skipped_steps_are_in_the_history_from_the_first_one_on(eager, tmp_path):
    model = compiled(run_eagerly=eager)
    skip = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: model.trainable_weights[0].assign(
            np.full(model.trainable_weights[0].shape, np.nan if epoch == 1 else 0.1)
        )
    )
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = fit(model, epochs=3, callbacks=[skip, logger])
    assert history["skipped_steps"] == [0.0, 2.0, 0.0]
    assert all(len(values) == 3 for values in history.values())
    lines = (tmp_path / "log.csv").read_text().splitlines()  # the columns of epoch 0
    assert len(lines) == 4 and "skipped_steps" not in lines[0]


def test_the_elbo_is_minus_reconstruction_minus_kl():
    model = compiled(objective=kv.objectives.ELBO(beta=3.0))
    history = fit(model, y=Y, sample_weight=W, validation_data=(X, Y, W))
    # Means of 24 rounded terms.
    tolerance = {"rtol": ROWS * EPS}
    for prefix in ("", "val_"):
        elbo, reconstruction, kl = (np.array(history[prefix + n]) for n in TERMS[1:])
        np.testing.assert_allclose(elbo, -(reconstruction + kl), **tolerance)
    loss, elbo, reconstruction, kl = evaluate(model)
    np.testing.assert_allclose(elbo, -(reconstruction + kl), **tolerance)
    np.testing.assert_allclose(loss, reconstruction + 3 * kl, **tolerance)


def test_evaluate_returns_a_list_of_the_terms_or_a_dict(shared):
    values = evaluate(shared)
    assert evaluate(shared, return_dict=True) == dict(zip(TERMS, values, strict=True))
    loss, elbo, reconstruction, kl = values
    assert loss == -elbo and reconstruction > 0 and kl > 0
    assert shared.metrics_names[: len(TERMS)] == TERMS


@pytest.mark.parametrize("form", ["array", "pair", "triple", "dataset", "PyDataset"])
def test_validation_equals_evaluate_for_every_form_of_data(form):
    data = {
        "array": X,
        "pair": (X, Y),
        "triple": (X, Y, W),
        "dataset": batches(X),
        "PyDataset": Batches(X),
    }[form]
    # With a schedule: its value depends on the training step.
    beta = kv.schedules.Linear(0.0, 1.0, steps=10)
    model = compiled(objective=kv.objectives.ELBO(beta))
    history = fit(model, OTHER, validation_data=data)
    expected = evaluate(model, sample_weight=W if form == "triple" else None)
    assert [history[f"val_{name}"][-1] for name in TERMS] == expected


def test_validation_split_holds_out_the_last_rows():
    split, expected = compiled(), compiled()
    history = fit(split, X, y=Y, sample_weight=W, validation_split=0.25)
    start = ROWS * 3 // 4
    validation = (X[start:], Y[start:], W[start:])
    kwargs = {"y": Y[:start], "sample_weight": W[:start], "validation_data": validation}
    assert fit(expected, X[:start], **kwargs) == history
    assert_same(state(split), state(expected))


class CountTestBatches(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.count = 0

    def on_test_batch_end(self, batch, logs=None):
        self.count += 1


@pytest.mark.parametrize(
    "kwargs, expected",
    [
        ({}, 2),
        ({"validation_batch_size": 8}, 3),
        ({"validation_batch_size": 8, "validation_steps": 2}, 2),
        ({"validation_data": batches(X, size=8), "validation_steps": 2}, 2),
    ],
)
def test_validation_runs_the_given_batches(kwargs, expected):
    counter = CountTestBatches()
    kwargs = {"validation_data": X, **kwargs}
    fit(compiled(), X[:BATCH], callbacks=counter, **kwargs)
    assert counter.count == expected


@pytest.mark.parametrize("freq", [2, [2, 4]])
def test_validation_runs_at_the_given_frequency(freq):
    model = compiled()
    history = fit(model, X[:4], epochs=4, validation_data=X[:4], validation_freq=freq)
    assert len(history["loss"]) == 4 and len(history["val_loss"]) == 2


def test_validation_does_not_change_training():
    with_validation, without = compiled(), compiled()
    history = fit(with_validation, epochs=2, validation_data=X)
    expected = fit(without, epochs=2)
    assert {name: history[name] for name in expected} == expected
    assert_same(state(with_validation), state(without))
