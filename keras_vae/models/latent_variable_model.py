"""Methods of a trained latent variable model, from `encode` to `export`."""

import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import checks
from keras_vae.datasets.rows import RowsOnDisk
from keras_vae.models import scale
from keras_vae.training import own_batches
from keras_vae.training.arrays import as_array, plain_array, select_rows, yields_batches
from keras_vae.training.augmentation import augment
from keras_vae.training.forks import check_not_forked
from keras_vae.training.model import ResumableModel

PARTS = "encoder", "posterior", "prior", "decoder", "likelihood"


class LatentVariableModel(ResumableModel):
    """Base class of the models: methods that use `posterior`, `prior` and `likelihood`.

    A subclass sets these three attributes and implements `embed`, `infer` and `generate`;
    see `VAE`.
    """

    posterior: Any
    prior: Any
    likelihood: Any

    @property
    def generative(self) -> bool:
        """True if the model has a density p(x) and can be sampled."""
        return not self.posterior.is_point

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """Returns a part by its name, such as `"encoder"`, or a layer as Keras does."""
        is_part = name in PARTS and index is None
        return getattr(self, str(name)) if is_part else super().get_layer(name, index)

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Prints a summary, in which the parts of the model have their names."""
        names = {part: getattr(self, part).name for part in PARTS}
        try:
            for part in PARTS:
                getattr(self, part).name = part
            super().summary(*args, **kwargs)
        finally:
            for part, name in names.items():
                getattr(self, part).name = name

    # Data.

    def check_data(self, x: Any, name: str = "x", augmentation: Any = ()) -> Any:
        """Returns data as a NumPy array or `RowsOnDisk` that the likelihood accepts.

        The layers of `augmentation` must return images of the shape `[rows, *event]`.

        Raises:
            ValueError: for another shape, no rows, a dtype that is not numeric, or values
                without a density.
        """
        x = as_array(x, name)
        if augmentation:
            if len(x.shape) != 4:
                raise ValueError(
                    "`augmentation` is for images: x must have the shape "
                    f"[rows, height, width, channels]. Received: {name} of shape {x.shape}"
                )
            seeds = keras.random.SeedGenerator(0)
            self.check_batch(augment(augmentation, x[:1], seeds), name)
        else:
            self.check_batch(x, name)
        values = x.sample_rows() if isinstance(x, RowsOnDisk) else x
        self.likelihood.check_values(values, name)
        return x

    def check_batch(self, x: Any, name: str = "x") -> None:
        """Raises a ValueError unless x has the likelihood's shape and a numeric dtype."""
        self.likelihood.check_batch(x, name)

    def warn_about_scale(self, x: Any, name: str) -> None:
        self.values_seen = scale.warn(x, name, self.likelihood)

    def as_float(self, x: Any) -> tf.Tensor:
        """Casts x to floats for the likelihood, `[batch, *event]`; divides uint8 by 255."""
        return self.likelihood.as_float(x)

    def encoder_input(self, x: Any) -> tf.Tensor:
        """Converts data to the input of `infer`, as in training: see `Head`."""
        return self.likelihood.encoder_input(self.as_float(x))

    def parts(
        self, x: Any, condition: Any = None, size: int | None = None
    ) -> Iterator[tuple[int, Any, Any]]:
        """Splits data of any kind into parts that need a limited amount of memory.

        Args:
            x: as for `fit`: an array, or data that yield batches of `(x, condition)`.
            condition: the condition of a conditional model; None for other models, and for
                data that yield batches.
            size: int, the largest number of rows of a part. Default: `rows_at_once()`.

        Yields:
            (first, x, condition): the number of the first row, and the checked rows. A
            tensor stays one, so that gradients flow; a symbolic tensor is one part.
        """
        check_not_forked()
        for first, batch, labels in self._batches_of(x, condition):
            for i, part in self._split(batch, labels, size):
                yield first + i, *part

    def _split(self, x, condition, size=None):
        """Yields (first row, (x, condition)) for parts of arrays or tensors."""
        if tf.is_symbolic_tensor(x):
            yield 0, (x, condition)
            return
        count = -(-len(x) // (size or self.rows_at_once()))
        size = -(-len(x) // count)  # of nearly equal sizes, so that XLA compiles once
        for i in range(0, len(x), size):
            yield i, select_rows((x, condition), slice(i, i + size))

    def rows_at_once(self, most: int = 4096) -> int:
        """Returns a number of rows for which the networks need a limited memory."""
        return min(most, max(16, 2**20 // math.prod(self.likelihood.event_shape)))

    def _batches_of(self, x, condition):
        """Yields (first row, x, condition), checked: one array, or several batches."""
        if not yields_batches(x):
            x = self._checked_tensor(x)
            yield 0, x, self.check_condition(condition, x.shape[0])
            return
        expected = "None for a dataset, which must yield (x, condition)"
        checks.require(condition is None, "condition", expected, condition)
        x = self._check_own_batches(x, "x")
        first = 0
        for batch in own_batches.iterate(x, "x"):
            x, condition, _ = self.unpack(batch)
            x = self._checked_tensor(x)
            yield first, x, self.check_condition(condition, len(x))
            first += len(x)

    def _by_parts(self, function, x, condition, size=None):
        """Calls `function(x, condition)` for each part; concatenates the results."""
        results = [function(x, c) for _, x, c in self.parts(x, condition, size)]
        return tf.nest.map_structure(_concat, *results)

    def _checked_tensor(self, x):
        """Checks x unless it is symbolic. A tensor stays one, so that gradients flow."""
        if tf.is_symbolic_tensor(x):
            return x
        array = self.check_data(x)
        return x if tf.is_tensor(x) else array

    # Inference and sampling.

    def call(self, x: Any, condition: Any = None, training: bool = False) -> tf.Tensor:
        """Reconstructs x `[batch, *event]`: the mean of p(x | E[z|x])."""
        condition = self.embed(condition)
        q_params = self.infer(self.encoder_input(x), condition, training)
        z = self.posterior.distribution(q_params).mean()
        return self.likelihood.distribution(self.generate(z, condition, training)).mean()

    def encode(self, x: Any, batch_size: int | None = None, condition: Any = None) -> Any:
        """Computes the approximate posterior of data.

        Args:
            x: `[rows, *event]`, or data that yield batches, see `fit`. If training
                binarises grey values, they are binarised here, too, at fixed thresholds.
            batch_size: int, number of rows per call of the encoder. Default: as many as
                need a limited amount of memory.
            condition: the condition of a conditional model; None for other models.

        Returns:
            `tfd.Distribution` q(z|x) with batch shape `[rows]`: `mean()`, `stddev()`,
            `sample()`, `log_prob(z)`.

        Raises:
            ValueError: for data that the likelihood does not accept.
        """
        checks.positive_ints_or_none(batch_size=batch_size)

        def infer(x, condition):
            return self.infer(self.encoder_input(x), self.embed(condition))

        params = self._by_parts(infer, x, condition, batch_size)
        return self.posterior.distribution(params)

    def decode(self, z: Any, condition: Any = None) -> Any:
        """Computes the likelihood of latents.

        Args:
            z: `[rows, *latent]`, numbers of any dtype.
            condition: see `encode`.

        Returns:
            `tfd.Distribution` p(x|z) with batch shape `[rows]`.

        Raises:
            ValueError: if z has another shape.
        """
        check_not_forked()
        if not tf.is_tensor(z):
            z = as_array(plain_array(z, "z"), "z")
        checks.dtype(z.dtype, "z")
        z = tf.cast(z, tf.float32)
        latent = self.posterior.event_shape
        if not z.shape.is_compatible_with((None, *latent)):
            raise ValueError(
                f"`z` must have shape {('batch', *latent)}. Received: shape {z.shape}"
            )
        condition = self.check_condition(condition, z.shape[0])
        params = [
            self.generate(z, self.embed(c)) for _, (z, c) in self._split(z, condition)
        ]
        return self.likelihood.distribution(tf.nest.map_structure(_concat, *params))

    def sample(
        self, n: int | None = None, seed: int | None = None, seeds: Any = None,
        mean: bool = False, condition: Any = None,
    ) -> tf.Tensor:  # fmt: skip
        """Draws x from the model: z from the prior, x from p(x|z).

        The same seed returns the same sample in every process and every export format.

        Args:
            n: int, the number of rows.
            seed: int; row i has the seed `seed * 1000003 + i` in 32 bits. Default:
                drawn from Keras' global seed.
            seeds: ints `[rows]`, one for each row, instead of `n` and `seed`.
            mean: bool, return the means of p(x|z) instead of draws.
            condition: see `encode`.

        Returns:
            float32 tensor `[rows, *event]`.

        Raises:
            ValueError: unless exactly one of `n` and `seeds` is set.
        """
        from keras_vae.exporting import signatures

        check_not_forked()
        name = "mean" if mean else "x"
        return signatures.sample_rows(self, n, seed, seeds, name, condition)

    def reconstruct(self, x: Any, condition: Any = None) -> tf.Tensor:
        """Computes the mean of p(x | E[z|x]), a float32 tensor `[rows, *event]`."""
        return self._by_parts(lambda x, c: self(x, condition=c), x, condition)

    def log_likelihood(
        self, x: Any, num_samples: int = 1000, condition: Any = None
    ) -> np.ndarray:
        """Estimates log p(x) of each row in nats, `[rows]`, by importance sampling.

        Burda et al. (2016), equation 8. The estimate is a lower bound in expectation.
        `evaluation.importance_weighted` also returns its error and effective sample size.
        """
        from keras_vae import evaluation

        estimate = evaluation.importance_weighted(self, x, num_samples, condition=condition)
        return estimate.log_likelihood

    def signatures(self, num_samples: int = 16) -> dict[str, Any]:
        """Returns the functions that `export` writes.

        A variant may add its own.

        Args:
            num_samples: int, the number of draws per row of `score`.

        Returns:
            Dict of `Signature` by name: see `keras_vae.signatures`.
        """
        from keras_vae.exporting import signatures

        return signatures.build_signatures(self, num_samples)

    def export(
        self, filepath: str | os.PathLike, format: str = "tf_saved_model", **options: Any
    ) -> pathlib.Path:
        """Exports the model as functions of named tensors that run without this package.

        The functions are `encode`, `encode_mean`, `decode`, `sample`, `reconstruct` (the
        default signature of a server) and `score`: see `keras_vae.signatures`.
        Rows are independent, and a seed returns the same sample in every format. The export
        is atomic and includes a model card.

        Args:
            filepath: path that does not exist yet.
            format: `"tf_saved_model"`, a folder for TF Serving (int64 seeds); `"litert"`,
                one .tflite file (int32 seeds); `"onnx"`, a folder with one file for each
                signature (int32 seeds).
            **options: `names` of signatures (default: all), `num_samples` of `score`,
                `batch_size`, `quantize` (`"float16"`, `"dynamic"`, `"int8"`) and
                `representative_data`, `about`: see `keras_vae.exporting.export`.

        Returns:
            `pathlib.Path` of the export.

        Raises:
            ValueError: for a path that exists, invalid options, or a signature that the
                model does not support.
        """
        from keras_vae import exporting

        return exporting.export(self, filepath, format, **options)


def _concat(*parts):
    one = len(parts) == 1 or parts[0].shape.rank == 0
    return parts[0] if one else tf.concat(parts, axis=0)
