"""Bad input on the command line: exit code 2, one message, no file lost.

Each kind of value is tested with all kinds of bad text, and each option with one value.
The message names the option as it is typed, or DATA or RUN, and shows the value. Bad files
of data are tested in `tests/datasets/test_bad_files.py`.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import socket
import threading

import keras
import numpy as np
import pytest

import keras_vae as kv
from keras_vae.runs import lock
from keras_vae.runs.options import ABSENT
from tests import refusals
from tests.refusals import (
    DAMAGES,
    GREY,
    ROWS,
    assert_command_refused,
    assert_commands_refused,
    assert_each_damage_refused,
    assert_fails,
    assert_succeeds,
    assert_unchanged,
    change_json,
    delete_key,
    other_model,
    rows,
    run_command,
    skip_report,
    train_eagerly,
    tree,
    truncate,
    write_file,
)

# The working folder has a.npy with 12 x 4 numbers, a table t.csv, a folder of grey images
# and a run trained on a.npy.

TABLE = "a,b,c\n" + "".join(f"{i},{i * i},{i % 3}\n" for i in range(10))
ARRAYS = {"x_train": ROWS, "x_test": ROWS[:4]}
TRAIN = "train a.npy --out new"
RESUME = "train a.npy --out run --resume"


@pytest.fixture(scope="module")
def source_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_eagerly(patch)
        skip_report(patch)
        write_file("a.npy", ROWS)
        write_file("t.csv", TABLE)
        for i in range(6):
            write_file(f"images/{i}.png", GREY)
        assert_succeeds("train a.npy --out run")
        assert_succeeds("evaluate run")
        pathlib.Path("run/figures").mkdir()  # as after a report
    return folder


@pytest.fixture(autouse=True)
def folder(source_folder, tmp_path, monkeypatch):
    train_eagerly(monkeypatch)
    return refusals.work_in_copy(source_folder, tmp_path / "work", monkeypatch)


# Values of options.


def assert_each_value_refused(option, values, command=TRAIN):
    """Assert that an option refuses each of the values and shows it in the message."""
    assert_commands_refused(
        (f"{command} {option} {v}", option, v.strip("'")) for v in values
    )


def test_counts_must_be_whole_numbers_of_1_or_more():
    values = ["0", "-1", "2.5", "''", "1e3", "many", "nan", str(10**30)]
    assert_each_value_refused("--latent", values)


def test_numbers_must_be_finite_and_in_their_range():
    assert_each_value_refused("--beta", ["-1", "nan", "inf", "big", "''"])
    assert_each_value_refused("--learning-rate", ["0", "-1", "nan", "inf"])
    assert_each_value_refused("--validation", ["1.5", "-0.1", "nan"])


def test_lists_of_sizes_must_be_whole_numbers():
    assert_each_value_refused(
        "--hidden", ["a,b", "''", "0", "8,-2", "8;8", "8,", "2.5", "none"]
    )


def test_a_scale_must_be_a_word_or_a_positive_number():
    assert_each_value_refused("--scale", ["-1", "0", "nan", "inf", "per_pixel", "''"])


def test_a_range_must_be_two_numbers_in_order():
    values = ["0-16", "16", "0:1:2", "16:0", "1:1", "0:nan", "0:inf", "''"]
    assert_each_value_refused("--value-range", values)


def test_a_size_must_be_a_height_and_a_width():
    assert_each_value_refused("--resize", ["28", "0x28", "28,28", "28x", "2.5x3", "''"])


@rows(
    counts=(TRAIN, "beta-steps samples epochs batch num-samples", "0"),
    rows=(TRAIN, "nll-rows", "1"),
    seed=(TRAIN, "seed", str(2**31)),
    reals=(TRAIN, "free-bits timeout shift rotate", "nan"),
    lists=(TRAIN, "filters baselines", "8;8"),
    size=(TRAIN, "crop", "28,28"),
    evaluate=("evaluate run", "num-samples", "0"),
    evaluate_rows=("evaluate run", "nll-rows", "1"),
    report=("report run", "num-samples baselines", "0"),
    report_rows=("report run", "nll-rows", "1"),
    sample_seed=("sample run", "seed", str(2**40)),
)
def test_every_option_checks_its_value(row):
    command, options, value = row
    for option in options.split():
        assert_each_value_refused(f"--{option}", [value], command)


def test_counts_of_rows_are_checked():
    for command in ("sample run", "reconstruct run"):
        assert_each_value_refused("-n", ["0", "many", str(10**13)], command)


def test_words_must_be_one_of_the_choices():
    options = "model condition network likelihood grey objective beta-schedule lr-schedule"
    rows = [
        (f"{TRAIN} --{option} louder", f"--{option}", "louder")
        for option in (*options.split(), "strategy", "precision")
    ]
    assert_commands_refused(rows, received=None)


def test_numbers_have_an_upper_limit():
    assert_commands_refused([
        (f"{TRAIN} --shift 2", "--shift", "1", "2"),
        (f"{TRAIN} --rotate 181", "--rotate", "180"),
        (f"{TRAIN} --timeout 0", "--timeout", "0"),
        (f"{TRAIN} --baselines 0,2", "--baselines", "0,2"),
        (f"{TRAIN} --activation rleu", "--activation", "rleu"),
    ])  # fmt: skip


def test_missing_and_unknown_arguments_are_refused():
    rows = [
        ("train", "DATA"),
        (f"{TRAIN} --latents 2", "--latents"),
        (f"{TRAIN} b.npy", "b.npy"),
        ("evaluate", "RUN"),
        ("launch --workers 2 --", "COMMAND"),
        ("launch -- train a.npy --out new", "--workers"),
        ("launch --workers 2 -- train", "DATA"),
        ("launch --workers 2 -- train a.npy --latents 2", "--latents"),
    ]
    assert_commands_refused(rows, received=None)


# Options that contradict the data or each other.


def test_options_must_match_the_data():
    assert_commands_refused([
        (f"{TRAIN} --value-range 0:0.1", "--value-range", "0.0", "0.1"),
        (f"{TRAIN} --resize 8x8", "--resize", "8, 8"),
        (f"{TRAIN} --crop 2x2", "--crop", "2, 2", "(4,)"),
        (f"{TRAIN} --shift 0.1", "--shift", "0.1"),
        (f"{TRAIN} --rotate 10", "--rotate", "10"),
        (f"{TRAIN} --label a", "--label"),
        (f"{TRAIN} --drop a", "--drop"),
        (f"{TRAIN} --network conv", "--network", "conv"),
        ("train digits --out new --value-range 0:16", "--value-range", "16"),
        ("train digits --out new --crop 9x9", "--crop", "9, 9", "(8, 8, 1)"),
        ("train digits --out new --crop 8x4", "--crop", "8, 4", "(8, 8, 1)"),
        ("train images --out new --crop 9x9", "--crop", "9, 9", "(8, 8, 1)"),
        ("train images --out new --value-range 0:16", "--value-range", "16"),
        ("train t.csv --out new --label d", "--label", "a, b, c", "d"),
        ("train t.csv --out new --drop a --drop d", "--drop", "a, b, c", "d"),
        ("train t.csv --out new --resize 8x8", "--resize", "8, 8"),
    ])  # fmt: skip


def test_options_must_not_contradict_each_other():
    assert_commands_refused([
        (f"{TRAIN} --objective iwae --free-bits 1", "--free-bits", "elbo", "1.0"),
        (f"{TRAIN} --objective iwae --beta 2", "--beta", "elbo", "2.0"),
        (f"{TRAIN} --model autoencoder --beta 2", "--beta", "vae", "2.0"),
        (f"{TRAIN} --model autoencoder --objective iwae", "--objective", "vae", "iwae"),
        (f"{TRAIN} --likelihood bernoulli --scale 1", "--scale", "normal", "1.0"),
        (f"{TRAIN} --likelihood normal --grey soft", "--grey", "bernoulli", "soft"),
        (f"{TRAIN} --filters 8", "--filters", "conv", "8"),
        (
            f"{TRAIN} --beta-steps 5 --beta-schedule constant",
            "--beta-steps",
            "--beta-schedule",
            "5",
        ),
        (f"{TRAIN} --condition label", "--condition", "label"),
        (f"{TRAIN} --model conditional", "--condition", "a.npy"),
        (f"{TRAIN} --strategy mirrored", "--strategy", "mirrored"),
        (f"{TRAIN} --strategy multi-worker", "--strategy", "TF_CONFIG"),
        ("train a.npy --resume", "--resume", "--out"),
    ])  # fmt: skip


@rows(
    negative=ROWS,
    up_to_300=ROWS.clip(0, 1) * 300,
    negative_images=np.full((12, 8, 8), -2.0),
)
def test_data_of_a_bernoulli_must_lie_in_0_to_1(row):
    write_file("x.npy", row)
    command = "train x.npy --out new --likelihood bernoulli"
    assert_command_refused(
        command, "--likelihood", "--value-range", received=f"{row.max():g}"
    )


@rows(
    nothing=({}, "''"),
    missing=({}, "b.npy", "data=b.npy"),
    misspelled=({}, "digit", "data=digit", "Did you mean digits?"),
    npy=({"x.npy": b"1,2\n"}, "x.npy", "x.npy"),
    npz=({"x.npz": {"y": ROWS}}, "x.npz", "x_train"),
    images=({"images/3.png": "no picture"}, "images", "3.png"),
    sizes=({"images/3.png": GREY[:7]}, "images", "--resize", "3.png"),
    csv=({"x.csv": "a,b\n1,\n3,\n5,\n"}, "x.csv", "'b'", "--drop"),
    csv_text=({"x.csv": "a,b\n1,x\n3,y\n5,z\n"}, "x.csv", "'b'", "--label"),
    parquet=({"x.parquet": b"PAR1"}, "x.parquet", "Parquet"),
    named=({}, "frey_faces", "KERAS_VAE_DATA"),
)
def test_data_are_named_as_they_are_typed(row):
    files, data, *words = row
    for name, content in files.items():
        write_file(name, content)
    assert_command_refused(f"train {data} --out new", "DATA", *words)


# The folder of a run, and resuming with other options.


def test_a_new_run_needs_a_folder_of_its_own():
    assert_commands_refused([
        ("train a.npy --out run", "--out", "--resume", "run"),
        ("train a.npy --out images", "--out", "images"),
        ("train a.npy --out a.npy", "--out", "a.npy"),
        ("train a.npy --out a.npy/run", "--out", "a.npy/run"),
        ("train a.npy --out images --resume", "--out", "images", "run.json"),
        ("train a.npy --out a.npy --resume", "--out", "a.npy"),
        ("launch --workers 2 -- train a.npy --out run", "--out", "--resume", "run"),
        ("launch --workers 2 -- train a.npy --resume", "--resume", "--out"),
    ])  # fmt: skip


def test_a_run_is_resumed_only_with_the_same_options():
    assert_commands_refused([
        (f"{RESUME} --latent 3", "--latent", "2", "3"),
        (f"{RESUME} --seed 1", "--seed", "0", "1"),
        (f"{RESUME} --hidden 5", "--hidden", "[4]", "[5]"),
        (f"{RESUME} --batch 4", "--batch", "8", "4"),
        (f"{RESUME} --scale 1", "--scale", "shared", "1.0"),
        (f"{RESUME} --lr-schedule cosine", "--lr-schedule", "constant", "cosine"),
        ("train digits --out run --resume", "DATA", "a.npy", "digits"),
        ("train t.csv --out run --resume", "DATA", "a.npy", "t.csv"),
    ])  # fmt: skip


def test_a_cosine_schedule_does_not_allow_more_epochs():
    change = change_json(lambda info: info["options"].update(lr_schedule="cosine"))
    write_file("run/run.json", change)
    assert_command_refused(f"{RESUME} --epochs 2", "--epochs", "1", received="2")


# Several workers.


def test_options_of_launch_are_checked():
    launch = "launch --workers 2"
    assert_commands_refused([
        ("launch --workers 0 -- train a.npy --out new", "--workers", "0"),
        (f"{launch} --restarts -1 -- train a.npy --out new", "--restarts", "-1"),
        (f"{launch} --timeout 0 -- train a.npy --out new", "--timeout", "0"),
        (f"{launch} --grace nan -- train a.npy --out new", "--grace", "nan"),
        (f"{launch} -- evaluate run", "COMMAND", "train", "evaluate"),
        (f"{launch} -- train a.npy --latent 0", "--latent", "0"),
        (f"{launch} -- train a.npy --strategy mirrored", "--strategy", "mirrored"),
    ])  # fmt: skip


def set_worker_1(patch):
    """Set TF_CONFIG to that of the second of two workers; return their addresses."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for server in sockets:
            server.bind(("127.0.0.1", 0))
        cluster = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    config = {"cluster": {"worker": cluster}, "task": {"type": "worker", "index": 1}}
    patch.setenv("TF_CONFIG", json.dumps(config))
    return cluster


def test_a_wrong_tf_config_is_refused(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{")
    assert_command_refused(TRAIN, "`TF_CONFIG`", received="{")
    set_worker_1(monkeypatch)
    assert_command_refused(
        f"{TRAIN} --strategy mirrored", "--strategy", received="mirrored"
    )


def test_a_missing_chief_is_a_timeout(monkeypatch):
    cluster, before = set_worker_1(monkeypatch), tree()
    result = run_command(f"{TRAIN} --timeout 0.5")
    assert result.exit_code == 69
    assert result.stderr.startswith("Error: ")
    assert all(word in result.stderr for word in ("worker 0", cluster[0], "0.5"))
    assert_unchanged(before)


def test_a_chief_with_other_options_is_refused(monkeypatch):
    cluster, recorded = set_worker_1(monkeypatch), []

    def record_facts(cluster, index, facts, timeout, token):
        recorded.append(facts)
        raise TimeoutError

    with monkeypatch.context() as patch:
        rendezvous = refusals.replace_rendezvous(patch, record_facts)
        run_command(TRAIN)
    assert len(recorded[0]["code"]) > 12 and recorded[0]["numpy"] == np.__version__

    def other_chief():
        with contextlib.suppress(ValueError):
            rendezvous(cluster, 0, recorded[0] | {"batch": "9", "data": "other"}, 60)

    thread = threading.Thread(target=other_chief)
    thread.start()
    try:
        words = ["worker 1", "--batch 8", "chief", "--batch 9", "DATA other"]
        assert_command_refused(TRAIN, *words)
    finally:
        thread.join()


# Folders that are no runs, and damaged runs.

COMMANDS = ["evaluate", "encode", "score", "sample", "reconstruct", "report"]


def test_a_run_must_be_a_folder_with_a_run():
    for command in COMMANDS:
        assert_commands_refused([
            (f"{command} no", "RUN", "no, which does not exist"),
            (f"{command} images", "RUN", "images"),
            (f"{command} a.npy", "RUN", "a.npy"),
        ])  # fmt: skip


def make_newer(info):
    info["format"], info["versions"]["keras_vae"] = 99, "9.9.9"


def test_a_run_of_a_newer_version_is_refused():
    write_file("run/run.json", change_json(make_newer))
    for command in ("evaluate run", RESUME):
        assert_command_refused(command, "RUN", received=("9.9.9", "99"))


def test_a_damaged_run_json_is_named():
    damages = DAMAGES | {"list": "[]", "options": '{"format": 1, "options": null}'}
    assert_each_damage_refused("run/run.json", damages, "sample run", "RUN", "run.json")
    write_file("run/run.json", truncate(200))
    assert_command_refused(RESUME, "RUN", "run.json")


def test_a_missing_entry_of_run_json_is_named():
    options = json.loads(pathlib.Path("run/run.json").read_text())["options"]
    paths = [("format",), ("options",), ("data",), ("command",), ("versions",)]
    paths += [("data", "fingerprint"), ("data", "shown_range")]
    paths += [("options", name) for name in options if name not in ABSENT]
    for path in paths:
        damages = {"missing": delete_key(*path)}
        assert_each_damage_refused("run/run.json", damages, "sample run", "RUN", path[-1])


def test_a_damaged_model_is_named():
    assert_each_damage_refused(
        "run/model.keras", DAMAGES, "sample run", "RUN", "model.keras"
    )
    damages = {"other": other_model}
    assert_each_damage_refused(
        "run/model.keras", damages, "sample run", "RUN", "Sequential"
    )
    write_file("run/model.keras", None)
    assert_command_refused("sample run", "RUN", "--resume", received="run")


def test_damaged_metrics_are_named():
    damages = DAMAGES | {"missing": None, "no rows": "epoch,loss\n", "ragged": "a,b\n0\n"}
    damages |= {"words": "epoch,loss\nx,y\n"}
    assert_each_damage_refused(
        "run/metrics.csv", damages, "report run", "RUN", "metrics.csv"
    )


def test_a_damaged_evaluation_is_named():
    damages = DAMAGES | {"list": "[]"}
    words = ["evaluate run", "RUN", "evaluation.json"]
    assert_each_damage_refused("run/evaluation.json", damages, *words)


def test_damaged_baselines_are_named():
    damages = DAMAGES | {"part": '[{"latent": 2}]', "numbers": "[1]"}
    words = ["report run --baselines 2", "RUN", "baselines.json"]
    assert_each_damage_refused("run/baselines.json", damages, *words)


def test_a_damaged_scaler_is_named():
    damages = DAMAGES | {"part": "{}", "list": "[]"}
    assert_each_damage_refused(
        "run/scaler.json", damages, "sample run", "RUN", "scaler.json"
    )


def test_a_run_resumes_only_with_unchanged_data():
    write_file("a.npy", ROWS + 1)
    assert_command_refused(RESUME, "DATA", received="a.npy")
    assert_command_refused(f"{RESUME} --epochs 2", "DATA", received="a.npy")
    assert_each_damage_refused("a.npy", {"missing": None}, RESUME, "DATA", "a.npy")


def test_data_that_do_not_suit_the_model_are_refused():
    damages = {"shape": ROWS[:, :3], "text": "mine", "missing": None}
    assert_each_damage_refused("a.npy", damages, "evaluate run", "DATA", "a.npy")
    write_file("a.npy", None)
    for command in ("evaluate", "report", "reconstruct", "encode", "score"):
        assert_command_refused(f"{command} run", "DATA", "--data", received="a.npy")
    absolute = RESUME.replace("a.npy", str(pathlib.Path("a.npy").resolve()))
    assert_command_refused(absolute, "DATA", received="a.npy")


def test_a_run_of_an_autoencoder_has_no_samples():
    model = kv.Autoencoder(
        kv.nets.MLP([4]), kv.nets.MLP([4]), kv.distributions.IndependentNormal((4,)), 2
    )
    model.save("run/model.keras")
    assert_command_refused("sample run", "RUN", received="run")


# Files to write.


def test_samples_need_a_new_file_of_a_known_kind():
    write_file("s.npz", "mine")
    write_file("s.csv", "mine")
    write_file("d.npz/x", "mine")
    assert_commands_refused([
        ("sample run --out s.jpg", "--out", ".csv", ".npz", "s.jpg"),
        ("sample run --out s", "--out", ".csv", ".npz"),
        ("sample run --out s.png", "--out", ".npz", "(4,)", "s.png"),
        ("sample run --out no/s.npz", "--out", "no/s.npz"),
        ("sample run --out a.npy/s.npz", "--out", "a.npy"),
        ("sample run --out s.npz", "--out", "--overwrite", "s.npz"),
        ("sample run --out d.npz --overwrite", "--out", "d.npz"),
        ("reconstruct run --out s.csv", "--out", "--overwrite", "s.csv"),
        ("reconstruct run --out s.gif", "--out", ".csv", "s.gif"),
    ])  # fmt: skip


def test_commands_that_only_read_a_run_do_not_wait_for_its_training():
    with lock.hold(pathlib.Path("run"), "out"):
        assert_succeeds("sample run")


def test_samples_are_not_overwritten():
    assert_succeeds("sample run")
    assert_command_refused("sample run", "--out", "--overwrite", received="samples.npz")


# Errors of the operating system.


def raise_no_space(path="", *_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def write_half(path, *_, **__):
    """Write half of a file, then raise the error of a full disk."""
    path = path if isinstance(path, pathlib.Path) else path.name
    pathlib.Path(path).write_bytes(b"half of it")
    raise_no_space(path)


def fill_disk_at(patch, name):
    """Raise the error of a full disk when the file of this name is written."""
    replace = os.replace

    def replace_or_fail(source, target, **options):
        if pathlib.Path(target).name == name:
            raise_no_space(target)
        replace(source, target, **options)

    patch.setattr(os, "replace", replace_or_fail)


def read_metrics(folder):
    return pathlib.Path(folder, "metrics.csv").read_text()


def test_a_full_disk_in_a_later_epoch_keeps_the_saved_model(monkeypatch):
    skip_report(monkeypatch)
    model = pathlib.Path("run/model.keras").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", lambda self, path, *_, **__: write_half(path))
        words = ["Warning", "No space left on device", "run/backup/epoch-000002"]
        assert_fails(f"{RESUME} --epochs 2", *words, received=None, warned=True)
    assert pathlib.Path("run/model.keras").read_bytes() == model
    assert not list(pathlib.Path("run").rglob(".*"))
    lines = read_metrics("run")
    assert_succeeds(f"{RESUME} --epochs 2")
    assert read_metrics("run").startswith(lines) and len(read_metrics("run")) > len(lines)
    assert_succeeds("evaluate run --num-samples 2")


def test_a_full_disk_in_the_first_epoch_leaves_no_model(monkeypatch):
    skip_report(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", lambda self, path, *_, **__: write_half(path))
        words = ["No space left on device", "new/backup/epoch-000000", "--resume"]
        assert_fails(TRAIN, *words, received=None)
    assert not list(pathlib.Path("new").glob("*model*"))
    assert_command_refused("sample new", "RUN", "--resume", received="new")
    assert_succeeds(f"{TRAIN} --resume")
    assert read_metrics("new") == read_metrics("run")


@pytest.mark.parametrize("name", ["metrics.csv", "report.html", "evaluation.json"])
def test_a_full_disk_leaves_no_partial_text_file(name, monkeypatch):
    write_file("run/report.html", "of fewer epochs")
    before = tree("run")
    with monkeypatch.context() as patch:
        fill_disk_at(patch, name)
        assert_fails(f"{RESUME} --epochs 2", "No space left on device", name, received=None)
    assert not list(pathlib.Path("run").glob(".*"))
    old = {} if name == "report.html" else before  # the old report is deleted
    assert tree("run").get(f"run/{name}") == old.get(f"run/{name}")
    skip_report(monkeypatch)
    assert_succeeds(f"{RESUME} --epochs 2")


@pytest.mark.parametrize("name", ["scaler.json", "run.json"])
def test_a_full_disk_at_the_start_leaves_no_file(name, monkeypatch):
    with monkeypatch.context() as patch:
        fill_disk_at(patch, name)
        words = ["No space left on device", f"new/{name}"]
        assert_command_refused("train t.csv --out new", *words, received=None)
    skip_report(monkeypatch)
    # The same command succeeds when there is space again.
    assert_succeeds("train t.csv --out new")


def test_a_full_disk_keeps_the_old_samples(monkeypatch):
    write_file("s.npz", "mine")

    def write_half_of_array(_, target):
        target.write(b"half of it")
        raise_no_space("s.npz")

    monkeypatch.setattr(shutil, "copyfileobj", write_half_of_array)
    words = ["No space left on device"]
    assert_command_refused("sample run --out s.npz --overwrite", *words, received=None)


def raise_no_permission(path, *_, **__):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def test_a_folder_without_permission_to_write_is_refused(monkeypatch):
    # Not by mode bits, which root ignores.
    monkeypatch.setattr(pathlib.Path, "mkdir", raise_no_permission)
    assert_command_refused(TRAIN, "--out", received=("Permission denied", "new"))


def test_data_without_permission_to_read_are_refused(monkeypatch):
    monkeypatch.setattr(np, "load", raise_no_permission)
    assert_command_refused(TRAIN, "DATA", received=("Permission denied", "a.npy"))


def test_a_read_only_folder_is_refused():
    folder = pathlib.Path("ready")
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("root writes to read-only folders")
    assert_command_refused("train a.npy --out ready/new", "--out", "ready/new")
    assert_command_refused(
        "sample run --out ready/s.npz", "ready", "Permission", received=None
    )


def test_an_accelerator_out_of_memory_suggests_a_smaller_batch(monkeypatch):
    import tensorflow as tf

    def fit(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(kv.VAE, "fit", fit)
    assert_fails(TRAIN, "memory", "--batch", received=None)


# Unusual input that is valid.


@pytest.mark.slow
def test_brackets_in_paths_are_not_markup():
    write_file("a[/b]/c[red].npy", ROWS)
    result = assert_succeeds("train a[/b]/c[red].npy --out a[/b]/run[bold]")
    assert "c[red].npy" in result.stdout and "run[bold]" in result.stdout


@pytest.mark.slow
def test_training_succeeds_with_labels_of_a_single_class():
    write_file(
        "x.npz", ARRAYS | {"y_train": np.zeros(12, int), "y_test": np.array([0, 0, 1, 1])}
    )
    assert_succeeds("train x.npz --out new")


@pytest.mark.slow
def test_column_names_are_not_formulas():
    write_file("x.csv", TABLE.replace("a,b,c", "$^$,b_$\\x$,<c>"))
    assert_succeeds("train x.csv --out new")


@pytest.mark.slow
def test_two_rows_are_enough():
    write_file("x.npy", ROWS[:2])
    assert_succeeds("train x.npy --out new")
