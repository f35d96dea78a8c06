"""Sample weights and class weights count as in Keras."""

import numpy as np
import pytest

from tests.citizenship.common import (
    EPS,
    FORMS,
    ROWS,
    Batches,
    Gradients,
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
)


def test_the_loss_is_a_weighted_sum_and_terms_are_weighted_means(shared):
    rows = 8

    def weighted(weight):
        return np.array(evaluate(shared, X[:rows], sample_weight=weight))

    row_metrics = np.array(
        [weighted(one_row) for one_row in np.eye(rows, dtype=np.float32)]
    )
    loss, *terms = weighted(W[:rows])
    tolerance = {"rtol": rows * EPS}  # sums of 8 rounded terms
    np.testing.assert_allclose(row_metrics[:, 0] * rows, -row_metrics[:, 1], **tolerance)
    np.testing.assert_allclose(loss, W[:rows] @ row_metrics[:, 0], **tolerance)
    means = W[:rows] @ row_metrics[:, 1:] / W[:rows].sum()
    np.testing.assert_allclose(terms, means, **tolerance)


def test_rows_with_weight_0_are_ignored(shared):
    kept = 17
    weight = (np.arange(ROWS) < kept).astype(np.float32)
    loss, *terms = evaluate(shared, sample_weight=weight)
    expected, *expected_terms = evaluate(shared, X[:kept])
    # Sums of up to 24 rounded terms.
    np.testing.assert_allclose(terms, expected_terms, rtol=ROWS * EPS)
    np.testing.assert_allclose(loss * ROWS, expected * kept, rtol=ROWS * EPS)


def test_gradients_are_linear_in_the_weights():
    def gradient(weight):
        model = compiled("sgd", make(cls=Gradients))
        model.train_on_batch(X, sample_weight=weight)
        return [np.array(g) for g in model.recorded_gradients[0]]

    first = (np.arange(ROWS) < 9).astype(np.float32)
    parts = zip(gradient(W * first), gradient(W * (1 - first)), strict=True)
    # Sums over 24 rows of terms that are below 10 and may cancel.
    assert_close(gradient(W), [a + b for a, b in parts], rtol=0, atol=10 * ROWS * EPS)


def test_sample_weights_in_every_form_train_the_same():
    model = [compiled() for _ in range(3)]
    fit(model[0], X, sample_weight=W, shuffle=False)
    fit(model[1], batches(X, Y, W))
    fit(model[2], Batches(X, Y, W), shuffle=False)
    assert_same(state(model[1]), state(model[0]))
    assert_same(state(model[2]), state(model[0]))


@pytest.mark.parametrize("form", ["labelled", "labelled dataset", "labelled PyDataset"])
def test_a_class_weight_equals_sample_weights_of_that_class(form):
    class_weight = {0: 0.5, 1: 2.0, 2: 1.5}
    class_weighted, row_weighted = compiled(), compiled()
    weight = np.array([class_weight[label] for label in Y], np.float32)
    fit(class_weighted, **FORMS[form](), class_weight=class_weight, shuffle=False)
    fit(row_weighted, X, sample_weight=weight, shuffle=False)
    assert_same(state(class_weighted), state(row_weighted))
    class_weighted.train_on_batch(X, Y, class_weight=class_weight)
    row_weighted.train_on_batch(X, sample_weight=weight)
    assert_same(state(class_weighted), state(row_weighted))
