"""Networks: output shapes for inputs of any size, and saving."""

import keras
import numpy as np
import pytest

import keras_vae as kv


@pytest.mark.parametrize(
    "shape", [(8, 8, 1), (28, 28, 1), (28, 20, 1), (33, 17, 3), (1, 5, 2)]
)
@pytest.mark.parametrize("filters", [[4], [4, 8], [4, 8, 16]])
def test_conv_nets_have_the_shapes_of_any_image(shape, filters):
    encoder = kv.nets.ConvEncoder(filters)
    decoder = kv.nets.ConvDecoder(filters[::-1], shape)
    features = encoder(np.zeros((2, *shape), np.float32))
    factor = 2 ** len(filters)
    expected = (2, -(-shape[0] // factor), -(-shape[1] // factor), filters[-1])
    assert features.shape == expected
    image = decoder(np.zeros((2, 3), np.float32))
    assert image.shape == (2, *shape[:2], filters[0])
    head = kv.distributions.IndependentBernoulli(shape)
    assert head(image)["logits"].shape == (2, *shape)
    # One channel each: the head projects over the last axis, not over all pixels.
    assert head.count_params() == filters[0] * shape[2] + shape[2]


def test_an_mlp_flattens_its_input():
    net = kv.nets.MLP([5, 3], activation="tanh")
    assert net(np.zeros((2, 4, 6), np.float32)).shape == (2, 3)
    assert [layer.activation.__name__ for layer in net.layers[1:]] == ["tanh", "tanh"]


@pytest.mark.parametrize(
    "net",
    [kv.nets.MLP([3]), kv.nets.ConvEncoder([3]), kv.nets.ConvDecoder([3], (4, 4, 1))],
    ids=["MLP", "ConvEncoder", "ConvDecoder"],
)
def test_networks_are_ordinary_keras_models(net):
    assert type(net) is keras.Sequential
    config = keras.saving.serialize_keras_object(net)
    assert type(keras.saving.deserialize_keras_object(config)) is keras.Sequential
