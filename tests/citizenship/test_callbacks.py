"""Callbacks of Keras and of users."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util.event_pb2 import Event

import keras_vae as kv
from tests.citizenship.common import (
    OTHER,
    ROWS,
    TERMS,
    X,
    assert_same,
    compiled,
    dense,
    evaluate,
    fit,
    make,
    state,
    trainable_weights,
    with_nan,
)


class Interrupt(keras.callbacks.Callback):
    """Raises an error after the first batch of the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 2:
            raise InterruptedError


def raise_the_loss_from_epoch_3(epoch, rate):
    """Turns the sign of the rate in the fourth epoch, so that validation gets worse."""
    return 0.05 if epoch < 3 else -0.05


def test_early_stopping_and_checkpoint_keep_the_best_val_elbo(tmp_path):
    monitor = {"monitor": "val_elbo", "mode": "max"}
    path = tmp_path / "{epoch}.keras"
    model = compiled("adam", run_eagerly=False)
    history = fit(
        model,
        epochs=9,
        validation_data=OTHER,
        callbacks=[
            keras.callbacks.LearningRateScheduler(raise_the_loss_from_epoch_3),
            keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True, **monitor),
            keras.callbacks.ModelCheckpoint(path, save_best_only=True, **monitor),
        ],
    )
    elbos = history["val_elbo"]
    best = int(np.argmax(elbos))
    assert 0 < best and len(elbos) == best + 3 < 9
    assert evaluate(model, OTHER)[1] == elbos[best]
    assert int(model.step) == 2 * (best + 1)  # the weights of that step, and its count
    files = {int(file.stem): file for file in tmp_path.iterdir()}
    assert max(files) == best + 1  # Keras counts from 1 in file names
    loaded = keras.saving.load_model(files[best + 1])
    assert evaluate(loaded, OTHER)[1] == elbos[best]
    assert_same(loaded.get_weights(), model.get_weights())


def test_a_checkpoint_can_save_weights_only(tmp_path):
    path = tmp_path / "{epoch}_{val_elbo:.3f}.weights.h5"
    model, other = compiled("adam"), compiled("adam")
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    history = fit(model, validation_data=OTHER, callbacks=checkpoint)
    (file,) = tmp_path.iterdir()
    assert file.name == f"1_{history['val_elbo'][0]:.3f}.weights.h5"
    other.load_weights(file)
    assert_same(state(other), state(model))


def test_early_stopping_needs_a_mode_for_elbo():
    stop = keras.callbacks.EarlyStopping(monitor="val_elbo")
    with pytest.raises(ValueError, match="mode"):
        fit(compiled(), validation_data=OTHER, callbacks=stop)


def test_reduce_lr_on_plateau():
    plateau = keras.callbacks.ReduceLROnPlateau(
        monitor="val_loss", factor=0.5, patience=1, min_delta=1e9
    )
    model = compiled(keras.optimizers.Adam(0.5))
    history = fit(model, X[:4], epochs=3, validation_data=OTHER, callbacks=plateau)
    # The first epoch always counts as an improvement.
    assert history["learning_rate"] == [0.5, 0.5, 0.25]
    assert float(model.optimizer.learning_rate) == 0.125


def test_learning_rate_scheduler():
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: [0.0, 0.25][epoch])
    model = compiled("sgd")
    weights = trainable_weights(model)
    assert fit(model, callbacks=scheduler)["learning_rate"] == [0.0]
    assert_same(trainable_weights(model), weights)
    fit(model, initial_epoch=1, epochs=2, callbacks=scheduler)
    expected = compiled(keras.optimizers.SGD(0.25))
    expected.step.assign(2)
    expected.epochs_begun.assign(1)
    fit(expected)
    assert_same(trainable_weights(model), trainable_weights(expected))


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    logger = keras.callbacks.CSVLogger(path)
    history = fit(compiled(), epochs=2, validation_data=OTHER, callbacks=logger)
    with open(path) as file:
        rows = list(csv.DictReader(file))
    assert [row.pop("epoch") for row in rows] == ["0", "1"]
    columns = {name: [float(row[name]) for row in rows] for name in rows[0]}
    assert columns == history


def test_tensorboard_writes_all_terms(tmp_path):
    pytest.importorskip("tensorboard")  # TensorFlow does not install it
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1, update_freq=1)
    model = compiled(run_eagerly=False)
    history = fit(model, epochs=2, validation_data=OTHER, callbacks=board)
    for folder, prefix in (("train", ""), ("validation", "val_")):
        files = [str(file) for file in (tmp_path / folder).glob("events*")]
        events = [Event.FromString(e.numpy()) for e in tf.data.TFRecordDataset(files)]
        values = [value for event in events for value in event.summary.value]
        for name in TERMS:
            found = [v.tensor for v in values if v.tag == f"epoch_{name}"]
            written = [float(tf.make_ndarray(tensor)) for tensor in found]
            assert written == np.float32(history[prefix + name]).tolist()


def not_finite(terms, step):
    return np.nan * terms.kl


def test_terminate_on_nan():
    model = compiled(objective=not_finite)
    weights = trainable_weights(model)
    with pytest.raises(RuntimeError, match="1 training steps in a row"):
        fit(model, epochs=4, callbacks=keras.callbacks.TerminateOnNaN())
    assert int(model.step) == 1
    assert_same(trainable_weights(model), weights)
    # A single NaN batch is skipped and does not stop the fit.
    model = compiled()
    history = fit(model, with_nan(1), epochs=2, callbacks=keras.callbacks.TerminateOnNaN())
    assert history["skipped_steps"] == [1.0, 1.0]
    assert np.isfinite(history["loss"]).all()


class Log(keras.callbacks.Callback):
    """A user's callback that records its calls and logs."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("epoch", epoch, int(self.model.step)))

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("batch", batch, int(self.model.step)))
        self.logs = logs

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("end", epoch, int(self.model.step)))
        self.epoch_logs = logs


def test_a_users_callback_gets_steps_and_logs():
    log, model = Log(), compiled()
    history = fit(model, callbacks=log, validation_data=X)
    assert log.calls == [
        ("epoch", 0, 0),
        ("batch", 0, 1),
        ("batch", 1, 2),
        ("end", 0, 2),
    ]
    assert log.params["steps"] == 2 and log.params["epochs"] == 1
    assert log.logs == {name: history[name][0] for name in TERMS}
    assert log.epoch_logs == {name: values[0] for name, values in history.items()}


class Evaluate(keras.callbacks.Callback):
    """Evaluates and predicts during a fit."""

    def on_train_batch_end(self, batch, logs=None):
        self.model.predict(X, verbose=0)

    def on_epoch_end(self, epoch, logs=None):
        self.values = evaluate(self.model)


def test_a_callback_can_evaluate_and_predict():
    callback, model, expected = Evaluate(), compiled(), compiled()
    history = fit(model, X[:4], epochs=2, callbacks=callback)
    validated = fit(expected, X[:4], epochs=2, validation_data=X)
    assert history == {name: validated[name] for name in history}
    assert callback.values == [validated[f"val_{name}"][-1] for name in TERMS]
    assert_same(state(model), state(expected))


@pytest.mark.parametrize("form", ["object", "list", "tuple", "CallbackList"])
def test_callbacks_are_accepted_in_every_form(form):
    log, model = Log(), compiled()
    callbacks = {
        "object": log,
        "list": [log],
        "tuple": (log,),
        "CallbackList": keras.callbacks.CallbackList([log], add_history=True, model=model),
    }[form]
    for fits in (1, 2):  # both with the same object
        fit(model, X[:4], epochs=2, callbacks=callbacks)
        assert len(log.calls) == fits * 2 * 3 and int(model.epochs_begun) == fits * 2


def test_fit_does_not_change_the_list_of_callbacks():
    callbacks = [Log()]
    fit(compiled(), X[:4], callbacks=callbacks)
    assert len(callbacks) == 1


def test_backup_and_restore_resumes_bit_for_bit(tmp_path):
    def model():
        keras.utils.set_random_seed(1)
        encoder = keras.Sequential([dense(), keras.layers.Dropout(0.3)])
        objective = kv.objectives.ELBO(kv.schedules.Linear(0.0, 1.0, steps=12))
        return compiled("adam", make(encoder, dense()), objective=objective)

    def train(model, *callbacks):
        return fit(model, epochs=4, batch_size=ROWS // 2, callbacks=callbacks)

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    expected, interrupted, resumed = model(), model(), model()
    history = train(expected)
    with pytest.raises(InterruptedError):
        train(interrupted, backup, Interrupt())
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    assert train(resumed, backup) == {name: values[2:] for name, values in history.items()}
    assert_same(state(resumed), state(expected))


def test_the_progress_line_shows_all_terms(capsys):
    model = compiled()
    model.fit(X, validation_data=OTHER, verbose=2)
    printed = capsys.readouterr().out
    assert all(f" {name}: " in printed and f" val_{name}: " in printed for name in TERMS)
