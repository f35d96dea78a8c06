"""What a linear classifier finds in the latents."""

import numpy as np

from keras_vae.training.arrays import check_labels


def linear_probe(model, x_train, y_train, x_test, y_test, batch_size=1024):
    """Accuracy of a logistic regression on the posterior means.

    Args:
        model: `keras_vae.VAE` or `Autoencoder`.
        x_train: array `[rows, *event]`, on whose codes the probe is trained.
        y_train: labels `[rows]`.
        x_test: array `[rows, *event]`.
        y_test: labels `[rows]`.
        batch_size: int, rows that pass the encoder at a time.

    Returns:
        float, the share of test rows whose label is right.

    Raises:
        ValueError: for data that do not fit the likelihood, or labels that do not fit
            the data.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, rarely used
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def codes(x, y, part):
        x = model.check_data(x, f"x_{part}")
        y = np.asarray(y)
        check_labels(y, len(x), f"y_{part}")
        means = model.encode(x, batch_size).mean().numpy()
        return means.reshape(len(means), -1), y

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(*codes(x_train, y_train, "train"))
    return float(probe.score(*codes(x_test, y_test, "test")))
