"""Kinds of values, and files that are not what they should be."""

import math
import os
from typing import Annotated, Any, Literal

import pytest

from keras_vae import typed_files
from keras_vae.typed_files import Fields, KindError, Rule
from tests.odd_files import ODD_NODES

POSITIVE = Annotated[float, Rule("above 0", lambda x: x > 0)]
PAIR = Fields({"a": int}, {"b": POSITIVE | None}, others=str)
SORTED = Fields({"a": int, "b": int}, rules=(Rule("sorted", lambda v: v["a"] < v["b"]),))
# kind, values of it, values of another kind
KINDS: dict[str, tuple[Any, list, list]] = {
    "float": (float, [1, 0.5, math.nan, -math.inf], [True, None, "1", [], 2**63]),
    "int": (int, [-1, 2**63 - 1], [1.0, False, "1", 10**400]),
    "str": (str, ["", "\0"], [1, None, ["a"]]),
    "bool": (bool, [True], [1, None]),
    "null": (int | None, [None, 1], ["x", 0.5]),
    "literal": (Literal["a", "b"] | None, ["a", None], ["c", 1, [], {}]),
    "list": (list[int], [[], [1]], [[1.5], (1,), {"a": 1}, "1", None]),
    "dict": (dict[str, int], [{}, {"x": 1}], [{"x": "y"}, [], None]),
    "rule": (POSITIVE, [1], [0, math.nan, None]),
    "fields": (PAIR, [{"a": 1}, {"a": 1, "b": None, "c": "d"}],
               [{}, {"a": 1, "b": 0}, {"a": 1, "c": 2}, [], "a"]),
    "rule of fields": (SORTED, [{"a": 1, "b": 2}], [{"a": 2, "b": 1}, {"a": 1}]),
    "list of fields": (list[PAIR], [[], [{"a": 1}]], [[1], [{}], {"a": 1}]),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_values_of_a_kind_are_accepted_and_others_refused(name):
    kind, good, bad = KINDS[name]
    for value in good:
        typed_files.check(value, kind)
    for value in bad:
        with pytest.raises(KindError, match="must be .* Received: .*with"):
            typed_files.check(value, kind)


@pytest.mark.parametrize(
    "value, words",
    [
        ({"a": None}, "key 'a' must be a whole number. Received: a file with 'a': null"),
        ({}, "key 'a' must be a whole number. Received: a file without 'a'"),
        ({"a": 1, "b": -1}, "key 'b' must be above 0 or null. Received: .*with 'b': -1"),
        ({"a": 1, "x\ny": 2}, r"key 'x\\ny' must be a text"),
        (None, "it must be an object. Received: a file with null"),
    ],
)
def test_a_fault_names_the_key_the_kind_and_the_value(value, words):
    with pytest.raises(KindError, match=words):
        typed_files.check(value, PAIR)


def test_a_fault_is_short():
    long = ["x" * 10**6] * 100
    for _ in range(10):
        long = [long] * 100
    for value in ({"a": long}, {"a": 1, "b": {"x" * 10**6: long}}, {"x" * 10**6: 1}):
        with pytest.raises(KindError) as caught:
            typed_files.check(value, PAIR)
        assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ODD_NODES)
def test_only_regular_files_of_a_limited_size_are_read(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("outside")
    ODD_NODES[name](tmp_path / "x.json")
    with pytest.raises((OSError, ValueError)):
        typed_files.parse_json("x.json")


def test_json_of_windows_has_a_mark_at_its_start(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}', encoding="utf-8-sig")
    assert typed_files.read_json(path, PAIR) == {"a": 1}
    path.write_text("[" * 10**6)
    with pytest.raises(ValueError, match="nested too deeply"):
        typed_files.read_json(path, PAIR)
