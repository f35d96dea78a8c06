"""The demo's command line; `make demo` runs the whole of it."""

import pytest

from keras_vae import demo


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_run_is_never_overwritten(tmp_path, capsys, kind):
    out = tmp_path / "run"
    if kind == "folder":
        out.mkdir()
        (out / "model.keras").write_text("precious")
    else:
        out.write_text("precious")
    with pytest.raises(SystemExit) as stop:
        demo.main(["--quick", "--out", str(out)])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "--out must be a new or empty folder" in message and str(out) in message
    path = out / "model.keras" if kind == "folder" else out
    assert path.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def run(out, *_):
        (out / "half").write_text("written")
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", run)
    with pytest.raises(KeyboardInterrupt):
        demo.main(["--out", str(tmp_path / "run")])
    assert list(tmp_path.iterdir()) == []


def test_runs_are_numbered(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = ["elbo", "reconstruction", "kl", "nll", "nll_standard_error"]
    numbers = {f"test_{name}": 1.0 for name in [*names, "nll_monte_carlo_error"]}
    numbers |= {"active_units": 3, "probe_accuracy": 0.5}
    monkeypatch.setattr(demo, "run", lambda *_: numbers)
    assert demo.main([]) == demo.main([]) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["digits-1", "digits-2"]
    assert "runs/digits-2/model.keras" in capsys.readouterr().out
