"""Findings about a run in words: what went wrong, and what to try."""

import math
from typing import Any, NamedTuple

import numpy as np

from keras_vae.datasets import Dataset

RELIABLE = 10  # the smallest effective sample size of an estimate of the NLL


class Finding(NamedTuple):
    """A problem of a run in a few words, and an explanation with what to try."""

    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.title} {self.text}"


def findings(
    numbers: dict[str, float], metrics: dict[str, list[float]], options: Any
) -> list[Finding]:
    """Returns the problems of a run, the most serious first; empty if there are none.

    Args:
        numbers: the result of `evaluate`.
        metrics: the columns of metrics.csv, by name.
        options: `Options` of the run.
    """
    error = numbers["reconstruction_error"]
    if not math.isfinite(error):  # the other numbers say nothing then
        return [_diverged(error, options)]
    found = [
        _collapse(numbers, options),
        _useless(numbers),
        _overfitting(numbers),
        _unfinished(metrics, options),
    ]
    return [finding for finding in found if finding is not None]


def _diverged(error, options):
    """Reports reconstructions of NaN or infinity."""
    return Finding(
        "Training diverged.",
        f"The reconstruction error of the test rows is {error}. Do not use this model. Try "
        f"a --learning-rate below {options.learning_rate:g}, and check the data for values "
        "that are far from all others.",
    )


def _collapse(numbers, options):
    """Reports posterior collapse: less than a quarter of the units are active, or one."""
    units, active = (int(numbers.get(f"{name}_units", 0)) for name in ("latent", "active"))
    enough = max(min(2, units), units / 4)
    if active >= enough:
        return None
    measures = []
    if not options.free_bits:
        measures.append("--free-bits 0.1")
    if options.beta > 0.5:
        measures.append(f"--beta {options.beta / 2:g}")
    if options.beta_schedule == "constant":
        measures.append("--beta-schedule linear")
    if options.likelihood == "normal" and options.scale in ("shared", "per_element"):
        measures.append("a smaller fixed --scale")
    if active:
        measures.append(f"fewer latent units (--latent {max(2, active)})")
        return Finding(
            f"{active} of {units} latent units {'is' if active == 1 else 'are'} active.",
            f"The decoder ignores the others. Try {_listed(measures)}. If the "
            "reconstructions are good, fewer units are enough.",
        )
    return Finding(
        f"Posterior collapse: none of the {units} latent units is active."
        if units > 1 else "Posterior collapse: the only latent unit is not active.",
        "The decoder ignores z: all reconstructions are nearly the same, and the codes "
        f"have almost no information. Do not use this model. Try {_listed(measures)}.",
    )  # fmt: skip


def _useless(numbers):
    """Reports reconstructions that are no better than the mean row."""
    error = numbers.get("relative_error", 0)
    if not error >= 1:
        return None
    return Finding(
        "The reconstructions are no better than the mean of the training rows.",
        f"Their error is {error:.2f} standard deviations of the data. Check the range of "
        "the values and the likelihood, and train longer.",
    )


def _overfitting(numbers):
    """Reports test rows with a far larger error than training rows."""
    train = numbers.get("train_reconstruction_error", 0)
    ratio = numbers["reconstruction_error"] / train if train > 0 else 0
    if not ratio > 1.5 or numbers.get("active_units") == 0:
        return None
    return Finding(
        "The model overfits.",
        f"The squared error of test rows is {ratio:.1f} times that of training rows. Try "
        "more data, a smaller network (--hidden, --filters), fewer epochs, or for images "
        "--shift and --rotate.",
    )


def _unfinished(metrics, options):
    """Reports a bound that still rises: the last tenth of the epochs gains over 5 %."""
    name = next((n for n in ("val_elbo", "elbo") if n in metrics), None)
    elbo = np.array(metrics.get(name, ()))
    epochs = len(elbo)
    stopped_early = epochs < options.epochs
    if epochs < 10 or stopped_early or not np.isfinite(elbo).all():
        return None
    tenth = epochs // 10
    last = elbo[-tenth:].mean()
    gain = last - elbo[-2 * tenth : -tenth].mean()
    # The first fifth is left out, because a bad start would hide the gain.
    if not (gain > 0.05 * (last - elbo[epochs // 5]) and elbo.argmax() >= epochs - tenth):
        return None
    return Finding(
        "Training ended too early.",
        f"The ELBO still rose by {gain:.3g} nats in the last tenth of {epochs} epochs. "
        f"Continue with --resume --epochs {2 * epochs}.",
    )


def _listed(items):
    """Joins the items of a list: a, b or c."""
    return " or ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def is_bound(numbers: dict[str, float]) -> bool:
    """Returns True if the NLL has too few effective samples to be an estimate."""
    return numbers.get("effective_sample_size", math.inf) < RELIABLE


def caveats(numbers: dict[str, float], data: Dataset, options: Any) -> list[str]:
    """Returns sentences about the limits of the numbers.

    Args:
        numbers: the result of `evaluate`.
        data: the data set of the run.
        options: `Options` of the run.
    """
    texts = []
    if is_bound(numbers):
        texts.append(
            f"The effective sample size is {numbers['effective_sample_size']:.1f}, below "
            f"{RELIABLE}. The test NLL is therefore only an upper bound: the true value is "
            "lower by an unknown amount. More --num-samples make the bound tighter."
        )
    density = "bits_per_dimension" in numbers and options.likelihood != "bernoulli"
    if density and _has_whole_numbers(data):
        texts.append(
            "The values of the data are whole numbers, and the likelihood is a density. "
            "Bits per dimension then have no lower limit, and cannot be compared with "
            "published ones, which add uniform noise to the values (dequantisation)."
        )
    if data.scaler is not None and "test_nll" in numbers:
        nats = float(np.log(data.scaler.scale).sum())
        texts.append(
            "All nats are those of the standardised columns. In the units of the table, "
            f"the NLL is {numbers['test_nll'] + nats:,.2f} nats: the logarithms of the "
            f"standard deviations sum to {nats:,.2f}. An NLL can be negative, because a "
            "density can be above 1."
        )
    if options.grey == "soft":
        texts.append(
            "Grey pixels were soft targets: the bound and its reconstruction term are not "
            "log-likelihoods."
        )
    return texts


def _has_whole_numbers(data):
    """Returns True if the values before scaling are whole numbers."""
    low, high = data.value_range
    x = np.asarray(data.x_test[:100])
    raw = x if x.dtype == np.uint8 else low + x.astype(np.float64) * (high - low)
    return bool(np.allclose(raw, np.round(raw), atol=1e-3))
