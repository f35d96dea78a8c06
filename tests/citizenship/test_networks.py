"""Each kind of network trains and is saved; its layers get the training flag."""

import keras
import numpy as np
import pytest

import keras_vae as kv
from tests.citizenship.common import (
    EPS,
    ROWS,
    TERMS,
    WIDTH,
    X,
    Y,
    assert_equivalent,
    assert_same,
    compiled,
    dense,
    evaluate,
    fit,
    make,
    register,
    reload,
    state,
    trainable_weights,
)


@register
class Model(keras.Model):
    """A subclassed model that makes its layers in `__init__`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = dense(units)
        self.drop = keras.layers.Dropout(0.2)
        self.out = dense(4)

    def call(self, x, training=False):
        return self.out(self.drop(self.hidden(x), training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class Unbuilt(keras.layers.Layer):
    """A layer without `build` and `training` that makes its layers in `__init__`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.blocks = [dense(units), dense(units)]

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def functional(shape):
    x = keras.Input(shape)
    h = dense()(x)
    return keras.Model(x, keras.layers.Concatenate()([h, dense()(h)]))


def stochastic(shape):
    layers = keras.layers
    return keras.Sequential([dense(), layers.BatchNormalization(), layers.Dropout(0.2)])


NETWORKS = {
    "Sequential": lambda shape: keras.Sequential([dense(5), dense()]),
    "Sequential with Input": lambda shape: keras.Sequential([keras.Input(shape), dense()]),
    "Dropout and BatchNormalization": stochastic,
    "Functional": functional,
    "subclassed Model": lambda shape: Model(5),
    "layer without build": lambda shape: Unbuilt(5),
    "Dense": lambda shape: dense(),
    "Identity": lambda shape: keras.layers.Identity(),
    "MLP": lambda shape: kv.nets.MLP([5, 4]),
}


# Keras warns when it loads a layer without `build`, in any model. The inner layers are
# built by the first call, which VAE makes in its constructor.
@pytest.mark.filterwarnings("ignore:`build..` was called on layer 'unbuilt")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_trains_and_is_saved(tmp_path, name):
    model = compiled(
        keras.optimizers.Adam(0.05),
        make(NETWORKS[name]((WIDTH,)), NETWORKS[name]((2,))),
    )
    first = evaluate(model, batch_size=ROWS)[0]
    weights = trainable_weights(model)
    fit(model)
    assert evaluate(model, batch_size=ROWS)[0] < first
    for variable, before in zip(model.trainable_weights, weights, strict=True):
        assert (np.array(variable) != before).any(), variable.path
    assert_equivalent(reload(model, tmp_path), model)


class Flags(keras.layers.Layer):
    """A layer that records the training flags that it is called with."""

    def __init__(self):
        super().__init__()
        self.flags = set()

    def call(self, x, training=None):
        self.flags.add(training)
        return x


def test_the_training_flag_is_true_only_in_fit():
    model = compiled(model=make(Flags(), Flags()))

    def record_flags(function, *args, **kwargs):
        for network in (model.encoder, model.decoder):
            network.flags.clear()
        function(*args, **kwargs)
        return [network.flags for network in (model.encoder, model.decoder)]

    assert record_flags(fit, model, X[:4]) == [{True}, {True}]
    assert record_flags(evaluate, model) == [{False}, {False}]
    assert record_flags(model.predict, X, verbose=0) == [{False}, {False}]
    assert record_flags(model.reconstruct, X) == [{False}, {False}]
    assert record_flags(model, X, training=True) == [{True}, {True}]
    assert record_flags(model.encode, X) == [{False}, set()]
    assert record_flags(model.decode, np.zeros((3, 2))) == [set(), {False}]
    assert record_flags(model.sample, 3) == [set(), {False}]
    assert record_flags(model.log_likelihood, X, 2) == [{False}, {False}]


def test_only_training_updates_the_moving_averages():
    keras.utils.set_random_seed(1)
    model = compiled(model=make(stochastic((WIDTH,)), stochastic((2,))))
    before = state(model)
    values, predicted = evaluate(model), model.predict(X, verbose=0)
    assert evaluate(model) == values
    np.testing.assert_array_equal(model.predict(X, verbose=0), predicted)
    assert_same(state(model), before)
    hidden = np.array(model.encoder.layers[0](X))
    fit(model, batch_size=ROWS)
    batch = model.encoder.layers[1]
    # One step of the moving average from 0; a mean of 24 rounded terms.
    expected = (1 - batch.momentum) * hidden.mean(0)
    np.testing.assert_allclose(batch.moving_mean, expected, rtol=0, atol=ROWS * EPS)
    assert evaluate(model) == evaluate(model)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_an_activity_regularizer_adds_to_the_loss_but_not_to_the_elbo(run_eagerly):
    keras.utils.set_random_seed(1)
    encoder = keras.Sequential([keras.layers.Dense(4, "tanh", activity_regularizer="l1")])
    model = compiled("sgd", make(encoder, dense()), run_eagerly=run_eagerly)
    for step in (fit, evaluate, evaluate, fit):  # no penalty of an earlier call is added
        penalty = 0.01 * np.abs(encoder(X)).sum() / ROWS  # Keras averages over the rows
        values = step(model, batch_size=ROWS)
        loss, elbo, reconstruction, kl = (
            [values[name][0] for name in TERMS] if step is fit else values
        )
        # Sums of 24 rounded terms.
        np.testing.assert_allclose(loss + elbo, penalty, rtol=0, atol=loss * ROWS * EPS)
        np.testing.assert_allclose(elbo, -(reconstruction + kl), rtol=ROWS * EPS)


def test_a_kernel_regularizer_adds_to_the_loss_and_shrinks_the_kernel():
    keras.utils.set_random_seed(1)
    regularizer = keras.regularizers.L2(0.5)
    layer = keras.layers.Dense(4, "tanh", kernel_regularizer=regularizer)
    model, plain = compiled("sgd", make(layer, dense())), compiled("sgd", make())
    plain.set_weights(model.get_weights())
    kernel = np.array(layer.kernel)
    weight = np.full(ROWS, 2.0)  # weights the losses of rows, not the penalty
    loss, elbo, *_ = evaluate(model, y=Y, sample_weight=weight)
    # Sums of 32 rounded terms.
    np.testing.assert_allclose(loss, -2 * elbo + 0.5 * (kernel**2).sum(), rtol=32 * EPS)
    for vae in (model, plain):
        fit(vae, y=Y, sample_weight=weight, batch_size=ROWS)
    # The rate is 0.01. Kernels are about 1 and rounded a few times.
    expected = np.array(plain.encoder.kernel) - 0.01 * kernel
    np.testing.assert_allclose(layer.kernel, expected, rtol=0, atol=4 * EPS)
