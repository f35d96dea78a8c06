"""Hand-written code for JAX: see protocol.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import protocol

# The kernels of keras_vae's ConvEncoder([32, 64]) and ConvDecoder([64, 32]), and where the
# decoder begins. The last is a 1 x 1 convolution: a matrix.
CONV = [(3, 3, 1, 32), (3, 3, 32, 64), (7 * 7 * 64, 40)]
CONV += [(20, 7 * 7 * 64), (3, 3, 64, 64), (3, 3, 64, 32), (32, 1)]


def mlp(weights, x):
    """`[batch, n]` -> `[batch, m]`."""
    *inner, (last, last_b) = weights
    for w, b in inner:
        x = jax.nn.relu(x @ w + b)
    return x @ last + last_b


def conv_encoder(weights, x):
    """`[batch, 784]` -> `[batch, 2 * latent]`."""
    *inner, (last, last_b) = weights
    x = x.reshape(-1, 28, 28, 1)
    for w, b in inner:
        x = jax.lax.conv_general_dilated(
            x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + b)
    return x.reshape(len(x), -1) @ last + last_b


def conv_decoder(weights, z):
    """`[batch, latent]` -> `[batch, 784]`."""
    (first, first_b), *inner, (last, last_b) = weights
    x = jax.nn.relu(z @ first + first_b).reshape(-1, 7, 7, 64)
    for w, b in inner:
        x = jax.nn.relu(jax.lax.conv_transpose(x, w, (2, 2), "SAME") + b)
    return (x @ last + last_b).reshape(len(x), -1)


def loop(rows, times, network="dense", bfloat16=False, batch=128, hidden=400, depth=1):
    """The limit of JAX: an epoch is one program, a `scan` over batches on the device.

    784-400-20-400-784 by default, Adam written out, grey pixels as probabilities.
    """
    rng = np.random.default_rng(0)
    encoder, decoder, shapes = mlp, mlp, protocol.layers(hidden, depth)
    half = depth + 1
    if network == "conv":
        encoder, decoder, shapes, half = conv_encoder, conv_decoder, CONV, 3
    kernels = [jnp.asarray(protocol.glorot(rng, *shape)) for shape in shapes]
    weights = [(w, jnp.zeros(w.shape[-1])) for w in kernels]
    first, second = (jax.tree.map(jnp.zeros_like, weights) for _ in range(2))
    state = weights, first, second, jnp.zeros((), jnp.int32)
    data = jnp.asarray(protocol.images(rows))
    steps = rows // batch
    key = jax.random.key(0)
    kind = jnp.bfloat16 if bfloat16 else jnp.float32

    def run(network, weights, x):
        weights, x = jax.tree.map(lambda a: a.astype(kind), (weights, x))
        return network(weights, x).astype(jnp.float32)

    def loss_of(weights, x, key):
        loc, raw = jnp.split(run(encoder, weights[:half], x), 2, axis=1)
        scale = jax.nn.softplus(raw + protocol.UNIT_SCALE)
        z = loc + scale * jax.random.normal(key, loc.shape)
        logits = run(decoder, weights[half:], z)
        entropy = jax.nn.softplus(logits) - x * logits
        kl = 0.5 * (scale**2 + loc**2 - 1.0) - jnp.log(scale)
        return (entropy.sum() + kl.sum()) / batch

    def step(data, state, rows):
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

    @functools.partial(jax.jit, donate_argnums=1)
    def epoch(data, state, number):  # data captured as a constant would be compiled
        order = jax.random.permutation(jax.random.fold_in(key, number), rows)
        over_data = functools.partial(step, data)
        state, losses = jax.lax.scan(over_data, state, order.reshape(steps, batch))
        return state, losses.mean()

    def train(epochs):
        nonlocal state
        for number in range(epochs):
            state, loss = epoch(data, state, number)
        return float(loss)  # waits for the device

    train(1)
    return protocol.long_less_short(train, rows, times)


if __name__ == "__main__":
    protocol.serve({"loop": loop}, ("jax",))
