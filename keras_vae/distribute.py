"""What a training step must know about the other replicas.

Keras sums gradients over replicas and does not rescale a custom loss, so a step divides
its local sum by the rows of the *global* batch: exact for any split, an empty share
included (but layers that average over their rows, such as BatchNormalization, need some).
With one replica these functions cost nothing.
"""

import keras
import tensorflow as tf

from keras_vae import checks


def check_options(optimizer, objective, options):
    """Raises a ValueError for what several replicas would do wrongly, or not at all.

    Args:
        optimizer: Keras optimizer.
        objective: of `keras_vae.objectives`, or a function.
        options: dict, what else `compile` was given.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for name in ("clipnorm", "clipvalue", "global_clipnorm"):
        value = getattr(inner, name, None)
        why = "under several replicas, where Keras clips before it sums over them"
        checks.that(value is None, name, f"None {why}", value)
    jit = options.get("jit_compile")
    checks.that(jit is not True, "jit_compile", "False under several replicas", jit)
    rows = getattr(objective, "compares_rows", False)
    why = "one that compares no rows, under several replicas: each sees its own only"
    checks.that(not rows, "objective", why, objective)


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


def all_replicas(flag):
    """Whether a bool scalar is true on every replica: the same answer on each."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return flag
    return tf.equal(context.all_reduce("SUM", tf.cast(~flag, tf.int32)), 0)


def apply_if(flag, optimizer, gradients, variables):
    """Applies gradients where `flag` is true; else changes no weight and no slot.

    Args:
        flag: bool scalar tensor, equal on all replicas.
        optimizer: built Keras optimizer.
        gradients: list of tensors (or None), one for each of `variables`.
        variables: list of trainable Keras variables.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        # It skips by itself, and lowers its scale; but it looks at one replica only.
        nan = float("nan")
        gradients = [g if g is None else tf.where(flag, g, nan) for g in gradients]
        optimizer.apply(gradients, variables)
    elif tf.distribute.get_strategy().num_replicas_in_sync == 1:
        tf.cond(flag, lambda: _apply(optimizer, gradients, variables), lambda: False)
    else:
        # Replicas meet inside `apply`, which a conditional does not allow: all go
        # through it, and take back what it did.
        state = [v.value for v in (*variables, *optimizer.variables)]
        before = [tf.identity(v) for v in state]
        optimizer.apply(gradients, variables)

        def restore(strategy, flag, before):
            for variable, value in zip(state, before, strict=True):
                strategy.extended.update(variable, _keep_if, (flag, value), group=False)

        tf.distribute.get_replica_context().merge_call(restore, (flag, before))


def _apply(optimizer, gradients, variables):
    optimizer.apply(gradients, variables)
    return True


def _keep_if(variable, flag, before):
    variable.assign(tf.where(flag, variable, before))
