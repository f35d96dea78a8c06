"""The numbers of a run, and those of the baselines beside them."""

import math

import keras
import numpy as np

from keras_vae import evaluation, nets
from keras_vae.distributions import IndependentBernoulli, IndependentNormal
from keras_vae.models import VAE, Autoencoder

# The baselines' own protocol, the same for every run, so that their table compares.
WIDTHS, STEPS, BATCH = [256, 256], 2000, 128


def evaluate(run, model, data, num_samples, nll_rows):
    """The numbers of a run on its test data, kept in evaluation.json.

    Args:
        run: `keras_vae.runs.folder.Run`.
        model: its model.
        data: its `Dataset`.
        num_samples: int, importance samples for each row.
        nll_rows: int, how many test rows, at most, the NLL is estimated on.

    Returns:
        dict of floats. All costs are in nats per row.
    """
    settings = {"num_samples": num_samples, "nll_rows": min(nll_rows, len(data.x_test))}
    settings["steps"] = int(model.step.numpy())
    kept = run.read_json("evaluation.json")
    if kept is not None:
        if not isinstance(kept, dict):
            raise run.unreadable("evaluation.json", "no dict")
        if all(kept.get(name) == value for name, value in settings.items()):
            return kept
    condition = run.condition_kwargs(data, "test")
    test = model.evaluate(
        data.x_test, condition.get("condition"), 500, verbose=0, return_dict=True
    )
    numbers = {f"test_{name}": value for name, value in test.items() if name != "loss"}
    numbers["reconstruction_error"] = evaluation.reconstruction_error(
        model, data.x_test, **condition
    )
    if model.generative:
        if getattr(model.likelihood, "grey", None) != "soft":  # that is no log-likelihood
            numbers |= _likelihood(model, data, num_samples, nll_rows, condition)
        active = evaluation.active_units(model, data.x_test, **condition)
        numbers |= {"active_units": active.sum(), "latent_units": active.size}
    if data.has_classes and not condition:  # codes that are made with the label say nothing
        numbers["probe_accuracy"] = _probe(model, data)
    numbers = {name: float(value) for name, value in numbers.items()} | settings
    run.write_json("evaluation.json", numbers)
    return numbers


def _likelihood(model, data, num_samples, nll_rows, condition):
    # Spread over the test set, which may be sorted.
    rows = np.linspace(0, len(data.x_test) - 1, min(nll_rows, len(data.x_test))).astype(int)
    estimate = evaluation.importance_weighted(
        model,
        data.x_test[rows],
        num_samples,
        **{name: value[rows] for name, value in condition.items()},
    )
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
    if isinstance(model.likelihood, IndependentBernoulli):
        numbers["bits_per_dimension"] = bits
    elif data.value_range is not None:  # of the values before they were scaled
        low, high = data.value_range
        numbers["bits_per_dimension"] = bits + math.log2(high - low)
    return numbers


def _probe(model, data, rows=10_000):
    x, y = data.x_fit, data.y_train
    if len(x) > rows:  # a logistic regression needs no more
        chosen = np.linspace(0, len(x) - 1, rows).astype(int)
        x, y = x[chosen], y[chosen]
    return evaluation.linear_probe(model, x, y, data.x_test, data.y_test)


def compare(run, model, data, numbers, latents, tell):
    """PCA, linear and deep autoencoder and VAE at equal latent sizes, beside the run.

    Every network has two dense layers of 256 and is trained for 2,000 steps of 128 rows;
    what is known already is read from baselines.json.

    Args:
        run: `keras_vae.runs.folder.Run`.
        model: its model.
        data: its `Dataset`.
        numbers: from `evaluate`.
        latents: list of int; those that are larger than the data are left out.
        tell: function (text, done, total) that is told how far it is.

    Returns:
        list of dicts: `model`, `latent`, `reconstruction_error` and, if there are labels,
        `probe_accuracy`. The run comes first.
    """
    most = min(len(data.x_fit), math.prod(data.event_shape))
    wanted = [(name, n) for n in latents if n <= most for name in BASELINES]
    rows = run.read_json("baselines.json") or []
    if not all(isinstance(row, dict) and {"model", "latent"} <= {*row} for row in rows):
        raise run.unreadable("baselines.json", "no table of the baselines")
    known = {(row["model"], row["latent"]): row for row in rows}
    for done, (name, latent) in enumerate(wanted):
        if (name, latent) not in known:
            tell(f"baselines: {name}, latent {latent}", done, len(wanted))
            keras.utils.set_random_seed(0)
            scores = _scores(BASELINES[name](data, latent, model), data)
            known[name, latent] = {"model": name, "latent": latent, **scores}
            run.write_json("baselines.json", list(known.values()))
    keys = {"reconstruction_error", "probe_accuracy"} & {*numbers}
    mine = {key: numbers[key] for key in keys}
    first = {"model": "this run", "latent": run.options.latent, **mine}
    return [first, *(known[key] for key in wanted)] if wanted else []


def _scores(model, data):
    scores = {"reconstruction_error": evaluation.reconstruction_error(model, data.x_test)}
    if data.has_classes:
        scores["probe_accuracy"] = _probe(model, data)
    return scores


def _pca(data, latent, model):
    return evaluation.PCA(latent).fit(data.x_fit)


def _linear(data, latent, model):
    encoder, decoder = keras.layers.Flatten(), keras.layers.Identity()
    head = IndependentNormal(data.event_shape, scale=1.0, **_start(data))
    return _train(Autoencoder(encoder, decoder, head, latent, seed=0), data)


def _deep(data, latent, model):
    head = IndependentNormal(data.event_shape, scale=1.0, **_start(data))
    encoder, decoder = nets.MLP(WIDTHS), nets.MLP(WIDTHS)
    return _train(Autoencoder(encoder, decoder, head, latent, seed=0), data)


def _vae(data, latent, model):
    if isinstance(model.likelihood, IndependentBernoulli):
        head = IndependentBernoulli(data.event_shape, grey=model.likelihood.grey)
    else:
        spread = max(0.01, data.spread)
        head = IndependentNormal(data.event_shape, initial_scale=spread, **_start(data))
    encoder, decoder = nets.MLP(WIDTHS), nets.MLP(WIDTHS)
    return _train(VAE(encoder, decoder, head, latent, seed=0), data)


BASELINES = {
    "PCA": _pca,
    "linear autoencoder": _linear,
    "deep autoencoder": _deep,
    "VAE": _vae,
}


def _start(data):
    return {"bias_initializer": keras.initializers.Constant(data.mean(0).tolist())}


def _train(model, data):
    rate = keras.optimizers.schedules.CosineDecay(3e-3, STEPS, alpha=0.01)
    model.compile(keras.optimizers.Adam(rate), jit_compile=True, steps_per_execution=100)
    # Few rows are repeated: an epoch costs some time of its own, however short it is.
    x = np.concatenate([data.x_fit] * -(-100 * BATCH // len(data.x_fit)))
    model.fit(x, batch_size=BATCH, epochs=STEPS // 100, steps_per_epoch=100, verbose=0)
    return model
