"""Linear probe: accuracy of a linear classifier on the latents, and of no latents."""

from typing import Any

import numpy as np

from keras_vae.training.arrays import check_labels


def linear_probe(
    model: Any, x_train: Any, y_train: Any, x_test: Any, y_test: Any, batch_size: int = 1024
) -> float:
    """Computes the accuracy of a logistic regression on the posterior means.

    Args:
        model: `keras_vae.VAE` or `Autoencoder`.
        x_train: array `[rows, *event]`, the training data of the probe.
        y_train: labels `[rows]`.
        x_test: array `[rows, *event]`.
        y_test: labels `[rows]`.
        batch_size: int, number of rows per call of the encoder.

    Returns:
        float, the fraction of test rows that are classified correctly.

    Raises:
        ValueError: for data that the likelihood does not accept, or labels with another
            number of rows.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, rarely used
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def codes(x: Any, y: Any, part: str) -> tuple[np.ndarray, np.ndarray]:
        x = model.check_data(x, f"x_{part}")
        y = np.asarray(y)
        check_labels(y, len(x), f"y_{part}")
        means = model.encode(x, batch_size).mean().numpy()
        return means.reshape(len(means), -1), y

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(*codes(x_train, y_train, "train"))
    return float(probe.score(*codes(x_test, y_test, "test")))


def majority_rate(y_train: Any, y_test: Any) -> float:
    """Computes the accuracy of always predicting the most frequent training class.

    A linear probe that is not better has found no information about the labels.

    Args:
        y_train: labels `[rows]`.
        y_test: labels `[rows]`.

    Returns:
        float, the fraction of test rows with that class.

    Example:

    >>> majority_rate([0, 0, 1], [0, 1, 1, 1])
    0.25
    """
    classes, counts = np.unique(y_train, return_counts=True)
    return float(np.mean(np.asarray(y_test) == classes[counts.argmax()]))
