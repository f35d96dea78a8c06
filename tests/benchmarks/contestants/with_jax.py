"""Hand-written code for JAX: see protocol.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import protocol

LATENT, PIXELS = 20, 784


def loop(rows, times, batch=128, hidden=400, depth=1):
    """The limit of JAX: an epoch is one program, a `scan` over batches on the device.

    784-400-20-400-784 by default, Adam written out, grey pixels as probabilities.
    """
    rng = np.random.default_rng(0)
    sizes = [PIXELS, *[hidden] * depth, 2 * LATENT], [LATENT, *[hidden] * depth, PIXELS]
    pairs = [pair for half in sizes for pair in zip(half[:-1], half[1:], strict=True)]
    weights = [
        (jnp.asarray(protocol.glorot(rng, *pair)), jnp.zeros(pair[1])) for pair in pairs
    ]
    first, second = (jax.tree.map(jnp.zeros_like, weights) for _ in range(2))
    state = weights, first, second, jnp.zeros((), jnp.int32)
    data = jnp.asarray(protocol.images(rows))
    steps = rows // batch
    key = jax.random.key(0)

    def network(weights, x):
        for w, b in weights[:-1]:
            x = jax.nn.relu(x @ w + b)
        return x @ weights[-1][0] + weights[-1][1]

    def loss_of(weights, x, key):
        loc, raw = jnp.split(network(weights[: depth + 1], x), 2, axis=1)
        scale = jax.nn.softplus(raw + protocol.UNIT_SCALE)
        z = loc + scale * jax.random.normal(key, loc.shape)
        logits = network(weights[depth + 1 :], z)
        entropy = jax.nn.softplus(logits) - x * logits
        kl = 0.5 * (scale**2 + loc**2 - 1.0) - jnp.log(scale)
        return (entropy.sum() + kl.sum()) / batch

    def step(state, rows):
        weights, first, second, count = state
        x = data[rows].astype(jnp.float32) / 255.0
        draw = jax.random.fold_in(key, count)
        loss, gradients = jax.value_and_grad(loss_of)(weights, x, draw)
        power = (count + 1).astype(jnp.float32)
        rate = 1e-3 * jnp.sqrt(1.0 - 0.999**power) / (1.0 - 0.9**power)
        mean = lambda decay: lambda old, new: old + (new - old) * decay  # noqa: E731
        first = jax.tree.map(mean(0.1), first, gradients)
        second = jax.tree.map(mean(0.001), second, jax.tree.map(jnp.square, gradients))
        weights = jax.tree.map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7), weights, first, second
        )
        return (weights, first, second, count + 1), loss

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(state, number):
        order = jax.random.permutation(jax.random.fold_in(key, number), rows)
        state, losses = jax.lax.scan(step, state, order.reshape(steps, batch))
        return state, losses.mean()

    def train(epochs):
        nonlocal state
        for number in range(epochs):
            state, loss = epoch(state, number)
        return float(loss)

    train(1)
    return protocol.long_less_short(train, rows, times)


if __name__ == "__main__":
    protocol.serve({"loop": loop}, ("jax",))
