"""Two replicas do what one device does, the noise included."""

import json

import pytest

CASES = ["sgd", "adam", "iwae", "uneven", "weights", "nan"]


@pytest.fixture(scope="module")
def reports(run_module):
    return json.loads(run_module("tests.replicas", *CASES, "clipnorm").splitlines()[-1])


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


def test_what_replicas_would_do_wrongly_is_refused(reports):
    assert "`clipnorm` must be None under several replicas" in reports["clipnorm"]["error"]


@pytest.mark.slow
def test_half_precision_on_two_replicas(run_module):
    report = json.loads(run_module("tests.replicas", "float16").splitlines()[-1])["float16"]
    # float16 has 11 bits: 5e-4 relative, of sums that are taken in another order.
    assert report["weights"] < 5e-4
    assert report["finite"]
