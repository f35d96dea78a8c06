"""tests/benchmarks/speed.py and gpu.py: protocol and arithmetic, made-up contestants."""

import ast
import itertools
import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
BENCHMARKS = ROOT / "tests" / "benchmarks"
CONTESTANT = """
import sys
sys.path.insert(0, {folder!r})
import protocol

def steady(seconds):
    print("output of a library")
    return lambda: {{"seconds": seconds, "units": 6}}

def broken():
    raise ValueError("no such data")

def fatal():
    sys.exit("gone")

protocol.serve({{f.__name__: f for f in (steady, broken, fatal)}}, ["numpy"])
"""


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import speed

    return speed


@pytest.fixture
def gpu(speed):
    import gpu

    return gpu


@pytest.fixture
def start_contestants(speed, tmp_path):
    """A function that starts the processes of contestants by label."""
    script = tmp_path / "contestant.py"
    script.write_text(CONTESTANT.format(folder=str(BENCHMARKS / "contestants")))
    processes = {}

    def start(*labels):
        for label in labels:
            command = [sys.executable, str(script)]
            processes[label] = speed.Process(command, tmp_path / f"{label}.log")
        return processes

    yield start
    for process in processes.values():
        process.end()


def steady(speed, seconds):
    return speed.Contestant("", "steady", {"seconds": seconds})


def test_contestants_run_in_turn(speed, start_contestants):
    contestants = {"a": steady(speed, 2.0), "b": steady(speed, 3.0)}
    results = speed.play(contestants, None, 2, start_contestants("a", "b"))
    results = json.loads(json.dumps(results))
    assert speed.speeds(results["a"]) == [3.0, 3.0]
    assert list(results["b"]["versions"]) == ["numpy"]
    promise = speed.Promise("", "a", ["b"])
    assert speed.ratios(promise, results) == ("b", [1.5, 1.5])


def test_a_failed_contestant_is_listed_with_the_reason(speed, start_contestants):
    contestants = {
        "a": steady(speed, 2.0),
        "broken": speed.Contestant("", "broken", {}),
        "fatal": speed.Contestant("", "fatal", {}),
        "missing": steady(speed, 2.0),
    }
    processes = start_contestants("a", "broken", "fatal")
    processes["missing"] = speed.Process(RuntimeError("no PyTorch"), None)
    results = speed.play(contestants, None, 2, processes)
    group = speed.Group("images", contestants, [])
    table = "\n".join(speed.listed("", group, results))
    assert "| broken | failed: ValueError: no such data |" in table
    assert "| fatal | failed: ended with status 1: gone |" in table
    assert "| missing | failed: no PyTorch |" in table
    promise = speed.Promise("", "a", ["broken", "missing"])
    assert speed.ratios(promise, results) == ("broken", "ValueError: no such data")


def test_the_ratio_is_to_the_fastest_of_the_others(speed, start_contestants):
    contestants = {
        "a": steady(speed, 2.0),
        "b": steady(speed, 4.0),
        "c": steady(speed, 1.0),
    }
    results = speed.play(contestants, None, 1, start_contestants("a", "b", "c"))
    assert speed.ratios(speed.Promise("", "a", ["b", "c"]), results) == ("c", [0.5])
    assert speed.met(0.5, 0.5) == "met" and speed.met(0.6, 0.5) == "**not met**"


def test_a_different_loss_is_reported_as_another_training(speed):
    results = {
        label: {"rounds": [{"loss": loss}]} for label, loss in (("a", 100.0), ("b", 101.0))
    }
    assert speed.agreement(results).endswith("1.0% apart at most.")
    results["c"] = {"rounds": [{"loss": 120.0}]}
    assert "not the same training" in speed.agreement(results)


def test_the_shortest_times_give_the_microseconds_of_a_step(gpu):
    # Seconds of 1 and of 1 + TIMES epochs, the best ones in different rounds.
    rounds = [(0.5, 2.2), (0.6, 2.1)]
    answers = [
        {"seconds": (long - short) / gpu.TIMES, "start": short - (long - short) / gpu.TIMES}
        for short, long in rounds
    ]
    assert gpu.microseconds(answers, 100) == pytest.approx(1e6 * 1.6 / gpu.TIMES / 100)


def test_every_contestant_has_a_function_that_takes_its_options(speed, gpu):
    quick = (True, False)
    groups = [group.contestants for q in quick for group in speed.groups(q).values()]
    curves = [points for q in quick for points in speed.growth(q).values()]
    groups += itertools.chain.from_iterable(points.values() for points in curves)
    found = {(c.side, c.name, *c.options) for group in groups for c in group.values()}
    for contestants, columns in (gpu.dense("GPU", 2), gpu.conv("GPU", 2)):
        for row, size in itertools.product(contestants.values(), columns.values()):
            found.add((*row[:2], "rows", "times", *row[2], *size))
    for side, name, *options in sorted(found):
        script = BENCHMARKS / "contestants" / f"with_{side}.py"
        *body, served = ast.parse(script.read_text()).body
        function = next(f for f in body if getattr(f, "name", None) == name)
        names = {argument.arg for argument in function.args.args}
        assert function.args.kwarg or names >= set(options), (side, name, options)
        assert name in {node.id for node in ast.walk(served) if hasattr(node, "id")}


def test_speed_md_has_a_marker_for_each_table(speed):
    text = (ROOT / "docs" / "speed.md").read_text()
    tables = ["machine", "ratios", *speed.groups(quick=False), "growth", "hardware"]
    for name in [*tables, "memory"]:
        assert f"<!-- {name} -->\n" in text and f"<!-- /{name} -->" in text
