"""Functions that make several replicas and workers train like one device.

Keras sums gradients over replicas and does not rescale a custom loss. So a step divides its
local sum by the number of rows of the *global* batch. This is exact for any split, also
with empty shares, except for layers with batch statistics, such as BatchNormalization. With
one replica these functions have no overhead.
"""

import contextlib
import itertools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vae import checks
from keras_vae.training import keras_private

_PARAMETER_SERVER = (
    tf.distribute.ParameterServerStrategy,
    tf.distribute.experimental.ParameterServerStrategy,
    tf.compat.v1.distribute.experimental.ParameterServerStrategy,
)


def check_options(strategy: tf.distribute.Strategy, optimizer: Any, objective: Any) -> None:
    """Raises a ValueError for options that several replicas cannot implement exactly.

    Args:
        strategy: `tf.distribute.Strategy`.
        optimizer: Keras optimizer.
        objective: from `keras_vae.objectives`, or a function.
    """
    checks.require(
        not isinstance(strategy, _PARAMETER_SERVER),
        "strategy",
        "synchronous, such as MultiWorkerMirroredStrategy for several hosts",
        type(strategy).__name__,
    )
    if strategy.num_replicas_in_sync == 1:
        return
    clip = "compile(global_clipnorm=...) clips the summed gradient; Keras clips each share"
    alternatives = {
        "clipnorm": clip,
        "clipvalue": clip,
        "global_clipnorm": clip,
        "gradient_accumulation_steps": "a larger batch on more replicas does the same",
        "ema_overwrite_frequency": "`use_ema` alone applies the average at the end",
    }
    for inner, name in itertools.product(each_optimizer(optimizer), alternatives):
        value = getattr(inner, name, None)
        expected = f"None in an optimizer under several replicas ({alternatives[name]})"
        checks.require(value is None, name, expected, value)
    checks.require(
        not getattr(objective, "compares_rows", False),
        "objective",
        "one that does not compare rows: each replica has only its own rows",
        objective,
    )


def each_optimizer(optimizer: Any) -> list:
    """Returns the optimizers inside wrappers such as `MultiOptimizer`, or the optimizer."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(optimizer, "optimizers", [optimizer]))


def steps_per_execution(strategy: tf.distribute.Strategy, steps: int) -> int:
    """Returns the steps per execution that a strategy supports: `steps`, or 1.

    It is 1 for several workers, and for replicas whose collectives run on the CPU, because
    TensorFlow does not support those in a loop.
    """
    if steps == 1 or strategy.num_replicas_in_sync == 1:
        return steps
    devices = strategy.extended.worker_devices
    on_cpu = all("CPU" in device.upper() for device in devices)
    can_loop = keras_private.loops_on_cpu(strategy)
    if several_workers(strategy) or (on_cpu and not can_loop):
        return 1
    return steps


def several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Returns True if other processes train the same model."""
    return len(_workers(strategy)) > 1


def is_chief(strategy: tf.distribute.Strategy | None = None) -> bool:
    """Returns True for the chief, the worker that writes files, or for the only worker."""
    strategy = strategy or tf.distribute.get_strategy()
    tasks, resolver = _workers(strategy), strategy.cluster_resolver
    return len(tasks) < 2 or (resolver.task_type, resolver.task_id) == tasks[0]


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


def pipeline_replicas(context: tf.distribute.InputContext) -> tuple[int, int, int]:
    """Returns the replicas of an input pipeline: (first, last, total), see `batches`."""
    count = context.num_replicas_in_sync
    local = count // context.num_input_pipelines
    first = context.input_pipeline_id * local
    return first, first + local, count


def check_same(
    facts: dict[str, str], strategy: tf.distribute.Strategy | None = None
) -> None:
    """Raises a ValueError, on every worker, unless the facts of all workers are equal.

    Args:
        facts: dict of str by name. All workers must have the same names.
        strategy: `tf.distribute.Strategy`. Default: the one in scope.
    """
    strategy = strategy or tf.distribute.get_strategy()
    if not several_workers(strategy):
        return
    words = [_hash(f"{name}={value}") for name, value in facts.items()]
    hashes = tf.constant([len(facts), *words], tf.int32)

    def gather():
        return tf.distribute.get_replica_context().all_gather(hashes[None], axis=0)

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


def share(rows: tf.Tensor) -> tuple[Any, Any]:
    """Returns the position of this replica's rows in the global batch.

    Args:
        rows: int32 scalar tensor, the rows of this replica.

    Returns:
        (offset, total): int32 scalars, the position of the first row in the global batch,
        and the number of rows of the global batch.
    """
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas == 1:
        return 0, rows
    replica = context.replica_id_in_sync_group
    counts = context.all_reduce("SUM", tf.one_hot(replica, replicas, on_value=rows))
    return tf.cumsum(counts, exclusive=True)[replica], tf.reduce_sum(counts)


def sum_over_replicas(tensors: list) -> list:
    """Sums tensors over the replicas; the sums are equal on all of them.

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


def apply_if(
    flag: tf.Tensor, optimizer: Any, gradients: Sequence, variables: Sequence
) -> None:
    """Applies gradients if `flag` is true; otherwise no weight and no slot changes.

    Args:
        flag: bool scalar tensor, equal on all replicas.
        optimizer: built Keras optimizer.
        gradients: list of tensors (or None), one for each of `variables`, from
            `sum_over_replicas`.
        variables: list of trainable Keras variables.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        # With NaN this optimizer skips the step itself, and lowers the loss scale.
        gradients = [g if g is None else tf.where(flag, g, math.nan) for g in gradients]
        _apply(optimizer, gradients, variables)
        return

    # `apply` synchronises the replicas, which fails inside a conditional of a single
    # replica, also if there is only one. So one conditional contains the calls of all.
    def all_apply(strategy, flag, gradients):
        call_all = strategy.extended.call_for_each_replica
        tf.cond(
            strategy.experimental_local_results(flag)[0],
            lambda: call_all(_apply, (optimizer, gradients, variables)) is None,
            lambda: False,
        )

    tf.distribute.get_replica_context().merge_call(all_apply, (flag, gradients))


def _apply(optimizer, gradients, variables):
    with contextlib.ExitStack() as stack:
        for inner in each_optimizer(optimizer):
            stack.enter_context(keras_private.summed_gradients(inner))
        optimizer.apply(gradients, variables)
    return True


def step_function(strategy: tf.distribute.Strategy, step: Callable) -> Callable:
    """Makes a train or test function for several workers, in place of Keras' own.

    Keras' `reduce_per_replica` averages metrics over `axis=0`, which a scalar does not
    have. No collective is needed here: Keras reads the metrics at the end of an epoch.

    Args:
        strategy: `tf.distribute.Strategy`.
        step: function of a batch that returns a dict of scalars.

    Returns:
        Function of an iterator that runs one step and returns this worker's scalars.
    """

    @tf.function(reduce_retracing=True)
    def one_step(iterator):
        outputs = strategy.run(step, (next(iterator),))
        results = strategy.experimental_local_results
        return tf.nest.map_structure(lambda value: results(value)[0], outputs)

    return one_step
