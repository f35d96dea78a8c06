"""Training in other precisions than float32, with a scaled loss in float16."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.citizenship.common import (
    ROWS,
    X,
    assert_same,
    compiled,
    evaluate,
    fit,
    policy,
    trainable_weights,
)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float64"])
def test_other_precisions_train(name):
    expected = compiled(keras.optimizers.Adam(0.05))
    with policy(name):
        model = compiled(keras.optimizers.Adam(0.05))
    model.set_weights(expected.get_weights())
    features = model.encoder(X)
    assert features.dtype == model.compute_dtype
    for head in (model.posterior, model.likelihood):
        assert {w.dtype for w in head.weights} == {"float32"}
    assert {p.dtype for p in model.posterior(features).values()} == {tf.float32}
    # bfloat16 has a relative rounding error of 2**-9. Features and weights, of about 1, are
    # both rounded, for each of 8 elements of x.
    tolerance = {"rtol": 0, "atol": 8 * 2**-8}
    np.testing.assert_allclose(evaluate(model), evaluate(expected), **tolerance)
    history = fit(model, epochs=8, batch_size=ROWS)
    assert np.isfinite(history["loss"]).all() and "skipped_steps" not in history
    assert history["loss"][-1] < history["loss"][0] - 0.1
    assert model.predict(X, verbose=0).dtype == np.float32


def test_float16_wraps_the_optimizer_to_scale_the_loss():
    with policy("mixed_float16"):
        model = compiled("adam")
        unscaled = compiled("adam", auto_scale_loss=False)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert isinstance(unscaled.optimizer, keras.optimizers.Adam)


def test_float16_skips_overflows_and_lowers_the_loss_scale():
    start = 2.0**30
    with policy("mixed_float16"):
        adam = keras.optimizers.Adam(0.01)
        optimizer = keras.optimizers.LossScaleOptimizer(adam, initial_scale=start)
        model = compiled(optimizer, run_eagerly=False)
    before = trainable_weights(model)
    assert model.train_on_batch(X, return_dict=True)["skipped_steps"] == 1
    assert_same(trainable_weights(model), before)
    assert float(optimizer.dynamic_scale) == start / 2 and int(adam.iterations) == 0
    history = fit(model, epochs=12)
    skipped = 1 + sum(history["skipped_steps"])
    assert 1 < skipped < 20  # otherwise the scale would not fall
    assert float(optimizer.dynamic_scale) == start / 2**skipped
    assert int(model.step) == 25 and int(adam.iterations) == 25 - skipped
    assert history["skipped_steps"][-1] == 0
    assert history["loss"][-1] < history["loss"][-3]
