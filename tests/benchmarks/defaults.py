"""Measures the defaults of `keras-vae train` on validation data: docs/defaults.md.

Each setting trains the same network for 12,000 steps (STEPS), with a validation every 250
steps, and is judged by the NLL of 300 validation rows at the best epoch after the warm-up.
Test data are not used. KERAS_VAE_DATA must name the folder of the data sets.

    python tests/benchmarks/defaults.py FILE [DATA ...]    # one line of JSON for each run
"""

import csv
import gzip
import json
import os
import pathlib
import sys

import keras
import numpy as np
from sklearn import datasets

import keras_vae as kv
from keras_vae.distributions import IndependentBernoulli, IndependentNormal

STEPS, EVERY = int(os.environ.get("STEPS", 12_000)), 250
FOLDER = pathlib.Path(os.environ.get("KERAS_VAE_DATA", "."))
TABLES = {
    "thyroid": "38_thyroid", "wdbc": "43_WDBC", "vowels": "40_vowels",
    "landsat": "19_landsat",
}  # fmt: skip


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns training and validation rows, scaled; the test rows are left out."""
    if name == "digits":
        x = datasets.load_digits().images[:1438, ..., None] / np.float32(16)
        return _split(x.astype("float32"))
    if name == "frey_faces":
        return _split(np.load(FOLDER / "frey_faces.npz")["x"][:1765, ..., None])
    if name == "pneumonia":
        arrays = np.load(FOLDER / "pneumoniamnist.npz")
        return arrays["x_train"][..., None], arrays["x_val"][..., None]
    if name == "ett":  # windows of 48 hours and 7 series; the split is in time
        with gzip.open(FOLDER / "ETTh1.csv.gz", "rt") as file:
            rows = [[float(cell) for cell in row[1:]] for row in list(csv.reader(file))[1:]]
        x, train = np.array(rows)[:11520], np.array(rows)[:8640]
        x = ((x - train.mean(0)) / train.std(0)).astype("float32")
        return _windows(x[:8640], 4), _windows(x[8640:], 8)
    x = datasets.load_wine().data
    if name != "wine":
        x = np.load(FOLDER / "adbench" / f"{TABLES[name]}.npz")["X"]
    x = x[np.random.RandomState(0).permutation(len(x))][: int(0.8 * len(x))]
    train, validation = _split(x.astype("float64"))
    scaler = kv.datasets.Scaler.fit([str(i) for i in range(x.shape[1])], train)
    return scaler.transform(train), scaler.transform(validation)


def _split(x):
    order = np.random.RandomState(1).permutation(len(x))
    count = max(20, int(0.15 * len(x)))
    return x[np.sort(order[count:])], x[np.sort(order[:count])]


def _windows(x, stride):
    starts = range(0, len(x) - 48, stride)
    return np.stack([x[i : i + 48] for i in starts]).reshape(len(starts), -1)


def make(x: np.ndarray, latent: int, seed: int) -> kv.VAE:
    """Makes the default model of rows x, with a warm-up that `compile` adds."""
    shape, unit = x.shape[1:], 255 if x.dtype == np.uint8 else 1
    has_axes = len(shape) == 3
    mean = x.mean((0, 1, 2) if has_axes else 0).ravel() / unit
    encoder, decoder = kv.nets.MLP([256]), kv.nets.MLP([256])
    if has_axes:
        encoder = keras.Sequential([kv.nets.ConvEncoder([32, 64]), encoder])
        decoder = keras.Sequential([decoder, kv.nets.ConvDecoder([64, 32], shape)])
    constant = keras.initializers.Constant
    if shape == (8, 8, 1):  # digits
        p = np.clip(mean, 0.001, 0.999)
        bias = constant(np.log(p / (1 - p)).tolist())
        head = IndependentBernoulli(shape, grey="binarize", bias_initializer=bias)
    else:
        spread = max(0.01, float(x.std(0).mean()) / unit)
        bias = constant(mean.tolist())
        head = IndependentNormal(shape, bias_initializer=bias, initial_scale=spread)
    return kv.VAE(encoder, decoder, head, latent, seed=seed)


class Best(keras.callbacks.Callback):
    """Keeps the weights with the highest validation ELBO after the warm-up."""

    def __init__(self, warm_up: int):
        super().__init__()
        self.first, self.value = -(-warm_up // EVERY), -np.inf

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 >= self.first and logs["val_elbo"] > self.value:
            self.value, self.epoch = logs["val_elbo"], epoch + 1
            self.weights = self.model.get_weights()


def measure(name: str, warm_up: int, latent: int, seed: int = 0) -> dict:
    """Trains one setting; returns its NLL, active units and curve on validation rows."""
    train, validation = load(name)
    validation = validation[:1500]
    keras.utils.set_random_seed(seed)
    vae = make(train, latent, seed)
    beta = kv.schedules.Linear(0.0, 1.0, steps=warm_up) if warm_up else 1.0
    vae.compile(keras.optimizers.Adam(1e-3), kv.objectives.ELBO(beta))
    best = Best(warm_up)
    history = vae.fit(
        train, batch_size=64, epochs=STEPS // EVERY, steps_per_epoch=EVERY, verbose=0,
        validation_data=validation, callbacks=[best],
    ).history  # fmt: skip
    vae.set_weights(best.weights)
    nll = -vae.log_likelihood(validation[:300], num_samples=200).mean()
    active = int(kv.evaluation.active_units(vae, validation).sum())
    return {
        "data": name, "rows": len(train), "warm_up": warm_up, "latent": latent,
        "seed": seed, "nll": float(nll), "active": active, "step": best.epoch * EVERY,
        "val_elbo": [round(v, 3) for v in history["val_elbo"]],
    }  # fmt: skip


def main(path: str, *names: str) -> None:
    """Appends one line for each setting to a file."""
    for name in names or ("digits", "wine", *TABLES, "ett", "frey_faces", "pneumonia"):
        sizes = (4, 8) if name in ("wine", *TABLES) else (32, 64)
        for warm_up, latent in ((0, 16), (500, 16), (2000, 16), *((0, n) for n in sizes)):
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(measure(name, warm_up, latent)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
