"""Steps, epochs, the order of the rows, single batches."""

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
    trained,
)


def test_initial_epoch_is_where_counting_begins():
    model = compiled()
    history = model.fit(X, initial_epoch=3, epochs=5, verbose=0, batch_size=BATCH)
    assert history.epoch == [3, 4]
    assert int(model.step) == 4 and int(model.epochs_begun) == 2


def test_epochs_of_steps_go_on_through_the_data():
    model = compiled(model=make(cls=Rows))  # 24 rows: a pass is 3 batches
    fit(model, epochs=3, batch_size=8, steps_per_epoch=2)
    assert [len(rows) for rows in model.seen] == [8] * 6
    first, second = sum(model.seen[:3], []), sum(model.seen[3:], [])
    assert sorted(first) == sorted(second) == sorted(set(first))
    assert first != second
    # The epochs of other steps are other parts of the same order, as if never cut.
    whole = compiled(model=make(cls=Rows))
    fit(whole, epochs=2, batch_size=8)
    assert whole.seen == model.seen


def test_steps_without_a_batch_size_split_the_rows_as_keras_does():
    model = compiled(model=make(cls=Rows))
    model.fit(X, steps_per_epoch=3, verbose=0)
    assert [len(rows) for rows in model.seen] == [8, 8, 8]


def test_more_steps_than_batches_go_on_with_the_next_pass():
    model = compiled(model=make(cls=Rows))
    fit(model, epochs=1, batch_size=8, steps_per_epoch=5)
    assert len(model.seen) == 5 and int(model.epochs_begun) == 1
    with pytest.warns(UserWarning, match="ran out of data"):  # as Keras does
        evaluate(model, X, steps=5)


def test_steps_of_a_repeated_dataset(in_order):
    model = compiled()
    fit(model, batches(X).repeat(), epochs=2, steps_per_epoch=2)
    assert_same(state(model), state(in_order))
    assert evaluate(model, batches(X).repeat(), steps=2) == evaluate(in_order)


@pytest.fixture(scope="module")
def graph():
    """A model after two epochs of three batches in the graph, and its history."""
    model = compiled("adam", run_eagerly=False)
    return model, fit(model, epochs=2, batch_size=10)


# Of three batches in an epoch; as many as these are between the other two.
@pytest.mark.parametrize("steps", [2, pytest.param(3, marks=pytest.mark.slow), 100])
def test_steps_per_execution_changes_no_number(graph, steps):
    expected, history = graph
    model = compiled("adam", steps_per_execution=steps, run_eagerly=False)
    assert fit(model, epochs=2, batch_size=10) == history
    assert_same(state(model), state(expected))
    assert evaluate(model, batch_size=10) == evaluate(expected, batch_size=10)
    predicted = model.predict(X, batch_size=10, verbose=0)
    assert_same(predicted, expected.predict(X, batch_size=10, verbose=0))


def test_two_fits_are_one(graph):
    model, (expected, history) = compiled("adam", run_eagerly=False), graph
    first, second = (fit(model, batch_size=10) for _ in range(2))
    assert {name: first[name] + second[name] for name in history} == history
    assert_same(state(model), state(expected))


@pytest.mark.parametrize(
    "how",
    [{"run_eagerly": False}, {"run_eagerly": False, "jit_compile": True}],
    ids=["graph", "jit_compile"],
)
def test_compiled_or_not_trains_alike(how):
    # SGD, as Adam makes steps of full size of gradients that are rounding errors alone.
    model, expected = compiled("sgd", **how), compiled("sgd")
    weights, size = trained(model), ROWS // 2  # one size, as XLA compiles each anew
    fit(model, epochs=2, batch_size=size)
    fit(expected, epochs=2, batch_size=size)
    moved = max(np.abs(a - b).max() for a, b in zip(trained(model), weights, strict=True))
    # XLA and Grappler fuse and reorder sums, of at most 8 * 24 rounded terms of about 1,
    # at a rate of 0.01, in four steps.
    tolerance = {"rtol": 0, "atol": 4 * 0.01 * 8 * ROWS * EPS}
    assert moved > 1000 * tolerance["atol"]
    assert_close(trained(model), trained(expected), **tolerance)
    values = [evaluate(each, batch_size=size) for each in (model, expected)]
    np.testing.assert_allclose(*values, rtol=8 * ROWS * EPS)


def test_train_on_batch_is_a_fit_on_one_batch():
    model, expected = compiled(), compiled()
    logs = model.train_on_batch(X, return_dict=True)
    history = fit(expected, batch_size=ROWS, shuffle=False)
    names = [*TERMS, "skipped_steps"]
    assert logs == {name: history[name][0] for name in names}
    assert_same(state(model)[2:], state(expected)[2:])  # epochs are fit's
    values = model.train_on_batch(X, Y, W)
    history = fit(expected, y=Y, sample_weight=W, batch_size=ROWS, shuffle=False)
    assert values == [history[name][0] for name in names]
    assert_same(state(model)[2:], state(expected)[2:])


@pytest.mark.parametrize("first", ["evaluate", "test_on_batch"])
def test_test_on_batch_is_evaluate_on_one_batch_in_either_order(first):
    model = compiled(run_eagerly=False)
    calls = {
        "evaluate": lambda: evaluate(model, batch_size=ROWS),
        "test_on_batch": lambda: model.test_on_batch(X),
    }
    values = [calls[name]() for name in sorted(calls, key=lambda name: name != first)]
    assert values[0] == values[1] and len(values[0]) == len(TERMS)


def orders(model, epochs, **kwargs):
    """The order of the rows in each of the next epochs."""
    model.seen.clear()
    fit(model, epochs=epochs, **kwargs)
    flat = sum(model.seen, [])
    return [flat[i : i + ROWS] for i in range(0, len(flat), ROWS)]


def test_an_epoch_has_each_row_once_in_an_order_of_seed_and_epoch():
    def rows(seed):
        return compiled(model=make(cls=Rows, seed=seed))

    model = rows(5)
    seen = orders(model, epochs=3)
    assert [sorted(order) for order in seen] == [list(range(ROWS))] * 3
    seen.append(list(range(ROWS)))
    assert len(set(map(tuple, seen))) == 4  # all differ, and are not that of the array
    assert orders(rows(5), epochs=3, validation_data=X[:4]) == seen[:3]
    assert orders(rows(6), epochs=1)[0] not in seen
    # A second fit goes on rather than starting over.
    again = orders(model, epochs=1)
    assert again[0] not in seen
    assert orders(rows(5), epochs=4)[3:] == again


def test_shuffle_false_keeps_the_order():
    model = compiled(model=make(cls=Rows))
    assert orders(model, epochs=2, shuffle=False) == [list(range(ROWS))] * 2
