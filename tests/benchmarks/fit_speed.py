"""`fit` against a hand-written XLA loop, on the dense model of the literature.

784-400-20-400-784 Bernoulli VAE, batch 128, Adam, 60,000 images of uint8. The loop is
what one would write by hand with nothing but speed in mind: plain variables, Adam
written out, one compiled step, an in-graph loop over batches. Both are timed in turn, over
whole epochs after a warm-up, and the ratio of each pair is taken.

    python tests/benchmarks/fit_speed.py [--pairs 5] [--epochs 4] [--grey soft]
"""

import argparse
import math
import os
import pathlib
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import keras_vae as kv

BATCH, LATENT, HIDDEN, PIXELS = 128, 20, 400, 784


def images():
    folder = os.environ.get("KERAS_VAE_DATA")
    if folder and (path := pathlib.Path(folder, "mnist.npz")).exists():
        return np.load(path)["x_train"].reshape(-1, PIXELS), "MNIST"
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (60_000, PIXELS), np.uint8), "random bytes"


def hand_written(x, grey):
    """Returns a function that trains for one epoch, and the rows of one epoch."""
    rng = np.random.default_rng(0)
    sizes = [(PIXELS, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, PIXELS)]
    weights = []
    for fan_in, fan_out in sizes:
        limit = math.sqrt(6 / (fan_in + fan_out))
        kernel = rng.uniform(-limit, limit, (fan_in, fan_out)).astype(np.float32)
        weights += [tf.Variable(kernel), tf.Variable(tf.zeros(fan_out))]
    first = [tf.Variable(tf.zeros_like(w)) for w in weights]
    second = [tf.Variable(tf.zeros_like(w)) for w in weights]
    step = tf.Variable(0, dtype=tf.int64)
    total = tf.Variable(0.0)

    @tf.function(jit_compile=True)
    def train_step(batch):
        count = step.assign_add(1)
        seed = tf.stack([tf.constant(0, tf.int64), count])
        batch = tf.cast(batch, tf.float32) / 255.0
        if grey == "binarize":
            u = tf.random.stateless_uniform(tf.shape(batch), seed + 2**40, alg="philox")
            batch = tf.cast(u < batch, tf.float32)
        with tf.GradientTape() as tape:
            w1, b1, w2, b2, w3, b3, w4, b4 = weights
            hidden = tf.nn.relu(batch @ w1 + b1)
            loc, raw = tf.split(hidden @ w2 + b2, 2, axis=1)
            scale = tf.nn.softplus(raw)
            noise = tf.random.stateless_normal(tf.shape(loc), seed, alg="philox")
            logits = tf.nn.relu((loc + scale * noise) @ w3 + b3) @ w4 + b4
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(batch, logits)
            kl = 0.5 * (scale**2 + loc**2 - 1.0) - tf.math.log(scale)
            loss = (tf.reduce_sum(entropy) + tf.reduce_sum(kl)) / BATCH
        power = tf.cast(count, tf.float32)
        rate = 1e-3 * tf.sqrt(1.0 - 0.999**power) / (1.0 - 0.9**power)
        gradients = tape.gradient(loss, weights)
        for w, g, m, v in zip(weights, gradients, first, second, strict=True):
            m.assign_add((g - m) * 0.1)
            v.assign_add((g * g - v) * 0.001)
            w.assign_sub(rate * m / (tf.sqrt(v) + 1e-7))
        total.assign_add(loss)

    data = tf.constant(x)
    steps = len(x) // BATCH

    @tf.function
    def epoch(dataset):
        for batch in dataset:
            train_step(batch)

    def gather(i):
        index = tf.range(i * BATCH, (i + 1) * BATCH)
        key = tf.constant([0, 0], tf.int64)
        index = tf.random.experimental.index_shuffle(index, key, len(x) - 1)
        return tf.ensure_shape(tf.gather(data, index), (BATCH, PIXELS))

    dataset = tf.data.Dataset.range(steps).map(gather, num_parallel_calls=2).prefetch(4)
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    return lambda: epoch(dataset)


def by_fit(x, grey):
    """Returns a function that trains for `epochs` epochs through `fit`."""
    vae = kv.VAE(
        encoder=keras.layers.Dense(HIDDEN, "relu"),
        decoder=keras.layers.Dense(HIDDEN, "relu"),
        likelihood=kv.distributions.IndependentBernoulli((PIXELS,), grey=grey),
        latent_dim=LATENT,
        seed=0,
    )
    vae.compile("adam", jit_compile=True, steps_per_execution=100)
    return lambda epochs: vae.fit(x, batch_size=BATCH, epochs=epochs, verbose=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--grey", default="soft", choices=["soft", "binarize"])
    args = parser.parse_args()
    x, name = images()
    x = x[: len(x) // BATCH * BATCH]  # whole batches: the loop knows no other
    loop, fit = hand_written(x, args.grey), by_fit(x, args.grey)
    loop()
    fit(1)
    print(f"{name}, grey={args.grey}, {args.epochs} epochs each; images per second")
    ratios = []
    for _ in range(args.pairs):
        begin = time.perf_counter()
        for _ in range(args.epochs):
            loop()
        middle = time.perf_counter()
        fit(args.epochs)
        end = time.perf_counter()
        rows = len(x) * args.epochs
        ratios.append((middle - begin) / (end - middle))
        print(
            f"loop {rows / (middle - begin):9,.0f}   fit {rows / (end - middle):9,.0f}   "
            f"fit/loop {ratios[-1]:.3f}",
            flush=True,
        )
    print(f"median fit/loop {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
