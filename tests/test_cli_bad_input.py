"""Every bad input of the command line: exit code 2, a message in words, nothing lost.

A row of a table is (id, files, command, message) or (id, command, message). `files` are
put into the working folder first (see `put`), beside those of `folder`; the command must
then end with exit code 2, change no file or folder, and write to stderr each of the
fragments between the dots of `message`, in any order: the option as it is typed, or DATA
or RUN, what was expected and what came. `a|b` stands for one or the other.
"""

import contextlib
import errno
import gc
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import threading
import warnings

import keras
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from typer.testing import CliRunner

from keras_vae import VAE, cli
from keras_vae.cluster import launcher, meeting

READABLE = 1200  # characters: a message, not a stack of calls

# Ahead of the options of a command, so that one that is not refused ends soon.
SMALL = {
    "train": "--network mlp --hidden 4 --latent 2 --epochs 1 --batch 8 --no-xla "
    "--baselines none --num-samples 2",
    "evaluate": "--num-samples 2",
    "report": "--baselines none --num-samples 2",
}


def keras_vae(command):
    """Runs the command line in this process."""
    name, *args = shlex.split(command)
    small = shlex.split(SMALL.get(name, ""))
    with warnings.catch_warnings():
        # As outside of the tests, where a warning is a line and does not end the command.
        warnings.simplefilter("default")
        for kind in (DeprecationWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        return CliRunner().invoke(cli.app, [name, *small, *args])


def no_report(patch):
    """Leaves out the report at the end of `train`, which takes longer than the rest."""
    patch.setattr(cli, "_finish", lambda *_: None)


def run_eagerly(patch):
    """Trains a step at a time: to make a graph takes longer than the few steps here."""
    compile = VAE.compile
    eager = {"run_eagerly": True}
    patch.setattr(VAE, "compile", lambda *args, **kw: compile(*args, **{**kw, **eager}))


def tree(folder="."):
    """The content of each file, and None for each folder, by path."""
    paths = sorted(pathlib.Path(folder).rglob("*"))
    return {str(p): p.read_bytes() if p.is_file() else None for p in paths}


def failed(command, message, warned=False):
    """Runs a command that must fail in words."""
    result = keras_vae(command)
    text = re.sub(r"[\s│╭╮╰╯─]+", " ", result.stderr)  # without the box and its line breaks
    if not isinstance(result.exception, SystemExit | None):
        raise AssertionError(f"traceback: {result.exception!r}") from result.exception
    assert result.exit_code == 2, f"exit code {result.exit_code}: {text}"
    for fragment in message.split(" ... "):
        assert any(f in text for f in fragment.split("|")), f"{fragment!r} not in {text}"
    assert "Traceback" not in text
    assert ("Warning" in text) == warned, text
    assert len(text) < READABLE, f"{len(text)} characters: {text}"


def refused(command, message):
    """Runs a command that must fail in words and leave all files as they are."""
    before = tree()
    said = None
    try:
        failed(command, message)
    except AssertionError as error:
        said = error
    after = tree()
    names = before.keys() | after.keys()
    changed = sorted(n for n in names if before.get(n, 0) != after.get(n, 0))
    assert said is None, f"{said}; changed: {changed[:3]}"
    assert not changed, f"refused, but the command changed {changed}"


def done(command):
    result = keras_vae(command)
    if not isinstance(result.exception, SystemExit | None):
        raise AssertionError(f"traceback of {command!r}") from result.exception
    assert result.exit_code == 0, result.output
    return result


# What lies in the working folder: a.npy of 12 x 4 numbers, a table t.csv, a folder of grey
# images, and two runs of a.npy.

ROWS = np.random.RandomState(0).normal(size=(12, 4)).astype("float32")
GREY = np.random.RandomState(0).randint(0, 256, (8, 8), dtype="uint8")
TABLE = "a,b,c\n" + "".join(f"{i},{i * i},{i % 3}\n" for i in range(10))
ARRAYS = {"x_train": ROWS, "x_test": ROWS[:4]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_eagerly(patch)
        put("a.npy", ROWS)
        put("t.csv", TABLE)
        for i in range(6):
            put(f"images/{i}.png", GREY)
        done("train a.npy --out run")
        no_report(patch)
        done("train a.npy --out plain --model autoencoder")
        done("train t.csv --out of_table")
    return folder


@pytest.fixture(autouse=True)
def folder(made, tmp_path, monkeypatch):
    """The working folder, a copy of what was made; the runs know it by its new place."""
    new = tmp_path / "work"
    shutil.copytree(made, new)
    for path in new.glob("*/run.json"):
        path.write_text(path.read_text().replace(str(made), str(new)))
    monkeypatch.chdir(new)
    run_eagerly(monkeypatch)
    monkeypatch.delenv("KERAS_VAE_DATA", raising=False)
    return new


def put(name, content):
    """Writes a file: an array, arrays by name, pixels, text or bytes; None deletes it.

    A function gets the bytes that are there and returns the new ones.
    """
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.unlink()
    elif callable(content):
        path.write_bytes(content(path.read_bytes() if path.exists() else None))
    elif isinstance(content, dict):
        np.savez_compressed(path, **content)
    elif isinstance(content, np.ndarray) and path.suffix == ".npy":
        np.save(path, content)
    elif isinstance(content, np.ndarray):
        Image.fromarray(content).save(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def first(count):
    """What is left of a file whose writing was cut short."""
    return lambda content: content[:count]


def json_with(change):
    """A JSON file after `change(what it holds)`."""

    def changed(content):
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return changed


def without(*keys):
    """A JSON file without the value that the keys lead to."""

    def change(value):
        *parents, last = keys
        for key in parents:
            value = value[key]
        del value[last]

    return json_with(change)


def newer(info):
    info["format"], info["versions"]["keras_vae"] = 99, "9.9.9"


def damaged_npz(_):
    """An .npz file whose compressed bytes are no longer what zlib wrote."""
    file = io.BytesIO()
    np.savez_compressed(file, x=np.random.RandomState(0).randint(0, 9, (99, 9), "uint8"))
    content = bytearray(file.getvalue())
    content[200:260] = bytes(255 - byte for byte in content[200:260])
    return bytes(content)


def png(pixels, size=None):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()[:size]


def parquet(_):
    file = io.BytesIO()
    table = pyarrow.table({"a": [1.0, 2.0, 3.0], "b": [[1], [2], [3]]})
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


def other_model(_):
    """A model.keras that holds no VAE."""
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]).save("other.keras")
    content = pathlib.Path("other.keras").read_bytes()
    pathlib.Path("other.keras").unlink()
    return content


def with_value(value, dtype="float64"):
    x = np.zeros((12, 4), dtype)
    x[6, 3] = value
    return x


def table(names, rows):
    values = [pytest.param(*row[1:], id=row[0]) for row in rows]
    return pytest.mark.parametrize(names, values)


# Options of `train` that have a wrong value, whatever the data.

OPTIONS = [
    ("latent_0", "--latent 0", "--latent ... of 1 or more"),
    ("latent_negative", "--latent -1", "--latent ... of 1 or more"),
    ("latent_float", "--latent 2.5", "--latent ... whole number"),
    ("latent_empty", "--latent ''", "--latent ... whole number"),
    ("beta_negative", "--beta -1", "--beta ... of 0 or more"),
    ("beta_nan", "--beta nan", "--beta ... of 0 or more"),
    ("beta_inf", "--beta inf", "--beta ... number ... inf"),
    ("beta_text", "--beta big", "--beta ... float|number"),
    (
        "beta_steps_0",
        "--beta-schedule linear --beta-steps 0",
        "--beta-steps ... of 1 or more",
    ),
    ("free_bits_negative", "--free-bits -1", "--free-bits ... of 0 or more"),
    ("samples_0", "--samples 0", "--samples ... of 1 or more"),
    ("epochs_0", "--epochs 0", "--epochs ... of 1 or more"),
    ("epochs_text", "--epochs 1e3", "--epochs ... whole number"),
    ("batch_0", "--batch 0", "--batch ... of 1 or more"),
    ("batch_beyond_64_bits", f"--batch {10**30}", f"--batch ... {10**30}"),
    ("learning_rate_0", "--learning-rate 0", "--learning-rate ... above 0 ... 0"),
    ("learning_rate_nan", "--learning-rate nan", "--learning-rate ... above 0 ... nan"),
    ("learning_rate_inf", "--learning-rate inf", "--learning-rate ... above 0 ... inf"),
    ("validation_above", "--validation 1.5", "--validation ... up to 0.9"),
    ("validation_negative", "--validation -0.1", "--validation ... of 0 or more"),
    ("validation_nan", "--validation nan", "--validation ... up to 0.9"),
    ("seed_too_large", f"--seed {2**31}", "--seed ... 2,147,483,647"),
    ("model", "--model gan", "--model ... gan ... vae ... autoencoder"),
    ("network", "--network rnn", "--network ... rnn ... mlp ... conv"),
    ("likelihood", "--likelihood poisson", "--likelihood ... poisson ... bernoulli"),
    ("grey_unknown", "--grey loud", "--grey ... loud ... binarize"),
    ("objective", "--objective elbow", "--objective ... elbow ... elbo ... iwae"),
    ("beta_schedule", "--beta-schedule up", "--beta-schedule ... up ... linear"),
    ("lr_schedule", "--lr-schedule step", "--lr-schedule ... step ... cosine"),
    ("strategy", "--strategy tpu", "--strategy ... tpu ... mirrored ... multi-worker"),
    ("mirrored", "--strategy mirrored", "--strategy mirrored ... two GPUs ... CPU:0"),
    ("multi_worker", "--strategy multi-worker", "--strategy ... TF_CONFIG ... Slurm"),
    ("timeout_0", "--timeout 0", "--timeout ... above 0"),
    ("precision", "--precision float64", "--precision ... float64 ... float32"),
    ("activation", "--activation rleu", "--activation ... rleu"),
    ("hidden_text", "--hidden a,b", "--hidden ... 'a,b' ... 400,200"),
    ("hidden_empty", "--hidden ''", "--hidden ... '' ... 400,200"),
    ("hidden_0", "--hidden 0", "--hidden ... '0' ... 400,200"),
    ("hidden_negative", "--hidden 8,-2", "--hidden ... '8,-2' ... 400,200"),
    ("hidden_none", "--hidden none", "--hidden ... at least one"),
    ("filters_text", "--network conv --filters 8;8", "--filters ... '8;8' ... 400,200"),
    ("scale_negative", "--scale -1", "--scale ... positive ... '-1'"),
    ("scale_nan", "--scale nan", "--scale ... positive ... 'nan'"),
    ("scale_text", "--scale per_pixel", "--scale ... 'per_pixel' ... per_element"),
    ("baselines_text", "--baselines all", "--baselines ... 'all' ... 400,200|none"),
    ("baselines_0", "--baselines 0,2", "--baselines ... '0,2'"),
    ("num_samples_0", "--num-samples 0", "--num-samples ... of 1 or more"),
    ("nll_rows_1", "--nll-rows 1", "--nll-rows ... of 2 or more"),
    ("range_malformed", "--value-range 0-16", "--value-range ... LOW:HIGH ... '0-16'"),
    ("range_one", "--value-range 16", "--value-range ... LOW:HIGH ... '16'"),
    ("range_three", "--value-range 0:1:2", "--value-range ... LOW:HIGH ... '0:1:2'"),
    ("range_reversed", "--value-range 16:0", "--value-range ... LOW:HIGH ... '16:0'"),
    ("range_empty", "--value-range 1:1", "--value-range ... LOW:HIGH ... '1:1'"),
    ("range_nan", "--value-range 0:nan", "--value-range ... LOW:HIGH ... '0:nan'"),
    ("range_inf", "--value-range 0:inf", "--value-range ... LOW:HIGH ... '0:inf'"),
    ("range_narrow", "--value-range 0:0.1", "--value-range ... all values ... 0.0 0.1"),
    ("resize_malformed", "--resize 28", "--resize ... HEIGHTxWIDTH ... '28'"),
    ("resize_0", "--resize 0x28", "--resize ... HEIGHTxWIDTH ... '0x28'"),
    ("resize_array", "--resize 8x8", "--resize ... an array ... [8, 8]"),
    ("crop_malformed", "--crop 28,28", "--crop ... HEIGHTxWIDTH ... '28,28'"),
    ("crop_vectors", "--crop 2x2", "--crop ... images ... [2, 2] ... (4,)"),
    ("shift_vectors", "--shift 0.1", "--shift ... no images ... 0.1"),
    ("shift_above", "--shift 2", "--shift ... up to 1"),
    ("rotate_vectors", "--rotate 10", "--rotate ... no images ... 10"),
    ("rotate_nan", "--rotate nan", "--rotate ... up to 180"),
    ("label_array", "--label a", "--label ... an array ... a"),
    ("drop_array", "--drop a", "--drop ... an array ... a"),
    ("conv_on_vectors", "--network conv", "--network ... mlp ... conv"),
    # Options that do not go together.
    ("free_bits_iwae", "--objective iwae --free-bits 1", "--free-bits ... elbo ... 1.0"),
    ("beta_iwae", "--objective iwae --beta 2", "--beta ... elbo ... 2.0"),
    ("beta_autoencoder", "--model autoencoder --beta 2", "--beta ... vae ... 2.0"),
    ("iwae_autoencoder", "--model autoencoder --objective iwae", "--objective ... vae"),
    ("scale_bernoulli", "--likelihood bernoulli --scale 1", "--scale ... normal ... 1.0"),
    ("grey_normal", "--likelihood normal --grey soft", "--grey ... bernoulli ... soft"),
    ("steps_of_no_ramp", "--beta-steps 5", "--beta-steps ... --beta-schedule ... 5"),
    ("bernoulli_negative", "--likelihood bernoulli", "--likelihood|DATA ... [0, 1] ... -"),
    # The folder of the run.
    ("out_is_a_run", "--out run", "--out ... --resume ... run ... not empty"),
    ("out_not_empty", "--out images", "--out ... images ... not empty"),
    ("out_is_a_file", "--out a.npy", "--out ... folder ... a.npy ... file"),
    ("out_below_a_file", "--out a.npy/run", "--out ... folder ... a.npy/run"),
    ("resume_without_out", "--resume", "--resume ... --out"),
    ("resume_no_run", "--out images --resume", "--out ... images ... run.json"),
    ("resume_a_file", "--out a.npy --resume", "--out ... folder ... a.npy"),
    ("unknown_option", "--latents 2", "--latents"),
    ("two_data", "b.npy", "b.npy"),
    # Another run than the one that is there.
    ("resume_latent", "--out run --resume --latent 3", "--latent ... 2 ... latent=3"),
    ("resume_seed", "--out run --resume --seed 1", "--seed ... 0 ... seed=1"),
    ("resume_hidden", "--out run --resume --hidden 5", "--hidden ... [4] ... [5]"),
    ("resume_batch", "--out run --resume --batch 4", "--batch ... 8 ... batch=4"),
    ("resume_scale", "--out run --resume --scale 1", "--scale ... shared ... 1.0"),
    (
        "resume_schedule",
        "--out run --resume --lr-schedule cosine",
        "--lr-schedule ... constant",
    ),
]


@table(("options", "message"), OPTIONS)
def test_options_of_train(options, message):
    out = "" if "--out" in options or "--resume" in options else "--out new"
    refused(f"train a.npy {out} {options}", message)


def test_train_without_data():
    refused("train", "DATA")


# Several workers.

LAUNCH = [
    ("none", "", "COMMAND"),
    ("other", "evaluate run", "COMMAND ... train ... evaluate"),
    ("no_data", "train", "DATA"),
    ("unknown_option", "train a.npy --latents 2", "--latents"),
    ("wrong_option", "train a.npy --latent 0", "--latent ... of 1 or more"),
    ("mirrored", "train a.npy --strategy mirrored", "--strategy ... mirrored"),
    ("exists", "train a.npy --out run", "--out ... --resume to go on ... run"),
    ("resume", "train a.npy --resume", "--resume needs --out"),
]


@table(("command", "message"), LAUNCH)
def test_commands_of_launch(command, message):
    refused(f"launch --workers 2 -- {command}", message)


@table(
    ("options", "message"),
    [
        ("workers_missing", "", "--workers"),
        ("workers_0", "--workers 0", "--workers ... of 1 or more"),
        ("restarts", "--workers 2 --restarts -1", "--restarts ... of 0 or more"),
        ("timeout", "--workers 2 --timeout 0", "--timeout ... above 0"),
        ("grace", "--workers 2 --grace nan", "--grace ... of 0 or more"),
    ],
)
def test_options_of_launch(options, message):
    refused(f"launch {options} -- train a.npy --out new", message)


def as_worker_1(patch):
    """Makes this process the second of two workers; returns their addresses."""
    cluster = [f"127.0.0.1:{port}" for port in launcher._free_ports(2)]
    config = {"cluster": {"worker": cluster}, "task": {"type": "worker", "index": 1}}
    patch.setenv("TF_CONFIG", json.dumps(config))
    return cluster


def test_a_wrong_tf_config(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{")
    refused("train a.npy --out new", "`TF_CONFIG` must name ... Received: {")
    as_worker_1(monkeypatch)
    refused("train a.npy --out new --strategy mirrored", "--strategy ... mirrored")


def test_the_chief_never_comes(monkeypatch):
    cluster, before = as_worker_1(monkeypatch), tree()
    result = keras_vae("train a.npy --out new --timeout 0.5")
    assert result.exit_code == 69
    said = f"Error: worker 0 ({cluster[0]}) did not answer"
    assert result.stderr.startswith(said) and "within 0.5 seconds" in result.stderr
    assert tree() == before


def test_the_chief_does_something_else(monkeypatch):
    cluster, seen = as_worker_1(monkeypatch), []

    def chief(cluster, index, facts, timeout):
        seen.append(facts)
        raise TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(meeting, "rendezvous", chief)
        keras_vae("train a.npy --out new")
    assert len(seen[0]["code"]) > 12 and seen[0]["numpy"] == np.__version__

    def other_chief():
        with contextlib.suppress(ValueError):
            meeting.rendezvous(cluster, 0, seen[0] | {"batch": "9", "data": "other"}, 60)

    thread = threading.Thread(target=other_chief)
    thread.start()
    message = "worker 1 ... --batch 8 ... the chief ... --batch 9 ... DATA other"
    refused("train a.npy --out new", message)
    thread.join()


# What DATA names.

LATIN = "größe,a\n1,2\n3,4\n5,6\n".encode("latin-1")
NUMBERS = "a,b\n1,2\n3,4\n5,6\n"
OTHER_WIDTH = {"x_train": ROWS, "x_test": ROWS[:4, :3]}
DATA = [
    # Not there, or nothing that is known.
    ("missing", {}, "b.npy", "DATA ... b.npy ... digits ... does not exist"),
    ("missing_folder", {}, "no/b.npy", "DATA ... no/b.npy ... does not exist"),
    ("unknown_name", {}, "mnits", "DATA ... mnits ... mnist ... does not exist"),
    ("suffix", {"x.mat": b"x"}, "x.mat", "DATA ... .npy ... .csv ... x.mat"),
    ("empty_name", {}, "''", "DATA"),
    ("option_of_named", {}, "digits --value-range 0:16", "--value-range ... digits"),
    ("crop_too_large", {}, "digits --crop 9x9", "--crop ... [9, 9] ... (8, 8, 1)"),
    # Arrays.
    (
        "npy_object",
        {"x.npy": np.array([[1, None]] * 4)},
        "x.npy",
        "DATA ... numbers ... x.npy",
    ),
    (
        "npy_text",
        {"x.npy": np.array([["a", "b"]] * 4)},
        "x.npy",
        "DATA ... numbers ... <U1",
    ),
    ("npy_complex", {"x.npy": ROWS * 1j}, "x.npy", "DATA ... numbers ... complex64"),
    (
        "npy_dates",
        {"x.npy": ROWS.astype("M8[s]")},
        "x.npy",
        "DATA ... numbers ... datetime64",
    ),
    ("npy_0d", {"x.npy": np.array(3.0)}, "x.npy", "DATA ... (rows, columns) ... ()"),
    ("npy_1d", {"x.npy": ROWS[0]}, "x.npy", "DATA ... (rows, columns) ... (4,)"),
    (
        "npy_5d",
        {"x.npy": ROWS.reshape(3, 2, 2, 2, 2)},
        "x.npy",
        "DATA ... (rows, height, width, channels) ... (3, 2, 2, 2, 2)",
    ),
    ("npy_no_rows", {"x.npy": ROWS[:0]}, "x.npy", "DATA ... rows ... (0, 4)"),
    ("npy_no_columns", {"x.npy": ROWS[:, :0]}, "x.npy", "DATA ... columns ... (12, 0)"),
    ("npy_one_row", {"x.npy": ROWS[:1]}, "x.npy", "DATA ... 2 rows ... 1"),
    (
        "npy_nan",
        {"x.npy": with_value(np.nan)},
        "x.npy",
        "DATA ... finite ... 1 value ... NaN",
    ),
    ("npy_inf", {"x.npy": with_value(np.inf)}, "x.npy", "DATA ... finite ... infinity"),
    (
        "npy_beyond_float32",
        {"x.npy": with_value(1e300)},
        "x.npy",
        "DATA ... float32|finite",
    ),
    (
        "npy_to_300",
        {"x.npy": with_value(300)},
        "x.npy --likelihood bernoulli",
        "DATA|--likelihood ... [0, 1] ... 300 ... --value-range",
    ),
    (
        "npy_image_to_16",
        {"x.npy": np.full((12, 8, 8), 16.0)},
        "x.npy --likelihood bernoulli",
        "DATA|--likelihood ... [0, 1] ... 16 ... --value-range",
    ),
    ("npy_no_array", {"x.npy": b"1,2,3\n"}, "x.npy", "DATA ... NumPy ... x.npy"),
    ("npy_empty_file", {"x.npy": b""}, "x.npy", "DATA ... NumPy ... x.npy"),
    ("npy_truncated", {"a.npy": first(150)}, "a.npy", "DATA ... NumPy ... a.npy"),
    ("npy_header", {"a.npy": first(50)}, "a.npy", "DATA ... NumPy ... a.npy"),
    (
        "npy_damaged",
        {"a.npy": lambda content: content.replace(b"), }", b"   }")},
        "a.npy",
        "DATA ... NumPy ... a.npy",
    ),
    ("npz_no_x", {"x.npz": {"images": ROWS}}, "x.npz", "DATA ... x_train ... images"),
    ("npz_nothing", {"x.npz": {}}, "x.npz", "DATA ... x_train ... nothing"),
    (
        "npz_no_test",
        {"x.npz": {"x_train": ROWS}},
        "x.npz",
        "DATA ... x_test ... with x_train",
    ),
    (
        "npz_object",
        {"x.npz": {"x": np.array([[1, None]] * 4)}},
        "x.npz",
        "DATA ... numbers",
    ),
    ("npz_width", {"x.npz": OTHER_WIDTH}, "x.npz", "DATA ... (4,) ... (3,) ... x_test"),
    (
        "npz_dtype",
        {"x.npz": ARRAYS | {"x_test": GREY[:4, :4] | 2}},
        "x.npz",
        "DATA ... float32 ... uint8 ... x_test",
    ),
    (
        "npz_nan_in_test",
        {"x.npz": ARRAYS | {"x_test": with_value(np.nan)}},
        "x.npz",
        "DATA ... finite ... x_test",
    ),
    (
        "npz_labels_rows",
        {"x.npz": {"x": ROWS, "y": np.arange(11)}},
        "x.npz",
        "DATA ... (12,) ... y of ... (11,)",
    ),
    (
        "npz_labels_one_hot",
        {"x.npz": {"x": ROWS, "y": np.eye(12)}},
        "x.npz",
        "DATA ... (12,) ... y of ... (12, 12)",
    ),
    (
        "npz_labels_of_one",
        {"x.npz": ARRAYS | {"y_test": np.arange(4)}},
        "x.npz",
        "DATA ... both ... y_test alone",
    ),
    (
        "npz_range_of_test",
        {"x.npz": ARRAYS | {"x_test": ROWS[:4] + 9}},
        "x.npz --value-range -5:5",
        "--value-range ... -5.0 5.0 ... x_test",
    ),
    ("npz_truncated", {"x.npz": ARRAYS, "./x.npz": first(300)}, "x.npz", "DATA ... NumPy"),
    ("npz_damaged", {"x.npz": damaged_npz}, "x.npz", "DATA ... NumPy ... x.npz"),
    # Images.
    ("images_text", {"images/3.png": "no picture"}, "images", "DATA ... images ... 3.png"),
    ("images_truncated", {"images/3.png": png(GREY, 90)}, "images", "DATA ... 3.png"),
    ("images_empty_file", {"images/3.png": b""}, "images", "DATA ... images ... 3.png"),
    (
        "images_sizes",
        {"images/3.png": GREY[:7]},
        "images",
        "DATA ... --resize ... 8 x 8 ... 3.png of 7 x 8",
    ),
    (
        "images_16_bits",
        {"images/3.png": GREY.astype("uint16") * 256},
        "images",
        "DATA ... 8 bits ... 3.png",
    ),
    ("images_none", {"empty/x.txt": "x"}, "empty", "DATA ... .png ... empty ... none"),
    ("images_no_test", {"s/train/1.png": GREY, "s/test/x.txt": ""}, "s", "DATA ... s/test"),
    ("images_one", {"one/1.png": GREY}, "one", "DATA ... 2 rows ... 1 in"),
    ("images_crop", {}, "images --crop 9x9", "--crop ... [9, 9] ... (8, 8, 1)"),
    (
        "images_range",
        {},
        "images --value-range 0:255",
        "--value-range ... folder of images",
    ),
    # Tables.
    ("csv_empty_file", {"x.csv": ""}, "x.csv", "DATA ... CSV ... x.csv"),
    ("csv_no_rows", {"x.csv": "a,b\n"}, "x.csv", "DATA ... rows ... none"),
    ("csv_one_row", {"x.csv": "a,b\n1,2\n"}, "x.csv", "DATA ... 2 rows ... 1"),
    (
        "csv_empty_column",
        {"x.csv": "a,b\n1,\n3,\n5,\n"},
        "x.csv",
        "DATA ... all of 3 values are missing ... 'b' ... --drop|drop=b",
    ),
    (
        "csv_missing",
        {"x.csv": "a,b\n1,2\n3,\n5,6\n"},
        "x.csv",
        "DATA ... 1 of 3 values are missing ... 'b'",
    ),
    (
        "csv_text",
        {"x.csv": "a,b\n1,x\n3,y\n5,z\n"},
        "x.csv",
        "DATA ... numbers ... 'b' ... string ... label",
    ),
    (
        "csv_semicolons",
        {"x.csv": NUMBERS.replace(",", ";")},
        "x.csv",
        "DATA ... numbers ... 'a;b'",
    ),
    (
        "csv_infinite",
        {"x.csv": "a,b\n1,2\n3,inf\n5,6\n"},
        "x.csv",
        "DATA ... finite ... 'b'",
    ),
    ("csv_beyond_float32", {"x.csv": "a,b\n1,2\n3,1e300\n5,1\n"}, "x.csv", "DATA ... 'b'"),
    ("csv_doubled", {"x.csv": "a,a\n1,2\n3,4\n5,6\n"}, "x.csv", "DATA ... name ... a"),
    ("csv_no_header", {"x.csv": "1,1,2\n3,4,5\n6,7,8\n"}, "x.csv", "DATA ... name ... 1"),
    ("csv_ragged", {"x.csv": "a,b\n1,2\n3\n5,6,7\n"}, "x.csv", "DATA ... CSV ... columns"),
    ("csv_binary", {"x.csv": bytes(range(256)) * 4}, "x.csv", "DATA ... x.csv"),
    ("csv_latin_1", {"x.csv": LATIN}, "x.csv", "DATA ... UTF-8|UTF8|utf-8 ... x.csv"),
    ("csv_utf_16", {"x.csv": NUMBERS.encode("utf-16")}, "x.csv", "DATA ... x.csv"),
    ("csv_gz_is_none", {"x.csv.gz": NUMBERS}, "x.csv.gz", "DATA ... CSV ... x.csv.gz"),
    (
        "csv_only_label",
        {"x.csv": "a\n1\n2\n3\n"},
        "x.csv --label a",
        "DATA ... column to model ... none is left",
    ),
    ("csv_all_dropped", {}, "t.csv --drop a --drop b --drop c", "DATA ... none is left"),
    ("csv_label", {}, "t.csv --label d", "--label ... a, b, c ... d"),
    (
        "csv_label_missing",
        {"x.csv": "a,b\n1,x\n3,\n5,y\n7,x\n2,y\n4,x\n"},
        "x.csv --label b",
        "--label ... missing ... b",
    ),
    ("csv_drop", {}, "t.csv --drop a --drop d", "--drop ... a, b, c ... d"),
    ("csv_resize", {}, "t.csv --resize 8x8", "--resize ... a table ... [8, 8]"),
    ("csv_conv", {}, "t.csv --network conv", "--network ... mlp ... conv"),
    ("csv_crop", {}, "t.csv --crop 2x2", "--crop ... images ... [2, 2]"),
    ("csv_shift", {}, "t.csv --shift 0.5", "--shift ... images ... 0.5"),
    (
        "parquet_broken",
        {"x.parquet": b"PAR1 no table PAR1"},
        "x.parquet",
        "DATA ... Parquet",
    ),
    ("parquet_lists", {"x.parquet": parquet}, "x.parquet", "DATA ... 'b' ... list"),
]


@table(("files", "arguments", "message"), DATA)
def test_data_of_train(files, arguments, message):
    for name, content in files.items():
        put(name, content)
    refused(f"train {arguments} --out new", message)


# Data sets with a name.


def test_no_network(monkeypatch):
    def load_data():
        raise Exception("URL fetch failure on https://storage: no network")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", load_data)
    refused("train mnist", "DATA ... mnist.npz ... KERAS_VAE_DATA ... no network")


@table(
    ("data", "files", "message"),
    [
        ("no_such_file", "mnist", {}, "DATA ... mnist.npz ... KERAS_VAE_DATA=named"),
        ("text", "mnist", {"mnist.npz": "x"}, "DATA ... mnist.npz"),
        ("empty", "mnist", {"mnist.npz": b""}, "DATA ... mnist.npz"),
        ("other_arrays", "mnist", {"mnist.npz": ARRAYS}, "DATA ... y_train ... mnist.npz"),
        (
            "other_faces",
            "frey_faces",
            {"frey_faces.npz": ARRAYS},
            "DATA ... frey_faces.npz",
        ),
        (
            "other_shape",
            "frey_faces",
            {"frey_faces.npz": {"x": GREY}},
            "DATA ... 28, 20 ... frey_faces.npz",
        ),
        (
            "other_binary",
            "mnist_static_binary",
            {"mnist_static_binary.npz": ARRAYS},
            "DATA ... packed_train ... mnist_static_binary.npz",
        ),
    ],
)
def test_folder_of_named(data, files, message, monkeypatch):
    pathlib.Path("named").mkdir()
    for name, content in files.items():
        put(f"named/{name}", content)
    if content := files.get("mnist.npz"):
        if isinstance(content, str):  # a zip file that ends too early
            put("named/mnist.npz", {"x_train": ROWS})
            put("named/mnist.npz", first(100))
    monkeypatch.setenv("KERAS_VAE_DATA", "named")
    refused(f"train {data}", message)
    gc.collect()  # warns here of a file that was left open, not in some later test


def test_frey_faces_without_a_folder():
    refused("train frey_faces", "DATA ... frey_faces.npz ... KERAS_VAE_DATA")


# Runs that are none, or damaged.

METRICS = "run/metrics.csv"
RESUME = "train a.npy --out run --resume"
RUNS = [
    ("evaluate_missing", {}, "evaluate no", "RUN ... keras-vae train ... no"),
    ("sample_missing", {}, "sample no", "RUN ... keras-vae train ... no"),
    ("reconstruct_missing", {}, "reconstruct no", "RUN ... keras-vae train ... no"),
    ("report_missing", {}, "report no", "RUN ... keras-vae train ... no"),
    ("evaluate_other", {}, "evaluate images", "RUN ... keras-vae train ... images"),
    ("sample_other", {}, "sample images", "RUN ... keras-vae train ... images"),
    ("reconstruct_other", {}, "reconstruct images", "RUN ... keras-vae train ... images"),
    ("report_other", {}, "report images", "RUN ... keras-vae train ... images"),
    ("evaluate_file", {}, "evaluate a.npy", "RUN ... keras-vae train ... a.npy"),
    ("sample_file", {}, "sample run/model.keras", "RUN ... run/model.keras"),
    ("no_run_given", {}, "evaluate", "RUN"),
    # run.json
    (
        "newer",
        {"run/run.json": json_with(newer)},
        "evaluate run",
        "RUN ... update ... 9.9.9",
    ),
    ("newer_resume", {"run/run.json": json_with(newer)}, RESUME, "RUN ... update ... 99"),
    ("json_garbage", {"run/run.json": "{]"}, "evaluate run", "RUN ... run.json"),
    ("json_empty", {"run/run.json": ""}, "sample run", "RUN ... run.json"),
    ("json_binary", {"run/run.json": b"\xff\xfe\x00"}, "sample run", "RUN ... run.json"),
    ("json_list", {"run/run.json": "[]"}, "evaluate run", "RUN ... run.json"),
    ("json_truncated", {"run/run.json": first(200)}, RESUME, "RUN ... run.json"),
    ("json_no_format", {"run/run.json": without("format")}, "sample run", "RUN ... format"),
    (
        "json_no_options",
        {"run/run.json": without("options")},
        "report run",
        "RUN ... options",
    ),
    (
        "json_options_null",
        {"run/run.json": '{"format": 1, "options": null, "data": {}}'},
        "evaluate run",
        "RUN ... run.json",
    ),
    ("json_no_data", {"run/run.json": without("data")}, "evaluate run", "RUN ... data"),
    (
        "json_no_fingerprint",
        {"run/run.json": without("data", "fingerprint")},
        "evaluate run",
        "RUN ... run.json ... fingerprint",
    ),
    (
        "json_no_label",
        {"run/run.json": without("options", "label")},
        "evaluate run",
        "RUN ... run.json ... label",
    ),
    (
        "json_no_latent",
        {"run/run.json": without("options", "latent")},
        RESUME,
        "RUN ... run.json ... latent",
    ),
    (
        "json_no_schedule",
        {"run/run.json": without("options", "lr_schedule")},
        RESUME,
        "RUN ... run.json ... lr_schedule|--lr-schedule",
    ),
    (
        "json_no_epochs",
        {"run/run.json": without("options", "epochs")},
        "report run",
        "RUN ... run.json ... epochs",
    ),
    # model.keras
    (
        "model_missing",
        {"run/model.keras": None},
        "evaluate run",
        "RUN ... --resume ... run",
    ),
    ("model_missing_sample", {"run/model.keras": None}, "sample run", "RUN ... --resume"),
    (
        "model_truncated",
        {"run/model.keras": first(900)},
        "evaluate run",
        "RUN ... model.keras",
    ),
    ("model_empty", {"run/model.keras": b""}, "reconstruct run", "RUN ... model.keras"),
    ("model_text", {"run/model.keras": "x"}, "report run", "RUN ... model.keras"),
    ("model_other", {"run/model.keras": other_model}, "sample run", "RUN ... model"),
    # metrics.csv
    (
        "metrics_missing",
        {METRICS: None},
        "report run",
        "RUN ... metrics.csv ... no such file",
    ),
    ("metrics_no_rows", {METRICS: "epoch,loss\n"}, "report run", "RUN ... metrics"),
    (
        "metrics_garbage",
        {METRICS: "epoch,loss\nx,y\n"},
        "report run",
        "RUN ... metrics.csv ... float",
    ),
    ("metrics_binary", {METRICS: b"\xff\x00\xfe"}, "report run", "RUN ... metrics.csv"),
    ("metrics_ragged", {METRICS: "epoch,loss\n0\n"}, "report run", "RUN ... metrics.csv"),
    # What is beside them.
    (
        "evaluation_garbage",
        {"run/evaluation.json": "{]"},
        "evaluate run",
        "RUN ... evaluation.json",
    ),
    (
        "evaluation_list",
        {"run/evaluation.json": "[]"},
        "evaluate run",
        "RUN ... evaluation.json",
    ),
    (
        "baselines_garbage",
        {"run/baselines.json": "{]"},
        "report run --baselines 2",
        "RUN ... baselines.json",
    ),
    (
        "baselines_other",
        {"run/baselines.json": '[{"latent": 2}]'},
        "report run --baselines 2",
        "RUN ... baselines.json",
    ),
    (
        "scaler_garbage",
        {"of_table/scaler.json": "{]"},
        "sample of_table",
        "RUN ... scaler.json",
    ),
    (
        "scaler_other",
        {"of_table/scaler.json": "{}"},
        "sample of_table",
        "RUN ... scaler.json",
    ),
    # The data have changed since.
    ("changed", {"a.npy": ROWS + 1}, "evaluate run", "DATA ... a.npy ... changed"),
    ("changed_reconstruct", {"a.npy": ROWS + 1}, "reconstruct run", "DATA ... changed"),
    ("changed_report", {"a.npy": ROWS + 1}, "report run", "DATA ... changed"),
    ("changed_resume", {"a.npy": ROWS + 1}, RESUME, "DATA ... changed"),
    ("changed_resume_on", {"a.npy": ROWS + 1}, f"{RESUME} --epochs 2", "DATA ... changed"),
    ("changed_rows", {"a.npy": ROWS[:8]}, "evaluate run", "DATA ... changed"),
    ("changed_shape", {"a.npy": ROWS[:, :3]}, "evaluate run", "DATA ... changed"),
    ("deleted", {"a.npy": None}, "evaluate run", "DATA ... a.npy ... does not exist"),
    ("deleted_resume", {"a.npy": None}, RESUME, "DATA ... a.npy ... does not exist"),
    (
        "other_data",
        {"b.npy": ROWS},
        "train b.npy --out run --resume",
        "DATA ... a.npy ... b.npy",
    ),
    ("other_named", {}, "train digits --out run --resume", "DATA ... a.npy ... digits"),
    ("no_longer_csv", {"t.csv": "a,b\n1,2\n"}, "evaluate of_table", "DATA"),
    # Options.
    ("samples_0", {}, "evaluate run --num-samples 0", "--num-samples ... of 1 or more"),
    ("rows_1", {}, "evaluate run --nll-rows 1", "--nll-rows ... of 2 or more"),
    ("n_0", {}, "sample run -n 0", "-n ... of 1 or more"),
    ("n_text", {}, "sample run -n all", "-n ... whole number"),
    ("n_beyond_memory", {}, f"sample run -n {10**13}", f"-n ... {10**13}"),
    ("n_rows_0", {}, "reconstruct run -n 0", "-n ... of 1 or more"),
    ("sample_seed", {}, f"sample run --seed {2**40}", f"--seed ... {2**40}"),
    ("sample_suffix", {}, "sample run --out s.jpg", "--out ... .csv ... .npz ... s.jpg"),
    ("sample_no_suffix", {}, "sample run --out s", "--out ... .csv ... .npz ... out=s"),
    (
        "sample_png_of_rows",
        {},
        "sample run --out s.png",
        "--out ... .npz ... (4,) ... s.png",
    ),
    ("sample_no_folder", {}, "sample run --out no/s.npz", "--out ... folder ... no/s.npz"),
    (
        "sample_below_a_file",
        {},
        "sample run --out a.npy/s.npz",
        "--out ... folder ... a.npy",
    ),
    (
        "sample_exists",
        {"s.npz": "mine"},
        "sample run --out s.npz",
        "--out ... --overwrite ... s.npz ... exists",
    ),
    (
        "sample_a_folder",
        {"s.npz/x": "mine"},
        "sample run --out s.npz --overwrite",
        "--out ... s.npz ... folder|directory",
    ),
    (
        "pairs_exist",
        {"s.csv": "mine"},
        "reconstruct run --out s.csv",
        "--out ... --overwrite ... s.csv",
    ),
    ("pairs_suffix", {}, "reconstruct run --out s.gif", "--out ... .csv ... s.gif"),
    ("sample_autoencoder", {}, "sample plain", "RUN ... autoencoder|Autoencoder"),
    ("report_baselines", {}, "report run --baselines few", "--baselines ... 'few'"),
]


@table(("files", "command", "message"), RUNS)
def test_runs(files, command, message):
    for name, content in files.items():
        put(name, content)
    refused(command, message)


def test_samples_are_not_overwritten():
    done("sample run")
    refused("sample run", "--out ... --overwrite ... samples.npz")
    refused("sample of_table --out run/samples.npz", "--out ... --overwrite")


@pytest.mark.parametrize("name", ["relative", "absolute"])
def test_resume_without_the_data(name, folder):
    data = folder / "a.npy" if name == "absolute" else "a.npy"
    put("a.npy", None)
    refused(f"train {data} --out run --resume", "DATA ... a.npy ... does not exist")


def test_epochs_of_a_run_whose_learning_rate_falls_with_them():
    put(
        "run/run.json", json_with(lambda info: info["options"].update(lr_schedule="cosine"))
    )
    refused(f"{RESUME} --epochs 2", "--epochs ... 1 ... learning rate ... epochs=2")


# The system says no.


def no_space(path="", *_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def full(path, *_, **__):
    """Writes the half of a file, then finds the disk full."""
    path = path if isinstance(path, pathlib.Path) else path.name
    pathlib.Path(path).write_bytes(b"half of it")
    no_space(path)


def rows_of(run):
    return pathlib.Path(run, "metrics.csv").read_text()


def test_disk_full_in_a_later_epoch(monkeypatch):
    no_report(monkeypatch)
    model = pathlib.Path("run/model.keras").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", lambda self, path, *_, **__: full(path))
        words = "could not be written ... No space left on device ... model"
        failed(f"{RESUME} --epochs 2", words, warned=True)
    assert pathlib.Path("run/model.keras").read_bytes() == model
    assert not list(pathlib.Path("run").rglob(".*"))
    rows = rows_of("run")
    done(f"{RESUME} --epochs 2")
    assert rows_of("run").startswith(rows) and len(rows_of("run")) > len(rows)
    done("evaluate run --num-samples 2")


def test_disk_full_in_the_first_epoch(monkeypatch):
    no_report(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", lambda self, path, *_, **__: full(path))
        failed("train a.npy --out new", "No space left on device ... model")
    assert not list(pathlib.Path("new").glob("*model*"))
    refused("sample new", "RUN ... --resume ... new")
    done("train a.npy --out new --resume")
    assert rows_of("new") == rows_of("run")


@pytest.mark.parametrize("name", ["metrics.csv", "report.html", "evaluation.json"])
def test_disk_full_while_a_text_is_written(name, monkeypatch):
    from keras_vae.runs.folder import Run

    before, write = tree("run"), Run.write

    def fails(self, file, text):
        with monkeypatch.context() as patch:
            if file == name:
                patch.setattr(os, "fsync", no_space)
            write(self, file, text)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", fails)
        failed(f"{RESUME} --epochs 2", "No space left on device")
    assert not list(pathlib.Path("run").glob(".*"))
    old = {} if name == "report.html" else before  # a report of fewer epochs is gone
    assert tree("run").get(f"run/{name}") == old.get(f"run/{name}")
    no_report(monkeypatch)
    done(f"{RESUME} --epochs 2")


@pytest.mark.parametrize("data", ["a.npy", "t.csv"])
def test_disk_full_at_the_start(data, monkeypatch):
    from keras_vae.runs.folder import Run

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", lambda self, name, _: no_space(self.path(name)))
        failed(f"train {data} --out new", "No space left on device ... new")
    no_report(monkeypatch)
    # Nothing that would be in the way of the same command, once there is space.
    done(f"train {data} --out new")


def test_disk_full_while_samples_are_written(monkeypatch):
    put("s.npz", "mine")
    monkeypatch.setattr(np, "savez_compressed", full)
    refused("sample run --out s.npz --overwrite", "No space left on device ... s.npz|s-")


def test_no_permission_for_the_folder(monkeypatch):
    # Not by mode bits, which do not bind root.
    def mkdir(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(pathlib.Path, "mkdir", mkdir)
    refused("train a.npy --out new", "--out ... Permission denied ... new")


def test_no_permission_to_read(monkeypatch):
    def load(path, **_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(np, "load", load)
    refused("train a.npy --out new", "DATA ... Permission denied ... a.npy")


def test_a_read_only_folder():
    ready = pathlib.Path("ready")
    ready.mkdir(mode=0o555)
    if os.access(ready, os.W_OK):
        pytest.skip("root writes to read-only folders")
    refused("train a.npy --out ready/new", "--out ... ready/new")
    refused("sample run --out ready/s.npz", "--out|ready ... Permission denied")


def test_accelerator_out_of_memory(monkeypatch):
    import tensorflow as tf

    def fit(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(VAE, "fit", fit)
    failed("train a.npy --out new", "memory ... --batch")


# What looks bad and is not: it must not cost the run.


@pytest.mark.slow
def test_paths_are_no_markup():
    put("a[/b]/c[red].npy", ROWS)
    result = done("train a[/b]/c[red].npy --out a[/b]/run[bold]")
    assert "c[red].npy" in result.stdout and "run[bold]" in result.stdout


@pytest.mark.slow
def test_labels_of_one_class_have_no_probe():
    put("x.npz", ARRAYS | {"y_train": np.zeros(12, int), "y_test": np.array([0, 0, 1, 1])})
    done("train x.npz --out new")


@pytest.mark.slow
def test_column_names_are_no_formulas():
    put("x.csv", TABLE.replace("a,b,c", "$^$,b_$\\x$,<c>"))
    done("train x.csv --out new")


@pytest.mark.slow
def test_two_rows_are_enough():
    put("x.npy", ROWS[:2])
    done("train x.npy --out new")
