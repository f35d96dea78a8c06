"""The semi-supervised VAE: its two bounds as equations, and inferred labels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from keras_vae.models.semi_supervised_vae import MarginalTerms

DIM, LATENT, CLASSES = 5, 2, 3


def model(**options):
    return kv.SemiSupervisedVAE(
        kv.nets.MLP([8], "tanh"),
        kv.nets.MLP([8], "tanh"),
        kv.distributions.IndependentNormal((DIM,)),
        LATENT,
        **{
            "condition": CLASSES,
            "classifier": kv.nets.MLP([8], "tanh"),
            "seed": 0,
            **options,
        },
    )


def rows(count=12):
    x = np.random.default_rng(0).normal(size=(count, DIM)).astype(np.float32)
    return x, np.where(np.arange(count) % 2, -1, np.arange(count) % CLASSES)


def split_by_label(values):
    return np.reshape(values, (CLASSES, -1))


def test_both_bounds_agree_with_their_equations():
    vae, (x, labels) = model(), rows()
    terms = vae.terms(x, vae.row_noise(tf.range(len(x))), labels, num_samples=4)
    # -L(x, y) of Kingma et al.
    bounds = split_by_label(terms.per_label.elbo) - np.log(CLASSES)
    q = vae.classify(x).numpy().T
    entropy = -(q * np.log(q)).sum(0)
    unlabelled = (q * bounds).sum(0) + entropy  # equation 7
    expected = np.where(labels < 0, unlabelled, bounds[labels, np.arange(len(x))])  # 6
    np.testing.assert_allclose(terms.elbo, expected, rtol=1e-5)
    # Each class's terms are those of the conditional model: the KL has no noise.
    for label in range(CLASSES):
        q_z = vae.encode(x, condition=label)
        kl = kv.objectives.Terms(None, None, q_z, vae.prior.distribution(), None).kl
        np.testing.assert_allclose(split_by_label(terms.per_label.kl)[label], kl, rtol=1e-5)
    weights = terms.per_label.log_weight.numpy().reshape(4, CLASSES, -1) - np.log(CLASSES)
    total = np.log(np.exp(weights).sum(1))
    known = weights[:, labels, np.arange(len(x))]
    np.testing.assert_allclose(
        terms.log_weight, np.where(labels < 0, total, known), rtol=1e-5
    )


def test_all_labels_of_a_row_share_its_noise():
    vae, (x, labels) = model(), rows()
    terms = vae.terms(x, vae.row_noise(tf.range(len(x))), labels, num_samples=2).per_label
    q = terms.posterior
    noise = ((terms.z - q.mean()) / q.stddev()).numpy().reshape(2, CLASSES, -1, LATENT)
    np.testing.assert_allclose(noise, noise[:, :1].repeat(CLASSES, 1), atol=1e-4)
    assert noise[:, 0].std() > 0.5


def test_the_loss_of_labelled_rows_includes_the_classification_loss():
    vae, (x, labels) = model(alpha=7.0), rows()
    vae.compile("adam")
    terms = vae.terms(x, vae.row_noise(tf.range(len(x))), labels)
    log_q = np.log(vae.classify(x))[np.arange(len(x)), labels]
    expected = -terms.elbo.numpy() - np.where(labels < 0, 0.0, 7.0 * log_q)
    np.testing.assert_allclose(vae.example_losses(terms), expected, rtol=1e-5)
    weight = np.linspace(0, 2, len(x))
    np.testing.assert_allclose(
        vae.example_losses(terms, tf.constant(weight)), weight * expected, rtol=1e-5
    )


def test_the_bound_is_tight_for_the_true_classifier():
    """If z has no information, -U is log p(x) for q(y|x) = p(y|x), and less otherwise."""
    vae, (x, _) = model(), rows()
    for layer in (*vae.posterior._projections.values(),):
        layer.kernel.assign(tf.zeros_like(layer.kernel))  # q(z|x, y) is the prior
    kernel = vae.decoder.network.layers[-1].kernel
    kernel.assign(tf.concat([tf.zeros((LATENT, 8)), kernel[LATENT:]], 0))
    draw = vae.row_noise(tf.range(len(x)))
    terms = vae.terms(x, draw, np.full(len(x), -1))
    log_joint = split_by_label(terms.per_label.log_likelihood[0]) - np.log(CLASSES)
    log_p = np.log(np.exp(log_joint).sum(0))
    logits = tf.constant(log_joint.T, tf.float32)
    true = MarginalTerms(terms.per_label, terms.x, terms.label, logits)
    np.testing.assert_allclose(true.elbo, log_p, rtol=1e-5)
    assert np.all(terms.elbo.numpy() < log_p + 1e-4)
    np.testing.assert_allclose(terms.log_weight[0], log_p, rtol=1e-5)


def test_the_classifier_infers_missing_labels():
    rng = np.random.default_rng(1)
    truth = np.arange(600) % CLASSES
    centres = np.array([[3, 0, 0], [0, 3, 0], [0, 0, 3]]) @ rng.normal(size=(3, DIM))
    x = (centres[truth] + 0.7 * rng.normal(size=(600, DIM))).astype(np.float32)
    labels = np.full(600, -1)
    labels[:6] = truth[:6]
    vae = model(alpha=10.0)
    vae.compile(keras.optimizers.Adam(0.01))
    vae.fit(x, labels, batch_size=100, epochs=60, verbose=0)
    found = np.argmax(vae.classify(x), axis=1)
    assert np.mean(found == truth) > 0.9


def test_the_score_signature_is_conditional_on_the_label():
    vae, (x, labels) = model(), rows()
    seeds, known = np.arange(len(x)), np.maximum(labels, 0)
    score = kv.signatures.score(vae, x, seeds, known, num_samples=2000)
    found = kv.evaluation.importance_weighted(vae, x, 2000, condition=known)
    difference = score["log_prob"] - found.log_likelihood
    np.testing.assert_array_less(np.abs(difference), 6 * found.standard_error)
    assert abs(np.mean(difference)) < 0.2  # log 3 would be 1.1


def test_a_classifier_can_be_convolutional():
    planes, mlp = kv.nets.Planes(kv.nets.ConvEncoder([4])), kv.nets.MLP([8])
    shape = (8, 8, 1)
    likelihood = kv.distributions.IndependentBernoulli(shape)
    classifier = kv.nets.ConvEncoder([4])
    vae = kv.SemiSupervisedVAE(planes, mlp, likelihood, LATENT, CLASSES, classifier)
    x = np.zeros((6, *shape), np.float32)
    vae.compile("adam")
    vae.fit(x, np.arange(6) % CLASSES, verbose=0)
    assert vae.classify(x).shape == (6, CLASSES)


def test_wrong_arguments_are_refused():
    x, labels = rows()
    for call, message in (
        (lambda: model(classifier=None), "`classifier` must .*Received"),
        (lambda: model(condition=(2,)), "`condition` must .*Received"),
        (lambda: model(alpha=-1), "`alpha` must .*Received"),
        (lambda: model(condition_dropout=0.1), "`condition_dropout` must .*Received"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    vae = model()
    for objective in (
        kv.objectives.IWAE(2),
        kv.objectives.Hybrid(),
        kv.objectives.ELBO(free_bits=0.1),
    ):
        with pytest.raises(ValueError, match="`objective` must .*Received"):
            vae.compile("adam", objective)
    vae.compile("adam")
    with pytest.raises(ValueError, match=r"`y` must be labels of shape \(12,\).*\(12, 2\)"):
        vae.fit(x, np.stack([labels, labels], 1), verbose=0)
    with pytest.raises(ValueError, match=r"`y` must .* -1 .*Received"):
        vae.fit(x, labels + 5, verbose=0)
    with pytest.raises(ValueError, match=r"labels from 0 to 2\. Received: \[-1\]"):
        vae.sample(2, condition=-1)
