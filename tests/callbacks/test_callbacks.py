"""Callbacks: image grids in the event files, warnings about posterior collapse."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import gen_summary_ops

import keras_vae as kv
from keras_vae.callbacks import ImageGrids, PosteriorCollapse, image_grid
from keras_vae.runs.train import TensorBoard

X = np.random.default_rng(0).random((24, 6, 5, 1)).astype(np.float32)


def build(model=kv.VAE, beta=1.0):
    head = kv.distributions.IndependentNormal((6, 5, 1), scale=0.3)
    vae = model(kv.nets.MLP([16]), kv.nets.MLP([16]), head, latent_dim=4, seed=0)
    vae.compile(
        keras.optimizers.Adam(1e-2), kv.objectives.ELBO(beta) if model is kv.VAE else None
    )
    return vae


def test_an_image_grid_has_every_pixel_at_its_place():
    grid = image_grid(X[:5], columns=3)
    assert grid.shape == (2 * 7 - 1, 3 * 6 - 1, 1) and grid.dtype == np.uint8
    for i in range(5):
        row, column = divmod(i, 3)
        part = grid[row * 7 : row * 7 + 6, column * 6 : column * 6 + 5]
        np.testing.assert_array_equal(part, np.round(255 * X[i]))
    assert (grid[7:, 12:] == 128).all() and (grid[6] == 128).all()


def test_an_image_grid_keeps_uint8_colours():
    x = np.random.default_rng(0).integers(0, 256, (1, 4, 3, 3)).astype(np.uint8)
    np.testing.assert_array_equal(image_grid(x, 1), x[0])


@pytest.mark.parametrize("shape", [(6, 5, 1), (2, 6, 5, 2), (0, 6, 5, 1)])
def test_an_image_grid_refuses_wrong_shapes(shape):
    with pytest.raises(ValueError, match=r"`images` must be images \[n, height"):
        image_grid(np.zeros(shape), 2)


@pytest.mark.parametrize("model", [kv.VAE, kv.Autoencoder])
def test_tensorboard_gets_grids_and_terms(tmp_path, model):
    vae = build(model)
    callbacks = [
        ImageGrids(tmp_path / "images", X[:4], num_samples=6, every=2),
        keras.callbacks.TensorBoard(str(tmp_path), write_graph=False),
    ]
    vae.fit(X, epochs=4, verbose=0, validation_data=X[:8], callbacks=callbacks)
    pictures, scalars = {}, {}
    for path in tmp_path.rglob("*tfevents*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                tensor = tf.make_ndarray(value.tensor)
                kind = value.metadata.plugin_data.plugin_name
                part = (path.parent.name, value.tag)
                {"images": pictures, "scalars": scalars}[kind].setdefault(part, []).append(
                    (event.step, tensor)
                )
    tags = {"reconstructions"} | ({"samples"} if model is kv.VAE else set())
    assert {tag for _, tag in pictures} == tags
    for values in pictures.values():
        assert [step for step, _ in values] == [1, 3]
    _, (width, height, png) = pictures["images", "reconstructions"][-1]
    assert (int(width), int(height)) == (4 * 6 - 1, 2 * 7 - 1)
    picture = tf.io.decode_png(png)[:6, :5]  # the first original
    np.testing.assert_array_equal(picture, np.round(255 * X[0]))
    for name in ("train", "validation"):
        for term in vae.reported:
            values = scalars[name, f"epoch_{term}"]
            key = term if name == "train" else f"val_{term}"
            np.testing.assert_allclose(
                [float(v) for _, v in values], vae.history.history[key], rtol=1e-5
            )


def fit_and_catch(vae, monitor, epochs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = vae.fit(X, epochs=epochs, verbose=0, callbacks=[monitor]).history
    return history, [str(w.message) for w in caught if w.category is UserWarning]


def test_posterior_collapse_is_warned_of_once():
    vae, monitor = build(beta=1e4), PosteriorCollapse(X, patience=2)
    history, words = fit_and_catch(vae, monitor, epochs=30)
    assert history["active_units"][-1] == 0 and not monitor.active.any()
    assert len(words) == 1
    assert "0 of 4 latent units are active after epoch" in words[0]
    assert "schedules.Linear" in words[0] and "free_bits" in words[0]
    # A collapsed unit has only the KL of its variance.
    assert monitor.kl.shape == (4,) and monitor.kl.max() < 0.1


def test_active_units_cause_no_warning():
    vae, monitor = build(beta=0.01), PosteriorCollapse(X, patience=1)
    fit_and_catch(vae, monitor, epochs=20)
    _, words = fit_and_catch(vae, monitor, epochs=5)
    assert words == [] and monitor.active.all()
    np.testing.assert_array_equal(monitor.active, kv.evaluation.active_units(vae, X))
    np.testing.assert_allclose(monitor.kl, kv.evaluation.kl_per_unit(vae, X))


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"threshold": -1}, "`threshold` must be"),
        ({"min_active": "half"}, "`min_active` must be"),
        ({"patience": 0}, "`patience` must be"),
    ],
)
def test_posterior_collapse_refuses_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        PosteriorCollapse(X, **arguments)


def test_training_continues_if_tensorboard_cannot_write(tmp_path, monkeypatch):
    def fail(*_, **__):
        text = f"{tmp_path}/events; No space left on device\n\tCould not flush"
        raise tf.errors.ResourceExhaustedError(None, None, text)

    monkeypatch.setattr(gen_summary_ops, "flush_summary_writer", fail)
    callbacks = [
        TensorBoard(str(tmp_path), write_graph=False),
        ImageGrids(tmp_path / "images", X[:4], num_samples=6),
    ]
    with pytest.warns(UserWarning, match="Training continues") as caught:
        history = build().fit(
            X, epochs=3, verbose=0, validation_data=X[:8], callbacks=callbacks
        )
    assert history.epoch == [0, 1, 2]
    words = [str(w.message).split(", ")[0] for w in caught]
    assert sorted(words) == [
        f"Training continues without {name}" for name in ("ImageGrids", "TensorBoard")
    ]
