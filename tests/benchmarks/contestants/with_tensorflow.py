"""keras_vae, and hand-written code for TensorFlow: see protocol.py."""

import keras
import numpy as np
import protocol
import tensorflow as tf

import keras_vae as kv

BATCH, LATENT, HIDDEN, PIXELS = 128, 20, 400, 784


def dense(grey="soft", hidden=HIDDEN, latent=LATENT, activation="relu", depth=1, seed=0):
    """784-400-20-400-784 by default."""
    return kv.VAE(
        encoder=kv.nets.MLP([hidden] * depth, activation),
        decoder=kv.nets.MLP([hidden] * depth, activation),
        likelihood=kv.distributions.IndependentBernoulli((PIXELS,), grey=grey),
        latent_dim=latent,
        seed=seed,
    )


def conv(grey="soft", size=28):
    """32 and 64 channels with stride 2, and the reverse in the decoder."""
    shape = (size, size, 1)
    return kv.VAE(
        encoder=kv.nets.ConvEncoder([32, 64]),
        decoder=kv.nets.ConvDecoder([64, 32], shape),
        likelihood=kv.distributions.IndependentBernoulli(shape, grey=grey),
        latent_dim=LATENT,
        seed=0,
    )


def recurrent():
    """An LSTM with 64 units that reads the rows of an image, and one that writes them."""
    lstm, shape = keras.layers.LSTM, (28, 28)
    repeat = keras.layers.RepeatVector(shape[0])
    return kv.VAE(
        encoder=lstm(64),
        decoder=keras.Sequential([repeat, lstm(64, return_sequences=True)]),
        likelihood=kv.distributions.IndependentBernoulli(shape, grey="soft"),
        latent_dim=LATENT,
        seed=0,
    )


def fit(
    rows,
    times,
    network="dense",
    batch=BATCH,
    bfloat16=False,
    jit_compile="auto",
    steps_per_execution="auto",
    **options,
):
    """`fit` on an array of uint8; `options` are those of the model."""
    keras.config.set_dtype_policy("mixed_bfloat16" if bfloat16 else "float32")
    networks = {"dense": dense, "conv": conv, "recurrent": recurrent}
    vae = networks[network](**options)
    vae.compile("adam", jit_compile=jit_compile, steps_per_execution=steps_per_execution)
    x = protocol.images(rows, vae.likelihood.event_shape)

    def train(epochs):
        history = vae.fit(x, batch_size=batch, epochs=epochs, verbose=0).history
        return history["loss"][-1]

    train(1)
    return protocol.long_less_short(train, len(x), times)


def by_hand(grey, batch, hidden, depth):
    """Returns a train step of plain variables with Adam written out, and its total loss."""
    rng = np.random.default_rng(0)
    weights = []
    for fan_in, fan_out in protocol.layers(hidden, depth):
        kernel = protocol.glorot(rng, fan_in, fan_out)
        weights += [tf.Variable(kernel), tf.Variable(tf.zeros(fan_out))]
    half = len(weights) // 2
    first = [tf.Variable(tf.zeros_like(w)) for w in weights]
    second = [tf.Variable(tf.zeros_like(w)) for w in weights]
    step = tf.Variable(0, dtype=tf.int64)
    total = tf.Variable(0.0)

    def network(x, weights):
        *inner, (w, b) = zip(weights[::2], weights[1::2], strict=True)
        for inner_w, inner_b in inner:
            x = tf.nn.relu(x @ inner_w + inner_b)
        return x @ w + b

    @tf.function(jit_compile=True)
    def train_step(x):
        count = step.assign_add(1)
        seed = tf.stack([tf.constant(0, tf.int64), count])
        x = tf.cast(x, tf.float32) / 255.0
        if grey == "binarize":
            u = tf.random.stateless_uniform(tf.shape(x), seed + 2**40, alg="philox")
            x = tf.cast(u < x, tf.float32)
        with tf.GradientTape() as tape:
            loc, raw = tf.split(network(x, weights[:half]), 2, axis=1)
            scale = tf.nn.softplus(raw + protocol.UNIT_SCALE)
            noise = tf.random.stateless_normal(tf.shape(loc), seed, alg="philox")
            logits = network(loc + scale * noise, weights[half:])
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(x, logits)
            kl = 0.5 * (scale**2 + loc**2 - 1.0) - tf.math.log(scale)
            loss = (tf.reduce_sum(entropy) + tf.reduce_sum(kl)) / batch
        power = tf.cast(count, tf.float32)
        rate = 1e-3 * tf.sqrt(1.0 - 0.999**power) / (1.0 - 0.9**power)
        gradients = tape.gradient(loss, weights)
        for w, g, m, v in zip(weights, gradients, first, second, strict=True):
            m.assign_add((g - m) * 0.1)
            v.assign_add((g * g - v) * 0.001)
            w.assign_sub(rate * m / (tf.sqrt(v) + 1e-7))
        total.assign_add(loss)

    return train_step, total


def loop(rows, times, grey="soft", batch=BATCH, hidden=HIDDEN):
    """The limit on a CPU: hand-written code, optimised only for speed.

    A step is compiled by XLA, and a loop in the graph reads batches that are prefetched.
    """
    train_step, total = by_hand(grey, batch, hidden, depth=1)
    data = tf.constant(protocol.images(rows))
    steps = len(data) // batch

    @tf.function
    def in_graph(dataset):
        for x in dataset:
            train_step(x)

    def gather(i):
        index = tf.range(i * batch, (i + 1) * batch)
        key = tf.constant([0, 0], tf.int64)
        index = tf.random.experimental.index_shuffle(index, key, steps * batch - 1)
        return tf.ensure_shape(tf.gather(data, index), (batch, PIXELS))

    dataset = tf.data.Dataset.range(steps).map(gather, num_parallel_calls=2).prefetch(4)
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)

    def train(epochs):
        for _ in range(epochs):
            total.assign(0.0)
            in_graph(dataset)
        return float(total) / steps

    train(1)
    return protocol.long_less_short(train, steps * batch, times)


def loop_on_device(rows, times, whole, batch=BATCH, hidden=HIDDEN, depth=1):
    """The limit on a GPU: hand-written code that gathers batches from the GPU's memory.

    Either a `whole` epoch is one XLA program, with a constant number of steps, or each step
    is one, called by a loop in the graph.
    """
    train_step, total = by_hand("soft", batch, hidden, depth)
    data = tf.constant(protocol.images(rows))
    steps = rows // batch

    @tf.function(jit_compile=True)
    def shuffled(epoch):
        seed = tf.stack([tf.constant(1, tf.int64), epoch])
        u = tf.random.stateless_uniform((steps * batch,), seed, alg="philox")
        # int64: TensorFlow keeps int32 in the memory of the host.
        return tf.reshape(tf.cast(tf.argsort(u), tf.int64), (steps, batch))

    @tf.function(jit_compile=whole)
    def in_order(data, order):
        for i in tf.range(steps):
            train_step(tf.gather(data, order[i]))

    def train(epochs):
        for number in range(epochs):
            total.assign(0.0)
            in_order(data, shuffled(tf.constant(number, tf.int64)))
        return float(total) / steps  # waits for the GPU

    train(1)
    return protocol.long_less_short(train, steps * batch, times)


class Sampling(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs):
        mean, log_var = inputs
        noise = keras.random.normal(keras.ops.shape(mean), seed=self.seed_generator)
        return mean + keras.ops.exp(0.5 * log_var) * noise


class Recipe(keras.Model):
    """A VAE as taught in courses: a custom train step and `Mean` trackers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        x = keras.Input((PIXELS,))
        features = keras.layers.Dense(HIDDEN, "relu")(x)
        mean = keras.layers.Dense(LATENT)(features)
        log_var = keras.layers.Dense(LATENT)(features)
        self.encoder = keras.Model(x, [mean, log_var, Sampling()([mean, log_var])])
        z = keras.Input((LATENT,))
        features = keras.layers.Dense(HIDDEN, "relu")(z)
        self.decoder = keras.Model(z, keras.layers.Dense(PIXELS, "sigmoid")(features))
        names = ("loss", "reconstruction_loss", "kl_loss")
        self.trackers = [keras.metrics.Mean(name) for name in names]

    @property
    def metrics(self):
        return self.trackers

    def train_step(self, data):
        with tf.GradientTape() as tape:
            mean, log_var, z = self.encoder(data)
            entropy = keras.ops.binary_crossentropy(data, self.decoder(z))
            reconstruction = keras.ops.mean(keras.ops.sum(entropy, axis=1))
            kl = -0.5 * (1 + log_var - keras.ops.square(mean) - keras.ops.exp(log_var))
            kl = keras.ops.mean(keras.ops.sum(kl, axis=1))
            loss = reconstruction + kl
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        for tracker, value in zip(self.trackers, (loss, reconstruction, kl), strict=True):
            tracker.update_state(value)
        return {tracker.name: tracker.result() for tracker in self.trackers}


def recipe(rows, times):
    """The common way: float32 arrays, `compile` and `fit` with Keras' own defaults."""
    model = Recipe()
    model.compile(keras.optimizers.Adam())
    x = protocol.images(rows).astype(np.float32) / 255

    def train(epochs):
        history = model.fit(x, epochs=epochs, batch_size=BATCH, verbose=0).history
        return history["loss"][-1]

    train(1)
    return protocol.long_less_short(train, len(x), times)


def nll(rows, samples):
    """`importance_weighted` in decoder rows; the speed does not depend on training."""
    vae = dense()
    vae.compile("adam")
    x = protocol.images(rows, part="x_test")

    def estimate(fifths):
        kv.evaluation.importance_weighted(vae, x, num_samples=fifths * samples // 5)

    estimate(1)
    return protocol.long_less_short(estimate, len(x) * samples // 5, 4)


def products():
    """Only the decoder's matrix products, at the best batch size, with or without XLA."""
    w, v = (tf.random.normal(layer) for layer in protocol.layers()[2:])
    return in_rows(lambda z: (z @ w) @ v)


def decode(rows):
    """Only the decoder: the means of p(x|z)."""
    vae = dense()
    return in_rows(lambda z: tf.sigmoid(vae.generate(z)["logits"]), (rows,))


def in_rows(function, sizes=tuple(2**i for i in range(8, 13))):
    runs = {}
    for rows in sizes:
        z = tf.random.normal((rows, LATENT))
        for xla in (True, False):
            compiled = tf.function(function, jit_compile=xla)
            runs[rows, xla] = lambda c=compiled, z=z: c(z)
    (rows, _), run = protocol.best(runs)
    return protocol.whole(run, rows)


def sample(rows):
    """`sample`: samples from p(x|z), one seed per row."""
    vae = dense()
    vae.compile("adam")
    return protocol.whole(lambda: vae.sample(rows, seed=0), rows)


def sample_means(rows):
    """`sample(mean=True)`: called a sample of a Bernoulli VAE in other packages."""
    vae = dense()
    vae.compile("adam")
    return protocol.whole(lambda: vae.sample(rows, seed=0, mean=True), rows)


def time_to_nll(target, every, limit, rows, test_rows, samples):
    """`fit` until the test NLL is `target`, each time with new initial weights."""
    vae = dense("binarize", hidden=200, latent=50, activation="tanh", depth=2)
    vae.compile("adam")
    x, test = protocol.images(rows), protocol.binary_test_images(test_rows)
    state = [*vae.variables, *vae.optimizer.variables]
    initial = [v.numpy() for v in state]
    rng = np.random.default_rng(0)

    def train(epochs):
        vae.fit(x, batch_size=100, epochs=epochs, verbose=0)

    def estimate():
        estimates = kv.evaluation.importance_weighted(vae, test, samples)
        return -float(estimates.log_likelihood.mean())

    def repetition():
        for variable, value in zip(state, initial, strict=True):
            variable.assign(value)
        for weight in vae.trainable_weights:
            if len(weight.shape) == 2:
                weight.assign(protocol.glorot(rng, *weight.shape))
        return protocol.time_to(target, every, limit, train, estimate)

    train(every)
    return repetition


def rates(size=2048):
    """GFLOP/s of matrix products, large and of a step, and the models' operations."""
    kinds = {"float32": tf.float32, "bfloat16": tf.bfloat16}
    squares = {name: tf.ones((size, size), kind) for name, kind in kinds.items()}
    step = [
        (tf.ones((BATCH, n)), tf.ones((n, m)), tf.ones((BATCH, m)))
        for n, m in protocol.layers()
    ]

    def of_step():
        products = []
        for i, (x, w, gradient) in enumerate(step):
            products += [x @ w, tf.matmul(x, gradient, transpose_a=True)]
            if i:  # the gradient of the data is not needed
                products.append(tf.matmul(gradient, w, transpose_b=True))
        return products

    operations = {
        "dense": of_training([n * m for n, m in protocol.layers()]),
        "conv": of_training(conv_products()),
    }
    works = {name: (lambda a=a: a @ a, 2 * size**3) for name, a in squares.items()}
    works["step"] = of_step, BATCH * operations["dense"]
    repetitions = {}
    for name, (function, count) in works.items():
        runs = {(1, xla): tf.function(function, jit_compile=xla) for xla in (True, False)}
        repetitions[name] = protocol.whole(protocol.best(runs)[1], count)

    def repetition():
        found = {name: each() for name, each in repetitions.items()}
        rate = {name: f["units"] / f["seconds"] / 1e9 for name, f in found.items()}
        return {"rates": rate, "operations": operations}

    return repetition


def of_training(products):
    """Operations of a step per image, from the multiplications of each layer.

    The forward pass, the gradient of the weights and that of the input take the same number
    each; the gradient of the data is not needed.
    """
    return 2 * (3 * sum(products) - products[0])


def conv_products(size=28):
    """The multiplications of each layer of the convolutional model, per image.

    A convolution has 9 for each output pixel, a transposed convolution 9 for each input
    pixel, times the input and output channels.
    """
    half, quarter = (size // 2) ** 2, (size // 4) ** 2
    flat = quarter * 64
    encoder = [half * 9 * 32, quarter * 9 * 32 * 64, flat * 2 * LATENT]
    decoder = [LATENT * flat, quarter * 9 * 64 * 64, half * 9 * 64 * 32, size**2 * 32]
    return encoder + decoder


if __name__ == "__main__":
    contestants = [
        *(fit, loop, loop_on_device, recipe, nll, products, decode, sample),
        *(sample_means, time_to_nll, rates),
    ]
    protocol.serve({f.__name__: f for f in contestants}, ("tensorflow", "keras"))
