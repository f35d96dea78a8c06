"""log p(x) by importance sampling, with its error."""

import functools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_vae import checks
from keras_vae.distributions import Deterministic


class ImportanceWeighted(NamedTuple):
    """What importance sampling says of log p(x): arrays `[rows]`, float32.

    Attributes:
        log_likelihood: the estimate of log p(x), nats.
        standard_error: its standard error, nats, by the delta method: that of the mean
            weight relative to the mean weight. NaN with one sample. It is honest only
            while the effective sample size is not small.
        effective_sample_size: `(sum w)**2 / sum w**2`, from 1 to `num_samples`.
    """

    log_likelihood: np.ndarray
    standard_error: np.ndarray
    effective_sample_size: np.ndarray


def importance_weighted(model, x, num_samples=1000, batch_size=2048):
    """Estimates log p(x) with the posterior as the proposal.

    `log mean_k w_k`, `w_k = p(x, z_k) / q(z_k | x)` (Burda et al., 2016, equation 8; as an
    evaluation: Rezende et al., 2014, appendix E). Noise is keyed by the place of the row
    and the number of the sample, so that the numbers do not depend on `batch_size`, and
    grey data are binarised as in `evaluate`.

    Args:
        model: `keras_vae.VAE`.
        x: array `[rows, *event]`.
        num_samples: int, K. Samples are streamed: memory does not grow with it.
        batch_size: int, how many rows (examples times samples) pass the decoder at once.

    Returns:
        `ImportanceWeighted`: the estimate, its standard error and the effective sample
        size of each row.

    Raises:
        ValueError: for data that do not fit the likelihood, or counts below 1.
    """
    if isinstance(model.posterior, Deterministic):
        raise NotImplementedError(
            f"{type(model).__name__} defines no density p(x): its posterior is a point. "
            "`evaluate` gives its reconstruction term; a VAE has log_likelihood."
        )
    x = model.check_data(x)
    num_samples = checks.positive_int(num_samples, "num_samples")
    batch_size = checks.positive_int(batch_size, "batch_size")
    rows = min(len(x), batch_size)
    at_once = min(num_samples, batch_size // rows)
    prepare, add = _steps(model)
    log_sums = []  # of w and of w**2, [2, rows] for each batch
    for start in range(0, len(x), rows):
        part = tf.constant(x[start : start + rows])
        position = start + tf.range(len(part))
        observed, q_params = prepare(part, position)
        # float64: in float32 a running sum stops to grow where |log w| is large.
        sums = tf.fill((2, len(part)), tf.constant(-np.inf, tf.float64))
        for first in range(0, num_samples, at_once):
            samples = min(at_once, num_samples - first)
            sums = add(observed, q_params, position, tf.constant(first), samples, sums)
        log_sums.append(sums)
    log_sum, log_sum_of_squares = tf.concat(log_sums, axis=1).numpy()
    size = np.exp(2 * log_sum - log_sum_of_squares)
    with np.errstate(divide="ignore", invalid="ignore"):  # one sample has no error
        variance = (num_samples / size - 1) / np.float64(num_samples - 1)
    return ImportanceWeighted(
        log_likelihood=(log_sum - math.log(num_samples)).astype(np.float32),
        standard_error=np.sqrt(np.maximum(variance, 0)).astype(np.float32),
        effective_sample_size=size.astype(np.float32),
    )


def _steps(model):
    """The two graphs: once per batch of rows, and once per block of samples."""
    graph = functools.partial(
        tf.function, reduce_retracing=True, jit_compile=model.jit_compile
    )

    @graph
    def prepare(x, position):
        x = model.likelihood.observe(model.as_float(x), model.row_noise(position))
        return x, model.infer(x)

    @graph
    def add(x, q_params, position, first, samples, log_sums):
        draw = functools.partial(model.row_noise(position), first=first)
        terms = model.terms_given(x, q_params, draw, num_samples=samples)
        log_weight = tf.cast(terms.log_weight, tf.float64)
        powers = tf.stack([log_weight, 2 * log_weight])  # [2, samples, rows]
        return tf.reduce_logsumexp(tf.concat([powers, log_sums[:, None]], 1), axis=1)

    return prepare, add
