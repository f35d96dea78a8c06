"""Trains on one device and on two logical CPU replicas; prints how they differ, as JSON.

    python -m tests.replicas sgd adam ...

Run as a process of its own: logical devices are configured before TensorFlow starts, and
after one error in a collective every later one fails.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

import keras_vae as kv

cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def build(grey="binarize"):
    keras.utils.set_random_seed(2)
    return kv.VAE(
        kv.nets.MLP([8], "tanh"),
        kv.nets.MLP([8], "tanh"),
        kv.distributions.IndependentBernoulli((6,), grey=grey),
        latent_dim=2,
        seed=5,
    )


def run(strategy, x, optimizer, objective, batch, epochs, weight=None, policy="float32"):
    keras.mixed_precision.set_dtype_policy(policy)
    with strategy.scope():
        model = build()
        model.compile(optimizer(), objective())
    data = tf.data.Dataset.from_tensor_slices(x).batch(batch) if np.isnan(x).any() else x
    options = {} if data is not x else {"batch_size": batch, "sample_weight": weight}
    history = model.fit(data, epochs=epochs, verbose=0, **options).history
    seen = model.evaluate(
        x[~np.isnan(x).any(1)], batch_size=batch, verbose=0, return_dict=True
    )
    return model, history, seen


def difference(a, b):
    return max(
        float(np.max(np.abs(np.asarray(p) - np.asarray(q))))
        for p, q in zip(a, b, strict=True)
    )


def compare(case):
    if case == "clipnorm":
        try:
            with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
                build().compile(keras.optimizers.SGD(clipnorm=1.0))
        except ValueError as error:
            return {"error": str(error)}
        return {"error": None}
    sgd, adam = lambda: keras.optimizers.SGD(0.05), lambda: keras.optimizers.Adam(0.01)
    elbo, iwae = kv.objectives.ELBO, lambda: kv.objectives.IWAE(3)
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(41, 6)).astype(np.float32)
    bad = x.copy()
    bad[13] = np.nan  # one row, on one replica, in one batch
    weight = rng.uniform(size=41).astype(np.float32)
    # 41 rows in batches of 8: the last has one row, and one replica none.
    options = {
        "sgd": (x, sgd, elbo, 8, 9),
        "adam": (x, adam, elbo, 8, 9),
        "iwae": (x, adam, iwae, 8, 9),
        "uneven": (x, sgd, elbo, 15, 9),
        "weights": (x, sgd, elbo, 8, 9, weight),
        "nan": (bad, adam, elbo, 8, 2),
        "float16": (x, sgd, elbo, 8, 9, None, "mixed_float16"),
    }[case]
    one, history, seen = run(tf.distribute.get_strategy(), *options)
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    two, history2, seen2 = run(mirrored, *options)
    keys = sorted(history)
    report = {
        "replicas": mirrored.num_replicas_in_sync,
        "weights": difference(one.get_weights(), two.get_weights()),
        "optimizer": difference(
            [v.numpy() for v in one.optimizer.variables],
            [v.numpy() for v in two.optimizer.variables],
        ),
        "history": difference([history[k] for k in keys], [history2[k] for k in keys]),
        "evaluate": difference(seen.values(), seen2.values()),
        "moved": difference(one.trainable_weights, build().trainable_weights),
        "skipped": history2["skipped_steps"],
        "finite": all(np.isfinite(w).all() for w in two.get_weights()),
    }
    return report


if __name__ == "__main__":
    print(json.dumps({case: compare(case) for case in sys.argv[1:]}))
