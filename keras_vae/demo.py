"""A VAE on real digits, from data to pictures: `python -m keras_vae.demo`.

The data are scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, so that nothing is
downloaded. The run ends with a folder of its own: the model, its numbers, its pictures.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import keras
import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_vae as kv

matplotlib.use("agg")
import matplotlib.pyplot as plt

IMAGE = (8, 8, 1)


def digits():
    """Images in [0, 1], `[rows, 8, 8, 1]`, and labels: train, validation, test."""
    images, labels = load_digits(return_X_y=True)
    x = (images / 16.0).astype(np.float32).reshape(-1, *IMAGE)  # scikit-learn's end at 16
    rest, x_test, y_rest, y_test = train_test_split(
        x, labels, test_size=360, random_state=0
    )
    x, x_val, y, _ = train_test_split(rest, y_rest, test_size=180, random_state=0)
    return (x, y), x_val, (x_test, y_test)


def build(train):
    """A convolutional VAE; its pixels start at the data's mean (Burda et al., 2016)."""
    mean = np.clip(train.mean(axis=(0, 1, 2)), 0.001, 0.999)
    vae = kv.VAE(
        encoder=keras.Sequential([kv.nets.ConvEncoder([32, 64]), kv.nets.MLP([128])]),
        decoder=keras.Sequential(
            [kv.nets.MLP([128]), kv.nets.ConvDecoder([64, 32], IMAGE)]
        ),
        likelihood=kv.distributions.IndependentBernoulli(
            IMAGE, bias_initializer=keras.initializers.Constant(np.log(mean / (1 - mean)))
        ),
        latent_dim=8,
        seed=0,
    )
    beta = kv.schedules.Linear(0.0, 1.0, steps=300)
    vae.compile(keras.optimizers.Adam(1e-3), kv.objectives.ELBO(beta))
    return vae


class EpochBar(keras.callbacks.Callback):
    """One progress bar for the whole of a fit, with the bound of the last epoch."""

    def on_train_begin(self, logs=None):
        """Makes the bar."""
        self.bar = keras.utils.Progbar(
            self.params["epochs"], unit_name="epoch", stateful_metrics=["elbo", "val_elbo"]
        )

    def on_epoch_end(self, epoch, logs):
        """Moves it on."""
        self.bar.update(epoch + 1, [(key, logs[key]) for key in ("elbo", "val_elbo")])


def save_grid(path, rows, titles=None):
    """Draws rows of images `[rows, columns, height, width]` into a PNG."""
    height, width = len(rows), len(rows[0])
    figure, axes = plt.subplots(
        height, width, figsize=(0.6 * width, 0.7 * height), squeeze=False
    )
    for i, images in enumerate(rows):
        for axis, image in zip(axes[i], images, strict=True):
            axis.imshow(image, cmap="gray_r", vmin=0, vmax=1)
            axis.set_axis_off()
        if titles:
            axes[i][0].set_title(titles[i], loc="left", fontsize=8)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def run(out, epochs, num_samples):
    """Trains, evaluates, draws and saves into the folder `out`; returns the numbers."""
    keras.utils.set_random_seed(0)
    (x, y), x_val, (x_test, y_test) = digits()
    vae = build(x)
    print(f"Training on {len(x)} digits, {vae.count_params():,} parameters")
    best = keras.callbacks.EarlyStopping(
        "val_elbo", mode="max", patience=epochs, restore_best_weights=True
    )
    history = vae.fit(
        x, batch_size=64, epochs=epochs, verbose=0, validation_data=x_val,
        callbacks=[best, EpochBar()],
    ).history  # fmt: skip
    print(
        f"\nEvaluating on {len(x_test)} test digits, {num_samples} importance samples each"
    )
    test = vae.evaluate(x_test, verbose=0, return_dict=True)
    estimate = kv.evaluation.importance_weighted(vae, x_test, num_samples)
    nll = -estimate.log_likelihood
    numbers = {
        **{f"test_{key}": value for key, value in test.items()},
        "test_nll": nll.mean(),
        # What another test set, and what other importance samples would change.
        "test_nll_standard_error": nll.std(ddof=1) / np.sqrt(len(nll)),
        "test_nll_monte_carlo_error": np.sqrt(
            np.mean(estimate.standard_error**2) / len(nll)
        ),
        "effective_sample_size_median": np.median(estimate.effective_sample_size),
        "active_units": int(kv.evaluation.active_units(vae, x_test).sum()),
        "probe_accuracy": kv.evaluation.linear_probe(vae, x, y, x_test, y_test),
        "best_epoch": int(np.argmax(history["val_elbo"])) + 1,
    }
    numbers = {key: round(float(value), 4) for key, value in numbers.items()}

    vae.save(out / "model.keras")
    loaded = keras.saving.load_model(out / "model.keras")
    if not np.array_equal(vae.sample(16, seed=1), loaded.sample(16, seed=1)):
        raise RuntimeError("The loaded model draws other samples than the saved one.")
    (out / "numbers.json").write_text(json.dumps(numbers, indent=2) + "\n")
    pairs = [x_test[:12, ..., 0], loaded.reconstruct(x_test[:12])[..., 0]]
    save_grid(out / "reconstructions.png", pairs, ["originals", "reconstructions"])
    samples = loaded.sample(60, seed=1, mean=True).numpy()[..., 0]
    save_grid(out / "samples.png", samples.reshape(5, 12, *IMAGE[:2]))
    return numbers


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m keras_vae.demo", description=__doc__)
    parser.add_argument("--out", help="a folder that does not exist yet (runs/digits-N)")
    parser.add_argument("--quick", action="store_true", help="seconds instead of a minute")
    options = parser.parse_args(arguments)
    if options.out:
        out = pathlib.Path(options.out)
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            parser.error(
                f"--out must be a new or empty folder. Received: {out}, which exists"
            )
    else:
        number = 1
        while (out := pathlib.Path("runs", f"digits-{number}")).exists():
            number += 1
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Into a folder beside it, renamed when all is there.
        part = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        parser.error(
            f"--out must be in a folder that can be written. Received: {out} ({error})"
        )
    try:
        numbers = run(part, *((3, 100) if options.quick else (150, 5000)))
        part.chmod(0o755)
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    n = numbers
    print(f"""
test ELBO            {n["test_elbo"]:9.3f} nats per image
  reconstruction     {n["test_reconstruction"]:9.3f}
  KL                 {n["test_kl"]:9.3f}
test NLL             {n["test_nll"]:9.3f} +- {n["test_nll_standard_error"]:.3f} nats
  Monte Carlo error  {n["test_nll_monte_carlo_error"]:9.4f}
active units         {n["active_units"]:9.0f} of 8
linear probe         {n["probe_accuracy"]:9.1%} of the test digits
the saved model, loaded again, draws the same samples

{out}/model.keras
{out}/numbers.json
{out}/reconstructions.png
{out}/samples.png""")
    return 0


if __name__ == "__main__":
    sys.exit(main())
