"""Networks: output shapes for inputs of any size, and saving."""

import keras
import numpy as np
import pytest

import keras_vae as kv

NETS = {
    2: (kv.nets.Conv1DEncoder, kv.nets.Conv1DDecoder),
    3: (kv.nets.ConvEncoder, kv.nets.ConvDecoder),
    4: (kv.nets.Conv3DEncoder, kv.nets.Conv3DDecoder),
}


@pytest.mark.parametrize(
    "shape",
    [
        *[(8, 8, 1), (28, 28, 1), (28, 20, 1), (33, 17, 3), (1, 5, 2)],
        *[(187, 1), (24, 3), (1, 2)],
        *[(8, 8, 8, 1), (3, 10, 7, 2)],
    ],
    ids=str,
)
@pytest.mark.parametrize("filters", [[5], [5, 8], [5, 8, 16]], ids=len)
def test_conv_nets_have_the_shapes_of_any_event(shape, filters):
    make_encoder, make_decoder = NETS[len(shape)]
    encoder, decoder = make_encoder(filters), make_decoder(filters[::-1], shape)
    features = encoder(np.zeros((2, *shape), np.float32))
    factor = 2 ** len(filters)
    assert features.shape == (2, *[-(-n // factor) for n in shape[:-1]], filters[-1])
    maps = decoder(np.zeros((2, 3), np.float32))
    assert maps.shape == (2, *shape[:-1], filters[0])
    head = kv.distributions.IndependentBernoulli(shape)
    assert head(maps)["logits"].shape == (2, *shape)
    # One channel each: the head projects over the last axis, not over all pixels.
    assert head.count_params() == filters[0] * shape[-1] + shape[-1]


def test_conv_nets_refuse_events_of_other_axes():
    for axes, (_, make_decoder) in NETS.items():
        for shape in ((8,) * n for n in (1, 2, 3, 4, 5) if n != axes):
            with pytest.raises(ValueError, match=r"_shape` must be .*Received"):
                make_decoder([4], shape)


def test_an_mlp_flattens_its_input():
    net = kv.nets.MLP([5, 3], activation="tanh")
    assert net(np.zeros((2, 4, 6), np.float32)).shape == (2, 3)
    assert [layer.activation.__name__ for layer in net.layers[1:]] == ["tanh", "tanh"]


@pytest.mark.parametrize(
    "net",
    [
        kv.nets.MLP([3]),
        *[make_encoder([3]) for make_encoder, _ in NETS.values()],
        *[make_decoder([3], (4,) * axes) for axes, (_, make_decoder) in NETS.items()],
    ],
    ids=str,
)
def test_networks_are_ordinary_keras_models(net):
    assert type(net) is keras.Sequential
    config = keras.saving.serialize_keras_object(net)
    assert type(keras.saving.deserialize_keras_object(config)) is keras.Sequential
