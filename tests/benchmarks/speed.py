"""Compares the speed of keras_vae with other packages on the same machine, in one run.

Each contestant is a separate process (contestants/), which prepares and then waits. They
work in turn, one at a time, so that other load slows all of them. Ratios are computed for
each round, and their medians are reported. PyTorch, pythae and JAX are installed
into build/peers on first use. Everything runs on the CPU.

    python tests/benchmarks/speed.py [--quick] [--rounds 5] [--out docs/speed.md]

With --out the tables replace the text in FILE between the lines `<!-- name -->` and
`<!-- /name -->`, and the figure is written next to it. All measurements, and the output of
the contestants, are kept in build/bench. `--only dense,conv` measures and prints only some
of the tables.
"""

import argparse
import datetime
import itertools
import json
import os
import pathlib
import platform
import select
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import scaling

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
PEERS, LOGS = ROOT / "build" / "peers", ROOT / "build" / "bench"
BATCH = 128
NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
LIMIT = 1800  # seconds for one answer


class Contestant(NamedTuple):
    """A function of contestants/with_{side}.py to run, and its options."""

    side: str
    name: str
    options: dict
    environment: dict = NO_GPU


# PyTorch's threads spin while they wait for each other, and lose nearly all speed as soon
# as another program uses a core. Sleeping threads do not, but are slower if it is idle.
SLEEPING = {**NO_GPU, "OMP_WAIT_POLICY": "PASSIVE"}


class Promise(NamedTuple):
    """The ratio of the speeds of `ours` and the fastest of `others`, at least `target`."""

    what: str
    ours: str
    others: list
    target: float | None = None


class Group(NamedTuple):
    """Contestants that are measured in turn. Their speeds are in `unit` per second."""

    unit: str
    contestants: dict
    promises: list


def groups(quick):
    """All comparisons, by name.

    Args:
        quick: bool, a trial of this script: small, without the time to an NLL.
    """
    rows = 12_800 if quick else 468 * BATCH  # the loop supports only full batches
    size = {"rows": rows, "times": 1 if quick else 3}
    found = {"dense": dense(size, "soft"), "binarized": dense(size, "binarize")}
    found["conv"] = conv({**size, "rows": 1_280 if quick else 6_400})
    found["xla"] = xla({**size, "rows": 512 if quick else 5_120})
    found["nll"] = nll(32 if quick else 256, 2 if quick else 8)
    found["sample"] = sample(10_000)
    if not quick:
        found["time"] = time_to_nll()
    return found


def dense(size, grey):
    ours, loop = "keras_vae, `fit`", "hand-written XLA loop"
    compiled, eager = "PyTorch, `torch.compile`", "PyTorch, eager"
    sleeping, scan = f"{compiled}, sleeping threads", "JAX, `scan`"
    torch = {**size, "grey": grey}
    contestants = {
        ours: Contestant("tensorflow", "fit", {**size, "grey": grey}),
        loop: Contestant("tensorflow", "loop", {**size, "grey": grey}),
        compiled: Contestant("torch", "loop", {**torch, "compiled": True}),
        sleeping: Contestant("torch", "loop", {**torch, "compiled": True}, SLEEPING),
        eager: Contestant("torch", "loop", torch),
    }
    targets = {loop: None, compiled: None, eager: None}
    if grey == "soft":
        pythae, recipe = "pythae, its trainer", "Keras, the common recipe"
        contestants[pythae] = Contestant("torch", "trainer", size)
        contestants[recipe] = Contestant("tensorflow", "recipe", size)
        contestants[scan] = Contestant("jax", "loop", size)
        targets = {loop: 1.0, scan: 0.95, pythae: 2.2, compiled: 1.6, eager: None}
        targets[recipe] = 3.0
    what = "dense" if grey == "soft" else "dense, binarised pixels"
    promises = [
        Promise(what, ours, [other, sleeping] if other == compiled else [other], target)
        for other, target in targets.items()
    ]
    return Group("images", contestants, promises)


def conv(size):
    size = {**size, "network": "conv"}
    half = {**size, "bfloat16": True}
    ours, ours_half = "keras_vae, `fit`", "keras_vae, `fit`, mixed_bfloat16"
    contestants = {
        ours: Contestant("tensorflow", "fit", size),
        ours_half: Contestant("tensorflow", "fit", half),
    }
    words = {"compiled": "`torch.compile`", "channels_last": "channels last"}
    words["bfloat16"] = "autocast bfloat16"
    for chosen in itertools.product((False, True), repeat=3):
        options = dict(zip(reversed(words), chosen, strict=True))
        said = [words[key] for key in words if options[key]] or ["eager"]
        contestant = Contestant("torch", "loop", {**size, **options})
        contestants[", ".join(["PyTorch", *said])] = contestant
    theirs = list(contestants)[2:]
    full = [key for key in theirs if "bfloat16" not in key]
    promises = [
        Promise("convolutional, float32", ours, full, 1.3),
        Promise("convolutional, bfloat16", ours_half, theirs, 1.15),
    ]
    return Group("images", contestants, promises)


def xla(size):
    """The measurements that justify `jit_compile="auto"`."""
    networks = {
        "dense": {"hidden": 400},
        "dense, 2,048 hidden units": {"hidden": 2_048},
        "dense, mixed_bfloat16": {"hidden": 400, "bfloat16": True},
        "convolutional": {"network": "conv", "rows": 2 * BATCH},
        "recurrent": {"network": "recurrent"},
    }
    contestants, promises = {}, []
    for network, options in networks.items():
        labels = {True: f"{network}, XLA", False: f"{network}, no XLA"}
        for compiled, label in labels.items():
            every = {**size, **options, "jit_compile": compiled}
            contestants[label] = Contestant("tensorflow", "fit", every)
        promises.append(Promise(labels[True], labels[True], [labels[False]]))
    return Group("images", contestants, promises)


def nll(rows, their_rows):
    samples = {"samples": 5_000}
    ours, products = "keras_vae, `importance_weighted`", "the decoder's matrix products"
    contestants = {
        ours: Contestant("tensorflow", "nll", {"rows": rows, **samples}),
        products: Contestant("tensorflow", "products", {}),
    }
    for size in (100, 1_000, 5_000):
        options = {"rows": their_rows, **samples, "batch_size": size}
        contestant = Contestant("torch", "get_nll", options)
        contestants[f"pythae, `get_nll(batch_size={size})`"] = contestant
    theirs = list(contestants)[2:]
    promises = [
        Promise("test NLL", ours, [products], 0.7),
        Promise("test NLL", ours, theirs, 20.0),
    ]
    return Group("decoder rows", contestants, promises)


def sample(rows):
    size = {"rows": rows}
    ours, means = "keras_vae, `sample`", "keras_vae, `sample(mean=True)`"
    decoder = "the decoder alone"
    contestants = {
        ours: Contestant("tensorflow", "sample", size),
        means: Contestant("tensorflow", "sample_means", size),
        decoder: Contestant("tensorflow", "decode", size),
    }
    for batch in (500, 2_500, 10_000):
        options = {**size, "batch_size": batch}
        contestant = Contestant("torch", "sample", options)
        contestants[f"pythae, `NormalSampler(batch_size={batch})`"] = contestant
    theirs = list(contestants)[3:]
    promises = [
        Promise("sampling", ours, theirs, 2.0),
        Promise("sampling, means", means, theirs),
        Promise("sampling", ours, [decoder]),
    ]
    return Group("images", contestants, promises)


def time_to_nll():
    ours, theirs = "keras_vae, `fit`", "PyTorch, `torch.compile`"
    options = {"target": 92.0, "every": 4, "limit": 200, "rows": 60_000}
    options |= {"test_rows": 1_000, "samples": 500}
    sleeping = f"{theirs}, sleeping threads"
    contestants = {
        ours: Contestant("tensorflow", "time_to_nll", options),
        theirs: Contestant("torch", "time_to_nll", options),
        sleeping: Contestant("torch", "time_to_nll", options, SLEEPING),
    }
    promise = Promise("time to 92 nats", ours, [theirs, sleeping], 1.5)
    return Group("trainings", contestants, [promise])


def growth(quick):
    """Quantity that grows -> its values -> the contestants, by label."""

    def point(rows, network="dense", **options):
        size = {"rows": rows, "times": 1 if quick else 2}
        kinds = {"fit": {"network": network}}
        if network == "dense":
            kinds["loop"] = {}
        return {
            kind: Contestant("tensorflow", kind, {**size, **extra, **options})
            for kind, extra in kinds.items()
        }

    steps = 4 if quick else 14
    few = 1_280 if quick else 100 * BATCH
    return {
        "batch size": {
            batch: point(max(few, steps * batch), batch=batch)
            for batch in (16, 64, 256, 1_024, 4_096)
        },
        "hidden units": {
            hidden: point(few, hidden=hidden) for hidden in (128, 256, 512, 1_024, 2_048)
        },
        "image size": {
            size: point(
                max(2, few // 2 * 28**2 // size**2 // BATCH) * BATCH, "conv", size=size
            )
            for size in (28, 48, 64, 96, 128)
        },
    }


# Measuring.


class Process:
    """A contestant's process. After a failure `failed` has the reason."""

    def __init__(self, command, log, environment=()):
        self.failed, self.versions, self.log = None, {}, log
        if isinstance(command, Exception):
            self.failed = str(command)
            return
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **dict(environment)},
            )

    def ask(self, order, limit=LIMIT):
        """Sends an order; returns the answer, a dict, or None after a failure."""
        if self.failed:
            return None
        try:
            print(json.dumps(order), file=self.process.stdin, flush=True)
            if not select.select([self.process.stdout], [], [], limit)[0]:
                self.process.kill()
                raise TimeoutError(f"no answer in {limit:.0f} s")
            line = self.process.stdout.readline()
            if not line:
                raise EOFError(f"ended with status {self.process.wait()}")
            answer = json.loads(line)
        except (OSError, EOFError) as error:
            lines = self.log.read_text().splitlines() or [""]
            answer = {"failed": f"{error}: {lines[-1]}"}
        self.failed = answer.get("failed")
        self.versions |= answer.get("versions", {})
        return answer

    def alive(self):
        return hasattr(self, "process") and self.process.poll() is None

    def end(self):
        if hasattr(self, "process"):
            self.process.kill()
            self.process.communicate()  # closes the pipes


def play(contestants, pythons, rounds, processes=None):
    """Measures the contestants in turn.

    Args:
        contestants: dict, label -> `Contestant`.
        pythons: dict, side -> path of its Python, or the exception if it is missing.
        rounds: int.
        processes: dict, label -> `Process`, which are not ended. Default: new ones.

    Returns:
        dict: label -> `{"rounds": [answer], "versions", "idle", "others"}`, or
        `{"failed": reason}`.
    """
    started = processes or start(contestants, pythons)
    try:
        for label, contestant in contestants.items():
            order = {"prepare": contestant.name, "options": contestant.options}
            started[label].ask(order)
        answers = {label: [] for label in contestants}
        begin, busy = time.perf_counter(), busy_cores()
        for _ in range(rounds):
            for label in contestants:
                answers[label].append(started[label].ask({}))
        took, busy = time.perf_counter() - begin, busy_cores() - busy
    finally:
        if not processes:
            for process in started.values():
                process.end()
    each = (a for rounds in answers.values() for a in rounds if a)
    others = (busy - sum(a["cpu"] for a in each)) / took / os.cpu_count()
    return {
        label: {"failed": started[label].failed}
        if started[label].failed
        else {
            "rounds": answers[label],
            "versions": started[label].versions,
            # Share of a core that it used while the others worked.
            "idle": sum(a["idle"] for a in answers[label]) / took,
            # Share of all cores that other programs used.
            "others": others,
        }
        for label in contestants
    }


def busy_cores():
    """Returns the busy seconds of all cores since boot; NaN except on Linux."""
    path = pathlib.Path("/proc/stat")
    if not path.exists():
        return float("nan")
    user, nice, system, _, _, *interrupts = map(int, path.read_text().split()[1:9])
    return sum((user, nice, system, *interrupts)) / os.sysconf("SC_CLK_TCK")


def start(contestants, pythons):
    LOGS.mkdir(parents=True, exist_ok=True)
    processes = {}
    for label, contestant in contestants.items():
        command = pythons[contestant.side]
        if not isinstance(command, Exception):
            script = HERE / "contestants" / f"with_{contestant.side}.py"
            command = [str(command), str(script)]
        name = "".join(c if c.isalnum() else "-" for c in label)
        log = LOGS / f"{name}.log"
        processes[label] = Process(command, log, contestant.environment)
    return processes


def environment():
    """Returns the Python of build/peers, installed on first use, or an exception."""
    wanted, stamp = HERE / "peers.txt", PEERS / "installed"
    python = PEERS / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        print("Installing PyTorch, pythae and JAX into build/peers ...", flush=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
            subprocess.run([*pip, "-r", wanted], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return RuntimeError(f"build/peers could not be made: {error}")
        stamp.write_text(wanted.read_text())
    return python


def measure(tables, curves, rounds):
    """Runs all measurements; returns the results in a form for JSON.

    Args:
        tables: dict, name -> `Group`.
        curves: as returned by `growth`.
        rounds: int.
    """
    peers = environment()
    pythons = {"tensorflow": sys.executable, "torch": peers, "jax": peers}
    found = {"groups": {}, "growth": {}, "load": os.getloadavg()[0]}
    rates = {"rates": Contestant("tensorflow", "rates", {})}
    found["rates"] = said("rates", play(rates, pythons, rounds))["rates"]
    for name, group in tables.items():
        few = min(rounds, 3) if name in ("conv", "xla", "time") else rounds
        found["groups"][name] = said(name, play(group.contestants, pythons, few))
    for name, points in curves.items():
        found["growth"][name] = {}
        processes = start(next(iter(points.values())), pythons)
        for value, contestants in points.items():
            results = play(contestants, pythons, min(rounds, 3), processes)
            found["growth"][name][value] = said(f"{name} {value}", results)
        for process in processes.values():
            process.end()
    return found


def said(name, results):
    """Prints a line for each result, and returns the results."""
    for label, result in results.items():
        text = result.get("failed") or " ".join(map(brief, result["rounds"]))
        print(f"{name:16} {label:44} {text}", flush=True)
    return results


def brief(answer):
    return f"{answer['seconds']:.4g} s" if "seconds" in answer else str(answer["rates"])


# Reporting.


def speeds(result):
    """Returns units per second, by round."""
    return [a["units"] / a["seconds"] for a in result["rounds"]]


def ratios(promise, results):
    """Returns (label of the fastest other, ratio of each round) or (label, reason)."""
    failed = {
        label: results[label]["failed"]
        for label in (promise.ours, *promise.others)
        if "failed" in results[label]
    }
    others = [label for label in promise.others if label not in failed]
    if promise.ours in failed or not others:
        label = promise.ours if promise.ours in failed else promise.others[0]
        return label, failed[label]
    best = max(others, key=lambda label: statistics.median(speeds(results[label])))
    pairs = zip(speeds(results[promise.ours]), speeds(results[best]), strict=True)
    return best, [mine / theirs for mine, theirs in pairs]


def promised(found, tables):
    """Lines of the table of all ratios."""
    yield from scaling.header("", "compared with", "ratio", "target", "")
    for name, group in tables.items():
        for promise in group.promises:
            other, values = ratios(promise, found["groups"][name])
            target = "" if promise.target is None else f"{promise.target:g}"
            if isinstance(values, str):
                cells = f"failed: {values}", target, ""
            else:
                value = statistics.median(values)
                cells = scaling.spread(values), target, met(promise.target, value)
            yield scaling.row(promise.what, other, *cells)
    ours = found["groups"].get("dense", {}).get("keras_vae, `fit`", {})
    if "rounds" in ours:
        values = [a["start"] / a["seconds"] for a in ours["rounds"]]
        verdict = met(-0.1, -statistics.median(values))
        cells = scaling.spread(values), "at most 0.1", verdict
        yield scaling.row("start of `fit`, in epochs", "", *cells)


def met(target, value):
    return "" if target is None else "met" if value >= target else "**not met**"


def listed(name, group, results):
    """Lines of the table of one group's contestants."""
    epochs = name == "time"
    losses = name != "xla" and any(  # where all run the same training
        a.get("loss") for r in results.values() for a in r.get("rounds", ())
    )
    title = "seconds" if epochs else f"{group.unit} per second"
    last = ["loss, nats"] * losses + ["epochs"] * epochs
    yield from scaling.header("", title, *last)
    for label, result in results.items():
        if "failed" in result:
            yield scaling.row(label, f"failed: {result['failed']}", *[""] * len(last))
            continue
        rounds = result["rounds"]
        if epochs:
            middle = statistics.median(a["epochs"] for a in rounds)
            took = statistics.median(a["seconds"] for a in rounds)
            yield scaling.row(label, f"{took:.1f}", f"{middle:.1f}")
            continue
        loss = rounds[-1].get("loss") if losses else None
        cells = [""] * losses if loss is None else [f"{loss:.2f}"]
        yield scaling.row(label, f"{statistics.median(speeds(result)):,.0f}", *cells)
    if losses:
        yield from ("", agreement(results))


def agreement(results):
    """Compares the losses, which must be close if all run the same training."""
    losses = [r["rounds"][-1]["loss"] for r in results.values() if "rounds" in r]
    apart = max(losses) / min(losses) - 1
    verdict = "" if apart < 0.05 else " **This is not the same training.**"
    return f"Losses after the same number of epochs: {apart:.1%} apart at most.{verdict}"


def grown(name, points):
    """Lines of the table of one curve."""
    kinds = list(next(iter(points.values())))
    yield from scaling.header(name, *(f"{kind}, images per second" for kind in kinds))
    for value, results in points.items():
        cells = [
            f"failed: {r['failed']}"
            if "failed" in r
            else f"{statistics.median(speeds(r)):,.0f}"
            for r in results.values()
        ]
        yield scaling.row(value, *cells)


def hardware(found):
    """Lines of the table that compares the models with the hardware's speed."""
    if "failed" in found["rates"]:
        yield f"failed: {found['rates']['failed']}"
        return
    rates = rates_of(found)
    operations = found["rates"]["rounds"][0]["operations"]
    dense, conv = (found["groups"].get(name, {}) for name in ("dense", "conv"))
    fit, half = "keras_vae, `fit`", "keras_vae, `fit`, mixed_bfloat16"
    loop = "hand-written XLA loop"
    yield from scaling.header(
        "", "GFLOP/s", "relative to float32 products", "relative to the dense products"
    )
    whole, step = rates["float32"], rates["step"]
    rows = {
        "matrix product, 2048 square, float32": whole,
        "matrix product, 2048 square, bfloat16": rates["bfloat16"],
        "only the products of a dense step, batch 128": step,
    }
    for words, result, kind in (
        ("dense, hand-written loop", dense.get(loop), "dense"),
        ("dense, `fit`", dense.get(fit), "dense"),
        ("convolutional, `fit`, float32", conv.get(fit), "conv"),
        ("convolutional, `fit`, mixed_bfloat16", conv.get(half), "conv"),
    ):
        if result and "rounds" in result:
            speed = statistics.median(speeds(result))
            rows[words] = speed * operations[kind] / 1e9
    for words, rate in rows.items():
        of_step = f"{rate / step:.2f}" if words.startswith("dense") else ""
        yield scaling.row(words, f"{rate:.0f}", f"{rate / whole:.2f}", of_step)
    yield ""
    yield (
        f"Operations per training image: dense {operations['dense'] / 1e6:.2f} "
        f"million, convolutional {operations['conv'] / 1e6:.1f} million."
    )


def rates_of(found):
    each = [a["rates"] for a in found["rates"]["rounds"]]
    return {name: statistics.median(r[name] for r in each) for name in each[0]}


def machine(found, rounds, quick):
    """Lines on the machine and the measurement."""
    results = [r for g in found["groups"].values() for r in g.values()]
    versions = {"python": platform.python_version()}
    for result in (found["rates"], *results):
        versions |= result.get("versions", {})
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    idle = max((r["idle"] for r in results if "idle" in r), default=0.0)
    others = [r["others"] for r in results if "others" in r] or [0.0]
    yield (
        f"{processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.platform()}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )
    if "rounds" in found["rates"]:
        rates = rates_of(found)
        yield (
            f"Matrix products, 2048 square: {rates['float32']:.0f} GFLOP/s float32, "
            f"{rates['bfloat16']:.0f} bfloat16."
        )
    data = "MNIST" if os.environ.get("KERAS_VAE_DATA") else "random bytes"
    share = max(0.0, statistics.mean(others))
    yield (
        f"{datetime.date.today()}, {data}. Medians of {rounds} rounds (lowest to highest), "
        f"at most 3 for long measurements. Load average before: {found['load']:.1f}. "
        f"During the measurements other programs used {share:.0%} of the cores (at most "
        f"{max(others):.0%} in one table), and waiting contestants {idle:.1%} of one core."
    )
    if share > 0.05:
        yield "**The machine was busy: do not quote these numbers.**"
    if quick:
        yield "**A trial with --quick: do not quote these numbers.**"


def processor():
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def report(found, tables, rounds, quick):
    """Returns the tables by name, in Markdown."""
    texts = {"machine": machine(found, rounds, quick), "ratios": promised(found, tables)}
    for name, group in tables.items():
        texts[name] = listed(name, group, found["groups"][name])
    curves = (["", *grown(name, points)] for name, points in found["growth"].items())
    texts["growth"] = itertools.chain.from_iterable(curves)
    texts["hardware"] = hardware(found)
    return {name: "\n".join(lines).strip() for name, lines in texts.items()}


def draw(found, tables, path):
    """Draws the ratios as bars with their targets, and the three curves below."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    bars = []
    for name, group in tables.items():
        for promise in group.promises:
            other, values = ratios(promise, found["groups"][name])
            if not isinstance(values, str):
                bars.append((f"{promise.what} / {other}", values, promise.target))
    figure = plt.figure(figsize=(12, 4 + 0.32 * len(bars)), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[0.32 * len(bars), 3.6])
    axis = top.subplots()
    middles = [statistics.median(values) for _, values, _ in bars]
    lengths = [
        [m - min(v) for m, (_, v, _) in zip(middles, bars, strict=True)],
        [max(v) - m for m, (_, v, _) in zip(middles, bars, strict=True)],
    ]
    axis.barh(range(len(bars)), middles, xerr=lengths, color="C0", alpha=0.7)
    for i, (_, _, target) in enumerate(bars):
        if target is not None:
            label = "target" if i == 0 else None
            axis.plot([target] * 2, [i - 0.4, i + 0.4], color="C3", lw=3, label=label)
    axis.axvline(1.0, color="black", lw=0.8)
    axis.set_yticks(range(len(bars)), [words.replace("`", "") for words, _, _ in bars])
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="speed of keras_vae / speed of the other, medians")
    label_ticks(axis.xaxis)
    axis.legend()
    for axis, (name, points) in zip(
        bottom.subplots(1, 3), found["growth"].items(), strict=True
    ):
        for kind in next(iter(points.values())):
            xy = [
                (int(value), statistics.median(speeds(results[kind])))
                for value, results in points.items()
                if "rounds" in results[kind]
            ]
            label = {"fit": "keras_vae, fit", "loop": "hand-written XLA loop"}[kind]
            axis.plot(*zip(*xy, strict=True), "o-" if kind == "fit" else "s--", label=label)
        axis.set(xscale="log", yscale="log", xlabel=name, ylabel="images per second")
        label_ticks(axis.xaxis)
        label_ticks(axis.yaxis)
        axis.set_xticks([int(value) for value in points], points)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=110)


def label_ticks(axis):
    """Labels a logarithmic axis with plain numbers: 1, 2, 5, 10, ..."""
    from matplotlib import ticker

    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_minor_locator(ticker.NullLocator())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="trial with one round")
    parser.add_argument("--out", type=pathlib.Path, help="Markdown file to update")
    parser.add_argument("--only", help="tables to measure, instead of all: dense,conv")
    args = parser.parse_args()
    rounds = 1 if args.quick else args.rounds
    tables, curves = groups(args.quick), growth(args.quick)
    if args.only:
        if args.out:
            parser.error("--out needs all tables, measured in one run, without --only")
        tables, curves = chosen(tables, args.only), {}
    else:
        print(f"This takes about {9 if args.quick else 60} minutes.", flush=True)
    found = measure(tables, curves, rounds)
    # Reads the JSON again: the values of the curves become strings.
    text = json.dumps(found, indent=1)
    (LOGS / "results.json").write_text(text)
    texts = report(json.loads(text), tables, rounds, args.quick)
    print("\n" + "\n\n".join(filter(None, texts.values())))
    if args.out:
        scaling.replace(args.out, texts)
        draw(json.loads(text), tables, args.out.with_suffix(".png"))


def chosen(tables, only):
    """Returns those items of a dict that `only` names, separated by commas."""
    names = only.split(",")
    if set(names) - set(tables):
        raise SystemExit(f"--only takes {','.join(tables)}. Received: {only}")
    return {name: tables[name] for name in names}


if __name__ == "__main__":
    main()
