"""Estimates of log p(x) by importance sampling, with their errors."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_vae import checks
from keras_vae.training.arrays import map_arrays

# Blocks of samples per call of a compiled function. Ctrl-C cannot interrupt a call, so it
# should take about half a second.
_BLOCKS_PER_CALL = 64


class ImportanceWeighted(NamedTuple):
    """Importance sampling estimates of log p(x): float32 arrays `[rows]`.

    Attributes:
        log_likelihood: the estimate of log p(x), nats.
        standard_error: its standard error, nats, by the delta method: the standard error
            of the mean weight, divided by the mean weight. NaN with one sample. It is not
            reliable if the effective sample size is small.
        effective_sample_size: `(sum w)**2 / sum w**2`, from 1 to `num_samples`.
    """

    log_likelihood: np.ndarray
    standard_error: np.ndarray
    effective_sample_size: np.ndarray


def importance_weighted(
    model: Any,
    x: Any,
    num_samples: int = 1000,
    batch_size: int = 2048,
    condition: Any = None,
    proposal: str = "posterior",
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> ImportanceWeighted:
    """Estimates log p(x), or log p(x | condition), by importance sampling.

    `log mean_k w_k`, `w_k = p(x, z_k) / q(z_k | x)` (Burda et al., 2016, equation 8; as an
    evaluation: Rezende et al., 2014, appendix E). The key of the noise is the position of
    the row and the index of the sample, so the noise does not depend on `batch_size`.
    Values between 0 and 1 are binarised as in `evaluate`.

    Args:
        model: `keras_vae.VAE`.
        x: array `[rows, *event]`, or data that yield batches, see `fit`.
        num_samples: int, K. The memory does not grow with K.
        batch_size: int, number of rows (examples times samples) per call of the decoder.
        condition: the condition of a conditional model.
        proposal: `"posterior"`, or `"prior"` for the Monte Carlo estimate with
            `w_k = p(x | z_k)`, whose error is far larger. Sohn et al. (2015), section 4.1,
            describe both.
        progress: function (done, total) that is called with numbers of samples, of each
            part of the rows.

    Returns:
        `ImportanceWeighted`: the estimate, its standard error and the effective sample
        size of each row.

    Raises:
        ValueError: for data that the likelihood does not accept, or an invalid argument.
        NotImplementedError: if the posterior is a point, as in an `Autoencoder`.
    """
    if not model.generative:
        raise NotImplementedError(
            f"{type(model).__name__} has no density p(x): its posterior is a point. Use "
            "`evaluate` for the reconstruction term, or a VAE for log p(x)."
        )
    num_samples = checks.positive_int(num_samples, "num_samples")
    batch_size = checks.positive_int(batch_size, "batch_size")
    is_proposal = proposal in ("posterior", "prior")
    checks.require(is_proposal, "proposal", '"posterior" or "prior"', proposal)

    def steps(jit_compile: bool) -> Any:
        key = "importance weights", proposal, jit_compile
        return model.compiled_once(key, lambda: _make_steps(model, proposal, jit_compile))

    log_sums, rows = [], 1
    for first, part, labels in model.parts(x, condition, batch_size):
        count, rows = len(part), max(rows, len(part))
        if count < rows:  # the last part is smaller: XLA would compile again
            part, labels = map_arrays(functools.partial(_repeat_rows, rows), (part, labels))
        sums = functools.partial(
            _log_sums, first, part, labels, num_samples, batch_size // rows, progress
        )
        found = model.try_xla(lambda xla, sums=sums: sums(*steps(xla)))
        log_sums.append(found[:, :count])
    log_sum, log_sum_of_squares = tf.concat(log_sums, axis=1).numpy()
    size = np.exp(2 * log_sum - log_sum_of_squares)
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN for one sample
        variance = (num_samples / size - 1) / np.float64(num_samples - 1)
    return ImportanceWeighted(
        log_likelihood=(log_sum - math.log(num_samples)).astype(np.float32),
        standard_error=np.sqrt(np.maximum(variance, 0)).astype(np.float32),
        effective_sample_size=size.astype(np.float32),
    )


def _repeat_rows(rows: int, array: Any) -> np.ndarray:
    return np.resize(array, (rows, *array.shape[1:]))


def _log_sums(
    start: int,
    x: Any,
    condition: Any,
    num_samples: int,
    at_once: int,
    progress: Callable[[int, int], Any],
    prepare: Callable[..., Any],
    add: Callable[..., tf.Tensor],
) -> tf.Tensor:
    """Computes the logarithms of the sums of w and of w**2 of rows: `[2, rows]`."""
    at_once = -(-num_samples // -(-num_samples // at_once))  # blocks of nearly equal sizes
    position = start + tf.range(len(x))
    prepared = prepare(tf.constant(x), condition, position)
    # float64: a running sum in float32 stops growing if |log w| is large.
    sums = tf.fill((2, len(x)), tf.constant(-np.inf, tf.float64))
    for first in range(0, num_samples, _BLOCKS_PER_CALL * at_once):
        last = min(first + _BLOCKS_PER_CALL * at_once, num_samples)
        bounds = tf.constant(first), tf.constant(last)
        sums = add(*prepared, position, *bounds, at_once, sums)
        progress(last, num_samples)
    return sums


def _make_steps(
    model: Any, proposal: str, jit_compile: bool
) -> tuple[Callable[..., Any], Callable[..., tf.Tensor]]:
    """Makes the compiled functions of `_log_sums` for a model."""

    def prepare(x: Any, condition: Any, position: tf.Tensor) -> tuple[Any, Any, Any]:
        x = model.likelihood.observe(model.as_float(x), model.row_noise(position))
        condition = model.embed(condition)
        return x, model.infer(x, condition), condition

    def add(
        x: Any, q_params: Any, condition: Any, position: tf.Tensor, first: tf.Tensor,
        last: tf.Tensor, samples: int, log_sums: tf.Tensor,
    ) -> tf.Tensor:  # fmt: skip
        """Adds the weights of the samples first .. last - 1, `samples` at a time."""
        draw = model.row_noise(position, jit_compile)

        def block(first: tf.Tensor, log_sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            noise = functools.partial(draw, first=first)
            terms = model.terms_given(x, q_params, noise, condition, samples)
            if proposal == "prior":
                terms = terms.from_prior
            log_weight = tf.cast(terms.log_weight, tf.float64)
            # The last block has fewer samples, in a program of the same shape.
            used = first + tf.range(samples) < last
            log_weight = tf.where(used[:, None], log_weight, -np.inf)
            powers = tf.stack([log_weight, 2 * log_weight])  # [2, samples, rows]
            powers = tf.concat([powers, log_sums[:, None]], 1)
            return first + samples, tf.reduce_logsumexp(powers, axis=1)

        return tf.while_loop(lambda i, _: i < last, block, (first, log_sums))[1]

    # `partial`: TensorFlow counts the traces of a function over all models, and warns.
    compile_ = functools.partial(tf.function, reduce_retracing=True, autograph=False)
    # `prepare` runs once for a part: XLA would take longer to compile it.
    return compile_(functools.partial(prepare)), compile_(
        functools.partial(add), jit_compile=jit_compile
    )
