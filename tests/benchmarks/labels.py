"""Compares a conditional VAE on MNIST with the same model without labels.

Measures the test NLL of both, and how often a classifier that was trained on real digits
predicts the label of a sample.

Both models: 784-500-500-30-500-500-784, relu; the label modulates the output of each layer
of encoder and decoder (`nets.FiLM`). The tables are in Markdown.

    KERAS_VAE_DATA=DIR python tests/benchmarks/labels.py [--epochs 40] [--out DIR]
"""

import argparse
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

CLASSES, BATCH = 10, 200


def train(data, epochs, conditional):
    """Trains a VAE or a conditional VAE with the same layers."""
    keras.utils.set_random_seed(0)
    networks = [kv.nets.MLP([500, 500]), kv.nets.MLP([500, 500])]
    likelihood = kv.distributions.IndependentBernoulli(data.event_shape)
    if conditional:
        networks = map(kv.nets.FiLM, networks)
        model = kv.ConditionalVAE(*networks, likelihood, 30, CLASSES, seed=0)
    else:
        model = kv.VAE(*networks, likelihood, 30, seed=0)
    steps = epochs * -(-len(data.x_train) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps, alpha=0.01)
    model.compile(keras.optimizers.Adam(rate))
    labels = data.y_train.astype(int)
    model.fit(data.x_train, labels, batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def train_classifier(data, epochs=4):
    """Trains a small convolutional network on binary pixels, new ones in each epoch."""
    keras.utils.set_random_seed(1)
    layers, blocks = keras.layers, []
    for channels in (32, 64):
        blocks += [layers.Conv2D(channels, 3, activation="relu") for _ in range(2)]
        blocks += [layers.MaxPooling2D(), layers.Dropout(0.25)]
    top = [layers.Flatten(), layers.Dense(256, "relu"), layers.Dropout(0.5)]
    model = keras.Sequential([*blocks, *top, layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    for epoch in range(epochs):
        x = binary(data.x_train, epoch)
        model.fit(x, data.y_train.astype(int), 128, verbose=0)
    return model


def binary(images, seed):
    rng = np.random.default_rng(seed)
    return (rng.random(images.shape) < images / 255).astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rows", type=int, default=5_000, help="test rows for the NLL")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs"))
    options = parser.parse_args()
    data = kv.datasets.load("mnist")
    options.out.mkdir(parents=True, exist_ok=True)
    x, y = data.x_test[: options.rows], data.y_test[: options.rows].astype(int)
    print("## Digits with labels\n")
    print("| model | weights | -log p(x), nats | training, s |\n|---|---|---|---|")
    for conditional in (False, True):
        begin = time.perf_counter()
        model = train(data, options.epochs, conditional)
        took = time.perf_counter() - begin
        given = {"condition": y} if conditional else {}
        nll = -model.log_likelihood(x, options.samples, **given)
        name = "conditional on the label" if conditional else "unconditional"
        error = float(nll.std() / np.sqrt(len(nll)))
        cells = f"{model.count_params():,} | {nll.mean():.2f} ± {error:.2f} | {took:.0f}"
        print(f"| {name} | {cells} |", flush=True)
    labels = np.arange(10_000) % CLASSES
    classifier = train_classifier(data)
    shown = {
        "test digits, binary": (binary(data.x_test, 99), data.y_test.astype(int)),
        "samples": (model.sample(seed=1, condition=labels).numpy(), labels),
        "means of samples": (
            model.sample(seed=1, condition=labels, mean=True).numpy(),
            labels,
        ),
    }
    print("\n| 10,000 images | accuracy of the classifier |\n|---|---|")
    for name, (images, truth) in shown.items():
        right = np.mean(classifier.predict(images, 500, verbose=0).argmax(1) == truth)
        print(f"| {name} | {right:.2%} |", flush=True)
    grid = model.sample(
        seeds=np.repeat(np.arange(8), CLASSES), condition=np.tile(np.arange(CLASSES), 8)
    )
    grid = kv.callbacks.image_grid(grid, CLASSES)[..., 0]
    plt.imsave(options.out / "labels.png", 255 - grid, cmap="gray")
    print("\nEach row has the same z:\n\n![Samples of each label](labels.png)\n")


if __name__ == "__main__":
    main()
