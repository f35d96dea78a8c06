"""A warning of posterior collapse."""

import warnings

import keras

from keras_vae import checks, evaluation


class PosteriorCollapse(keras.callbacks.Callback):
    """Counts the active units at the end of each epoch, and warns if there are few.

    A unit is active if its posterior mean varies with x (`evaluation.active_units`; Burda
    et al., 2016, section 5.2). Their number joins the logs as `active_units`: place this
    callback before those that write them.

    Args:
        x: `[rows, *event]`, the data to look at: some hundred held-out rows will do.
        threshold: float, the variance above which a unit counts as active.
        min_active: float, the share of active units below which to warn.
        patience: int, for how many epochs in a row before it warns.
        condition: what a conditional model conditions on, of these rows.

    Attributes:
        active: bool `[*latent]`, which units were active after the last epoch.
        kl: float32 `[*latent]`, KL(q || p) of each unit in nats, with the weights of now,
            or None where it is not known in closed form.

    Raises:
        ValueError: if a number is out of range.

    Example:

    >>> import numpy as np
    >>> import keras_vae as kv
    >>> vae = kv.VAE(
    ...     keras.layers.Dense(8), keras.layers.Dense(8),
    ...     kv.distributions.IndependentNormal((4,), scale=1.0), latent_dim=3,
    ... )
    >>> vae.compile("sgd")
    >>> x = np.full((64, 4), 0.5, "float32")  # nothing to tell apart
    >>> monitor = PosteriorCollapse(x, patience=1)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     _ = vae.fit(x, epochs=1, verbose=0, callbacks=[monitor])
    >>> print(caught[0].message)
    Posterior collapse: 0 of 3 latent units are active after epoch 1...
    """

    def __init__(self, x, threshold=0.01, min_active=0.25, patience=3, condition=None):
        super().__init__()
        self.x, self.condition = x, condition
        self.threshold = checks.non_negative(threshold, "threshold")
        self.min_active = checks.non_negative(min_active, "min_active")
        self.patience = checks.positive_int(patience, "patience")

    def on_train_begin(self, logs=None):
        """Begins to count."""
        self.epochs_below = 0

    def get_state(self):
        """What a backup keeps."""
        return {"epochs_below": self.epochs_below}

    def set_state(self, state):
        """Goes on with what a backup kept."""
        self.epochs_below = state["epochs_below"]

    def on_epoch_end(self, epoch, logs=None):
        """Counts the active units, and warns."""
        self.active = evaluation.active_units(
            self.model, self.x, self.threshold, condition=self.condition
        )
        if logs is not None:
            logs["active_units"] = float(self.active.sum())
        below = self.active.mean() < self.min_active
        self.epochs_below = self.epochs_below + 1 if below else 0
        if self.epochs_below == self.patience:  # once, until it recovers
            warnings.warn(self._in_words(epoch), stacklevel=2)

    @property
    def kl(self):
        """KL(q || p) of each unit, nats."""
        try:
            return evaluation.kl_per_unit(self.model, self.x, condition=self.condition)
        except (ValueError, AttributeError):
            return None

    def _in_words(self, epoch):
        active, units, kl = int(self.active.sum()), self.active.size, self.kl
        nats = "" if kl is None else f", and all {units} together code {kl.sum():.3g} nats"
        return (
            f"Posterior collapse: {active} of {units} latent units are active after epoch "
            f"{epoch + 1}. The posterior mean of the others hardly varies with x{nats}. "
            "The decoder does without them. Let beta grow from 0 (schedules.Linear), or "
            "give each unit free bits (ELBO(free_bits=0.1)); a smaller decoder, or a "
            "smaller scale of the likelihood, makes latents worth their cost too. If the "
            "bound is good, fewer latent units will do."
        )
