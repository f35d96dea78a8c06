"""Steps, epochs, the order of the rows, and single batches."""

import numpy as np
import pytest

from tests.citizenship.common import (
    BATCH,
    EPS,
    ROWS,
    TERMS,
    Rows,
    W,
    X,
    Y,
    assert_close,
    assert_same,
    batches,
    compiled,
    evaluate,
    fit,
    make,
    state,
    trainable_weights,
)


def test_epochs_are_counted_from_initial_epoch():
    model = compiled()
    history = model.fit(X, initial_epoch=3, epochs=5, verbose=0, batch_size=BATCH)
    assert history.epoch == [3, 4]
    assert int(model.step) == 4 and int(model.epochs_begun) == 2


def test_epochs_with_steps_continue_through_the_data():
    model = compiled(model=make(cls=Rows))  # 24 rows: a pass is 3 batches
    fit(model, epochs=3, batch_size=8, steps_per_epoch=2)
    assert [len(rows) for rows in model.recorded_rows] == [8] * 6
    first, second = sum(model.recorded_rows[:3], []), sum(model.recorded_rows[3:], [])
    assert sorted(first) == sorted(second) == sorted(set(first))
    assert first != second
    # Epochs of another length split the same order of rows.
    full = compiled(model=make(cls=Rows))
    fit(full, epochs=2, batch_size=8)
    assert full.recorded_rows == model.recorded_rows


def test_steps_without_a_batch_size_split_the_rows_as_keras_does():
    model = compiled(model=make(cls=Rows))
    model.fit(X, steps_per_epoch=3, verbose=0)
    assert [len(rows) for rows in model.recorded_rows] == [8, 8, 8]


def test_an_epoch_with_more_steps_than_batches_starts_the_next_pass():
    model = compiled(model=make(cls=Rows))
    fit(model, epochs=1, batch_size=8, steps_per_epoch=5)
    assert len(model.recorded_rows) == 5 and int(model.epochs_begun) == 1
    with pytest.warns(UserWarning, match="ran out of data"):  # as Keras does
        evaluate(model, X, steps=5)


def test_steps_end_an_epoch_of_a_repeated_dataset(in_order):
    model = compiled()
    fit(model, batches(X).repeat(), epochs=2, steps_per_epoch=2)
    assert_same(state(model), state(in_order))
    assert evaluate(model, batches(X).repeat(), steps=2) == evaluate(in_order)


@pytest.fixture(scope="module")
def graph():
    """A model after two epochs of three batches in graph mode, and its history."""
    model = compiled("adam", run_eagerly=False)
    return model, fit(model, epochs=2, batch_size=10)


# An epoch has three batches: fewer steps, the same number, and more.
@pytest.mark.parametrize("steps", [2, pytest.param(3, marks=pytest.mark.slow), 100])
def test_steps_per_execution_does_not_change_the_results(graph, steps):
    expected, history = graph
    model = compiled("adam", steps_per_execution=steps, run_eagerly=False)
    assert fit(model, epochs=2, batch_size=10) == history
    assert_same(state(model), state(expected))
    assert evaluate(model, batch_size=10) == evaluate(expected, batch_size=10)
    predicted = model.predict(X, batch_size=10, verbose=0)
    assert_same(predicted, expected.predict(X, batch_size=10, verbose=0))


def test_two_fits_equal_one_longer_fit(graph):
    model, (expected, history) = compiled("adam", run_eagerly=False), graph
    first, second = (fit(model, batch_size=10) for _ in range(2))
    assert {name: first[name] + second[name] for name in history} == history
    assert_same(state(model), state(expected))


@pytest.mark.parametrize(
    "options",
    [{"run_eagerly": False}, {"run_eagerly": False, "jit_compile": True}],
    ids=["graph", "jit_compile"],
)
def test_graphs_and_xla_train_as_eager_mode_does(options):
    # SGD, because Adam makes full steps from gradients that are only rounding errors.
    model, expected = compiled("sgd", **options), compiled("sgd")
    weights = trainable_weights(model)
    size = ROWS // 2  # one size, because XLA compiles for each size
    fit(model, epochs=2, batch_size=size)
    fit(expected, epochs=2, batch_size=size)
    moved = max(
        np.abs(a - b).max() for a, b in zip(trainable_weights(model), weights, strict=True)
    )
    # XLA and Grappler fuse and reorder sums, of at most 8 * 24 rounded terms of about 1,
    # at a rate of 0.01, in four steps.
    tolerance = {"rtol": 0, "atol": 4 * 0.01 * 8 * ROWS * EPS}
    assert moved > 1000 * tolerance["atol"]
    assert_close(trainable_weights(model), trainable_weights(expected), **tolerance)
    values = [evaluate(vae, batch_size=size) for vae in (model, expected)]
    np.testing.assert_allclose(*values, rtol=8 * ROWS * EPS)


def test_train_on_batch_equals_a_fit_on_one_batch():
    model, expected = compiled(), compiled()
    logs = model.train_on_batch(X, return_dict=True)
    history = fit(expected, batch_size=ROWS, shuffle=False)
    assert logs == {name: history[name][0] for name in TERMS}
    assert_same(state(model)[2:], state(expected)[2:])  # the count of epochs differs
    values = model.train_on_batch(X, Y, W)
    history = fit(expected, y=Y, sample_weight=W, batch_size=ROWS, shuffle=False)
    assert values == [*(history[name][0] for name in TERMS), 0.0]  # no skipped step
    assert_same(state(model)[2:], state(expected)[2:])


@pytest.mark.parametrize("first", ["evaluate", "test_on_batch"])
def test_test_on_batch_equals_evaluate_on_one_batch(first):
    model = compiled(run_eagerly=False)
    calls = {
        "evaluate": lambda: evaluate(model, batch_size=ROWS),
        "test_on_batch": lambda: model.test_on_batch(X),
    }
    values = [calls[name]() for name in sorted(calls, key=lambda name: name != first)]
    assert values[0] == values[1] and len(values[0]) == len(TERMS)


def orders(model, epochs, **kwargs):
    """Returns the order of the rows in each of the next epochs."""
    model.recorded_rows.clear()
    fit(model, epochs=epochs, **kwargs)
    flat = sum(model.recorded_rows, [])
    return [flat[i : i + ROWS] for i in range(0, len(flat), ROWS)]


def test_seed_and_epoch_determine_the_order_of_the_rows():
    def rows(seed):
        return compiled(model=make(cls=Rows, seed=seed))

    model = rows(5)
    epochs = orders(model, epochs=3)
    assert [sorted(order) for order in epochs] == [list(range(ROWS))] * 3
    epochs.append(list(range(ROWS)))
    assert len(set(map(tuple, epochs))) == 4  # all differ, also from the array
    assert orders(rows(5), epochs=3, validation_data=X[:4]) == epochs[:3]
    assert orders(rows(6), epochs=1)[0] not in epochs
    # A second fit continues with the next order.
    fourth = orders(model, epochs=1)
    assert fourth[0] not in epochs
    assert orders(rows(5), epochs=4)[3:] == fourth


def test_shuffle_false_keeps_the_order():
    model = compiled(model=make(cls=Rows))
    assert orders(model, epochs=2, shuffle=False) == [list(range(ROWS))] * 2
