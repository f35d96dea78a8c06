"""The checks of arguments, each with all kinds of bad values and with good values.

The tests of bad input then try one bad value for each argument.
"""

import math
import pathlib

import numpy as np

from keras_vae import checks
from tests.refusals import assert_each_refused, assert_refused, vary_option

NOT_NUMBERS = [None, "1", b"1", [1], (1,), {}, np.ones(2), abs, 1j, True, False]
NOT_FINITE = [math.nan, math.inf, -math.inf, np.float32("nan")]
TOO_LARGE = 10**400  # for a float


def test_counts_must_be_positive_ints():
    bad = [*NOT_NUMBERS, *NOT_FINITE, 0, -1, 2.0, 1.5, np.float32(2.0), np.int64(0)]
    assert_each_refused(lambda value: checks.positive_int(value, "count"), bad, "`count`")
    for good in (1, 2**40, np.int64(3), np.uint8(3)):
        assert checks.positive_int(good, "count") == good
    assert type(checks.positive_int(np.int64(3), "count")) is int


def test_optional_counts_may_be_none():
    checks.positive_ints_or_none(first=None, second=3)
    bad = [0, True, 1.5, "3"]
    assert_each_refused(
        lambda v: checks.positive_ints_or_none(a=None, b=1, c=v), bad, "`c`"
    )
    assert_refused(lambda: checks.positive_ints_or_none(a=0, b=0), "`a`", received="0")


def test_weights_must_be_finite_numbers_of_0_or_more():
    bad = [*NOT_NUMBERS, *NOT_FINITE, TOO_LARGE, -1, -1e-9]
    assert_each_refused(lambda value: checks.non_negative(value, "weight"), bad, "`weight`")
    for good in (0, 0.0, 2, 0.5, np.float32(0.5)):
        assert checks.non_negative(good, "weight") == good
    assert type(checks.non_negative(np.float32(0.5), "weight")) is float


def test_sizes_must_be_finite_numbers_above_0():
    bad = [*NOT_NUMBERS, *NOT_FINITE, TOO_LARGE, 0, 0.0, -1, -1e-9]
    assert_each_refused(lambda value: checks.positive(value, "size"), bad, "`size`")
    assert checks.positive(1, "size") == 1.0 and checks.positive(1e-9, "size") == 1e-9


def test_seeds_must_be_ints_of_32_bits():
    bad = [*NOT_NUMBERS, *NOT_FINITE, 1.0, 2**31, -(2**31) - 1, 2**40, np.int64(2**31)]
    assert_each_refused(lambda value: checks.int32(value, "seed"), bad, "`seed`")
    for good in (0, -(2**31), 2**31 - 1, np.int64(-7)):
        assert checks.int32(good, "seed") == good


def test_paths_must_be_str_or_path():
    bad = [None, 3, b"new", ["new"], True, "new\0", pathlib.Path("new\0")]
    assert_each_refused(lambda value: checks.path(value, "file"), bad, "`file`")
    assert checks.path("a/b", "file") == checks.path(pathlib.Path("a/b"), "file")


def test_shapes_must_be_positive_ints():
    bad = [6, -1, None, True, (), [], "20", "", (0,), (-1,), (2.0,), (None, 28), (True,)]
    bad += [((2,), 3), ["2"], (math.nan,), np.ones(2), {}]
    assert_each_refused(lambda value: checks.shape(value, "shape"), bad, "`shape`")
    for good in ((28, 28, 1), [28, 28, 1], np.array([28, 28, 1]), iter((28, 28, 1))):
        assert checks.shape(good, "shape") == (28, 28, 1)


def test_require_passes_if_true_and_names_the_argument_otherwise():
    checks.require(True, "part", "a part", None)
    call = vary_option(
        checks.require, "condition", name="part", expected="a wheel", value="x"
    )
    assert_each_refused(call, [False, (), None, 0], "`part`", "a wheel", received="x")


def test_long_texts_are_shortened():
    assert checks.short(None) is None and checks.short("a" * 79) == "a" * 79
    assert len(checks.short("a" * 500)) == 80 and checks.short("a" * 500).endswith("...")
