"""The `tf.distribute` strategy of a process that is about to train."""

import math
import os
import signal

import tensorflow as tf

from keras_vae import checks
from keras_vae.cluster import meeting
from keras_vae.training import replicas


def make_strategy(
    name: str,
    facts: dict[str, str],
    timeout: float = meeting.TIMEOUT,
    token: bytes = b"",
) -> tf.distribute.Strategy:
    """Makes the strategy of a process that is about to train.

    Several workers connect first (see `keras_vae.cluster.meeting`), before TensorFlow
    opens its ports. Their devices and the facts must be equal.

    Args:
        name: "mirrored": all GPUs of this host, two or more (or its logical CPUs);
            "multi-worker": the workers in TF_CONFIG, or those of a Slurm job;
            "auto": the workers in TF_CONFIG, if there are several; otherwise all GPUs, if
            there are several; otherwise the one device.
        facts: dict of str by name.
        timeout: float, seconds to wait for the other workers.
        token: bytes, with which workers recognise each other.

    Returns:
        `tf.distribute.Strategy`.

    Raises:
        ValueError: if the requested devices or workers do not exist, or the workers differ.
        TimeoutError: if another worker did not connect in time.
    """
    cluster, index = meeting.tf_config(os.environ.get("TF_CONFIG"))
    several = len(cluster) > 1
    if name == "multi-worker" and not cluster:
        cluster, index = _slurm()
    gpus = tf.config.list_physical_devices("GPU")
    if name == "multi-worker" or (name == "auto" and several):
        facts = {"devices": f"{len(gpus)} GPUs" if gpus else "CPU", **facts}
        meeting.rendezvous(cluster, index, facts, timeout, token)
        return _multi_worker(cluster, index, len(gpus), timeout)
    checks.require(
        not several, "strategy", "auto or multi-worker if TF_CONFIG is set", name
    )
    if name == "auto" and len(gpus) < 2:
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU" if gpus else "CPU")
    if len(devices) < 2:
        names = ", ".join(device.name for device in devices)
        raise ValueError(f"`strategy` mirrored needs two or more GPUs. Received: {names}")
    # None means NCCL. On CPUs, a loop of steps needs a reduction that works in a loop.
    reduction = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([device.name for device in devices], reduction)


def _slurm():
    """Returns the workers of a Slurm job step and the index of this one, as `tf_config`."""
    try:
        job, node = os.environ["SLURM_JOB_ID"], os.environ["SLURMD_NODENAME"]
        # Jobs that share a node must not share ports.
        port = 10_000 + int(job) % 200 * 100
        # Slurm assigns GPUs to tasks; with these numbers TensorFlow does not, too.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=port, gpus_per_node=100, gpus_per_task=1, auto_set_gpu=False
        )
        cluster = resolver.cluster_spec().as_dict()["worker"]
        # Not SLURM_PROCID: TensorFlow sorts nodes by name, Slurm by number.
        index = cluster.index(f"{node}:{port + int(os.environ['SLURM_LOCALID'])}")
    except (KeyError, ValueError, RuntimeError) as error:
        raise ValueError(
            "`strategy` multi-worker needs TF_CONFIG, which names the workers, or a job "
            f"step of Slurm. Received: neither ({type(error).__name__}: {error})"
        ) from None
    return cluster, index


def _multi_worker(cluster, index, gpus, timeout):
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": cluster}),
        task_type="worker",
        task_id=index,
        num_accelerators={"GPU": gpus},
        rpc_layer="grpc",
    )
    # If another worker dies now, this waits forever, and Python's signal handlers do not
    # run. The default handler of SIGALRM ends the process.
    former = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(timeout))
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)
        # TensorFlow replaced the handler with one that does nothing.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def wait_for_chief(strategy: tf.distribute.Strategy) -> None:
    """Makes the other workers wait until the chief ends, so that it loses no worker."""
    if not replicas.is_chief(strategy):
        meeting.wait_until_closed(
            strategy.cluster_resolver.cluster_spec().task_address("worker", 0)
        )
