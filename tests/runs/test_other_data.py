"""Runs whose data moved or changed, and runs that start from the weights of another."""

import json
import pathlib

import keras
import numpy as np
import pytest

from keras_vae.runs.folder import Run
from tests.refusals import (
    ROWS,
    assert_command_refused,
    assert_fails,
    assert_succeeds,
    skip_report,
    train_eagerly,
    work_in_copy,
    write_file,
)

TABLE = "a,b,kind\n" + "".join(f"{i},{i * i},{'uv'[i % 2]}\n" for i in range(20))
MORE = "b,a,kind\n" + "".join(f"{i * i + 1},{-i},{'uv'[i % 2]}\n" for i in range(30))
TRAIN = "train more.csv --out new --init table --label kind"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_eagerly(patch)
        skip_report(patch)
        write_file("t.csv", TABLE)
        write_file("more.csv", MORE)
        write_file("a.npy", ROWS)
        assert_succeeds("train t.csv --out table --label kind --model conditional")
        assert_succeeds("train a.npy --out run --epochs 2 --lr-schedule cosine")
    return folder


@pytest.fixture(autouse=True)
def work(source, tmp_path, monkeypatch):
    train_eagerly(monkeypatch)
    skip_report(monkeypatch)
    return work_in_copy(source, tmp_path / "work", monkeypatch)


def evaluation(folder="run"):
    return json.loads(pathlib.Path(folder, "evaluation.json").read_text())


def weights(folder):
    return keras.saving.load_model(pathlib.Path(folder, "model.keras")).get_weights()


# Data that moved or changed.


def test_moved_data_are_found_by_an_option_and_give_the_same_results():
    assert_succeeds("evaluate run")
    before = evaluation()
    pathlib.Path("a.npy").rename("b.npy")
    result = assert_succeeds("evaluate run --data b.npy")
    assert "changed" not in result.output and evaluation() == before
    assert_succeeds("encode run --data b.npy --out o.csv")


def test_changed_data_are_evaluated_after_a_warning_and_not_mixed_with_the_cache():
    assert_succeeds("evaluate run")
    before = evaluation()
    write_file("a.npy", ROWS + 1)
    result = assert_succeeds("evaluate run")
    assert "Warning: " in result.output and "a.npy has changed" in result.output
    changed = evaluation()
    assert changed["test_elbo"] != before["test_elbo"] and changed["data"] != before["data"]
    assert_succeeds("reconstruct run --out o.npz")
    about = Run.open("run").about()["training"]
    assert "test_elbo" not in about  # a model card does not mix the data
    write_file("a.npy", ROWS)
    assert_succeeds("evaluate run")
    assert evaluation() == before


def test_changed_tables_keep_the_scaling_of_the_run():
    expected = Run.open("table").scaler
    write_file("t.csv", MORE)
    with pytest.warns(UserWarning, match="has changed"):
        data = Run.open("table").data()
    np.testing.assert_array_equal(data.scaler.mean, expected.mean)
    raw = data.scaler.inverse(data.x_test)
    assert raw[:, 0].max() <= 0 < raw[:, 1].max()  # `a` first, as in the run


def test_changed_classes_are_refused():
    write_file("t.csv", TABLE.replace("u\n", "w\n"))
    assert_fails("evaluate table", "DATA", "u, v", received="v, w")


def test_the_printed_results_have_no_settings():
    output = assert_succeeds("evaluate run").output
    assert "nll_rows" not in output and "2 samples for each" in output


# Starting from other weights.


def test_a_run_starts_from_the_weights_of_another(work):
    # With a learning rate near 0 the weights stay as they were.
    output = assert_succeeds(f"{TRAIN} --learning-rate 1e-30").output
    assert f"start       weights of {work / 'table'}" in output
    run, other = Run.open("new"), Run.open("table")
    new, old = run.model(), other.model()
    for part in ("encoder", "decoder", "likelihood"):
        pairs = zip(
            getattr(new, part).get_weights(), getattr(old, part).get_weights(), strict=True
        )
        for a, b in pairs:
            np.testing.assert_array_equal(a, b)
    assert int(new.step) == 3  # 21 training rows in batches of 8, counted from 0
    assert run.options.model == "conditional" and run.options.init == str(work / "table")
    np.testing.assert_array_equal(run.scaler.mean, other.scaler.mean)
    assert run.data().scaler.columns == ("a", "b")
    assert run.info["data"]["fingerprint"] == run.data().fingerprint(True)


def test_a_run_killed_before_its_first_backup_starts_from_the_same_weights(monkeypatch):
    assert_succeeds(TRAIN)
    expected = weights("new")
    with monkeypatch.context() as patch:
        patch.setattr("keras_vae.runs.train.train", lambda *_: None)  # killed at once
        assert_succeeds(TRAIN.replace("new", "killed"))
    assert not pathlib.Path("killed/backup").exists()
    assert_succeeds(TRAIN.replace("new", "killed") + " --resume")
    for a, b in zip(expected, weights("killed"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_resumed_run_does_not_need_the_run_of_its_first_weights():
    assert_succeeds(TRAIN)
    pathlib.Path("table").rename("moved")
    output = assert_succeeds(f"{TRAIN} --resume --epochs 2").output
    assert "Continuing after epoch 1" in output


def test_the_model_of_the_other_run_is_kept():
    # `FAST_OPTIONS` repeat the network, the hidden and the latent sizes of the other run.
    assert_command_refused(f"{TRAIN} --latent 3", "--latent", "2", "--init", received="3")
    assert_command_refused(f"{TRAIN} --model vae", "--model", received="vae")


def test_data_must_suit_the_other_run():
    write_file("b.npy", ROWS[:, :3])
    words = ["DATA", "(4,)", "b.npy", "(3,)"]
    assert_command_refused("train b.npy --out new --init run", *words)
    write_file("more.csv", MORE.replace("a,", "c,", 1))
    assert_command_refused(TRAIN, "DATA", "more.csv", received="a")
    write_file("more.csv", MORE.replace("u\n", "w\n"))
    assert_command_refused(TRAIN, "DATA", "u, v", received="v, w")
    assert_command_refused("train a.npy --out new --init no", "RUN", received="no")
