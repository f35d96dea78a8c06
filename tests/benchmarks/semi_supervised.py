"""MNIST with 100 labels, ten of each digit: the model M2 of Kingma et al. (2014).

Beside it the same classifier trained on the 100 labels alone. Theirs (table 1, M2): a test
error of 11.97 +- 1.71 %.

    KERAS_VAE_DATA=DIR python tests/benchmarks/semi_supervised.py [--epochs 40]
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keras_vae as kv

CLASSES = 10


def choose(labels, each, rng):
    """The places of so many rows of each class."""
    places = [rng.choice(np.flatnonzero(labels == c), each, False) for c in range(CLASSES)]
    return np.concatenate(places)


def classifier():
    return kv.nets.MLP([500, 500])


def alone(x, y, epochs):
    """The classifier on the labelled rows alone: a function of images."""
    scaled = x.reshape(len(x), -1) / np.float32(255)
    model = keras.Sequential([classifier(), keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    model.fit(scaled, y, 50, epochs, verbose=0)
    return lambda x: model.predict(x.reshape(len(x), -1) / np.float32(255), 1000, verbose=0)


def error(logits, y):
    return np.mean(np.argmax(logits, axis=1) != y)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--repeat", type=int, default=100, help="of labelled rows")
    parser.add_argument("--alpha", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    data = kv.datasets.load("mnist")
    x, y = data.x_train[: options.rows], data.y_train[: options.rows].astype(int)
    truth = data.y_test.astype(int)
    chosen = choose(y, 10, np.random.default_rng(options.seed))
    others = np.setdiff1d(np.arange(len(x)), chosen)
    single = alone(x[chosen], y[chosen], 100)
    print(f"the classifier alone: {error(single(data.x_test), truth):.2%}", flush=True)
    # The labelled rows often enough for each batch to have some.
    many = np.tile(chosen, options.repeat)
    images = np.concatenate([x[others], x[many]])
    labels = np.concatenate([np.full(len(others), -1), y[many]])
    model = kv.SemiSupervisedVAE(
        encoder=kv.nets.MLP([400]),
        decoder=kv.nets.MLP([400]),
        likelihood=kv.distributions.IndependentBernoulli(data.event_shape),
        latent_dim=50,
        condition=CLASSES,
        classifier=classifier(),
        alpha=options.alpha,
        seed=options.seed,
    )
    steps = options.epochs * -(-len(images) // 200)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.compile(keras.optimizers.Adam(rate))

    def show(epoch, logs):
        if epoch % 5 == 4 or epoch + 1 == options.epochs:
            q = np.concatenate([model.classify(part) for part in np.split(data.x_test, 10)])
            wrong, took = error(q, truth), time.perf_counter() - begin
            bound = f"bound {logs['elbo']:.2f}, {took:.0f} s"
            print(f"epoch {epoch + 1}: test error {wrong:.2%}, {bound}", flush=True)

    begin = time.perf_counter()
    watch = keras.callbacks.LambdaCallback(on_epoch_end=show)
    model.fit(images, labels, 200, options.epochs, verbose=0, callbacks=[watch])


if __name__ == "__main__":
    main()
