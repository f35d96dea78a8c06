"""The signatures of a model: row-wise functions of tensors, which are exported.

Rows are independent, with one seed per row, so that a server may batch requests freely. A
row returns NaN in every float output if its x has a value without a density (NaN, or a
pixel of 7 under a Bernoulli), if its z has NaN or infinity, or if its condition is unknown.
Other rows are not affected.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_vae import checks, random
from keras_vae.distributions.base import has_mean
from keras_vae.training.arrays import plain_array, select_rows

# Most rows of a block of `sample_rows`: larger blocks are not faster.
_BLOCK = 2048

Tensors = dict[str, tf.Tensor]
Specs = dict[str, tf.TensorSpec]
Shapes = dict[str, tuple[Specs, Specs]]  # (inputs, outputs) of each signature


def encode(model: Any, x: Any, seed: Any, condition: Any = None) -> Tensors:
    """Computes the approximate posterior of x, and draws from it.

    Args:
        model: `keras_vae.VAE`.
        x: float32 `[rows, *event]`.
        seed: int32 or int64 `[rows]`, one seed per row.
        condition: the condition of a conditional model, `[rows, ...]`, or a dict.

    Returns:
        Dict: `"mean"`, `"stddev"` of q(z|x) and `"z"`, a draw, each `[rows, *latent]`.
    """
    x, valid = _checked_x(model, x)
    condition, valid = _embedded(model, condition, valid)
    q_params = model.infer(model.encoder_input(x), condition)
    q = model.posterior.distribution(q_params)
    noise = _noise(seed, x)(model.posterior.noise, q.event_shape, random.POSTERIOR)
    z = model.posterior.sample(q_params, noise)[0]
    return _where(valid, {"mean": q.mean(), "stddev": q.stddev(), "z": z})


def encode_mean(model: Any, x: Any, condition: Any = None) -> Tensors:
    """Computes the mean of q(z|x), without a seed: `"mean"` `[rows, *latent]`."""
    x, valid = _checked_x(model, x)
    condition, valid = _embedded(model, condition, valid)
    q_params = model.infer(model.encoder_input(x), condition)
    return _where(valid, {"mean": model.posterior.distribution(q_params).mean()})


def decode(model: Any, z: Any, condition: Any = None) -> Tensors:
    """Computes the parameters of p(x|z) and its mean.

    Args:
        model: `keras_vae.VAE`.
        z: float32 `[rows, *latent]`.
        condition: as for `encode`.

    Returns:
        Dict: `"mean"` `[rows, *event]` and the parameters of the likelihood, with TFP's
        names, such as `"logits"`: `[rows, *event]`, or `[rows, 1, ...]` for a parameter
        with one number per row.

    Raises:
        ValueError: if a parameter of the likelihood has the name `mean`.
    """
    z = tf.ensure_shape(z, (None, *model.posterior.event_shape))
    condition, valid = _embedded(model, condition, _all(tf.abs(z) < math.inf))
    params = model.generate(z, condition)
    if "mean" in params:
        raise ValueError(
            "`likelihood` must not have a parameter named mean, which is the name of the "
            f"output. Received: the parameters {list(params)}"
        )
    outputs = {"mean": model.likelihood.distribution(params).mean(), **params}
    ones = [1] * len(model.likelihood.event_shape)
    for name, value in outputs.items():
        if value.shape.rank == 0:  # a server needs rows, to split a batch
            outputs[name] = tf.fill((tf.shape(z)[0], *ones), value)
    return _where(valid, outputs)


def sample(
    model: Any, seed: Any, condition: Any = None, guidance: float = 1.0, xla: bool = False
) -> Tensors:
    """Draws x by seed: z from the prior, x from p(x|z).

    Args:
        model: `keras_vae.VAE`.
        seed: int32 or int64 tensor `[rows]`, one seed per row.
        condition: as for `encode`.
        guidance: number, see `keras_vae.ConditionalVAE.sample`.
        xla: bool, as for `keras_vae.random.row_noise`.

    Returns:
        Dict: `"x"` `[rows, *event]`, the draws; `"mean"` `[rows, *event]`, the means of
        p(x|z); `"z"` `[rows, *latent]`.
    """
    draw = _noise(seed, xla=xla)
    prior, likelihood = model.prior, model.likelihood
    condition, valid = _embedded(model, condition, None)
    z = prior.sample(draw(prior.noise, prior.event_shape, random.PRIOR)[0], condition)
    if guidance == 1:
        params = model.generate(z, condition)
    else:
        params = model.guided(z, condition, guidance)
    noise = draw(likelihood.noise, likelihood.event_shape, random.OBSERVATION)
    outputs = {
        "x": likelihood.sample(params, noise)[0],
        "mean": likelihood.distribution(params).mean(),
        "z": z,
    }
    return outputs if valid is None else _where(valid, outputs)


def reconstruct(model: Any, x: Any, condition: Any = None) -> Tensors:
    """Computes `"mean"` `[rows, *event]`, the mean of p(x | E[z|x]), as `predict` does."""
    x, valid = _checked_x(model, x)
    valid = _embedded(model, condition, valid)[1]
    return _where(valid, {"mean": model(x, condition=condition)})


def score(
    model: Any, x: Any, seed: Any, condition: Any = None, num_samples: int = 16
) -> Tensors:
    """Estimates the log-likelihood of x and its bound, in nats per row.

    Args:
        model: `keras_vae.VAE`.
        x: float32 `[rows, *event]`. Grey values are binarised, with the seed, if the
            likelihood binarises them.
        seed: int32 or int64 `[rows]`, one seed per row.
        condition: as for `encode`.
        num_samples: int K, draws of z per row.

    Returns:
        Dict of `[rows]`: `"elbo"`; `"log_likelihood"`, E log p(x|z), a mean over the draws;
        `"kl"`, KL(q || p); `"log_prob"`, the importance-weighted estimate of log p(x) with
        K draws (Burda et al., 2016, equation 8). An autoencoder returns only
        `"log_likelihood"`.
    """
    x, valid = _checked_x(model, x)
    condition, valid = _embedded(model, condition, valid)
    draw = _noise(seed, x)
    x = model.likelihood.observe(x, draw)
    q_params = model.infer(x, condition)
    terms = model.terms_given(x, q_params, draw, condition, num_samples)
    outputs = {"log_likelihood": -terms.reconstruction}
    if model.generative:
        log_prob = tf.reduce_logsumexp(terms.log_weight, axis=0) - math.log(num_samples)
        outputs |= {"elbo": terms.elbo, "kl": terms.kl, "log_prob": log_prob}
    return _where(valid, outputs)


class Signature(NamedTuple):
    """One of the functions above, for one model.

    Attributes:
        function: tensors, by name or in the order of `inputs` -> dict of tensors.
        inputs: (dtype, shape of a row) by name; the dtype of a seed is `"int"`.
        meaning: str, describes the result.
        outputs: the meaning of each output, by name; for `decode` without the parameters of
            the likelihood.
    """

    function: Callable[..., Tensors]
    inputs: dict[str, tuple[str, tuple]]
    meaning: str
    outputs: dict[str, str]


def build_signatures(model: Any, num_samples: int = 16) -> dict[str, Signature]:
    """Builds the signatures that all models have, by name: see `VAE.signatures`.

    Args:
        model: `keras_vae.VAE`.
        num_samples: int K, draws per row of `score`.

    Returns:
        Dict of `Signature`. An autoencoder has neither `encode`, which draws, nor `sample`.
    """
    num_samples = checks.positive_int(num_samples, "num_samples")
    specs: dict[str, tuple] = {
        "x": ("float32", model.likelihood.event_shape),
        "z": ("float32", model.posterior.event_shape),
        "seed": ("int", ()),
    }
    conditions = {
        name: ("int" if value.dtype.kind == "i" else "float32", value.shape[1:])
        for name, value in by_name(model.example_condition(1)).items()
    }

    def make(function, names, meaning, outputs):
        inputs = {name: specs[name] for name in names} | conditions

        def call(*values, **kwargs):
            positional = [name for name in inputs if name not in kwargs]
            kwargs |= zip(positional, values, strict=True)
            if conditions and "condition" not in conditions:
                kwargs["condition"] = {name: kwargs.pop(name) for name in conditions}
            return function(model, **kwargs)

        return Signature(call, inputs, meaning, outputs)

    mean = {"mean": "mean of q(z|x)"}
    x_mean = {"mean": "mean of p(x|z)"}
    x_and_z = {"x": "a draw from p(x|z)", **x_mean, "z": "the draw from the prior"}
    z = {"stddev": "standard deviation of q(z|x)", "z": "a draw from q(z|x)"}
    nats = {"log_likelihood": f"E log p(x|z), nats, a mean over {num_samples} draws of z"}
    if model.generative:
        nats |= {
            "elbo": "evidence lower bound, nats: log_likelihood - kl",
            "kl": "KL(q(z|x) || p(z)), nats",
            "log_prob": f"log p(x), nats, importance-weighted with {num_samples} draws",
        }
    posterior = "the approximate posterior q(z|x), and a draw from it"
    draw = "a draw from the model: z from the prior, x from p(x|z)"
    reconstruction = "the reconstruction of x, as `predict` returns it"
    scoring = functools.partial(score, num_samples=num_samples)
    signatures = {
        "encode": make(encode, ["x", "seed"], posterior, mean | z),
        "encode_mean": make(encode_mean, ["x"], "the mean of q(z|x), without a seed", mean),
        "decode": make(decode, ["z"], "the likelihood p(x|z)", x_mean),
        "sample": make(sample, ["seed"], draw, x_and_z),
        "reconstruct": make(
            reconstruct, ["x"], reconstruction, {"mean": "mean of p(x | E[z|x])"}
        ),
        "score": make(
            scoring, ["x", "seed"], "the log-likelihood of x and its bound", nats
        ),
    }
    if not model.generative:
        del signatures["encode"], signatures["sample"]
    return signatures


def of_x(
    model: Any, function: Callable[[tf.Tensor], Tensors], meaning: str, outputs: dict
) -> Signature:
    """Makes a signature of x alone.

    Args:
        model: `keras_vae.VAE`.
        function: float32 x `[rows, *event]` -> dict of tensors `[rows, ...]`.
        meaning: str, see `Signature`.
        outputs: dict of str, see `Signature`.
    """

    def call(x: Any) -> Tensors:
        x, valid = _checked_x(model, x)
        return _where(valid, function(x))

    inputs = {"x": ("float32", model.likelihood.event_shape)}
    return Signature(call, inputs, meaning, outputs)


def by_name(condition: Any) -> dict[str, Any]:
    """Returns a condition as inputs of signatures: a dict by name, empty for None."""
    if isinstance(condition, dict):
        return condition
    return {} if condition is None else {"condition": condition}


def parts_without_formula(model: Any, name: str) -> list:
    """Returns the heads and priors of a signature that do not compute samples from noise.

    Args:
        model: `keras_vae.VAE`.
        name: str, the name of a signature.

    Returns:
        List of layers whose `noise` is `"seed"`: they use TFP's own samplers, whose numbers
        differ between runtimes. A head whose mean is estimated uses them for its mean.
    """
    drawn = {
        "encode": [model.posterior],
        "score": [model.posterior],
        "sample": [model.prior, model.likelihood],
    }.get(name, [])
    means = {
        "encode_mean": [model.posterior],
        "decode": [model.likelihood],
        "reconstruct": [model.posterior, model.likelihood],
    }.get(name, [])
    return [part for part in drawn if part.noise == "seed"] + [
        part for part in means if part.noise == "seed" and not _has_mean(model, part)
    ]


def _has_mean(model, head):
    """Returns True if the mean of a head of the model is not estimated from draws."""
    condition = model.embed(model.example_condition(1))
    if head is model.posterior:
        params = model.infer(tf.zeros((1, *model.likelihood.event_shape)), condition)
    else:
        params = model.generate(tf.zeros((1, *model.posterior.event_shape)), condition)
    return has_mean(head, params)


def sample_rows(
    model: Any,
    n: int | None = None,
    seed: int | None = None,
    seeds: Any = None,
    name: str = "x",
    condition: Any = None,
    guidance: float = 1.0,
) -> tf.Tensor:
    """Draws rows with `sample`, in blocks.

    Args:
        model: `keras_vae.VAE`.
        n: int, number of rows, with `seed` (default: a random one).
        seed: int, from which the seeds of the rows are derived.
        seeds: ints `[rows]`, the seeds of the rows, in place of `n` and `seed`.
        name: str, the output of `sample` to return.
        condition: as for `encode`.
        guidance: number, see `keras_vae.ConditionalVAE.sample`.

    Raises:
        ValueError: unless exactly one of `n` and `seeds` is set; if seeds are not ints.
    """
    if (n is None) == (seeds is None) or (seed is not None and seeds is not None):
        raise ValueError(
            "Give either `n`, optionally with a `seed`, or `seeds`. "
            f"Received: n={n}, seed={seed}, seeds={seeds}"
        )
    if seeds is None:
        seed = random.fresh_seed() if seed is None else checks.int32(seed, "seed")
        seeds = random.sample_seeds(checks.positive_int(n, "n"), seed)
    array = np.asarray(plain_array(seeds, "seeds"))
    if (
        array.ndim != 1
        or not array.size
        or array.dtype.kind not in "iu"
        or array.max() >= 2**63
    ):
        raise ValueError(
            "`seeds` must be ints of 64 bits and of shape [rows], one for each row. "
            f"Received: seeds of dtype {array.dtype} and shape {array.shape}"
        )
    seeds = array.astype(np.int64)
    condition = model.check_condition(condition, len(seeds))
    block = model.rows_at_once(_BLOCK)
    if len(seeds) <= block:
        return sample(model, seeds, condition, guidance)[name]
    # All blocks have one shape, so XLA compiles once. Surplus rows are removed below.
    count = -(-len(seeds) // block)
    rows = np.resize(np.arange(len(seeds)), (count, block))

    def run(jit_compile):
        def draw_block(seeds, condition):
            return sample(model, seeds, condition, guidance, jit_compile)[name]

        draw = model.compiled_once(
            ("sample", name, guidance, jit_compile),
            # `partial`: TensorFlow counts the traces of a function over all models.
            lambda: tf.function(
                functools.partial(draw_block), jit_compile=jit_compile, autograph=False
            ),
        )
        blocks = [select_rows((seeds, condition), block) for block in rows]
        return tf.concat([draw(*block) for block in blocks], 0)

    return model.try_xla(run)[: len(seeds)]


def _noise(seed, x=None, xla=False):
    """Checks the seeds of the rows of x, and returns their `random.row_noise`."""
    seed = tf.convert_to_tensor(seed)
    if seed.dtype not in (tf.int32, tf.int64):
        raise ValueError(
            f"`seed` must be int32 or int64. Received: dtype {seed.dtype.name}"
        )
    seed = tf.ensure_shape(seed, (None,))
    if x is not None:
        # A wrong number of seeds must fail in every runtime: one seed would broadcast.
        # Both are needed: TensorFlow's optimiser removes the reshape, the converters remove
        # the assertion.
        rows = tf.shape(x)[0]
        tf.debugging.assert_equal(
            tf.shape(seed)[0], rows, "`seed` must hold one seed for each row of x"
        )
        seed = tf.reshape(seed, (rows,))
    low, high = random.seed_words(seed)
    return random.row_noise(low, high, xla)


def _checked_x(model, x):
    """Returns (x in float32, bool `[rows]`: True if all values have a density)."""
    x = model.as_float(x)
    return x, _all(model.likelihood.supported(x))


def _embedded(model, condition, valid):
    """Embeds the condition; returns it and `valid` `[rows]`, false if it is not finite."""
    condition = model.embed(condition)
    for part in tf.nest.flatten(condition):
        if part is not None:
            finite = _all(tf.abs(part) < math.inf)
            valid = finite if valid is None else valid & finite
    return condition, valid


def _all(values):
    """Returns True if all values of a row are true: `[rows]`."""
    return tf.reduce_all(values, axis=range(1, values.shape.rank))


def _where(valid, outputs):
    """Sets the outputs to NaN in the rows that are not valid."""
    # Not with `tf.where`: LiteRT's int8 quantiser would calibrate on its NaN.
    nan_or_0 = tf.sqrt(tf.cast(valid, tf.float32) - 1.0)  # 0 or NaN, [rows]

    def mark(value):
        ones = [1] * (value.shape.rank - 1)
        return value + tf.cast(tf.reshape(nan_or_0, (-1, *ones)), value.dtype)

    return {name: mark(value) for name, value in outputs.items()}
