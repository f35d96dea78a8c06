"""Two replicas and two workers train as one device does, with the same noise."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vae.training import replicas
from tests.training import replicas as script

COMMON_CASES = ["sgd", "conditional", "all_at_once", "bad"]
MIRRORED_CASES = [*COMMON_CASES, "xla", "in_a_loop"]
WORKER_CASES = [*COMMON_CASES, "all_bad", "different_data", "different_weights"]
CASES = {
    "one": MIRRORED_CASES,
    "mirrored": [*MIRRORED_CASES, "all_bad"],
    "chief": WORKER_CASES,
    "other": WORKER_CASES,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    script.write(folder)
    return folder


def run(run_module, folder, cases):
    """Returns {mode: {case: report}} for a dict of the same modes and cases."""
    jobs = [f"{mode}:{','.join(names)}" for mode, names in cases.items()]
    run_module("tests.training.replicas", folder, *jobs)
    return {mode: json.loads((folder / f"{mode}.json").read_text()) for mode in cases}


@pytest.fixture(scope="module")
def reports(run_module, data):
    return run(run_module, data, CASES)


def difference(a, b):
    return float(np.max(np.abs(np.subtract(a, b))))


@pytest.mark.parametrize(
    "mode, case",
    [("mirrored", case) for case in MIRRORED_CASES]
    + [(mode, case) for mode in ("chief", "other") for case in COMMON_CASES],
)
def test_replicas_train_as_one_device_does(reports, mode, case):
    one, two = reports["one"][case], reports[mode][case]
    assert (one["replicas"], two["replicas"]) == (1, 2)
    assert one["step"] == two["step"] > 0
    # float32 sums in another order, over up to 15 steps. Without division by the global
    # row count, or with the same noise on both replicas, SGD is off by thousands of this.
    assert difference(one["weights"], two["weights"]) < 1e-6
    assert difference(one["optimizer"], two["optimizer"]) < 1e-6
    if case == "sgd":
        assert difference(one["predict"], two["predict"]) < 1e-6
    # Nats: means of rows of about 5 nats.
    assert one["history"].keys() == two["history"].keys() >= {"elbo"}
    for name, values in one["history"].items():
        assert difference(values, two["history"][name]) < 1e-5
    if case == "conditional":
        assert "val_elbo" in one["history"]


def test_training_changes_the_weights(reports):
    """Otherwise all modes would be equal without training."""
    for case in CASES["one"]:
        start = script.flatten(script.model(case).trainable_weights)
        assert difference(reports["one"][case]["weights"], start) > 0.005


def test_batches_with_nan_only_advance_the_step_counter(reports, data):
    x = np.load(data / "bad.npy")
    vae = script.model()
    vae.compile(keras.optimizers.Adam(0.01))
    for batch in [*np.split(x, 20)] * 2:
        if np.isfinite(batch).all():
            vae.train_on_batch(batch)
        else:
            vae.step.assign_add(1)
    weights = script.flatten(vae.trainable_weights)
    for report in reports.values():
        assert report["bad"]["history"]["skipped_steps"] == [1.0, 1.0]
        assert difference(report["bad"]["weights"], weights) < 1e-6


@pytest.mark.parametrize("jit", [True, False])
def test_a_strategy_of_one_replica_changes_nothing(data, jit):
    batches = tf.data.Dataset.from_tensor_slices(np.load(data / "bad.npy")).batch(64)
    weights = []
    mirrored = tf.distribute.MirroredStrategy(["CPU:0"])
    for strategy in (tf.distribute.get_strategy(), mirrored):
        with strategy.scope():
            vae = script.model()
            vae.compile(keras.optimizers.Adam(0.01), jit_compile=jit)
        history = vae.fit(batches, verbose=0).history
        assert history["skipped_steps"] == [1.0]
        weights.append(script.flatten(vae.trainable_weights))
    assert weights[0] == weights[1]


def test_repeated_batches_with_nan_stop_all_workers(reports):
    start = script.flatten(script.model().trainable_weights)
    for mode in ("mirrored", "chief", "other"):
        report = reports[mode]["all_bad"]
        # After the good batch; the count is read every 7 steps.
        assert "13 training steps in a row were skipped" in report["error"]
        assert "Check, in this order: the data" in report["error"]
        assert report["step"] == 14 and difference(report["weights"], start) == 0


def test_workers_with_different_data_or_weights_are_refused(reports):
    for mode, rows in (("chief", 257), ("other", 256)):
        report = reports[mode]["different_data"]
        assert "Received: workers that differ in x; here: x float32" in report["error"]
        assert f"({rows}, 6)" in report["error"] and report["step"] == 0
        report = reports[mode]["different_weights"]
        assert "workers that differ in weights" in report["error"] and report["step"] == 0


def test_steps_per_execution_is_1_if_the_strategy_cannot_run_a_loop():
    cpus = ["/job:localhost/device:CPU:0"]

    class Strategy:
        num_replicas_in_sync = 2

        class extended:  # noqa: N801
            worker_devices = cpus

    assert replicas.steps_per_execution(Strategy(), 4) == 1
    assert replicas.steps_per_execution(Strategy(), 1) == 1
    Strategy.extended._cross_device_ops = tf.distribute.ReductionToOneDevice()
    assert replicas.steps_per_execution(Strategy(), 4) == 4
    assert replicas.steps_per_execution(tf.distribute.get_strategy(), 4) == 4


@pytest.mark.parametrize(
    "optimizer",
    [
        {"clipnorm": 1.0},
        {"clipvalue": 1.0},
        {"global_clipnorm": 1.0},
        {"gradient_accumulation_steps": 2},
        {"use_ema": True, "ema_overwrite_frequency": 2},
    ],
    ids=lambda options: list(options)[-1],
)
def test_options_that_keras_applies_wrongly_to_replicas_are_refused(optimizer):
    class Strategy:
        num_replicas_in_sync = 2

    name = list(optimizer)[-1]
    message = f"`{name}` must be None in an optimizer under several replicas"
    for instance in (
        keras.optimizers.Adam(**optimizer),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(**optimizer)),
    ):
        with pytest.raises(ValueError, match=message):
            replicas.check_options(Strategy(), instance, None)
        replicas.check_options(tf.distribute.get_strategy(), instance, None)
    replicas.check_options(Strategy(), keras.optimizers.Adam(), None)


def test_a_parameter_server_strategy_is_refused():
    strategy = object.__new__(tf.distribute.ParameterServerStrategy)
    with pytest.raises(ValueError, match="MultiWorkerMirroredStrategy for several hosts"):
        replicas.check_options(strategy, keras.optimizers.Adam(), None)


def test_global_clipnorm_clips_all_gradients_together(data):
    x = np.load(data / "x.npy")
    moved = {}
    for name, options, norm in (("ours", {"global_clipnorm": 0.05}, None),
                                ("keras", {}, 0.05), ("free", {}, None)):  # fmt: skip
        vae = script.model()
        sgd = keras.optimizers.SGD(0.05, global_clipnorm=norm)
        vae.compile(sgd, run_eagerly=True, **options)
        vae.fit(x, epochs=1, verbose=0)
        moved[name] = script.flatten(vae.trainable_weights)
    assert difference(moved["ours"], moved["keras"]) < 1e-7
    assert difference(moved["ours"], moved["free"]) > 0.01


# The fast cases test Adam with conditions, and the IWAE bound with XLA.
@pytest.mark.slow
@pytest.mark.parametrize(
    "case, atol",
    [
        ("sgd_iwae", 1e-6),
        ("adam", 1e-6),
        ("adam_iwae", 1e-6),
        # float16 has 11 bits: 5e-4 relative, for sums in another order.
        ("float16", 5e-4),
    ],
)
def test_further_cases_on_two_replicas(run_module, data, case, atol):
    reports = run(run_module, data, {"one": [case], "mirrored": [case]})
    one, two = reports["one"], reports["mirrored"]
    assert difference(one[case]["weights"], two[case]["weights"]) < atol
    assert np.isfinite(two[case]["weights"]).all()
