"""`PosteriorCollapse`, a callback that warns of posterior collapse."""

import warnings
from typing import Any

import keras
import numpy as np

from keras_vae import checks, evaluation


class PosteriorCollapse(keras.callbacks.Callback):
    """Counts the active units at the end of each epoch, and warns if there are few.

    A unit is active if its posterior mean varies with x (`evaluation.active_units`; Burda
    et al., 2016, section 5.2). The number of active units is added to the logs as
    `active_units`: place this callback before those that write the logs.

    Args:
        x: `[rows, *event]`, a few hundred held-out rows.
        threshold: float, the variance above which a unit is active.
        min_active: float, the share of active units below which to warn.
        patience: int, number of consecutive epochs below `min_active` before the warning.
        condition: the condition of these rows, for a conditional model.

    Attributes:
        active: bool `[*latent]`, True for units that were active after the last epoch.
        kl: float32 `[*latent]`, KL(q || p) of each unit in nats, with the current weights,
            or None if it has no closed form.

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
    >>> x = np.full((64, 4), 0.5, "float32")  # all rows are equal
    >>> monitor = PosteriorCollapse(x, patience=1)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     _ = vae.fit(x, epochs=1, verbose=0, callbacks=[monitor])
    >>> print(caught[0].message)
    Posterior collapse: 0 of 3 latent units are active after epoch 1...
    """

    def __init__(
        self,
        x: Any,
        threshold: float = 0.01,
        min_active: float = 0.25,
        patience: int = 3,
        condition: Any = None,
    ):
        super().__init__()
        self.x, self.condition = x, condition
        self.threshold = checks.non_negative(threshold, "threshold")
        self.min_active = checks.non_negative(min_active, "min_active")
        self.patience = checks.positive_int(patience, "patience")

    def on_train_begin(self, logs: Any = None) -> None:
        """Resets the count of epochs."""
        self.epochs_below = 0

    def get_state(self) -> dict[str, int]:
        """Returns the state that a backup stores."""
        return {"epochs_below": self.epochs_below}

    def set_state(self, state: dict[str, int]) -> None:
        """Restores the state of a backup."""
        self.epochs_below = state["epochs_below"]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Counts the active units, and warns."""
        self.active = evaluation.active_units(
            self.model, self.x, self.threshold, condition=self.condition
        )
        if logs is not None:
            logs["active_units"] = float(self.active.sum())
        below = self.active.mean() < self.min_active
        self.epochs_below = self.epochs_below + 1 if below else 0
        if self.epochs_below == self.patience:  # warns again only after a recovery
            warnings.warn(self._message(epoch), stacklevel=2)

    @property
    def kl(self) -> np.ndarray | None:
        """KL(q || p) of each unit, nats."""
        try:
            return evaluation.kl_per_unit(self.model, self.x, condition=self.condition)
        except (ValueError, AttributeError):
            return None

    def _message(self, epoch):
        active, units, kl = int(self.active.sum()), self.active.size, self.kl
        nats = "" if kl is None else f", and the KL of all units is {kl.sum():.3g} nats"
        return (
            f"Posterior collapse: {active} of {units} latent units are active after epoch "
            f"{epoch + 1}. The posterior mean of the others is almost constant{nats}. "
            "The decoder ignores them. Let beta grow from 0 (schedules.Linear), or use "
            "free bits (ELBO(free_bits=0.1)). A smaller decoder or a smaller scale of the "
            "likelihood also help. If the bound is good, use fewer latent units."
        )
