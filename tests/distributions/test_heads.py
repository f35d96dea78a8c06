"""Heads: densities against SciPy, samples against densities, shapes of projections."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import keras_vae as kv
from keras_vae import random
from keras_vae.distributions.independent_bernoulli import is_nearly_binary

normal, bernoulli = (
    kv.distributions.IndependentNormal,
    kv.distributions.IndependentBernoulli,
)


def draw_noise(rows):
    return random.row_noise(tf.range(rows), tf.zeros(rows, tf.int32))


def test_the_normal_density_is_normalised_and_summed_over_the_event():
    rng = np.random.default_rng(0)
    loc, scale, x = rng.normal(size=(3, 4, 5, 2)), rng.uniform(0.5, 2, (4, 5, 2)), None
    x = rng.normal(size=(4, 5, 2))
    head = normal((5, 2), dtype="float64")
    params = {"loc": tf.constant(loc[0]), "scale": tf.constant(scale)}
    expected = stats.norm(loc[0], scale).logpdf(x).sum((1, 2))
    np.testing.assert_allclose(head.distribution(params).log_prob(x), expected)
    shared = {"loc": tf.constant(loc[0]), "scale": tf.constant(0.7, tf.float64)}
    expected = stats.norm(loc[0], 0.7).logpdf(x).sum((1, 2))
    np.testing.assert_allclose(head.distribution(shared).log_prob(x), expected)


def test_bernoulli_probabilities_sum_to_one():
    head = bernoulli((3,), dtype="float64")
    logits = tf.constant(np.random.default_rng(0).normal(size=(1, 3)))
    points = np.stack(np.meshgrid(*[[0.0, 1.0]] * 3), -1).reshape(8, 3)
    log_prob = head.distribution({"logits": logits}).log_prob(points)
    assert np.exp(log_prob).sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("head", [normal((2,)), bernoulli((2,))])
def test_samples_from_noise_have_the_distribution(head):
    n = 20_000
    features = tf.constant([[0.3, -1.2]])
    head(features)
    params = {
        name: tf.repeat(value, n, axis=0) if value.shape.rank else value
        for name, value in head(features).items()
    }
    sample = head.sample(params, draw_noise(n)(head.noise, (2,), 0)[0]).numpy()
    d = head.distribution(params)
    mean = d.mean().numpy()[0]
    error = d.variance().numpy()[0] ** 0.5 / np.sqrt(n)
    assert (np.abs(sample.mean(0) - mean) < 4 * error).all()
    assert sample.var(0) == pytest.approx(d.variance().numpy()[0], rel=0.05)


def test_noise_with_a_sample_axis_gives_several_samples():
    head = normal((2,))
    params = head(tf.constant([[0.3, -1.2], [1.0, 2.0]]))
    noise = draw_noise(2)("normal", (2,), 1, 3)
    assert head.sample(params, noise).shape == (3, 2, 2)
    np.testing.assert_array_equal(
        head.sample(params, noise)[1], head.sample(params, noise[1])
    )


def test_each_kind_of_scale_has_its_shape_and_weights():
    x = tf.ones((4, 3))
    per_element = normal((2,))
    assert per_element(x)["scale"].shape == (4, 2)
    shared = normal((2,), scale="shared")
    assert shared(x)["scale"].shape == ()
    assert float(shared(x)["scale"]) == pytest.approx(1.0, abs=1e-6)
    assert [w.name for w in shared.trainable_weights].count("raw_scale") == 1
    fixed = normal((2,), scale=0.25)
    assert float(fixed(x)["scale"]) == 0.25
    assert len(fixed.trainable_weights) == 2
    # The lower bound holds for any raw value.
    shared.raw_scale.assign(-1e4)
    assert float(shared(x)["scale"]) == pytest.approx(shared.min_scale, rel=1e-6)


def test_the_default_scale_differs_for_posterior_and_likelihood():
    vae = kv.VAE(keras.layers.Identity(), keras.layers.Identity(), normal((4,)), 2)
    assert (vae.posterior.scale, vae.likelihood.scale) == ("per_element", "shared")


@pytest.mark.parametrize(
    ("features", "event", "kernels"),
    [
        ((7,), (4,), [(7, 4)]),
        ((7,), (2, 3), [(7, 6)]),  # flattened, projected, reshaped
        ((5, 6, 7), (5, 6, 2), [(7, 2)]),  # over the last axis: spatial axes are equal
        ((3, 3, 7), (5, 6, 2), [(63, 60)]),
        ((5, 7), (5, 2), [(7, 2)]),
    ],
)
def test_the_projection_depends_on_the_shape_of_the_features(features, event, kernels):
    head = normal(event, scale="shared")
    params = head(tf.ones((2, *features)))
    assert params["loc"].shape == (2, *event)
    assert [tuple(w.shape) for w in head.trainable_weights if w.name == "kernel"] == kernels
    assert head.distribution(params).log_prob(tf.zeros((2, *event))).shape == (2,)


def test_a_head_accepts_a_bias_initializer_and_a_projection():
    start = keras.initializers.Constant([1.0, -2.0])
    head = bernoulli((2,), bias_initializer=start)
    np.testing.assert_allclose(head(tf.zeros((1, 3)))["logits"], [[1.0, -2.0]])
    conv = keras.layers.Conv2D(1, 3, padding="same")
    head = bernoulli((4, 4, 1), projection=conv)
    assert head(tf.zeros((2, 4, 4, 5)))["logits"].shape == (2, 4, 4, 1)
    assert conv.kernel.shape == (3, 3, 5, 1)
    layers = {"loc": keras.layers.Dense(2), "scale": keras.layers.Dense(2, use_bias=False)}
    head = normal((2,), projection=layers)
    assert head(tf.zeros((1, 3)))["scale"].shape == (1, 2)
    restored = normal.from_config(head.get_config())
    assert restored(tf.zeros((1, 3)))["scale"].shape == (1, 2)
    assert len(restored.trainable_weights) == 3


def test_grey_values_are_the_probabilities_of_binarisation():
    head = bernoulli((2,), grey="binarize")
    n = 10_000
    x = tf.tile([[0.25, 1.0]], (n, 1))
    observed = head.observe(x, draw_noise(n)).numpy()
    assert set(np.unique(observed)) == {0.0, 1.0}
    assert (observed[:, 1] == 1).all()
    assert abs(observed[:, 0].mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / n)
    np.testing.assert_array_equal(head.observe(x, draw_noise(n)), observed)


def test_the_encoder_sees_binary_values_that_depend_on_x_alone():
    head = bernoulli((4096,))
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4096, axis=1)
    seen = head.encoder_input(head.as_float(levels)).numpy()
    assert set(np.unique(seen)) == {0.0, 1.0}
    # A pixel is 1 with probability x, up to four standard errors of 4,096 pixels, and a
    # brighter pixel is 1 wherever a darker one is.
    x = np.arange(256) / 255
    assert (np.abs(seen.mean(1) - x) <= 4 * np.sqrt(x * (1 - x) / 4096)).all()
    assert (np.diff(seen, axis=0) >= 0).all()
    # The same pixels give the same values in any dtype, order and number of rows.
    for same in (levels / np.float32(255), levels / 255, levels * np.float32(1 / 255)):
        np.testing.assert_array_equal(head.encoder_input(head.as_float(same)), seen)
    some = head.encoder_input(head.as_float(levels[[200, 7]]))
    np.testing.assert_array_equal(some, seen[[200, 7]])


def test_the_encoder_sees_values_that_are_not_binarised_unchanged():
    x = tf.constant([[0.0, 1.0, 0.4, 2.0]])
    seen = bernoulli((4,)).encoder_input(x)[0]
    np.testing.assert_array_equal(tf.gather(seen, [0, 1, 3]), [0.0, 1.0, 2.0])
    for head in (bernoulli((4,), grey="soft"), bernoulli((4,), grey="error"), normal((4,))):
        np.testing.assert_array_equal(head.encoder_input(x), x)


GREY = np.random.default_rng(0).uniform(size=(60, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ((GREY > 0.9).astype(np.float32), True),
        (GREY > 0.9, True),
        (np.zeros((60, 4), np.uint8), True),
        (np.where(GREY > 0.5, np.uint8(255), np.uint8(0)), True),
        (np.where(GREY > 0.9, GREY, GREY > 0.4).astype(np.float32), True),  # grey edges
        (GREY, False),
        ((255 * GREY).astype(np.uint8), False),
        (0.05 * GREY, False),  # all values are near 0
        (0.1 + 0.8 * (GREY > 0.5), False),
    ],
)
def test_data_are_nearly_binary_if_binarising_adds_little_noise(x, expected):
    assert is_nearly_binary(x) == expected


def test_grey_data_of_a_bernoulli_give_one_warning():
    head = bernoulli((4,))
    with pytest.warns(UserWarning, match="IndependentNormal.*grey='binarize'"):
        head.check_values(GREY)
    head.check_values(GREY)  # warnings are errors
    bernoulli((4,), grey="binarize").check_values(GREY)
    bernoulli((4,)).check_values(GREY.round())
    bernoulli((4,)).check_values(GREY[:5])


@pytest.mark.parametrize("grey", ["binarize", "soft", "error"])
def test_values_without_a_density_become_nan(grey):
    head = bernoulli((4,), grey=grey)
    x = tf.constant([[0.0, 1.0, 0.5, 2.0], [-0.1, np.nan, np.inf, 1.0]])
    is_nan = np.isnan(head.observe(x, draw_noise(2)))
    outside = [[False, False, grey == "error", True], [True, True, True, False]]
    np.testing.assert_array_equal(is_nan, outside)
    if grey == "soft":
        assert head.observe(x, draw_noise(2))[0, 2] == 0.5


def test_a_deterministic_head_samples_its_location():
    head = kv.distributions.Deterministic((2,))
    params = head(tf.ones((3, 4)))
    noise = draw_noise(3)(head.noise, (2,), 1, 5)
    sample = head.sample(params, noise)
    assert sample.shape == (5, 3, 2)
    np.testing.assert_array_equal(sample[4], params["loc"])
    np.testing.assert_array_equal(head.distribution(params).mean(), params["loc"])


def test_a_head_without_a_formula_uses_the_sampler_of_tfp():
    import tensorflow_probability as tfp

    class Gamma(kv.distributions.Head):
        projected = ("log_rate",)

        def distribution(self, params):
            gamma = tfp.distributions.Gamma(2.0, tf.exp(params["log_rate"]))
            return tfp.distributions.Independent(gamma, 1)

    head = Gamma((2,))
    n = 2000
    params = {"log_rate": tf.tile([[0.0, 1.0]], (n, 1))}
    seeds = draw_noise(n)(head.noise, (2,), 1)
    sample = tf.function(head.sample)(params, seeds)[0].numpy()
    assert sample.mean(0) == pytest.approx([2.0, 2.0 / np.e], rel=0.08)
    assert len(np.unique(sample)) == 2 * n
    # The sample of a row does not depend on the other rows.
    few = head.sample({"log_rate": params["log_rate"][5:7]}, seeds[:, 5:7])
    np.testing.assert_array_equal(few[0], sample[5:7])
