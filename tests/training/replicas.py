"""Trains the same cases on one device, on two replicas or on two workers.

    python -m tests.training.replicas FOLDER MODE:CASE,CASE ...

MODE is one, mirrored, chief or other. Each mode has a process: logical devices are
configured before TensorFlow starts, a worker is a process, and after an error in a
collective operation all later ones fail. The processes are forks of this one, which has
imported everything and run nothing. FOLDER has the files that `write` creates, and gets the
reports, MODE.json.
"""

import json
import os
import pathlib
import socket
import sys

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability  # noqa: F401 (before the forks)

import keras_vae as kv

BATCH = 64
WORKERS = ("chief", "other")


def write(folder):
    """Writes the data of all cases. With 257 rows, one replica gets no row at the end."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(257, 6)).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.save(folder / "weight.npy", rng.uniform(size=257).astype(np.float32))
    for i, part in enumerate(np.split(x, [100, 101])):
        np.save(folder / f"shard{i}.npy", part)
    bad = rng.uniform(size=(20 * BATCH, 6)).astype(np.float32)
    bad[3 * BATCH + 40, 2] = np.nan  # in the second half of a batch, on one replica only
    bad[3 * BATCH + 41, 1] = np.inf
    np.save(folder / "bad.npy", bad)


def cases(folder):
    """Returns a dict from names to (compile options, data, fit options)."""
    x, bad = np.load(folder / "x.npy"), np.load(folder / "bad.npy")
    sgd, adam = (lambda: keras.optimizers.SGD(0.05)), (lambda: keras.optimizers.Adam(0.01))
    iwae = {"objective": kv.objectives.IWAE(3)}
    metrics = {"metrics": ["mae"], "weighted_metrics": ["mse"]}
    three_epochs = {"epochs": 3}  # of five steps
    shards = kv.Shards(sorted(folder.glob("shard?.npy")))
    weight = np.load(folder / "weight.npy")
    batches = tf.data.Dataset.from_tensor_slices(bad).batch(BATCH)
    all_bad = tf.data.Dataset.from_tensors(bad[3 * BATCH : 4 * BATCH]).repeat(30)
    all_bad = batches.take(1).concatenate(all_bad)  # the first batch is checked
    ema = keras.optimizers.Adam(0.01, use_ema=True)
    y = {"label": np.arange(257) % 3, "angle": weight}
    first_y = {name: values[:50] for name, values in y.items()}
    return {
        "sgd": ({"optimizer": sgd(), **metrics}, x, three_epochs),
        "adam": ({"optimizer": adam()}, x, three_epochs),
        "sgd_iwae": ({"optimizer": sgd(), **iwae}, x, three_epochs),
        "adam_iwae": ({"optimizer": adam(), **iwae}, x, three_epochs),
        "all_at_once": (
            {"optimizer": ema, "global_clipnorm": 0.05, **metrics},
            shards,
            {"epochs": 3, "steps_per_epoch": 3, "sample_weight": weight},
        ),
        "conditional": (
            {"optimizer": adam()},
            x,
            {"y": y, "epochs": 2, "validation_data": (x[:50], first_y)},
        ),
        "xla": ({"optimizer": sgd(), "jit_compile": True, **iwae}, x, {"epochs": 2}),
        "bad": ({"optimizer": adam(), **metrics}, batches, {"epochs": 2}),
        "all_bad": (
            {"optimizer": keras.optimizers.SGD(0.0), "max_skipped": 7},
            all_bad,
            {"epochs": 1},
        ),
        "different_data": (
            {"optimizer": sgd()},
            x[: int(os.environ.get("ROWS", 257))],
            three_epochs,
        ),
        "different_weights": ({"optimizer": sgd()}, x, three_epochs),
        "in_a_loop": ({"optimizer": sgd(), "steps_per_execution": 4}, x, three_epochs),
        "float16": ({"optimizer": sgd()}, x, {"epochs": 2}),
    }


def model(name="sgd"):
    keras.utils.set_random_seed(2)
    kind, condition = kv.VAE, {}
    if name == "conditional":
        kind = kv.ConditionalVAE
        condition = {"condition": {"label": 3, "angle": ()}, "condition_dropout": 0.3}
    return kind(
        kv.nets.MLP([8], "tanh"),
        kv.nets.MLP([8], "tanh"),
        kv.distributions.IndependentBernoulli((6,), grey="binarize"),
        latent_dim=2,
        seed=5,
        **condition,
    )


def train(strategy, folder, name):
    policy = "mixed_float16" if name == "float16" else "float32"
    keras.mixed_precision.set_dtype_policy(policy)
    with strategy.scope():
        options, data, fit = cases(folder)[name]
        vae = model(name)
        # Only the case "xla" uses XLA: compiling takes longer than the few steps.
        vae.compile(**{"jit_compile": False, **options})
    if name == "different_weights" and "ROWS" in os.environ:
        vae.trainable_weights[0].assign_add(np.full((6, 8), float(os.environ["ROWS"])))
    if not isinstance(data, tf.data.Dataset):
        fit = {**fit, "batch_size": BATCH}
    error, history = None, {}
    try:
        history = vae.fit(data, verbose=0, **fit).history
    except (RuntimeError, ValueError) as raised:
        error = str(raised)
    report = {
        "weights": flatten(vae.trainable_weights),
        "optimizer": flatten(vae.optimizer.variables),
        "step": int(vae.step.numpy()),
        "history": history,
        "replicas": strategy.num_replicas_in_sync,
        "error": error,
    }
    if name == "sgd":
        x = np.linspace(0, 1, 90, dtype=np.float32).reshape(15, 6)
        report["predict"] = flatten([vae.predict(x, batch_size=4, verbose=0)])
    return report


def flatten(values):
    return np.concatenate([np.ravel(np.asarray(v)) for v in values]).astype(float).tolist()


def run(mode, folder, names):
    strategy = tf.distribute.get_strategy()
    if mode == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, devices)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    elif mode in WORKERS:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    report = {}
    for name in names:
        if mode == "mirrored" and name == "in_a_loop":
            one = tf.distribute.ReductionToOneDevice()
            devices = ["CPU:0", "CPU:1"]
            strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=one)
        report[name] = train(strategy, folder, name)
    (folder / f"{mode}.json").write_text(json.dumps(report))


def worker_environment(index, addresses):
    task = {"type": "worker", "index": index}
    cluster = json.dumps({"cluster": {"worker": addresses}, "task": task})
    return {"TF_CONFIG": cluster, "ROWS": str(257 - index)}  # in the case "different_data"


def main(folder, *jobs):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in WORKERS]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    children = []
    for mode, names in (job.split(":") for job in jobs):
        children.append(os.fork())
        if not children[-1]:
            if mode in WORKERS:
                os.environ |= worker_environment(WORKERS.index(mode), addresses)
            run(mode, pathlib.Path(folder), names.split(","))
            os._exit(0)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(any(codes))


if __name__ == "__main__":
    main(*sys.argv[1:])
