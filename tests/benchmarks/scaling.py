"""Measures the overhead of replicas and workers, and computes it for other networks.

Writes two tables in Markdown. `measured`: the time of a training step of one global batch
on one device, on two logical CPU devices (MirroredStrategy) and on two worker processes
(MultiWorkerMirroredStrategy, over loopback), in turn, and their ratios. All share the same
cores, so a ratio of 1 would mean no overhead. `paper`: the computed time to sum gradients
over networks that are not available here.

    python tests/benchmarks/scaling.py [--rounds 3] [--out docs/scaling.md]
    python tests/benchmarks/scaling.py --compute 0.4 1.1 8  # ms of your device

With --out the tables also replace the text in FILE between the lines `<!-- measured -->`
and `<!-- /measured -->`, `<!-- paper -->` and `<!-- /paper -->`.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import socket
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

BATCH = 128  # rows per step: global in `measured`, of each worker in `paper`
STEPS = {"dense": 200, "conv": 50, "large": 5}  # timed together

# Bytes per second and seconds per message. The latencies are assumptions: TCP between the
# hosts of one rack, and a network that bypasses the kernel (RDMA).
NETWORKS = {"10 Gbit/s, 50 us": (10e9 / 8, 50e-6), "100 Gbit/s, 5 us": (100e9 / 8, 5e-6)}
WORKERS = [2, 4, 8, 16, 32, 64, 128, 256]
MESSAGES = 2  # all-reduces per step: row counts of the replicas, all gradients


def all_reduce(size, workers, bandwidth, latency):
    """Seconds of a ring all-reduce (Patarasuk and Yuan, 2009; Thakur et al., 2005).

    Args:
        size: bytes on each worker.
        workers: int.
        bandwidth: bytes per second.
        latency: seconds per message.
    """
    hops = 2 * (workers - 1)
    return hops * (size / workers / bandwidth + latency)


def paper(models):
    """Lines of the table: the communication time of a step, and the parallel efficiency.

    Args:
        models: dict, name -> (parameters, seconds of a step of `BATCH` rows on one device).
    """
    yield from header("workers", *(f"{m}, {n}" for m in models for n in NETWORKS))
    # Uses the times as printed, so that the table can be recomputed from itself.
    rounded = [(p, 1e-3 * float(f"{1e3 * t:.3g}")) for p, t in models.values()]
    columns = [(*model, *net) for model in rounded for net in NETWORKS.values()]
    yield row("parameters", *(f"{p:,}" for p, *_ in columns))
    yield row("compute, ms", *(f"{1e3 * t:.3g}" for _, t, *_ in columns))
    for workers in WORKERS:
        cells = []
        for parameters, compute, bandwidth, latency in columns:
            took = all_reduce(4 * parameters, workers, bandwidth, latency)
            took += (MESSAGES - 1) * all_reduce(4 * workers, workers, bandwidth, latency)
            cells.append(f"{1e3 * took:.3g} ms, {compute / (compute + took):.0%}")
        yield row(workers, *cells)


def header(*titles):
    return row(*titles), row(*["---"] * len(titles))


def row(*cells):
    return "| " + " | ".join(map(str, cells)) + " |"


# Each kind is measured in separate processes: devices are set before TensorFlow starts.


def build(name):
    """An uncompiled model of 28 x 28 pixels."""
    import keras

    import keras_vae as kv

    shape, latent = (28, 28, 1), 20
    if name == "conv":  # the network of `keras-vae train` for images
        latent = 16
        encoder = keras.Sequential([kv.nets.ConvEncoder([32, 64]), kv.nets.MLP([256])])
        decoder = keras.Sequential(
            [kv.nets.MLP([256]), kv.nets.ConvDecoder([64, 32], shape)]
        )
    else:
        hidden = {"dense": [400], "large": [6_650, 6_650]}[name]
        encoder, decoder = kv.nets.MLP(hidden), kv.nets.MLP(hidden)
    likelihood = kv.distributions.IndependentBernoulli(shape)
    return kv.VAE(encoder, decoder, likelihood, latent, seed=0)


def times(kind, names):
    """Measures one kind of training: name -> (parameters, seconds of a step)."""
    import numpy as np
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if kind == "replicas":
        (cpu,) = tf.config.list_physical_devices("CPU")
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    elif kind == "workers":
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    found = {}
    for name in names:
        steps = STEPS[name]
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (steps * BATCH, 28, 28, 1), np.uint8)
        with strategy.scope():
            model = build(name)
            model.compile("adam")
        took = []
        for _ in range(4):  # the first one traces; the fastest had the least other load
            begin = time.perf_counter()
            model.fit(x, batch_size=BATCH, verbose=0)
            took.append((time.perf_counter() - begin) / steps)
        found[name] = model.count_params(), min(took[1:])
    return found


def start(kind, names, **environment):
    return subprocess.Popen(
        [sys.executable, __file__, "--kind", kind, *names],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_processes(kind, names):
    """Runs `times` in new processes; for two workers, returns the slower result."""
    if kind == "workers":
        cluster = [f"127.0.0.1:{port}" for port in free_ports(2)]
        configs = (
            {"cluster": {"worker": cluster}, "task": {"type": "worker", "index": i}}
            for i in range(2)
        )
        processes = [start(kind, names, TF_CONFIG=json.dumps(c)) for c in configs]
    else:
        processes = [start(kind, names)]
    try:
        said = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise SystemExit("\n".join(err for _, err in said))
    lines = [out.splitlines() for out, _ in said]
    found = [json.loads(line[-1]) for line in lines]
    return {name: max((one[name] for one in found), key=lambda f: f[1]) for name in names}


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def measured(rounds, names=("dense", "conv")):
    """Lines of the table of measured steps."""
    kinds = {"one device": "one", "two replicas": "replicas", "two workers": "workers"}
    load = os.getloadavg()[0]
    found = {kind: [] for kind in kinds}
    for _ in range(rounds):  # in turn, so that other load slows all kinds
        for kind, word in kinds.items():
            found[kind].append(in_processes(word, names))
    titles = (f"{name}, {what}" for name in names for what in ("ms per step", "ratio"))
    yield from header("", *titles)
    for kind, rows in found.items():
        cells = []
        for name in names:
            took = [one[name][1] for one in rows]
            ratios = [
                t / one[name][1] for t, one in zip(took, found["one device"], strict=True)
            ]
            cells += [f"{1e3 * statistics.median(took):.2f}", spread(ratios)]
        yield row(kind, *cells)
    yield ""
    yield (
        f"Medians of {rounds} rounds (lowest to highest), global batch size {BATCH}. "
        f"{platform.machine()}, {os.cpu_count()} cores, shared by all processes; "
        f"load average before: {load:.0f}."
    )


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--compute",
        type=float,
        nargs=len(STEPS),
        metavar="MS",
        help="compute time of 128 rows on one device: dense, conv, large; skips measuring",
    )
    parser.add_argument("--out", type=pathlib.Path, help="Markdown file to update")
    parser.add_argument("--kind", nargs="+", help=argparse.SUPPRESS)  # used internally
    args = parser.parse_args()
    if args.kind:
        kind, *names = args.kind
        print(json.dumps(times(kind, names)))
        return
    tables = {}
    if args.compute:
        counts = {name: build(name).count_params() for name in STEPS}
        compute = (1e-3 * ms for ms in args.compute)
        models = dict(zip(STEPS, zip(counts.values(), compute, strict=True), strict=True))
    else:
        models = in_processes("one", STEPS)
        tables["measured"] = "\n".join(measured(args.rounds))
    tables["paper"] = "\n".join(paper(models))
    print("\n\n".join(tables.values()))
    if args.out:
        replace(args.out, tables)


def replace(path, tables):
    whole = path.read_text()
    for name, table in tables.items():
        block = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        if not re.search(block, whole, re.DOTALL):
            raise SystemExit(f"{path} must have lines <!-- {name} --> and <!-- /{name} -->")
        whole = re.sub(
            block, lambda m, t=table: f"{m[1]}\n{t}\n\n{m[2]}", whole, flags=re.DOTALL
        )
    path.write_text(whole)


if __name__ == "__main__":
    main()
