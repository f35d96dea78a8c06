"""What a model must know about the other replicas and the other workers.

Keras sums gradients over replicas and does not rescale a custom loss, so a step divides
its local sum by the rows of the *global* batch: exact for any split, an empty share
included (but layers that average over their rows, such as BatchNormalization, need some).
With one replica these functions cost nothing.

Two internals of Keras fail where several workers train together, each a process with its
own devices (`tf.distribute.MultiWorkerMirroredStrategy`):

* `_maybe_symbolic_build` takes the mean of the first batch over the replicas, whose shares
  may differ. `ResumableModel` is built when it is made, and skips it.
* `reduce_per_replica`, inside the functions that Keras makes of a step, averages metrics
  over `axis=0`, which a scalar does not have. `step_function` stands for them; it needs no
  collective either, since Keras reads the metrics themselves once an epoch is over.

And `reduced` replaces a method of Keras' optimizers that would sum gradients once more.
"""

import contextlib
import math
import os
import signal
import zlib

import keras
import tensorflow as tf

from keras_vae import checks, workers

_PARAMETER_SERVER = (
    tf.distribute.ParameterServerStrategy,
    tf.distribute.experimental.ParameterServerStrategy,
    tf.compat.v1.distribute.experimental.ParameterServerStrategy,
)


def check_options(strategy, optimizer, objective):
    """Raises a ValueError for what several replicas would do wrongly, or not at all.

    Args:
        strategy: `tf.distribute.Strategy`.
        optimizer: Keras optimizer.
        objective: of `keras_vae.objectives`, or a function.
    """
    known = not isinstance(strategy, _PARAMETER_SERVER)
    why = "one whose replicas train in step: MultiWorkerMirroredStrategy for several hosts"
    checks.that(known, "strategy", why, type(strategy).__name__)
    if strategy.num_replicas_in_sync == 1:
        return
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    clip = "compile(global_clipnorm=...) clips the sum over the replicas; Keras each share"
    instead = {
        "clipnorm": clip,
        "clipvalue": clip,
        "global_clipnorm": clip,
        "gradient_accumulation_steps": "a larger batch on more replicas does the same",
        "ema_overwrite_frequency": "`use_ema` alone takes the average up at the end",
    }
    for name, why in instead.items():
        value = getattr(inner, name, None)
        expected = f"None in an optimizer under several replicas ({why})"
        checks.that(value is None, name, expected, value)
    rows = getattr(objective, "compares_rows", False)
    why = "one that compares no rows, under several replicas: each sees its own only"
    checks.that(not rows, "objective", why, objective)


def steps_per_execution(strategy, steps):
    """The steps per execution that the strategy can do: as asked for, or 1.

    Several workers go step by step, and so do replicas whose collectives run on the CPU,
    where TensorFlow cannot place them in a loop.
    """
    if steps == 1 or strategy.num_replicas_in_sync == 1:
        return steps
    devices = strategy.extended.worker_devices
    on_cpu = all("CPU" in device.upper() for device in devices)
    loops = isinstance(
        getattr(strategy.extended, "_cross_device_ops", None),
        tf.distribute.ReductionToOneDevice,
    )
    if several_workers(strategy) or (on_cpu and not loops):
        return 1
    return steps


def several_workers(strategy):
    """Whether other processes train the same model."""
    return len(_workers(strategy)) > 1


def is_chief(strategy=None):
    """Whether this process writes what all workers share. Without others: True."""
    strategy = strategy or tf.distribute.get_strategy()
    team, resolver = _workers(strategy), strategy.cluster_resolver
    return len(team) < 2 or (resolver.task_type, resolver.task_id) == team[0]


def outstay_chief(strategy):
    """Waits on the other workers until the chief has gone: it would take them for dead."""
    if not is_chief(strategy):
        workers.outstay(strategy.cluster_resolver.cluster_spec().task_address("worker", 0))


def _workers(strategy):
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or not isinstance(
        strategy, tf.distribute.MultiWorkerMirroredStrategy
    ):
        return []
    cluster = resolver.cluster_spec()
    return [
        (job, i)
        for job in ("chief", "worker")
        if job in cluster.jobs
        for i in cluster.task_indices(job)
    ]


def replicas(context):
    """The replicas of a pipeline: (first, last, all), for `input.batches`.

    Args:
        context: `tf.distribute.InputContext`.
    """
    every = context.num_replicas_in_sync
    here = every // context.num_input_pipelines
    first = context.input_pipeline_id * here
    return first, first + here, every


def check_same(facts, strategy=None):
    """Raises a ValueError, on every worker, for facts on which the workers differ.

    Args:
        facts: dict of str by name, of equal names on all workers.
        strategy: `tf.distribute.Strategy`. Default: the one in scope.
    """
    strategy = strategy or tf.distribute.get_strategy()
    if not several_workers(strategy):
        return
    words = [_hash(f"{name}={value}") for name, value in facts.items()]
    here = tf.constant([len(facts), *words], tf.int32)

    def gather():
        return tf.distribute.get_replica_context().all_gather(here[None], axis=0)

    seen = strategy.run(tf.function(gather))
    seen = strategy.experimental_local_results(seen)[0].numpy()
    differ = [name for i, name in enumerate(facts) if len({*seen[:, i + 1].tolist()}) > 1]
    if differ:
        raise ValueError(
            "All workers must train the same model, by the same code, on the same data. "
            f"Received: workers that differ in {', '.join(differ)}; here: "
            + "; ".join(f"{name} {checks.short(facts[name])}" for name in differ[:3])
        )


def _hash(text):
    return zlib.crc32(text.encode()) - 2**31


def share(rows):
    """This replica's share of the global batch.

    Args:
        rows: int32 scalar tensor, the rows of this replica.

    Returns:
        (offset, total): int32 scalars, where the rows begin in the global batch, and how
        many rows that has.
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return 0, rows
    replica = context.replica_id_in_sync_group
    counts = context.all_reduce("SUM", tf.one_hot(replica, replicas, on_value=rows))
    return tf.cumsum(counts, exclusive=True)[replica], tf.reduce_sum(counts)


def reduced(tensors):
    """The sums of tensors over the replicas, equal on each.

    Args:
        tensors: list of tensors, `tf.IndexedSlices` or None.

    Returns:
        A list like `tensors`.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return tensors
    sums = iter(context.all_reduce("SUM", [t for t in tensors if t is not None]))
    return [t if t is None else next(sums) for t in tensors]


def apply_if(flag, optimizer, gradients, variables):
    """Applies gradients where `flag` is true; else changes no weight and no slot.

    Args:
        flag: bool scalar tensor, equal on all replicas.
        optimizer: built Keras optimizer.
        gradients: list of tensors (or None), one for each of `variables`, as `reduced`
            over the replicas.
        variables: list of trainable Keras variables.
    """
    context = tf.distribute.get_replica_context()
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        # It skips by itself, and lowers its scale.
        gradients = [g if g is None else tf.where(flag, g, math.nan) for g in gradients]
        with _no_second_sum(optimizer.inner_optimizer):
            optimizer.apply(gradients, variables)
    elif context.num_replicas_in_sync == 1:
        tf.cond(flag, lambda: _apply(optimizer, gradients, variables), lambda: False)
    else:
        # Replicas meet inside `apply`, which they cannot do from within a conditional of
        # their own: it stands around all of them.
        def all_apply(strategy, flag, gradients):
            each = strategy.extended.call_for_each_replica
            tf.cond(
                strategy.experimental_local_results(flag)[0],
                lambda: each(_apply, (optimizer, gradients, variables)) is None,
                lambda: False,
            )

        context.merge_call(all_apply, (flag, gradients))


def _apply(optimizer, gradients, variables):
    with _no_second_sum(optimizer):
        optimizer.apply(gradients, variables)
    return True


@contextlib.contextmanager
def _no_second_sum(optimizer):
    """The gradients are summed already, by `reduced`, so that they could be clipped."""
    optimizer._all_reduce_sum_gradients = list
    try:
        yield
    finally:
        # Another replica, in its own thread, may have been faster.
        optimizer.__dict__.pop("_all_reduce_sum_gradients", None)


def step_function(strategy, step):
    """What Keras' `make_train_function` and `make_test_function` make, for workers.

    Args:
        strategy: `tf.distribute.Strategy`.
        step: function of a batch that returns a dict of scalars.

    Returns:
        Function of an iterator that does one step and returns this worker's scalars.
    """

    @tf.function(reduce_retracing=True)
    def one_step(iterator):
        outputs = strategy.run(step, (next(iterator),))
        results = strategy.experimental_local_results
        return tf.nest.map_structure(lambda value: results(value)[0], outputs)

    return one_step


def make(name, facts, timeout=workers.TIMEOUT):
    """The strategy of a process that is about to train, which is made once, before others.

    Several workers meet first (see `keras_vae.workers`), before TensorFlow has run
    anything; their devices, and the facts, must be the same.

    Args:
        name: "mirrored": all GPUs of this host, two or more (or its logical CPUs);
            "multi-worker": the workers that TF_CONFIG names, or those of a Slurm job;
            "auto": the workers that TF_CONFIG names, if they are several, else all GPUs if
            there are several, else the one device.
        facts: dict of str by name.
        timeout: float, seconds to wait for the other workers.

    Returns:
        `tf.distribute.Strategy`.

    Raises:
        ValueError: if there are not the devices or workers asked for, or the workers
            differ.
        TimeoutError: if another worker never came.
    """
    cluster, index = workers.tf_config(os.environ.get("TF_CONFIG"))
    several = len(cluster) > 1
    if name == "multi-worker" and not cluster:
        cluster, index = _slurm()
    gpus = tf.config.list_physical_devices("GPU")
    if name == "multi-worker" or (name == "auto" and several):
        facts = {"devices": f"{len(gpus)} GPUs" if gpus else "CPU", **facts}
        workers.meet(cluster, index, facts, timeout)
        return _multi_worker(cluster, index, len(gpus), timeout)
    checks.that(not several, "strategy", "auto or multi-worker beside TF_CONFIG", name)
    if name == "auto" and len(gpus) < 2:
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU" if gpus else "CPU")
    if len(devices) < 2:
        here = ", ".join(device.name for device in devices)
        raise ValueError(f"`strategy` mirrored needs two GPUs or more. Received: {here}")
    # NCCL by default, which loops of steps need to be without where there is no GPU.
    loops = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([device.name for device in devices], loops)


def _slurm():
    """The workers of a Slurm job step, and the place of this one, as of `tf_config`."""
    try:
        job, node = os.environ["SLURM_JOB_ID"], os.environ["SLURMD_NODENAME"]
        # Jobs that share a node must not share ports.
        port = 10_000 + int(job) % 200 * 100
        # Slurm itself gives each task its GPUs; these numbers keep TensorFlow from it.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=port, gpus_per_node=100, gpus_per_task=1, auto_set_gpu=False
        )
        cluster = resolver.cluster_spec().as_dict()["worker"]
        # Not SLURM_PROCID: TensorFlow sorts the nodes by name, Slurm by number.
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
    # Should another worker die just now, this waits for it for ever, deaf to signals whose
    # handlers are Python's: the default one ends the process.
    former = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(timeout))
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)
        # TensorFlow took it for itself, and would do nothing.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
