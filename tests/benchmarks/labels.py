"""MNIST given its label: the test NLL beside that of the same model without, and whether
a classifier, trained on real digits, finds the label in samples.

Both models: 784-200-200-50-200-200-784, tanh (Burda et al., 2016, one layer), the label
joined to the input of encoder and decoder.

    KERAS_VAE_DATA=DIR python tests/benchmarks/labels.py [--epochs 60] [--out DIR]
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib
import numpy as np

import keras_vae as kv

matplotlib.use("agg")
import matplotlib.pyplot as plt

CLASSES = 10


def train(data, epochs, conditional):
    """A VAE, or a conditional one, of the same layers."""
    keras.utils.set_random_seed(0)
    mean = np.clip(data.mean(0), 0.001, 0.999)
    bias = keras.initializers.Constant(np.log(mean / (1 - mean)).tolist())
    parts = {
        "encoder": kv.nets.MLP([200, 200], "tanh"),
        "decoder": kv.nets.MLP([200, 200], "tanh"),
        "likelihood": kv.distributions.IndependentBernoulli(
            data.event_shape, bias_initializer=bias
        ),
        "latent_dim": 50,
        "seed": 0,
    }
    if conditional:
        model = kv.ConditionalVAE(**parts, condition=CLASSES)
    else:
        model = kv.VAE(**parts)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, epochs * 600, alpha=0.01)
    model.compile(keras.optimizers.Adam(rate))
    labels = data.y_train.astype(int)
    model.fit(data.x_train, labels, batch_size=100, epochs=epochs, verbose=0)
    return model


def classifier(data):
    """A small convolutional network; its error on the test digits is reported."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(CLASSES),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    # On binary pixels, as samples are.
    rng = np.random.default_rng(0)
    x = (rng.random(data.x_train.shape) < data.x_train / 255).astype(np.float32)
    model.fit(x, data.y_train.astype(int), 128, 3, verbose=0)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rows", type=int, default=2_000, help="test rows of the NLL")
    parser.add_argument("--samples", type=int, default=1_000)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/labels"))
    options = parser.parse_args()
    data = kv.datasets.load("mnist")
    options.out.mkdir(parents=True, exist_ok=True)
    x, y = data.x_test[: options.rows], data.y_test[: options.rows].astype(int)
    found = {}
    for conditional in (False, True):
        begin = time.perf_counter()
        model = train(data, options.epochs, conditional)
        took = time.perf_counter() - begin
        given = {"condition": y} if conditional else {}
        nll = -model.log_likelihood(x, options.samples, **given)
        name = "with label" if conditional else "without label"
        error = float(nll.std() / np.sqrt(len(nll)))
        found[name] = float(nll.mean())
        print(f"{name}: {nll.mean():.2f} +- {error:.2f} nats, {took:.0f} s", flush=True)
    labels = np.arange(10_000) % CLASSES
    binary = model.sample(seed=1, condition=labels).numpy()
    judge = classifier(data)
    rng = np.random.default_rng(2)
    real = (rng.random(data.x_test.shape) < data.x_test / 255).astype(np.float32)
    for name, images, truth in (("test digits", real, data.y_test.astype(int)),
                                ("samples", binary, labels)):  # fmt: skip
        right = np.mean(judge.predict(images, 500, verbose=0).argmax(1) == truth)
        found[f"recognised, {name}"] = float(right)
        print(f"recognised {name}: {right:.2%}", flush=True)
    shown = model.sample(
        seeds=np.repeat(np.arange(8), CLASSES), condition=np.tile(np.arange(CLASSES), 8)
    )
    grid = kv.callbacks.image_grid(shown, CLASSES)[..., 0]
    plt.imsave(options.out / "samples.png", 255 - grid, cmap="gray")
    (options.out / "results.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
