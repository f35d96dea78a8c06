"""A trained run in use: rows of data through its model, in the units of the data."""

import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae import checks, evaluation, random
from keras_vae.datasets import Dataset, Scaler
from keras_vae.runs.folder import Run
from keras_vae.runs.options import Options
from keras_vae.runs.rows import Rows, rows_of_file, rows_of_part
from keras_vae.training.arrays import select_rows

BATCH_ROWS, BATCH_BYTES = 500, 2**25  # limits of a batch, the bytes as float32
_ELBO_SAMPLES = 16  # samples of z for the reconstruction term of a row


def load(folder: str | os.PathLike) -> "TrainedRun":
    """Opens a run that `keras-vae train` has written, to use its model.

    Args:
        folder: path of the run.

    Returns:
        `TrainedRun`.

    Raises:
        ValueError: if the folder has no run or no trained model.
    """
    return TrainedRun(Run.open(folder))


class TrainedRun:
    """The model of a run with its preprocessing: encodes, scores and reconstructs files.

    A file is read with the options of the run and scaled by the numbers of its training;
    nothing is fitted again. A table must have the columns of the run, in any order; other
    columns are ignored. Results are dicts of arrays with a row for each row of the file, in
    its order: `row` (numbers from 0) or `file` (names of images); the labels, if the file
    has them, under the name of their column or `label`; and the values.

    Args:
        run: `Run`.

    Attributes:
        model: the trained model.
        options: `Options` of the run.
        classes: names of the classes of a conditional model, or an empty list.
        scaler: `Scaler` of a table, or None.
    """

    def __init__(self, run: Run):
        self.run = run
        self.options: Options = run.options
        self.classes: list[str] = run.info["data"].get("classes") or []
        self.scaler: Scaler | None = run.scaler
        self._value_range = run.info["data"]["value_range"]
        self.model: Any = run.model()

    # Units.

    def transform(self, x: Any) -> np.ndarray:
        """Scales raw values `[rows, *event]` for the model.

        Args:
            x: array, or a pandas table with the columns of the run in any order.
        """
        if self.scaler is not None:
            x = x[list(self.scaler.columns)] if hasattr(x, "columns") else x
            return self.scaler.transform(np.asarray(x, np.float64))
        x = np.asarray(x)
        if x.ndim == len(self.model.likelihood.event_shape):  # without an axis of channels
            x = x[..., None]
        if self._value_range is None or x.dtype == np.uint8 == self.run.dtype:
            return x
        low, high = self._value_range
        return (x.astype(np.float32) - low) / np.float32(high - low)

    def inverse(self, x: Any) -> np.ndarray:
        """Maps values of the model `[rows, *event]` back to the units of the data.

        Images of 8 bits have the units 0 to 255.
        """
        if self.scaler is not None:
            return self.scaler.inverse(x)
        x = np.asarray(x, np.float32)
        if self._value_range is None:
            return x
        low, high = self._value_range
        return np.float32(low) + x * np.float32(high - low)

    @property
    def columns(self) -> list[str] | None:
        """Names of the columns of a table, or None for other data."""
        return None if self.scaler is None else list(self.scaler.columns)

    @property
    def label_name(self) -> str:
        """The name of the labels in results: their column in a table, or `label`."""
        return self.options.label or "label"

    # Reading.

    def read(self, file: Any, label: str | None = None) -> Rows:
        """Reads a file as the run reads its data, all rows in the order of the file.

        The arrays of an archive with a test split are joined: training, validation, test.

        Args:
            file: path of a table, an array, an image or a folder of images, or the name of
                a data set.
            label: str, the class of all rows, for a conditional model.

        Raises:
            ValueError: for a file that cannot be read, has other columns or another shape,
                or holds values that the model does not accept.
        """
        rows = rows_of_file(self.run, self.scaler, file)
        self.model.check_data(rows.x, "file")
        return self._with_labels(rows, label, file)

    def part(self, data: Dataset, part: str = "test", label: str | None = None) -> Rows:
        """Returns the rows of a part of the run's own data.

        Args:
            data: the result of `Run.data`.
            part: `"train"`, `"val"`, `"test"` or `"all"`.
            label: see `read`.

        Raises:
            ValueError: for data without this part.
        """
        return self._with_labels(rows_of_part(self.run, data, part), label, data.name)

    def _with_labels(self, rows, label, file):
        """Returns rows with their labels, or with one label for all of them."""
        if label is not None:
            self.class_numbers([label])
            rows = rows._replace(labels=np.full(len(rows.x), label))
        if self.classes:
            if rows.labels is None:
                raise ValueError(
                    f"`file` must have labels ({_shown(self.classes)}), the condition of "
                    f"the model, or give `label` for all rows. Received: {file} without "
                    "labels"
                )
            self.class_numbers(rows.labels)
        return rows

    def class_numbers(self, labels: Any) -> np.ndarray:
        """Returns labels, by name, as numbers of the classes: int32 `[rows]`.

        Raises:
            ValueError: naming the labels that are no classes of the run.
        """
        if not self.classes:
            raise ValueError(
                "`label` must be left out: the model has no labels. "
                f"Received: label={labels[0]}"
            )
        numbers = {name: i for i, name in enumerate(self.classes)}
        names = [_class_name(label) for label in labels]
        unknown = sorted({*names} - {*numbers})
        if unknown:
            raise ValueError(
                f"`label` must be one of {_shown(self.classes)}. Received: "
                f"label={_shown(unknown)}"
            )
        return np.array([numbers[name] for name in names], np.int32)

    # Results, batch by batch.

    def encode(self, rows: Rows, std: bool = False) -> Iterator[dict[str, np.ndarray]]:
        """Yields batches of `mean` and, with `std`, `std` of q(z|x), `[batch, *latent]`."""
        for index, x, condition in self._batches(rows):
            posterior = self.model.encode(x, **condition)
            values = {"mean": posterior.mean().numpy()}
            if std:
                values["std"] = posterior.stddev().numpy()
            yield index | values

    def score(self, rows: Rows, num_samples: int = 1000) -> Iterator[dict[str, np.ndarray]]:
        """Yields batches of scores `[batch]`, in nats; see `score_file`."""
        has_density = getattr(self.model.likelihood, "grey", None) != "soft"
        start = 0
        for index, x, condition in self._batches(rows):
            values = {}
            if self.model.generative and has_density:
                estimate = evaluation.importance_weighted(
                    self.model, x, num_samples, **condition
                )
                values["log_likelihood"] = estimate.log_likelihood
                values["effective_sample_size"] = estimate.effective_sample_size
            values |= self._bound(x, start, condition.get("condition"))
            error = self.model.reconstruct(x, **condition) - self.model.as_float(x)
            axes = tuple(range(1, len(error.shape)))
            values["reconstruction_error"] = np.sum(np.square(error), axes)
            start += len(x)
            yield index | values

    def reconstruct(self, rows: Rows) -> Iterator[dict[str, np.ndarray]]:
        """Yields batches of `originals` and `reconstructions`, in the units of the data."""
        for index, x, condition in self._batches(rows):
            reconstructions = self.model.reconstruct(x, **condition).numpy()
            yield index | {
                "originals": self.inverse(self.model.as_float(x)),
                "reconstructions": self.inverse(reconstructions),
            }

    def samples(
        self, n: int, seed: int = 0, mean: bool = False, label: str | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields batches of `samples`, in the units of the data; see `sample`."""
        if not self.model.generative:
            raise ValueError(
                "`run` must have a model with a prior to sample from. Received: "
                f"{self.run.folder}, with the model {self.options.model}"
            )
        seeds = random.sample_seeds(checks.positive_int(n, "n"), checks.int32(seed, "seed"))
        labels = None
        if label is not None:
            labels = np.full(n, self.class_numbers([label])[0])
        elif self.classes:
            labels = np.arange(n, dtype=np.int32) % len(self.classes)
        for part in self._slices(n):
            values, condition = {}, {}
            if labels is not None:
                condition["condition"] = labels[part]
                values[self.label_name] = np.array(self.classes)[labels[part]]
            x = self.model.sample(seeds=np.asarray(seeds)[part], mean=mean, **condition)
            yield values | {"samples": self.inverse(x)}

    def _bound(self, x, start, condition):
        """Computes the terms of the bound of each row, over 16 samples of z."""
        model = self.model

        def terms(x, positions, first, condition):
            noise = functools.partial(model.row_noise(positions), first=first)
            terms = model.terms(x, noise, condition)
            return terms.reconstruction, terms.kl

        compiled = model.compiled_once(
            "terms of rows",
            lambda: tf.function(terms, reduce_retracing=True, autograph=False),
        )
        positions = start + tf.range(len(x))
        draws = [
            compiled(tf.constant(x), positions, tf.constant(i), condition)
            for i in range(_ELBO_SAMPLES)
        ]
        means: Any = np.mean(draws, axis=0)
        reconstruction, kl = means
        if not model.generative:
            return {"reconstruction": reconstruction}
        return {"elbo": -(reconstruction + kl), "reconstruction": reconstruction, "kl": kl}

    def _batches(self, rows):
        """Yields (index columns, x, condition) of each batch."""
        condition = {"condition": self.class_numbers(rows.labels)} if self.classes else {}
        index = {"row" if rows.ids.dtype.kind == "i" else "file": rows.ids}
        if rows.labels is not None:
            index[self.label_name] = rows.labels
        for part in self._slices(len(rows.x)):
            yield select_rows(index, part), rows.x[part], select_rows(condition, part)

    def _slices(self, rows):
        row_bytes = 4 * int(np.prod(self.model.likelihood.event_shape))
        size = max(1, min(BATCH_ROWS, BATCH_BYTES // row_bytes))
        return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]

    # Files at once.

    def encode_file(
        self, file: Any, std: bool = False, label: str | None = None
    ) -> dict[str, np.ndarray]:
        """Encodes all rows of a file.

        Args:
            file: see `read`.
            std: bool, whether to return the standard deviations, too.
            label: see `read`.

        Returns:
            dict of arrays: `mean` and, with `std`, `std` of q(z|x), `[rows, *latent]`; see
            `TrainedRun` for the others.
        """
        return _concatenated(self.encode(self.read(file, label), std))

    def score_file(
        self, file: Any, num_samples: int = 1000, label: str | None = None
    ) -> dict[str, np.ndarray]:
        """Scores all rows of a file: a higher `log_likelihood` is more likely.

        Args:
            file: see `read`.
            num_samples: int, importance samples for each row.
            label: see `read`.

        Returns:
            dict of arrays `[rows]`: `log_likelihood`, the estimate of log p(x) by
            importance sampling, with its `effective_sample_size`; `elbo`, `reconstruction`
            and `kl`, the terms of the bound; and `reconstruction_error`, the squared error
            summed over the row in model units. All but the last are in nats. A model
            without a density has no `log_likelihood`.
        """
        return _concatenated(self.score(self.read(file, label), num_samples))

    def reconstruct_file(
        self, file: Any, label: str | None = None
    ) -> dict[str, np.ndarray]:
        """Reconstructs all rows of a file.

        Returns:
            dict of arrays `[rows, *event]`: `originals` and `reconstructions`, in the units
            of the data.
        """
        return _concatenated(self.reconstruct(self.read(file, label)))

    def sample(
        self, n: int, seed: int = 0, mean: bool = False, label: str | None = None
    ) -> dict[str, np.ndarray]:
        """Draws samples in the units of the data.

        Args:
            n: int, the number of samples.
            seed: int. Equal seeds return equal samples.
            mean: bool, return the means of p(x|z) instead of draws.
            label: str, the class of all samples of a conditional model. Default: all
                classes in turn.

        Returns:
            dict of arrays: `samples` `[n, *event]`, and the labels of a conditional model.
        """
        return _concatenated(self.samples(n, seed, mean, label))


def _concatenated(batches):
    batches = list(batches)
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def _class_name(label):
    """Returns the name of a class: 3.0 is the class 3 of a column with missing values."""
    if isinstance(label, (float, np.floating)) and float(label).is_integer():
        label = int(label)
    return str(label)


def _shown(names):
    """Lists at most 20 names."""
    listed = ", ".join(names[:20])
    return f"{listed}, ..." if len(names) > 20 else listed
