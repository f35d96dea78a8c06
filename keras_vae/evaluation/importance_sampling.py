"""log p(x) by importance sampling, with its error."""

import functools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_vae import checks
from keras_vae.training.arrays import select_rows

# Blocks of samples in one call, which Ctrl-C cannot end: half a second.
_CALL = 64


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


def importance_weighted(
    model, x, num_samples=1000, batch_size=2048, condition=None, proposal="posterior"
):
    """Estimates log p(x), or log p(x | condition), with the posterior as the proposal.

    `log mean_k w_k`, `w_k = p(x, z_k) / q(z_k | x)` (Burda et al., 2016, equation 8; as an
    evaluation: Rezende et al., 2014, appendix E). Noise is keyed by the place of the row
    and the number of the sample, so that the numbers do not depend on `batch_size`, and
    grey data are binarised as in `evaluate`.

    Args:
        model: `keras_vae.VAE`.
        x: array `[rows, *event]`.
        num_samples: int, K. Samples are streamed: memory does not grow with it.
        batch_size: int, how many rows (examples times samples) pass the decoder at once.
        condition: what a conditional model conditions on.
        proposal: `"posterior"`, or `"prior"`: then `w_k = p(x | z_k)`, the Monte Carlo
            estimate, of far larger error (both: Sohn et al., 2015, section 4.1).

    Returns:
        `ImportanceWeighted`: the estimate, its standard error and the effective sample
        size of each row.

    Raises:
        ValueError: for data that do not fit the likelihood, or counts below 1.
    """
    if not model.generative:
        raise NotImplementedError(
            f"{type(model).__name__} defines no density p(x): its posterior is a point. "
            "`evaluate` gives its reconstruction term; a VAE has log_likelihood."
        )
    x = model.check_data(x)
    num_samples = checks.positive_int(num_samples, "num_samples")
    batch_size = checks.positive_int(batch_size, "batch_size")
    condition = model.check_condition(condition, len(x))
    known = proposal in ("posterior", "prior")
    checks.require(known, "proposal", '"posterior" or "prior"', proposal)

    def run(jit_compile):
        key = "importance weights", proposal, jit_compile
        steps = model.compiled_once(key, lambda: _make_steps(model, proposal, jit_compile))
        return _log_sums(x, condition, num_samples, batch_size, *steps)

    log_sum, log_sum_of_squares = model.try_xla(run)
    size = np.exp(2 * log_sum - log_sum_of_squares)
    with np.errstate(divide="ignore", invalid="ignore"):  # one sample has no error
        variance = (num_samples / size - 1) / np.float64(num_samples - 1)
    return ImportanceWeighted(
        log_likelihood=(log_sum - math.log(num_samples)).astype(np.float32),
        standard_error=np.sqrt(np.maximum(variance, 0)).astype(np.float32),
        effective_sample_size=size.astype(np.float32),
    )


def _log_sums(x, condition, num_samples, batch_size, prepare, add):
    """The logarithms of the sums of w and of w**2, `[2, rows]`."""
    rows = min(len(x), batch_size)
    at_once = min(num_samples, batch_size // rows)
    log_sums = []
    for start in range(0, len(x), rows):
        part = tf.constant(x[start : start + rows])
        position = start + tf.range(len(part))
        given = select_rows(condition, slice(start, start + rows))
        prepared = prepare(part, given, position)
        # float64: in float32 a running sum stops to grow where |log w| is large.
        sums = tf.fill((2, len(part)), tf.constant(-np.inf, tf.float64))
        for first in range(0, num_samples, _CALL * at_once):
            last = min(first + _CALL * at_once, num_samples)
            whole = last - (last - first) % at_once
            for begin, end in ((first, whole), (whole, last)):
                if begin < end:
                    samples = min(at_once, end - begin)
                    bounds = tf.constant(begin), tf.constant(end)
                    sums = add(*prepared, position, *bounds, samples, sums)
        log_sums.append(sums)
    return tf.concat(log_sums, axis=1).numpy()


def _make_steps(model, proposal, jit_compile):
    compiled = functools.partial(
        tf.function, reduce_retracing=True, jit_compile=jit_compile
    )

    @compiled
    def prepare(x, condition, position):
        x = model.likelihood.observe(model.as_float(x), model.row_noise(position))
        condition = model.embed(condition)
        return x, model.infer(x, condition), condition

    @compiled
    def add(x, q_params, condition, position, first, last, samples, log_sums):
        """Adds the weights of the samples first .. last - 1, so many at a time."""
        draw = model.row_noise(position, jit_compile)

        def block(first, log_sums):
            noise = functools.partial(draw, first=first)
            terms = model.terms_given(x, q_params, noise, condition, samples)
            if proposal == "prior":
                terms = terms.from_prior
            log_weight = tf.cast(terms.log_weight, tf.float64)
            powers = tf.stack([log_weight, 2 * log_weight])  # [2, samples, rows]
            powers = tf.concat([powers, log_sums[:, None]], 1)
            return first + samples, tf.reduce_logsumexp(powers, axis=1)

        return tf.while_loop(lambda i, _: i < last, block, (first, log_sums))[1]

    return prepare, add
