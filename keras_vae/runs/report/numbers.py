"""The evaluation of a run, and of baselines for comparison."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_vae import evaluation, nets
from keras_vae.datasets import Dataset
from keras_vae.distributions import IndependentBernoulli, IndependentNormal
from keras_vae.models import VAE, Autoencoder
from keras_vae.runs.folder import Run
from keras_vae.runs.report.findings import is_bound

# The training of the baselines, the same for every run, so that tables are comparable.
WIDTHS, STEPS, BATCH = [256, 256], 2000, 128
LIMIT = 300.0  # seconds for all baselines of a run


def evaluate(
    run: Run,
    model: VAE,
    data: Dataset,
    num_samples: int | None,
    nll_rows: int,
    show: Callable[[str, float, float], Any] = lambda *_: None,
) -> dict[str, Any]:
    """Evaluates a run on its test data; caches the numbers in evaluation.json.

    Args:
        run: the run.
        model: the model of the run.
        data: the data set of the run.
        num_samples: int, importance samples for each row, or None for the default of the
            network.
        nll_rows: int, the largest number of test rows for the NLL.
        show: function (text, done, total) that displays the progress.

    Returns:
        dict of floats, with the fingerprint of the data as `data`. All costs are in nats
        per row. `relative_error` is the square root of the reconstruction error, divided by
        that of the mean of the training rows.
    """
    num_samples = num_samples or run.options.importance_samples
    settings = {
        "num_samples": num_samples,
        "nll_rows": min(nll_rows, len(data.x_test)),
        "steps": int(model.step.numpy()),
        "data": data.fingerprint(run.conditional),
    }
    cached = run.read("evaluation.json") or {}
    same = all(cached.get(name) == value for name, value in settings.items())
    if same and _is_complete(cached, model):
        return cached
    condition = run.condition_kwargs(data, "test")
    show("evaluating", 0, 4)
    test = model.evaluate(
        data.x_test, condition.get("condition"), 500, verbose=0, return_dict=True
    )
    numbers = {f"test_{name}": value for name, value in test.items() if name != "loss"}
    numbers |= _errors(run, model, data, condition)
    show("evaluating: NLL", 1, 4)
    if model.generative:
        if _has_likelihood(model):

            def progress(done, total):
                show("evaluating: NLL", 1 + 2 * done / total, 4)

            numbers |= _likelihood(model, data, num_samples, nll_rows, condition, progress)
        active = evaluation.active_units(model, data.x_test, **condition)
        numbers |= {"active_units": active.sum(), "latent_units": active.size}
    show("evaluating: linear probe", 3, 4)
    if data.has_classes and not condition:  # else the codes contain the label
        numbers["probe_accuracy"] = _probe(model, data)
        numbers["probe_majority"] = evaluation.majority_rate(data.y_train, data.y_test)
    numbers = {name: float(value) for name, value in numbers.items()} | settings
    run.write_json("evaluation.json", numbers)
    return numbers


def _has_likelihood(model):
    """Returns True if the model has an NLL: soft targets are no log-likelihood."""
    return model.generative and getattr(model.likelihood, "grey", None) != "soft"


def _is_complete(numbers, model):
    """Returns True if the numbers of evaluation.json include all that the report needs."""
    needed = {"reconstruction_error"}
    if model.generative:
        needed |= {"active_units", "latent_units"}
    if _has_likelihood(model):
        needed |= {"test_nll", "test_nll_standard_error", "effective_sample_size"}
    return needed <= {*numbers} and ("test_nll" in needed) == ("test_nll" in numbers)


def _errors(run, model, data, condition, most=2000):
    """Computes the reconstruction error of test rows, and of training rows."""
    error = evaluation.reconstruction_error(model, data.x_test, **condition)
    numbers = {"reconstruction_error": error}
    mean_error = evaluation.reconstruction_error(MeanRow(data), data.x_test)
    if mean_error > 0:
        numbers["relative_error"] = math.sqrt(error / mean_error)
    if not (condition and data.streamed):  # then the labels of `x_fit` are not known
        rows = np.linspace(0, len(data.x_fit) - 1, min(len(data.x_fit), most)).astype(int)
        condition = run.condition_kwargs(data, "train", rows) if condition else {}
        numbers["train_reconstruction_error"] = evaluation.reconstruction_error(
            model, data.x_fit[rows], **condition
        )
    return numbers


class MeanRow:
    """The mean of the training rows, as a model for `evaluation.reconstruction_error`."""

    def __init__(self, data: Dataset):
        self.mean = data.mean(0).reshape(data.event_shape)

    def check_data(self, x: Any) -> Any:
        """Returns x unchanged."""
        return x

    def reconstruct(self, x: Any) -> np.ndarray:
        """Returns the mean for each row of x: `[rows, *event]`."""
        return np.broadcast_to(self.mean, x.shape)


def _likelihood(model, data, num_samples, nll_rows, condition, progress=lambda *_: None):
    """Estimates the NLL, its errors and bits per dimension."""
    # Evenly spaced rows, because the test set may be sorted.
    rows = np.linspace(0, len(data.x_test) - 1, min(nll_rows, len(data.x_test))).astype(int)
    estimate = evaluation.importance_weighted(
        model,
        data.x_test[rows],
        num_samples,
        progress=progress,
        **{name: value[rows] for name, value in condition.items()},
    )
    nll = -estimate.log_likelihood.astype(np.float64)
    numbers = {
        "test_nll": nll.mean(),
        # The error due to the choice of test rows; below, that of the importance samples.
        "test_nll_standard_error": nll.std(ddof=min(1, len(nll) - 1)) / math.sqrt(len(nll)),
        "effective_sample_size": np.median(estimate.effective_sample_size),
    }
    if num_samples > 1 and not is_bound(numbers):  # else the error is not reliable
        squares = np.mean(estimate.standard_error.astype(np.float64) ** 2)
        numbers["test_nll_monte_carlo_error"] = math.sqrt(squares / len(nll))
    bits = evaluation.bits_per_dimension(numbers["test_nll"], data.event_shape)
    if isinstance(model.likelihood, IndependentBernoulli):
        numbers["bits_per_dimension"] = bits
    elif data.value_range is not None:  # in the units of the values before scaling
        low, high = data.value_range
        numbers["bits_per_dimension"] = bits + math.log2(high - low)
    return numbers


def _probe(model, data, rows=10_000):
    """Computes the accuracy of a logistic regression on the codes."""
    x, y = data.x_fit, data.y_train
    if len(x) > rows:  # enough for a logistic regression
        chosen = np.linspace(0, len(x) - 1, rows).astype(int)
        x, y = x[chosen], y[chosen]
    return evaluation.linear_probe(model, x, y, data.x_test, data.y_test)


def cached_baselines(run: Run) -> list[dict[str, Any]]:
    """Reads the rows of baselines.json; none if it does not exist.

    Raises:
        ValueError: if it cannot be read.
    """
    return run.read("baselines.json") or []


def compare(
    run: Run,
    model: VAE,
    data: Dataset,
    numbers: dict[str, Any],
    latents: Sequence[int],
    show: Callable[[str, int, int], Any],
    limit: float = LIMIT,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compares the run with PCA, a linear and a deep autoencoder and a VAE.

    All networks have two dense layers of 256 and are trained for 2,000 steps of 128 rows.
    Results are cached in baselines.json.

    Args:
        run: the run.
        model: the model of the run.
        data: the data set of the run.
        numbers: the result of `evaluate`.
        latents: latent sizes of the baselines; sizes above the size of a row are left out.
        show: function (text, done, total) that displays the progress.
        limit: float, seconds after which the remaining baselines are left out.

    Returns:
        table: list of dicts: `model`, `latent`, `reconstruction_error` and, if there are
            labels, `probe_accuracy`. The run comes first, then the mean of the rows.
        left_out: names of the baselines that are left out because the time was up.
    """
    largest = min(len(data.x_fit), math.prod(data.event_shape))
    keys = [(name, n) for n in latents if n <= largest for name in BASELINES]
    fingerprint = data.fingerprint(run.conditional)
    rows = [row for row in cached_baselines(run) if row.get("data") == fingerprint]
    results = {(row["model"], row["latent"]): row for row in rows}
    deadline = time.monotonic() + limit
    for done, (name, latent) in enumerate(keys):
        if (name, latent) in results:
            continue
        watch = _Watch(
            show, f"baselines: {name}, latent {latent}", done, len(keys), deadline
        )
        if watch.late:
            break
        keras.utils.set_random_seed(0)
        baseline = BASELINES[name](data, latent, model, watch)
        if watch.late:  # the training was cut
            break
        row = {"model": name, "latent": latent, **_scores(baseline, data)}
        results[name, latent] = row | {"data": fingerprint}
        run.write_json("baselines.json", list(results.values()))
    table = [_own_row(run, numbers), _mean_row(data, numbers)]
    table += [results[key] for key in keys if key in results]
    left_out = [
        f"{name} {latent}" for name, latent in keys if (name, latent) not in results
    ]
    return (table if keys else []), left_out


class _Watch(keras.callbacks.Callback):
    """Displays the progress of a baseline, and ends its training at a deadline."""

    def __init__(self, show, text, done, total, deadline):
        super().__init__()
        self.show, self.text, self.done, self.total = show, text, done, total
        self.deadline = deadline
        show(text, done, total)

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        share = (epoch + 1) / self.params["epochs"]
        self.show(self.text, self.done + share, self.total)
        self.model.stop_training = self.late


def _own_row(run, numbers):
    names = {"reconstruction_error", "probe_accuracy"} & {*numbers}
    scores = {name: numbers[name] for name in names}
    return {"model": "this run", "latent": run.options.latent, **scores}


def _mean_row(data, numbers):
    row = {"model": "mean of the training rows", "latent": 0}
    row["reconstruction_error"] = evaluation.reconstruction_error(
        MeanRow(data), data.x_test
    )
    if "probe_majority" in numbers:
        row["probe_accuracy"] = numbers["probe_majority"]
    return row


def _scores(model, data):
    scores = {"reconstruction_error": evaluation.reconstruction_error(model, data.x_test)}
    if data.has_classes:
        scores["probe_accuracy"] = _probe(model, data)
    return scores


def _pca(data, latent, model, watch):
    return evaluation.PCA(latent).fit(data.x_fit)


def _linear(data, latent, model, watch):
    encoder, decoder = keras.layers.Flatten(), keras.layers.Identity()
    head = IndependentNormal(data.event_shape, scale=1.0, **_start(data))
    return _train(Autoencoder(encoder, decoder, head, latent, seed=0), data, watch)


def _deep(data, latent, model, watch):
    head = IndependentNormal(data.event_shape, scale=1.0, **_start(data))
    encoder, decoder = nets.MLP(WIDTHS), nets.MLP(WIDTHS)
    return _train(Autoencoder(encoder, decoder, head, latent, seed=0), data, watch)


def _vae(data, latent, model, watch):
    if isinstance(model.likelihood, IndependentBernoulli):
        head = IndependentBernoulli(data.event_shape, grey=model.likelihood.grey)
    else:
        spread = max(0.01, data.spread)
        head = IndependentNormal(data.event_shape, initial_scale=spread, **_start(data))
    encoder, decoder = nets.MLP(WIDTHS), nets.MLP(WIDTHS)
    return _train(VAE(encoder, decoder, head, latent, seed=0), data, watch)


BASELINES = {
    "PCA": _pca,
    "linear autoencoder": _linear,
    "deep autoencoder": _deep,
    "VAE": _vae,
}


def _start(data):
    """Returns arguments of a head: the initial bias is the mean of the data."""
    return {"bias_initializer": keras.initializers.Constant(data.mean(0).tolist())}


def _train(model, data, watch):
    rate = keras.optimizers.schedules.CosineDecay(3e-3, STEPS, alpha=0.01)
    model.compile(keras.optimizers.Adam(rate), steps_per_execution=100)
    # Repeats small data sets, because each epoch has an overhead.
    x = np.concatenate([data.x_fit] * -(-100 * BATCH // len(data.x_fit)))
    epochs = STEPS // 100
    model.fit(
        x,
        batch_size=BATCH,
        epochs=epochs,
        steps_per_epoch=100,
        verbose=0,
        callbacks=[watch],
    )
    return model
