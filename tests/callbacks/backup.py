"""A script that trains with backups in processes that are killed.

    python -m tests.callbacks.backup FOLDER

Each process is a fork of this one, which has imported everything and run nothing. The
script prints the exit code of each process and saves the results of the last one.
"""

import json
import math
import os
import pathlib
import signal
import sys

import keras
import numpy as np

import keras_vae as kv
from keras_vae.callbacks import backup

X = np.random.default_rng(0).normal(size=(60, 6)).astype("float32")
EPOCHS = 20


def build(units=8, seed=None, optimizer=None, clip=None):
    keras.utils.set_random_seed(3)
    encoder = keras.Sequential(
        [
            keras.layers.Dense(units, "relu"),
            keras.layers.Dropout(0.3),
            keras.layers.BatchNormalization(),
        ]
    )
    head = kv.distributions.IndependentNormal((6,))
    vae = kv.VAE(encoder, kv.nets.MLP([8]), head, latent_dim=2, seed=seed)
    optimizer = optimizer or keras.optimizers.Adam(0.1)
    vae.compile(optimizer, global_clipnorm=clip, jit_compile=False)  # saves the time of XLA
    return vae


class LargestLoss(keras.callbacks.Callback):
    """A user's callback with an array in its state and a column in the logs."""

    def on_train_begin(self, logs=None):
        self.loss = np.full(2, -np.inf, "float32")

    def on_epoch_end(self, epoch, logs=None):
        self.loss = np.maximum(self.loss, np.float32(logs["loss"]))
        logs["largest_loss"] = float(self.loss[1])

    def get_state(self):
        return {"loss": self.loss}

    def set_state(self, state):
        self.loss = state["loss"]


def make_callbacks():
    monitor = {"monitor": "val_elbo", "mode": "max"}
    return [
        LargestLoss(),
        kv.callbacks.PosteriorCollapse(X, threshold=10, patience=100),
        keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.3, min_delta=1, **monitor),
        keras.callbacks.EarlyStopping(
            patience=3, min_delta=0.1, restore_best_weights=True, **monitor
        ),
    ]


def fit(model, callbacks, epochs=EPOCHS, **options):
    """Fits with a smaller last batch; an epoch is half of the rows."""
    options = {"batch_size": 8, "steps_per_epoch": 4, **options}
    return model.fit(
        X, epochs=epochs, verbose=0, validation_data=X[:20], callbacks=callbacks, **options
    )


def results(model, history, callbacks):
    """Returns (arrays, values) that an interruption must not change."""
    arrays = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    largest, collapse, plateau, stopping = callbacks
    arrays += stopping.best_weights
    values = [history.epoch, history.history, largest.loss.tolist()]
    values += [collapse.epochs_below, plateau.best, plateau.wait]
    values += [stopping.best, stopping.wait, stopping.best_epoch, stopping.stopped_epoch]
    return arrays, values


class Signal(keras.callbacks.Callback):
    """Sends a signal to its own process at a moment of an epoch, counted from 1."""

    def __init__(self, number, moment, epoch):
        super().__init__()
        self.number, self.moment, self.epoch, self.now = number, moment, epoch, 0
        if moment == "commit":  # after two of four files are written
            write = np.savez
            np.savez = lambda *args, **kwargs: self.send("commit") or write(*args, **kwargs)

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch + 1

    def on_train_batch_begin(self, batch, logs=None):
        self.send(f"batch {batch}")

    def on_test_batch_begin(self, batch, logs=None):
        self.send(f"test batch {batch}")

    def send(self, moment):
        if (moment, self.now) == (self.moment, self.epoch):
            os.kill(os.getpid(), self.number)


STOPS = [
    (signal.SIGKILL, "commit", 3),
    (signal.SIGTERM, "batch 2", 5),
    (0, "never", 0),
]


def train(folder, stop):
    model, callbacks = build(), make_callbacks()
    keeper = backup.Backup(folder / "backup", math.inf)
    history = fit(model, [keeper, *callbacks, Signal(*stop)])
    arrays, values = results(model, history, callbacks)
    np.savez(folder / "end.npz", *arrays)
    (folder / "end.json").write_text(json.dumps(values))


def main(folder):
    for stop in STOPS:
        child = os.fork()
        if not child:
            train(folder, stop)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
