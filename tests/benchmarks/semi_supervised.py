"""Trains model M2 of Kingma et al. (2014) on MNIST with 100 labels, ten of each digit.

Compares it with its own classifier, trained on the 100 labels only. The paper (table 1, M2)
has a test error of 11.97 +- 1.71 %, trained from scratch. Here training takes minutes,
because it has three stages: the classifier learns the 100 labels, encoder and decoder learn
from its predictions as a conditional VAE, then all parts learn together. All networks are
dense; the label modulates those of encoder and decoder (`nets.FiLM`).

    KERAS_VAE_DATA=DIR python tests/benchmarks/semi_supervised.py
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_vae as kv

CLASSES, BATCH = 10, 200


def choose(labels, each, rng):
    """Returns the indices of `each` random rows of each class."""
    places = [rng.choice(np.flatnonzero(labels == c), each, False) for c in range(CLASSES)]
    return np.concatenate(places)


def make_model(data, alpha, seed):
    layers = keras.layers
    classifier = keras.Sequential(
        [
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(500, "relu"),
            layers.Dropout(0.5),
            layers.Dense(500, "relu"),
            layers.Dropout(0.5),
        ]
    )
    return kv.SemiSupervisedVAE(
        encoder=kv.nets.FiLM(kv.nets.MLP([300, 300])),
        decoder=kv.nets.FiLM(kv.nets.MLP([300, 300])),
        likelihood=kv.distributions.IndependentBernoulli(data.event_shape),
        latent_dim=50,
        condition=CLASSES,
        classifier=classifier,
        alpha=alpha,
        seed=seed,
    )


def learn_labels(model, x, y, epochs):
    """Trains the classifier of a model on the labelled rows only."""
    logits = keras.Sequential([model.classifier, model.class_logits])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    logits.compile(keras.optimizers.Adam(1e-3), loss)
    logits.fit(x / np.float32(255), np.eye(CLASSES)[y], 50, epochs, verbose=0)


def learn_guesses(model, x, guesses, epochs):
    """Trains encoder and decoder of a model on (x, predicted label)."""
    vae = kv.ConditionalVAE(
        model.encoder,
        model.decoder,
        model.likelihood,
        condition=CLASSES,
        posterior=model.posterior,
        seed=model.seed,
    )
    vae.compile(keras.optimizers.Adam(2e-3))
    vae.fit(x, guesses, batch_size=BATCH, epochs=epochs, verbose=0)


def classes(model, x):
    """Predicts the label of each row."""
    parts = np.array_split(x, -(-len(x) // 1000))
    return np.concatenate([np.argmax(model.classify(part), axis=1) for part in parts])


def error(model, data):
    return np.mean(classes(model, data.x_test) != data.y_test.astype(int))


def learn(data, seed, options):
    """Trains M2 with 100 labels; returns the test errors of the classifier and of M2."""
    keras.utils.set_random_seed(seed)
    x, y = data.x_train[: options.rows], data.y_train[: options.rows].astype(int)
    chosen = choose(y, 10, np.random.default_rng(seed))
    model = make_model(data, options.alpha, seed)
    learn_labels(model, x[chosen], y[chosen], epochs=150)
    alone = error(model, data)
    guesses = classes(model, x)
    guesses[chosen] = y[chosen]
    learn_guesses(model, x, guesses, options.first_epochs)
    # Repeats the labelled rows, so that each batch has some.
    images = np.concatenate([x, *[x[chosen]] * options.repeat])
    labels = np.full(len(images), -1)
    labels[len(x) :] = np.tile(y[chosen], options.repeat)
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit(images, labels, BATCH, options.epochs, verbose=0)
    return alone, error(model, data)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6, help="epochs of the last stage")
    parser.add_argument("--first-epochs", type=int, default=8, help="of the second stage")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--repeat", type=int, default=20, help="copies of labelled rows")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3, help="number of label sets")
    options = parser.parse_args()
    data = kv.datasets.load("mnist")
    print(
        "## Semi-supervised learning with 100 labels\n\nTest error on 10,000 digits. M2 "
        "starts from a classifier that was trained on the 100 labels, and from an\n"
        "encoder and a decoder that were trained on its predictions. Kingma et al. "
        "(2014), table 1, M2: 11.97 ± 1.71 %.\n\n"
        "| random labels | classifier only | M2 | s |\n|---|---|---|---|",
        flush=True,
    )
    for seed in range(options.seeds):
        begin = time.perf_counter()
        alone, together = learn(data, seed, options)
        took = time.perf_counter() - begin
        print(f"| set {seed + 1} | {alone:.2%} | {together:.2%} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    main()
