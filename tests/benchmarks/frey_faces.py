"""Trains on Frey Face with several latent sizes, with fixed and with shared variance.

The setting of Kingma and Welling (2014), figure 2: a Normal likelihood, one hidden layer
of 200 units, 2, 5, 10 and 20 latent units, batches of 100. The paper uses a variance per
pixel, which the network computes, and Adagrad. This script uses Adam, and

* a fixed standard deviation of 0.1, whose optimum is a weighted squared error, and
* one shared, trained standard deviation (Rybkin et al., 2021).

    KERAS_VAE_DATA=DIR python tests/benchmarks/frey_faces.py [--epochs 500] [--out DIR]
"""

import argparse
import json
import math
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib

import keras_vae as kv

matplotlib.use("agg")
import matplotlib.pyplot as plt


def train(data, latent_dim, scale, epochs):
    """Trains a model; returns both bounds by epoch, and the final standard deviation."""
    keras.utils.set_random_seed(0)
    shape = data.event_shape
    bias = keras.initializers.Constant((data.x_train.mean(0) / 255).ravel())
    vae = kv.VAE(
        encoder=kv.nets.MLP([200], "tanh"),
        decoder=kv.nets.MLP([200], "tanh"),
        likelihood=kv.distributions.IndependentNormal(
            shape, scale=scale, initial_scale=0.17, bias_initializer=bias
        ),
        latent_dim=latent_dim,
        seed=0,
    )
    vae.compile(keras.optimizers.Adam(1e-3), jit_compile=True, steps_per_execution=18)
    history = vae.fit(
        data.x_train, batch_size=100, epochs=epochs, verbose=0, validation_data=data.x_test
    ).history
    sigma = vae.decode(vae.encode(data.x_test[:1]).mean()).stddev().numpy().mean()
    return {"elbo": history["elbo"], "val_elbo": history["val_elbo"], "sigma": float(sigma)}


def main():
    """Trains all eight models, prints the bounds and draws the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/frey-faces"))
    options = parser.parse_args()
    try:
        data = kv.datasets.load("frey_faces")
    except ValueError as error:
        print(f"skipped: {error}")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(2, 4, figsize=(13, 6), layout="constrained", sharex=True)
    results = {}
    for row, scale in zip(axes, (0.1, "shared"), strict=True):
        for axis, latent_dim in zip(row, (2, 5, 10, 20), strict=True):
            run = train(data, latent_dim, scale, options.epochs)
            results[f"{scale}, {latent_dim}"] = run
            print(
                f"scale {scale!s:6}  latent {latent_dim:2}  elbo train "
                f"{run['elbo'][-1]:8.1f}  test {run['val_elbo'][-1]:8.1f}  best test "
                f"{max(run['val_elbo']):8.1f}"
                f"  sigma {run['sigma']:.4f}",
                flush=True,
            )
            seen = [len(data.x_train) * (i + 1) for i in range(options.epochs)]
            axis.plot(seen, run["elbo"], label="train")
            axis.plot(seen, run["val_elbo"], label="test")
            axis.set(title=f"scale {scale}, {latent_dim} latent units", xscale="log")
            low, high = sorted(
                (run["val_elbo"][min(20, options.epochs - 1)], run["elbo"][-1])
            )
            axis.set_ylim(low, high + 0.05 * math.fabs(high))
            axis.grid(alpha=0.3)
    axes[0][0].legend()
    figure.supxlabel("training rows seen")
    figure.supylabel("ELBO, nats per image")
    figure.savefig(options.out / "curves.png", dpi=110)
    (options.out / "curves.json").write_text(json.dumps(results))
    print(options.out / "curves.png")


if __name__ == "__main__":
    main()
