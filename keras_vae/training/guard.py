"""The callback of every `fit` that stops it if its steps are skipped."""

import math
import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_vae.training.step import LOSS_SCALING, StepModel


class _Guard(keras.callbacks.Callback):
    """Counts the epochs that have begun, and stops a `fit` that skips every step.

    It is the first callback, and removes `skipped_steps` from the logs of all others until
    a step is skipped.
    """

    async_safe = True  # reads one weight, in any thread

    def on_train_begin(self, logs=None):
        self.first_step = self.epoch_step = int(self.model.step.numpy())

    def on_epoch_begin(self, epoch, logs=None):
        self.model.epochs_begun.assign_add(1)
        self.epoch_step = int(self.model.step.numpy())
        self.checked = 0

    def on_train_batch_end(self, batch, logs=None):
        drop_no_skips(logs)
        # Not at each batch: reading a weight waits for the device.
        if batch + 1 - self.checked >= self.model.max_skipped:
            self.checked = batch + 1
            self.check()

    def on_epoch_end(self, epoch, logs=None):
        self.check()
        history = self.model.history
        if "skipped_steps" not in history.history:
            drop_no_skips(logs)
            if logs and "skipped_steps" in logs and history.epoch:
                # One value for each epoch, as in the other columns.
                history.history["skipped_steps"] = [0.0] * len(history.epoch)

    def on_train_end(self, logs=None):
        step = int(self.model.step.numpy())
        # `EarlyStopping` may have restored the weights of an earlier step.
        if step > self.epoch_step:
            self.check(step - self.first_step, step - self.epoch_step)

    def check(self, fit=math.inf, epoch=math.inf):
        """Raises an error if too many steps in a row, or all steps of a fit, were skipped.

        If all steps of the last epoch were skipped, it warns.

        Args:
            fit: int, at the end, the number of steps of the fit.
            epoch: int, at the end, the number of steps of the last epoch.
        """
        skipped = int(self.model.skipped_in_a_row.numpy())
        if not skipped:
            return
        rates = [float(rate) for rate in self.model.learning_rates()]
        if isinstance(self.model.optimizer, LOSS_SCALING):
            fit = math.inf  # the first steps overflow, until the scale is small enough
        stop = skipped >= min(fit, self.model.max_skipped) or not all(
            map(math.isfinite, rates)
        )
        if not stop and skipped < epoch:
            return
        self.model.check_weights()  # its message is another one
        shown = ", ".join(f"{rate:g}" for rate in rates)
        message = (
            f"{skipped} training steps in a row were skipped, because the loss, a gradient "
            "or the learning rate was NaN or infinite. The weights are those before the "
            "first skipped step. Check, in this order: the data (NaN, infinite, or outside "
            f"the support of the likelihood; {self.model.values_seen}), a learning rate "
            f"that is too high ({shown} now), and a scale that shrinks towards its floor."
        )
        if stop:
            raise RuntimeError(message)
        warnings.warn(message, stacklevel=2)


def drop_no_skips(logs: Any) -> None:
    """Removes `skipped_steps` from logs, a dict, if no step was skipped."""
    if isinstance(logs, dict) and not logs.get("skipped_steps"):
        logs.pop("skipped_steps", None)


def guarded_callbacks(callbacks: Any, model: StepModel) -> Any:
    """Returns the callbacks of a `fit`: the guard first, History and backups last."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        if not any(isinstance(c, _Guard) for c in callbacks.callbacks):
            guard = _Guard()
            guard.set_model(model)
            callbacks.callbacks.insert(0, guard)
        callbacks.callbacks.sort(key=_rank)
        return callbacks
    callbacks = tf.nest.flatten(callbacks) if callbacks else []
    if not any(isinstance(c, keras.callbacks.History) for c in callbacks):
        callbacks.append(keras.callbacks.History())  # Keras would add it at the end
    return sorted([_Guard(), *callbacks], key=_rank)


def _rank(callback):
    history = isinstance(callback, keras.callbacks.History)
    return 2 * hasattr(callback, "around_fit") + history
