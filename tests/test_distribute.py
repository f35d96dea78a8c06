"""Two replicas do what one device does, the noise included."""

import json

import pytest


@pytest.mark.parametrize("case", ["sgd", "adam", "iwae", "uneven", "weights"])
def test_two_replicas_equal_one_device(run_module, case):
    report = json.loads(run_module("tests.replicas", case).splitlines()[-1])
    assert report["replicas"] == 2
    # float32 sums in another order, over up to 54 steps. Without division by the global
    # row count SGD is off by 0.1, with the same noise on both replicas by 0.01.
    assert report["weights"] < 1e-6
    assert report["moved"] > 0.01
    # Nats: sums of 41 rows of about 5 nats.
    assert report["history"] < 1e-5
    assert report["evaluate"] < 1e-5


def test_one_nan_row_skips_the_step_on_all_replicas(run_module):
    report = json.loads(run_module("tests.replicas", "nan").splitlines()[-1])
    assert report["skipped"] == [1.0, 1.0]
    assert report["finite"]
    assert report["weights"] < 1e-6
    assert report["optimizer"] < 1e-6
