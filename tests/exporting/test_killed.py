"""Exports are atomic: after a kill the new artefact is complete or absent."""

import os
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from keras_vae import atomic
from keras_vae.exporting import verify

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork")


@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_exports_killed_at_random_moments_leave_complete_artefacts(
    tmp_path, run_module, kills
):
    output = run_module("tests.exporting.killed", tmp_path, kills, kills)
    count, interrupted = map(int, output.split()[-2:])
    versions = sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit())
    assert count and versions and interrupted  # some kills were during an export
    newest = tf.saved_model.load(tmp_path / str(versions[-1]))
    mean = newest.signatures["decode"](z=tf.zeros((1, 2)))["mean"]
    assert np.isfinite(mean).all()
    # Killed exports leave hidden folders, which exports of later days remove.
    leftovers = list(tmp_path.glob(".keras-vae-*"))
    assert leftovers
    for folder in leftovers[1:]:
        os.utime(folder, (0, 0))
    with atomic.creating(tmp_path / "next") as part:
        part.mkdir()
    # Folders older than a day are stale; newer ones may be in use by another machine.
    assert list(tmp_path.glob(".keras-vae-*")) == leftovers[:1]
    assert (tmp_path / "next").is_dir()


@pytest.fixture
def vae():
    return kv.VAE(
        kv.nets.MLP([4]),
        kv.nets.MLP([4]),
        kv.distributions.IndependentNormal((3,)),
        latent_dim=2,
        seed=0,
    )


def test_a_failed_export_leaves_nothing(vae, tmp_path, monkeypatch):
    vae.export(tmp_path / "1", names=["decode"])

    def raise_no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", raise_no_space)
    with pytest.raises(OSError, match="No space"):
        vae.export(tmp_path / "2", names=["decode"])
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
    verify.read_card(tmp_path / "1")


@pytest.mark.parametrize("name", ["1", "m.tflite"])
def test_a_complete_artefact_remains_after_an_interruption(tmp_path, monkeypatch, name):
    def stop(path):
        if path == tmp_path:  # after the final move
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "sync", stop)
    with pytest.raises(KeyboardInterrupt), atomic.creating(tmp_path / name) as part:
        part.mkdir() if name == "1" else part.touch()
        if name != "1":
            part.with_name("m.card.json").touch()
    names = ["1"] if name == "1" else ["m.card.json", "m.tflite"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_an_export_does_not_overwrite_files(vae, tmp_path):
    for name, format in (("1", "tf_saved_model"), ("a.tflite", "litert"), ("o", "onnx")):
        path = tmp_path / name
        path.write_text("mine")
        with pytest.raises(ValueError, match="must not exist"):
            vae.export(path, format=format)
        assert path.read_text() == "mine"
    # Also if the path appears during the export: files are never mixed.
    late = tmp_path / "late"
    with (
        pytest.raises(FileExistsError, match="created meanwhile"),
        atomic.creating(late) as part,
    ):
        part.mkdir()
        (part / "new").touch()
        late.mkdir()
        (late / "theirs").touch()
    assert [p.name for p in late.iterdir()] == ["theirs"]
    for first in ("b.tflite", "b.card.json"):
        file = tmp_path / first / "b.tflite"
        with (
            pytest.raises(FileExistsError, match="created meanwhile"),
            atomic.creating(file) as part,
        ):
            part.write_text("new")
            part.with_name("b.card.json").write_text("new")
            file.with_name(first).write_text("theirs")
        assert [(p.name, p.read_text()) for p in file.parent.iterdir()] == [
            (first, "theirs")
        ]
    # An existing card without its file is not overwritten, either.
    (tmp_path / "c.card.json").write_text("mine")
    with pytest.raises(ValueError, match="c.card.json"):
        vae.export(tmp_path / "c.tflite", format="litert")
    with pytest.raises(ValueError, match=r"`filepath` must .*\.tflite"):
        vae.export(tmp_path / "folder.tflite")


def test_exported_files_are_readable_for_other_users(vae, tmp_path):
    mask = os.umask(0o022)
    try:
        path = vae.export(tmp_path / "v" / "1", names=["decode"])
    finally:
        os.umask(mask)
    for file in (path.parent, path, *path.rglob("*")):
        assert file.stat().st_mode & 0o444 == 0o444, file
    assert path == pathlib.Path(tmp_path, "v", "1")


def test_a_changed_or_missing_file_is_detected(vae, tmp_path):
    path = vae.export(tmp_path / "1", names=["decode"])
    verify.read_card(path)
    file = path / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"saved_model.pb has another checksum"):
        verify.read_card(path)
    file.unlink()
    with pytest.raises(ValueError, match=r"saved_model.pb is missing"):
        verify.read_card(path)
