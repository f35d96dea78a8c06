"""Conditional VAEs: closed forms of the linear model, and checks of conditions."""

import json

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
import tensorflow_probability as tfp

import keras_vae as kv
from keras_vae import random

ROWS, DIM, LATENT, CLASSES = 600, 5, 2, 3
normal = kv.distributions.IndependentNormal
bernoulli = kv.distributions.IndependentBernoulli


def linear(**options):
    """p(x|c) = N(b + U c, W W^T + sigma^2): probabilistic PCA around a class's mean."""
    return kv.ConditionalVAE(
        encoder=kv.nets.Concatenated(keras.layers.Identity()),
        decoder=kv.nets.Concatenated(keras.layers.Identity()),
        likelihood=normal((DIM,)),
        latent_dim=LATENT,
        **{"condition": CLASSES, "seed": 0, **options},
    )


def small(condition, event=(DIM,), **options):
    return kv.ConditionalVAE(
        kv.nets.MLP([8], "tanh"),
        kv.nets.MLP([8], "tanh"),
        normal(event),
        LATENT,
        **{"condition": condition, "seed": 0, **options},
    )


def spread(noise, rng):
    """Returns rows around 0, with scales `noise` in random directions if it is an array."""
    x = rng.normal(size=(ROWS, DIM)) * noise
    return x if np.ndim(noise) == 0 else x @ np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]


def maximum(x, labels):
    """Returns the maximal mean log-likelihood: pPCA after subtracting class means."""
    rest = x - np.stack([x[labels == c].mean(0) for c in range(CLASSES)])[labels]
    values = np.linalg.eigvalsh(rest.T @ rest / len(rest))[::-1]
    sigma2 = values[LATENT:].mean()
    return -0.5 * (
        DIM * np.log(2 * np.pi)
        + np.log(values[:LATENT]).sum()
        + (DIM - LATENT) * np.log(sigma2)
        + DIM
    )


def train(model, x, labels, epochs=30):
    # An epoch is 20 passes, because each epoch has a fixed cost of several steps.
    data = np.tile(x, (20, 1)).astype(np.float32), np.tile(labels, 20)
    steps = epochs * len(data[0]) // 100
    rate = keras.optimizers.schedules.CosineDecay(0.03, steps)
    model.compile(
        keras.optimizers.Adam(rate), kv.objectives.ELBO(num_samples=4), jit_compile=True
    )
    model.fit(*data, batch_size=100, epochs=epochs, verbose=0)
    return model.evaluate(*data, batch_size=1000, verbose=0, return_dict=True)


SHAPE = np.array([2.0, 1.2, 0.5, 0.4, 0.3])


def test_the_linear_model_reaches_its_closed_form():
    rng = np.random.default_rng(0)
    labels = np.arange(ROWS) % CLASSES
    x = spread(SHAPE, rng) + 3 * rng.normal(size=(CLASSES, DIM))[labels]
    model = linear()
    found = train(model, x, labels)
    # As for the unconditional model: incomplete training, and 12,000 samples of 4.
    assert found["elbo"] == pytest.approx(maximum(x, labels), abs=0.03)
    found = kv.evaluation.importance_weighted(
        model, x[:50].astype(np.float32), 1000, condition=labels[:50]
    )
    head, w = model.likelihood, model.likelihood._projections["loc"]
    kernel, bias = w.kernel.numpy().astype(float), w.bias.numpy().astype(float)
    scale = float(head.distribution(head(tf.zeros((1, LATENT + CLASSES)))).stddev()[0, 0])
    exact = tfp.distributions.MultivariateNormalFullCovariance(
        bias + kernel[LATENT:][labels[:50]],
        kernel[:LATENT].T @ kernel[:LATENT] + scale**2 * np.eye(DIM),
    )
    difference = np.abs(found.log_likelihood - exact.log_prob(x[:50]))
    assert found.effective_sample_size.min() > 500  # because the posterior is nearly exact
    # With fixed seeds, none of the 50 rows is beyond four standard errors; 1e-4 is for
    # float32, if the error is as small.
    assert np.all(difference < 4 * found.standard_error + 1e-4)


def test_a_condition_without_information_changes_nothing():
    rng = np.random.default_rng(1)
    half = spread(SHAPE, rng)[: ROWS // 3]
    x, labels = np.tile(half, (3, 1)), np.repeat(np.arange(CLASSES), len(half))
    # The VAE without a condition reaches the same, see tests/models/test_ppca.py.
    assert train(linear(), x, labels)["elbo"] == pytest.approx(maximum(x, labels), abs=0.03)


@pytest.mark.slow
def test_latents_are_unused_if_the_condition_explains_the_data():
    rng = np.random.default_rng(2)
    labels = np.arange(ROWS) % CLASSES
    x = spread(0.3, rng) + 3 * rng.normal(size=(CLASSES, DIM))[labels]
    found = train(linear(), x, labels)
    # Two latents fit the noise of 600 rows a little: log of the ratio of eigenvalues.
    assert found["kl"] < 0.05
    assert found["elbo"] == pytest.approx(maximum(x, labels), abs=0.03)


@keras.saving.register_keras_serializable("tests")
class ClassPrior(kv.distributions.Prior):
    """p(z|c) = N(mean of the class, 1)."""

    noise = "normal"

    def __init__(self, event_shape, **kwargs):
        super().__init__(event_shape, **kwargs)
        self.means = self.add_weight(shape=(CLASSES, *event_shape), initializer="normal")

    def distribution(self, condition=None):
        loc = tf.matmul(condition, self.means)
        return tfp.distributions.Independent(tfp.distributions.Normal(loc, 1.0), 1)

    def sample(self, noise, condition=None):
        return tf.matmul(condition, self.means) + noise


def test_the_prior_gets_the_condition():
    model = linear(prior=ClassPrior((LATENT,)))
    x, labels = np.zeros((6, DIM), np.float32), np.arange(6) % CLASSES
    one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
    terms = model.terms(x, model.row_noise(tf.range(6)), labels, num_samples=3)
    z = terms.z.numpy()
    loc = one_hot @ model.prior.means.numpy()
    log_prior = -0.5 * np.square(z - loc).sum(2) - np.log(2 * np.pi)
    np.testing.assert_allclose(terms.log_prior, log_prior, rtol=1e-5)
    q = terms.posterior
    mean, stddev = q.mean().numpy(), q.stddev().numpy()
    kl = 0.5 * (stddev**2 + (mean - loc) ** 2 - 1) - np.log(stddev)
    np.testing.assert_allclose(terms.kl, kl.sum(1), rtol=1e-4)
    # Each sample is decoded with the condition of its own row.
    p = model.likelihood.distribution(model.generate(z[2], tf.constant(one_hot))).log_prob(
        x
    )
    np.testing.assert_allclose(terms.log_likelihood[2], p, rtol=1e-5)
    drawn = kv.signatures.sample(model, np.arange(6), labels)["z"]
    base = kv.signatures.sample(linear(), np.arange(6), labels)["z"]
    np.testing.assert_allclose(drawn, base + loc, rtol=1e-5, atol=1e-6)


CONDITIONS = {"label": CLASSES, "angle": (), "vector": (2,), "image": (4, 3, 1)}


def conditions(rows=6):
    rng = np.random.default_rng(3)
    return {
        "label": np.arange(rows) % CLASSES,
        "angle": rng.normal(size=rows),
        "vector": rng.integers(0, 256, (rows, 2), np.uint8),
        "image": rng.uniform(size=(rows, 4, 3, 1)).astype(np.float32),
    }


def test_the_networks_get_one_hot_labels_scaled_values_and_flags():
    condition = conditions()
    plain = small(CONDITIONS).embed(condition)
    np.testing.assert_array_equal(plain["label"], np.eye(3)[condition["label"]])
    np.testing.assert_allclose(plain["angle"], condition["angle"][:, None], rtol=1e-6)
    np.testing.assert_allclose(plain["vector"], condition["vector"] / 255.0, rtol=1e-6)
    np.testing.assert_array_equal(plain["image"], condition["image"])
    flagged = small(CONDITIONS, condition_dropout=0.5).embed(condition)
    for name, value in plain.items():
        flag = 1 if name == "label" else np.ones_like(value[..., :1])
        expected = value if name == "label" else np.concatenate([value, flag], -1)
        np.testing.assert_array_equal(flagged[name], expected)


def test_missing_conditions_are_zero_and_flagged():
    model = small(CONDITIONS, condition_dropout=0.5)
    missing = model.embed(model.check_condition(None, 6))
    for name, value in missing.items():
        assert not np.any(value), name
    image = conditions()["image"]
    partial = model.embed(model.check_condition({"image": image}, 6))
    np.testing.assert_array_equal(partial["image"][..., :1], image)
    assert np.all(partial["image"][..., 1] == 1) and not np.any(partial["label"])
    image[2, 1, 1, 0] = np.nan  # then all values of this row are missing
    partial = model.embed(model.check_condition({"image": image}, 6))
    assert not np.any(partial["image"][2]) and np.all(partial["image"][3][..., 1] == 1)


def test_condition_dropout_drops_each_condition_of_a_row_at_its_rate():
    rows, rate = 4000, 0.3
    model = small({"label": CLASSES, "vector": (2,)}, condition_dropout=rate)
    condition = {
        "label": np.zeros(rows, np.int32),
        "vector": np.ones((rows, 2), np.float32),
    }
    embedded = {}
    infer = model.infer
    model.infer = lambda x, c, training: embedded.update(c) or infer(x, c, training)
    x = np.zeros((rows, DIM), np.float32)
    draw = model.step_noise(tf.constant(rows))
    model.terms(x, draw, condition, training=True)
    label = np.array(embedded["label"][:, 0]) == 0
    vector = np.array(embedded["vector"][:, 2]) == 0
    error = 4 * np.sqrt(rate * (1 - rate) / rows)
    assert abs(label.mean() - rate) < error and abs(vector.mean() - rate) < error
    assert abs((label & vector).mean() - rate**2) < error
    u = draw("uniform", (2,), random.CONDITION)[0].numpy()
    np.testing.assert_array_equal(label, u[:, 0] < np.float32(rate))
    model.terms(x, draw, condition)  # evaluation drops no condition
    assert np.all(embedded["label"][:, 0] == 1)


@pytest.mark.slow
def test_condition_dropout_learns_with_and_without_labels():
    rng = np.random.default_rng(4)
    labels = np.arange(ROWS) % CLASSES
    means = 3 * rng.normal(size=(CLASSES, DIM))
    x = (spread(0.3, rng) + means[labels]).astype(np.float32)
    model = small(CLASSES, condition_dropout=0.3)
    train(model, x, labels, epochs=10)
    with_label = model.sample(2000, seed=1, condition=1).numpy()
    np.testing.assert_allclose(with_label.mean(0), means[1], rtol=0, atol=0.4)
    without = model.sample(2000, seed=1).numpy()
    nearest = np.linalg.norm(without[:, None] - means, axis=2).argmin(1)
    shares = np.bincount(nearest, minlength=CLASSES) / len(nearest)
    assert shares.min() > 0.15  # all three classes, without a label
    correct, missing, wrong = (
        model.log_likelihood(x[:200], 100, condition=c).mean()
        for c in (labels[:200], None, (labels[:200] + 1) % CLASSES)
    )
    assert correct > missing > wrong + 1


def test_a_single_condition_is_broadcast_to_all_rows():
    model = small(CONDITIONS)
    single = {name: value[0] for name, value in conditions().items()}
    stacked = {name: np.stack([value[0]] * 5) for name, value in conditions().items()}
    a, b = (model.sample(5, seed=1, condition=c) for c in (single, stacked))
    np.testing.assert_array_equal(a, b)
    x = np.zeros((5, DIM), np.float32)
    np.testing.assert_array_equal(
        model.encode(x, condition=single).mean(), model.encode(x, condition=stacked).mean()
    )


def test_methods_agree_on_conditions_from_arrays_and_datasets():
    model = small(CLASSES, condition_dropout=0.2)
    model.compile("adam")
    rng = np.random.default_rng(5)
    x, labels = rng.normal(size=(50, DIM)).astype(np.float32), np.arange(50) % CLASSES
    q = model.encode(x, condition=labels)
    parts = model.encode(x, batch_size=7, condition=labels)
    np.testing.assert_allclose(parts.mean(), q.mean(), rtol=1e-5, atol=1e-6)
    means = model.decode(q.mean(), condition=labels).mean()
    for other in (
        model.reconstruct(x, condition=labels),
        model.predict(x, 8, condition=labels, verbose=0),
        model.predict(tf.data.Dataset.from_tensor_slices((x, labels)).batch(8), verbose=0),
        model(x, condition=labels),
    ):
        np.testing.assert_allclose(other, means, rtol=1e-5, atol=1e-6)
    many = model.sample(5000, seed=3, condition=np.arange(5000) % CLASSES)
    few = model.sample(40, seed=3, condition=np.arange(40) % CLASSES)
    np.testing.assert_allclose(many[:40], few, rtol=1e-5, atol=1e-5)
    arrays = model.evaluate(x, labels, verbose=0)
    pairs = tf.data.Dataset.from_tensor_slices((x, labels)).batch(32)
    np.testing.assert_allclose(model.evaluate(pairs, verbose=0), arrays, rtol=1e-5)
    unlabelled = model.evaluate(x, np.full(50, -1), verbose=0)
    assert unlabelled != arrays


def test_a_conditional_model_is_saved_with_its_conditions(tmp_path):
    model = small(CONDITIONS, condition_dropout=0.1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    condition = conditions()
    a, b = (m.sample(6, seed=1, condition=condition) for m in (model, loaded))
    np.testing.assert_array_equal(a, b)
    # As JSON, where tuples become lists.
    configs = [json.dumps(m.get_config()) for m in (model, loaded)]
    assert configs[0] == configs[1]


def test_film_starts_as_the_network_without_a_condition():
    plain = keras.Sequential([keras.layers.Dense(4, "tanh"), keras.layers.Dense(3)])
    film = kv.nets.FiLM(plain)
    x, c = tf.random.normal((5, 2)), tf.random.normal((5, 7))
    before = film((x, c))
    np.testing.assert_allclose(before, plain(x), rtol=1e-6)
    gamma_beta = np.zeros((7, 6), np.float32)
    gamma_beta[:, :3], gamma_beta[:, 3:] = 0.5, 2.0
    film.modulations[1].kernel.assign(gamma_beta)
    total = tf.reduce_sum(c, 1, keepdims=True)
    np.testing.assert_allclose(
        film((x, c)), (1 + 0.5 * total) * before + 2 * total, rtol=1e-4, atol=1e-5
    )


def test_planes_repeat_vectors_over_the_image_and_keep_images():
    class Passthrough(keras.layers.Layer):
        def call(self, x):
            return x

    x, label = tf.random.normal((2, 4, 3, 2)), tf.one_hot([1, 0], 2)
    image = tf.random.normal((2, 4, 3, 1))
    planes = kv.nets.Planes(Passthrough())((x, {"a_label": label, "image": image})).numpy()
    assert planes.shape == (2, 4, 3, 5)
    np.testing.assert_array_equal(planes[..., :2], x)
    np.testing.assert_array_equal(
        planes[..., 2:4], np.tile(label[:, None, None], (4, 3, 1))
    )
    np.testing.assert_array_equal(planes[..., 4:], image)


def test_guidance_extrapolates_from_unconditional_to_conditional():
    head = bernoulli((DIM,), grey="error")
    model = kv.ConditionalVAE(
        kv.nets.MLP([8]), kv.nets.MLP([8]), head, LATENT, CLASSES, 0.2, seed=0
    )
    z, c = tf.random.normal((4, LATENT)), tf.one_hot([0, 1, 2, 0], CLASSES)
    with_c, without = (model.generate(z, e)["logits"] for e in (c, tf.zeros_like(c)))
    np.testing.assert_allclose(model.guided(z, c, 0.0)["logits"], without, atol=1e-6)
    np.testing.assert_allclose(model.guided(z, c, 1.0)["logits"], with_c, atol=1e-6)
    # p(x|z, c)**3 / p(x|z)**2, normalised, for each pixel.
    p, q = tf.sigmoid(with_c).numpy(), tf.sigmoid(without).numpy()
    one, zero = p**3 / q**2, (1 - p) ** 3 / (1 - q) ** 2
    guided = tf.sigmoid(model.guided(z, c, 3.0)["logits"])
    np.testing.assert_allclose(guided, one / (one + zero), rtol=1e-4, atol=1e-6)
    seeds = {"seeds": [1, 2], "condition": 1, "mean": True}
    far, near = model.sample(**seeds, guidance=2.0), model.sample(**seeds)
    assert np.abs(far - near).max() > 1e-3
    many = model.sample(3000, seed=1, condition=1, mean=True, guidance=2.0)
    few = model.sample(7, seed=1, condition=1, mean=True, guidance=2.0)
    np.testing.assert_allclose(many[:7], few, rtol=1e-5, atol=1e-5)


X, LABELS = np.zeros((6, DIM), np.float32), np.arange(6) % CLASSES


@pytest.fixture(scope="module")
def labelled():
    return small(3, condition_dropout=0.5)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS[:, None],
        LABELS.astype("float32"),
        LABELS.astype("uint8"),
        LABELS.astype(object),
        np.eye(3)[LABELS],
        np.eye(3, dtype=bool)[LABELS],
        scipy.sparse.csr_matrix(np.eye(3)[LABELS]),
    ],
)
def test_labels_of_every_form_are_the_same_condition(labels, labelled):
    np.testing.assert_array_equal(labelled.check_condition(labels, 6), LABELS)
    if not isinstance(labels, np.ndarray) or labels.dtype.hasobject:
        return
    # A dataset passes them to the networks unchanged.
    np.testing.assert_array_equal(labelled.embed(tf.constant(labels)), np.eye(3)[LABELS])
    kept = labelled._conditions.keep(tf.constant(labels), LABELS < 2)
    np.testing.assert_array_equal(kept, np.where(LABELS < 2, LABELS, -1))


def test_one_number_of_a_row_may_have_an_axis():
    model, numbers = small((), condition_dropout=0.5), np.arange(6.0)
    column = model.check_condition(numbers[:, None], 6)
    np.testing.assert_array_equal(column, numbers)
    embedded = model.embed(tf.constant(numbers[:, None]))
    np.testing.assert_array_equal(embedded, model.embed(tf.constant(numbers)))


@pytest.mark.parametrize(
    ("condition", "values", "message"),
    [
        (3, None, "`y` must .*Received: y=None"),
        (3, LABELS + 1, r"`y` must hold labels from 0 to 2: pass y - 1\. .*: \[3\]"),
        (3, -LABELS, r"`y` must hold labels from 0 to 2\. Received: \[-2, -1\]"),
        (3, LABELS / 2, r"`y` must hold labels from 0 to 2. Received: \[0.5"),
        (3, LABELS * np.nan, r"`y` must hold labels from 0 to 2. Received: \[nan"),
        (3, np.array(list("abcabc")), r"y = np.unique\(y, return_inverse=True.*<U1"),
        (3, np.array(list("abcabc"), object), r"y = np.unique\(y, .*object"),
        (3, np.eye(3)[LABELS] / 2, r"y.argmax\(axis=1\).*condition=\(3,\).*0.5"),
        (3, np.eye(4)[LABELS], r"`y` must have the shape \(6,\).*\(6, 3\).*\(6, 4\)"),
        (3, LABELS[:4], r"`y` must have one row for each row of x, 6.*\(4,\)"),
        ((2,), np.zeros((6, 3)), r"`y` must have the shape \(6, 2\).*\(6, 3\)"),
        ((2,), np.full((6, 2), np.inf), "`y` must be finite. Received: 12 values"),
        ((2,), np.zeros((6, 2), complex), "`y` must hold numbers.*complex"),
        ({"a": 3}, LABELS, r"`y` must be a dict with the keys \['a'\]"),
        ({"a": 3}, {"b": LABELS}, r"`y` must be a dict with the keys \['a'\].*\['b'\]"),
        ({"a": 3, "b": 3}, {"a": LABELS}, r"`y\['b'\]` must .*Received"),
        ({"a": 3}, {"a": LABELS + 1}, r"`y\['a'\]` must hold labels from 0 to 2"),
    ],
)
def test_wrong_values_of_a_condition_are_refused(condition, values, message):
    model = small(condition)
    model.compile("adam")
    with pytest.raises(ValueError, match=message):
        model.fit(X, values, verbose=0)
    assert model.step.numpy() == 0


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (None, "`condition` must .*Received: condition=None"),
        (True, "`condition` must .*Received"),
        ("label", "`condition` must .*Received"),
        (0, "`condition` must .*Received"),
        ((0,), "`condition` must .*Received"),
        ({}, "`condition` must .*Received"),
        ({"x": 3}, "`condition` must .*Received"),
        ({"a b": 3}, "`condition` must .*Received"),
        ({"a": None}, r"`condition\['a'\]` must .*Received"),
    ],
)
def test_wrong_declarations_of_a_condition_are_refused(condition, message):
    with pytest.raises(ValueError, match=message):
        small(condition)


def test_wrong_calls_of_a_conditional_model_are_refused():
    model, vae = small(3), kv.VAE(kv.nets.MLP([4]), kv.nets.MLP([4]), normal((DIM,)), 2)
    both = small({"label": 3, "angle": ()})
    batches = tf.data.Dataset.from_tensors((X, LABELS))
    for call, message in (
        (lambda: model.sample(2), "`condition` must .*Received"),
        (lambda: model.encode(X), "`condition` must .*Received"),
        (lambda: model.sample(2, condition=3), r"labels from 0 to 2\. Received: \[3\]"),
        (lambda: model.sample(2, condition=[0, 1, 2]), r"must have the shape \(2,\)"),
        (lambda: model.sample(2, condition=1, guidance=2.0), "`guidance` must .*Received"),
        (lambda: model.sample(2, condition=1, guidance=-1), "`guidance` must .*Received"),
        (lambda: model.predict(X), "`condition` must .*Received"),
        (lambda: model.predict(batches, condition=1), "`condition` must .*Received"),
        (
            lambda: both.sample(condition={"labl": LABELS}),
            "`condition` must be a dict with",
        ),
        (lambda: both.sample(condition=LABELS), "`condition` must be a dict with"),
        (lambda: vae.sample(2, condition=1), "`condition` must .*VAE.*Received"),
        (lambda: vae.encode(X, condition=LABELS), "`condition` must .*Received"),
        (lambda: small(3, condition_dropout=1.0), "`condition_dropout` must .*Received"),
        (lambda: kv.nets.FiLM(keras.layers.Dense(3)), "`network` must .*Received"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_an_unknown_label_skips_the_batch_in_training_and_gives_nan_in_signatures():
    model = small(3)
    model.compile("adam", max_skipped=5)
    labels = np.array([0, 1, 2, 0, 7, 1])
    batches = tf.data.Dataset.from_tensor_slices((X, labels)).batch(2)
    history = model.fit(batches, verbose=0).history
    assert history["skipped_steps"] == [1.0]
    drawn = kv.signatures.sample(model, np.arange(6), labels)
    is_nan = np.isnan(drawn["x"]).all(axis=1)
    np.testing.assert_array_equal(is_nan, labels == 7)
    assert not np.isnan(drawn["x"][labels != 7]).any()


@pytest.mark.parametrize(
    ("network", "event", "wrapper"),
    [
        (lambda: kv.nets.ConvEncoder([4]), (4, 4, 1), "Planes"),
        (
            lambda: keras.Sequential(
                [keras.layers.Rescaling(2.0), kv.nets.ConvEncoder([4]), kv.nets.MLP([4])]
            ),
            (4, 4, 1),
            "Planes",
        ),
        (lambda: keras.Sequential([keras.layers.LSTM(4)]), (4, 1), "Planes"),
        (lambda: kv.nets.MLP([4]), (4, 4, 1), "Concatenated"),
    ],
    ids=["images", "images to a vector", "series", "any shape"],
)
def test_a_sequential_is_wrapped_by_the_axes_that_it_needs(network, event, wrapper):
    model = kv.ConditionalVAE(
        network(), kv.nets.MLP([4]), normal(event), LATENT, condition=CLASSES
    )
    assert type(model.encoder) is getattr(kv.nets, wrapper)
    assert model.encode(np.ones((2, *event)), condition=1).mean().shape == (2, LATENT)


def test_a_network_without_an_input_for_the_condition_is_refused():
    for encoder in (keras.layers.Dense(4), keras.Sequential([keras.Input((DIM,))])):
        with pytest.raises(ValueError, match=r"Planes.*`encoder`"):
            kv.ConditionalVAE(encoder, kv.nets.MLP([4]), normal((DIM,)), 2, condition=3)
