"""Two replicas do what one device does, the noise included."""

import json

import pytest

CASES = ["sgd", "adam", "iwae", "uneven", "weights", "nan"]


@pytest.fixture(scope="module")
def reports(run_module):
    return json.loads(run_module("tests.replicas", *CASES).splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_two_replicas_equal_one_device(reports, case):
    report = reports[case]
    assert report["replicas"] == 2
    # float32 sums in another order, over up to 54 steps. Without division by the global
    # row count SGD is off by 0.1, with the same noise on both replicas by 0.01.
    assert report["weights"] < 1e-6
    assert report["optimizer"] < 1e-6
    assert report["moved"] > 0.01
    # Nats: means of 41 rows of about 5 nats.
    assert report["history"] < 1e-5
    assert report["evaluate"] < 1e-5


def test_one_nan_row_skips_the_step_on_all_replicas(reports):
    assert reports["nan"]["skipped"] == [1.0, 1.0]
    assert reports["nan"]["finite"]
