"""Measures exported models: quantisation in LiteRT, and latency in three runtimes.

Writes two tables in Markdown. `quantisation`: size, time and error of each signature of a
.tflite file, for each `quantize`. `latency`: times of start and calls of the SavedModel, of
LiteRT and of ONNX Runtime, each in new processes without keras_vae, for the run's model and
for an untrained dense model, 784-400-20-400-784. Its last row is the time of `sample`
divided by that of `decode` with the same z: the overhead of the noise.

    python tests/benchmarks/exported.py [--run RUN] [--table NAME] [--out FILE]

Without --run the demo's model is trained for 20 epochs. With --out the tables also replace
the text in FILE between the lines `<!-- table -->` and `<!-- /table -->`.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import runpy
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

ROWS = (1, 256)
SECONDS = 1  # limit for the calls of one signature; there are at least five calls
MAIN = {"encode": "z", "sample": "x", "score": "elbo"}  # default: "mean"
PACKAGES = {
    "tf_saved_model": "tensorflow",
    "litert": "ai-edge-litert",
    "onnx": "onnxruntime",
}


def measure(job):
    """Measures one artefact in this process; returns lists of milliseconds by name."""
    runtimes = runpy.run_path(job["runtimes"])  # an import would load all of keras_vae
    begin = time.perf_counter()
    steps = runtimes[job["runtime"]](job["artefact"])
    next(steps)
    imported = time.perf_counter()
    runners = next(steps)
    loaded = time.perf_counter()
    took = {"import": [1e3 * (imported - begin)], "load": [1e3 * (loaded - imported)]}
    feeds = {}
    for key, array in np.load(job["feeds"]).items():
        name, tensor = key.split("/")
        feeds.setdefault(name, {})[tensor] = array

    def timed(name, inputs):
        start = time.perf_counter()
        outputs = runners[name][0](**inputs)
        return 1e3 * (time.perf_counter() - start), outputs

    def repeated(one):
        end = time.perf_counter() + SECONDS
        values = []
        while len(values) < 5 or len(values) < job["repeat"] and time.perf_counter() < end:
            values.append(one())
        return values

    for rows in ROWS:
        for name, arrays in feeds.items():
            inputs = {key: array[:rows] for key, array in arrays.items()}
            took[f"{name} first {rows}"] = [timed(name, inputs)[0]]
            took[f"{name} {rows}"] = repeated(lambda n=name, i=inputs: timed(n, i)[0])
    seeds = feeds["sample"]
    z = {"z": timed("sample", seeds)[1]["z"]}
    timed("decode", z)
    took["sample / decode"] = repeated(  # in turn, so that other load slows both
        lambda: timed("sample", seeds)[0] / timed("decode", z)[0]
    )
    np.savez(job["results"])  # empty
    return took


def latency(models, folder, repeat, processes=3):
    """Lines of the table of latencies."""
    from keras_vae.exporting import verify

    columns, names = [], None
    for title, model, x in models:
        for format in PACKAGES:
            suffix = ".tflite" if format == "litert" else ""
            path = model.export(folder / f"{title}-{format}{suffix}", format=format)
            card = verify.read_card(path)
            feeds, _ = verify.expected(model, card, x, ROWS[1])
            job = {"runtime": format, "artefact": path, "feeds": feeds}
            job["runtimes"] = str(verify.SCRIPT)
            ran = [verify.run([job], repeat, __file__)[0][1] for _ in range(processes)]
            columns.append({key: sum((took[key] for took in ran), []) for key in ran[0]})
            names = list(card["signatures"])
    titles = [f"{title}: {p}" for title, _, _ in models for p in PACKAGES.values()]
    rows = {"import": "import", "load": "load"}
    for kind, words in (
        ("first 1", "first call"),
        ("1", "1 row"),
        (str(ROWS[1]), f"{ROWS[1]} rows"),
    ):
        rows |= {f"{name} {kind}": f"`{name}`, {words}" for name in names}
    rows["sample / decode"] = f"`sample` / `decode`, {ROWS[1]} rows"
    yield from line("milliseconds", *titles)
    for key, words in rows.items():
        yield row(words, *(spread(column[key]) for column in columns))
    yield ""
    yield f"Medians (quartiles) of {processes} processes with up to {repeat} calls each."
    yield "TensorFlow uses all cores, the others one thread. LiteRT: free batch size."


def quantisation(model, x, x_fit, folder, repeat):
    """Lines of the table of `quantize`."""
    from keras_vae.exporting import verify

    modes, files = (None, "float16", "dynamic", "int8"), []
    for mode in modes:
        rows = x_fit if mode == "int8" else None
        options = {"format": "litert", "quantize": mode, "representative_data": rows}
        for size in (1, None):
            path = folder / f"{mode}-{size}.tflite"
            files.append(model.export(path, batch_size=size, **options))
    card = verify.read_card(files[0])
    feeds, wanted = verify.expected(model, card, x, len(x))
    jobs = [{"runtime": "litert", "artefact": path, "feeds": feeds} for path in files]
    ran = verify.run(jobs, repeat)
    yield from line(
        "`quantize`",
        "file, kB",
        "signature",
        "ms, `batch_size=1`",
        "ms, free batch size",
        "output",
        "mean error",
        "largest error",
    )
    for i, mode in enumerate(modes):
        (got, fixed), (_, free) = ran[2 * i : 2 * i + 2]
        for name in card["signatures"]:
            key = f"{name}/{MAIN.get(name, 'mean')}"
            off = np.abs(got[key].astype(np.float64) - wanted[key])
            errors = [f"{off.mean():.1e}", f"{off.max():.1e}"]
            if name == "sample":
                z = np.abs(got["sample/z"] - wanted["sample/z"]).max()
                errors = [f"{np.mean(off > 0):.2%} of x differ", f"z within {z:.0e}"]
            elif name == "score":
                errors = [f"{value} nats" for value in errors]
            size = f"{files[2 * i].stat().st_size / 1e3:,.0f}"
            times = (f"{one[name]['call']:.3f}" for one in (fixed, free))
            yield row(mode, size, f"`{name}`", *times, key.split("/")[1], *errors)
    yield ""
    yield f"{len(x)} rows of test data; median of {repeat} one-row calls on one thread."


def row(*cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def line(*titles):
    return row(*titles), row(*["---"] * len(titles))


def spread(values):
    low, middle, high = np.percentile(values, (25, 50, 75))
    digits = max(0, 2 - int(np.floor(np.log10(middle))))
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def dense():
    """Builds an untrained dense model of 28 x 28 pixels, and rows for it."""
    import keras_vae as kv

    shape = (28, 28, 1)
    vae = kv.VAE(
        encoder=kv.nets.MLP([400]),
        decoder=kv.nets.MLP([400]),
        likelihood=kv.distributions.IndependentBernoulli(shape),
        latent_dim=20,
        seed=0,
    )
    x = np.random.default_rng(0).integers(0, 2, (ROWS[1], *shape)).astype("float32")
    vae.encode(x[:1])  # builds it
    return vae, x


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=pathlib.Path, help="folder of a run")
    parser.add_argument("--table", choices=["quantisation", "latency"])
    parser.add_argument("--out", type=pathlib.Path, help="Markdown file to update")
    parser.add_argument("--repeat", type=int, default=200, help="number of timed calls")
    parser.add_argument("jobs", nargs="?", help=argparse.SUPPRESS)  # used internally
    args = parser.parse_args()
    if args.jobs:
        jobs = json.loads(pathlib.Path(args.jobs).read_text())
        print(json.dumps([measure(job) for job in jobs]))
        return
    import tensorflow as tf

    from keras_vae.runs.folder import Run

    tf.get_logger().setLevel("ERROR")  # hides warnings about repeated tracing
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if args.run is None:
            args.run = folder / "run"
            options = ["--epochs", "20", "--baselines", "none", "--out", str(args.run)]
            subprocess.run(
                [sys.executable, "-m", "keras_vae.cli", "train", "digits", *options],
                check=True,
            )
        run = Run.open(args.run)
        model, data = run.model(), run.data()
        lines = []
        if args.table != "latency":
            lines += quantisation(model, data.x_test, data.x_fit, folder, args.repeat)
        if args.table is None:
            lines.append("")
        if args.table != "quantisation":
            both = [(run.info["data"]["name"], model, data.x_test), ("dense", *dense())]
            lines += latency(both, folder, args.repeat)
    about = (f"{p} {importlib.metadata.version(p)}" for p in PACKAGES.values())
    lines += ["", f"{platform.machine()}, {os.cpu_count()} cores; {', '.join(about)}."]
    text = "\n".join(lines)
    print(text)
    if args.out:
        whole, block = args.out.read_text(), r"(<!-- table -->\n).*?(<!-- /table -->)"
        if not re.search(block, whole, re.DOTALL):
            raise SystemExit(
                f"{args.out} must have lines <!-- table --> and <!-- /table -->"
            )
        new = re.sub(block, lambda m: f"{m[1]}\n{text}\n\n{m[2]}", whole, flags=re.DOTALL)
        args.out.write_text(new)


if __name__ == "__main__":
    main()
