"""Models with Dropout, and a script that loads them and trains them further."""

import json
import sys

import keras
import numpy as np

import keras_vae as kv
from tests.zoo import Unbuilt, grey, vectors


def mlp():
    encoder = keras.Sequential(
        [
            keras.layers.Dense(8, "relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(8, "relu"),
        ]
    )
    return kv.VAE(encoder, kv.nets.MLP([8]), kv.distributions.IndependentNormal((6,)), 2)


def conv():
    encoder = keras.Sequential(
        [kv.nets.ConvEncoder([4, 8]), keras.layers.SpatialDropout2D(0.3)]
    )
    decoder = kv.nets.ConvDecoder([8, 4], (5, 7, 2))
    return kv.VAE(encoder, decoder, kv.distributions.IndependentBernoulli((5, 7, 2)), 3)


def subclassed():
    return kv.VAE(Unbuilt(), kv.nets.MLP([8]), kv.distributions.IndependentNormal((6,)), 2)


KINDS = {"mlp": (mlp, vectors), "conv": (conv, grey), "subclassed": (subclassed, vectors)}


def train(model, x, epochs):
    """Trains with a smaller last batch, shuffling and Dropout."""
    return model.fit(
        x, batch_size=7, epochs=epochs, verbose=0, validation_data=x[:5]
    ).history


def main(folder):
    for kind, (_, data) in KINDS.items():
        model = keras.saving.load_model(f"{folder}/{kind}.keras")
        history = train(model, data(), 2)
        variables = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
        np.savez(f"{folder}/{kind}.npz", *variables)
        with open(f"{folder}/{kind}.json", "w") as file:
            json.dump(history, file)


if __name__ == "__main__":
    main(sys.argv[1])
