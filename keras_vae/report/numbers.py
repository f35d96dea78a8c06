"""The numbers of a run, and those of the baselines beside them."""

import math

import keras
import numpy as np

from keras_vae import evaluation, nets
from keras_vae.distributions import Deterministic, IndependentBernoulli, IndependentNormal
from keras_vae.models import VAE, Autoencoder

# The baselines' own protocol, the same for every run, so that their table compares.
WIDTHS, STEPS, BATCH = [256, 256], 2000, 128


def evaluate(run, model, data, num_samples, nll_rows):
    """The numbers of a run on its test data, kept in evaluation.json.

    Args:
        run: `keras_vae.run.Run`.
        model: its model.
        data: its `Dataset`.
        num_samples: int, importance samples for each row.
        nll_rows: int, how many test rows, at most, the NLL is estimated on.

    Returns:
        dict of floats. All costs are in nats per row.
    """
    of = {"num_samples": num_samples, "nll_rows": min(nll_rows, len(data.x_test))}
    of["steps"] = int(model.step.numpy())
    kept = run.read_json("evaluation.json")
    if kept is not None:
        if not isinstance(kept, dict):
            raise run.unreadable("evaluation.json", "no dict")
        if all(kept.get(name) == value for name, value in of.items()):
            return kept
    test = model.evaluate(data.x_test, batch_size=500, verbose=0, return_dict=True)
    numbers = {f"test_{name}": value for name, value in test.items() if name != "loss"}
    numbers["reconstruction_error"] = evaluation.reconstruction_error(model, data.x_test)
    if not isinstance(model.posterior, Deterministic):
        numbers |= _likelihood(model, data, num_samples, nll_rows)
        active = evaluation.active_units(model, data.x_test)
        numbers |= {"active_units": active.sum(), "latent_units": active.size}
    if _has_classes(data):
        numbers["probe_accuracy"] = _probe(model, data)
    numbers = {name: float(value) for name, value in numbers.items()} | of
    run.write_json("evaluation.json", numbers)
    return numbers


def _likelihood(model, data, num_samples, nll_rows):
    # Spread over the test set, which may be sorted.
    rows = np.linspace(0, len(data.x_test) - 1, min(nll_rows, len(data.x_test))).astype(int)
    estimate = evaluation.importance_weighted(model, data.x_test[rows], num_samples)
    nll = -estimate.log_likelihood.astype(np.float64)
    numbers = {
        "test_nll": nll.mean(),
        # What another test set, and what other importance samples would change.
        "test_nll_standard_error": nll.std(ddof=min(1, len(nll) - 1)) / math.sqrt(len(nll)),
        "effective_sample_size": np.median(estimate.effective_sample_size),
    }
    if num_samples > 1:
        squares = np.mean(estimate.standard_error.astype(np.float64) ** 2)
        numbers["test_nll_monte_carlo_error"] = math.sqrt(squares / len(nll))
    bits = evaluation.bits_per_dimension(numbers["test_nll"], data.event_shape)
    return {**numbers, "bits_per_dimension": bits}


def _has_classes(data):
    """Whether labels name classes, a few of them, rather than measure something."""
    y = data.y_train
    return y is not None and y.dtype.kind != "f" and 2 <= len(np.unique(y)) <= 100


def _probe(model, data, rows=10_000):
    x, y = data.x_train, data.y_train
    if len(x) > rows:  # a logistic regression needs no more
        chosen = np.linspace(0, len(x) - 1, rows).astype(int)
        x, y = x[chosen], y[chosen]
    return evaluation.linear_probe(model, x, y, data.x_test, data.y_test)


def compare(run, model, data, latents, tell):
    """PCA, linear and deep autoencoder and VAE at equal latent sizes, beside the run.

    Every network has two dense layers of 256 and is trained for 2,000 steps of 128 rows;
    what is known already is read from baselines.json.

    Args:
        run: `keras_vae.run.Run`.
        model: its model.
        data: its `Dataset`.
        latents: list of int.
        tell: function (text, done, total) that is told how far it is.

    Returns:
        list of dicts: `model`, `latent`, `reconstruction_error` and, if there are labels,
        `probe_accuracy`. The run comes first.
    """
    x = data.x_train if data.x_train.shape[1:] == data.event_shape else data.x_val
    latents = [n for n in latents if x is not None and n <= min(len(x), x[0].size)]
    known = run.read_json("baselines.json") or []
    if not all(isinstance(row, dict) and {"model", "latent"} <= {*row} for row in known):
        raise run.unreadable("baselines.json", "no table of the baselines")
    rows: list[dict] = []
    for latent in latents:
        for name, train in BASELINES.items():
            row = next(
                (r for r in known if (r["model"], r["latent"]) == (name, latent)), None
            )
            if row is None:
                tell(
                    f"baselines: {name}, latent {latent}",
                    len(rows),
                    len(BASELINES) * len(latents),
                )
                keras.utils.set_random_seed(0)
                row = {
                    "model": name,
                    "latent": latent,
                    **_scores(train(x, latent, model), data),
                }
                known = [*known, row]
                run.write_json("baselines.json", known)
            rows.append(row)
    if not rows:
        return []
    numbers = run.read_json("evaluation.json")
    mine = {key: numbers[key] for key in rows[0] if key in numbers}
    return [{"model": "this run", "latent": run.options["latent"], **mine}, *rows]


def _scores(model, data):
    scores = {"reconstruction_error": evaluation.reconstruction_error(model, data.x_test)}
    if _has_classes(data):
        scores["probe_accuracy"] = _probe(model, data)
    return scores


def _pca(x, latent, model):
    return evaluation.PCA(latent).fit(x)


def _linear(x, latent, model):
    head = IndependentNormal(x.shape[1:], scale=1.0)
    nothing = (keras.layers.Flatten(), keras.layers.Identity())
    return _train(Autoencoder(*nothing, head, latent, seed=0), x)


def _deep(x, latent, model):
    head = IndependentNormal(x.shape[1:], scale=1.0)
    networks = (nets.MLP(WIDTHS), nets.MLP(WIDTHS))
    return _train(Autoencoder(*networks, head, latent, seed=0), x)


def _vae(x, latent, model):
    if isinstance(model.likelihood, IndependentBernoulli):
        head = IndependentBernoulli(x.shape[1:], grey=model.likelihood.grey)
    else:
        head = IndependentNormal(x.shape[1:])
    return _train(VAE(nets.MLP(WIDTHS), nets.MLP(WIDTHS), head, latent, seed=0), x)


BASELINES = {
    "PCA": _pca,
    "linear autoencoder": _linear,
    "deep autoencoder": _deep,
    "VAE": _vae,
}


def _train(model, x):
    rate = keras.optimizers.schedules.CosineDecay(3e-3, STEPS, alpha=0.01)
    # Few rows are repeated: an epoch costs some time of its own, however short it is.
    x = np.concatenate([x] * max(1, 100 * BATCH // len(x)))
    steps = min(STEPS, len(x) // BATCH)
    model.compile(keras.optimizers.Adam(rate), jit_compile=True, steps_per_execution=100)
    epochs = max(1, STEPS // steps)
    model.fit(x, batch_size=BATCH, epochs=epochs, steps_per_epoch=steps, verbose=0)
    return model
