"""Augmentation with preprocessing layers of Keras: exact resuming, unchanged dtype."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from keras_vae import random
from keras_vae.training import augmentation, batches

X = np.random.default_rng(0).integers(0, 256, (40, 10, 10, 1)).astype(np.uint8)


def layers():
    return [
        keras.layers.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
        keras.layers.RandomRotation(0.1, fill_mode="nearest"),
        keras.layers.RandomCrop(8, 8),
    ]


def build():
    keras.utils.set_random_seed(0)
    vae = kv.VAE(
        kv.nets.MLP([8]),
        kv.nets.MLP([8]),
        kv.distributions.IndependentBernoulli((8, 8, 1)),
        latent_dim=2,
        seed=3,
    )
    vae.compile("adam")
    return vae


def test_augmented_training_resumes_bit_for_bit(tmp_path):
    straight = build()
    straight.fit(X, epochs=3, batch_size=16, verbose=0, augmentation=layers())
    first = build()
    first.fit(X, epochs=1, batch_size=16, verbose=0, augmentation=layers())
    first.save(tmp_path / "vae.keras")
    second = keras.saving.load_model(tmp_path / "vae.keras")
    second.fit(X, epochs=2, batch_size=16, verbose=0, augmentation=layers())
    for a, b in zip(straight.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    plain = build()
    plain.fit(X[:, 1:9, 1:9], epochs=3, batch_size=16, verbose=0)
    different = zip(straight.get_weights(), plain.get_weights(), strict=True)
    assert any(not np.array_equal(a, b) for a, b in different)


def seeds(seed=0, epoch=0, batch=0):
    numbers = (tf.constant(n, tf.int64) for n in (epoch, batch))
    return random.KeyedSeeds(seed, *numbers)


def test_seed_epoch_and_batch_determine_the_augmentation():
    def augmented(**key):
        return augmentation.augment(layers(), X, seeds(**key)).numpy()

    base = augmented()
    assert base.dtype == np.uint8 and base.shape == (40, 8, 8, 1)
    assert np.array_equal(base, augmented())
    for key in ("seed", "epoch", "batch"):
        assert not np.array_equal(base, augmented(**{key: 1})), key


def test_height_and_width_are_shifted_independently():
    # With one seed for both, every shift would lie on the diagonal.
    layer = keras.layers.RandomTranslation(0.5, 0.5)
    drawn = layer.get_random_transformation(X, seed=seeds())["translations"]
    assert abs(np.corrcoef(np.array(drawn).T)[0, 1]) < 0.5


@pytest.mark.parametrize("dtype", ["bool", "float32", "uint8"])
def test_augmentation_keeps_the_dtype(dtype):
    x = tf.cast(X // 128, dtype)
    y = augmentation.augment(layers()[:2], x, seeds())
    assert y.dtype == x.dtype
    if dtype == "bool":
        assert 0.3 < np.mean(y) < 0.7


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.RandAugment(),
        keras.layers.AugMix(),
        keras.layers.RandomColorJitter((0, 1), brightness_factor=0.2),
    ],
    ids=lambda layer: layer.name,
)
def test_layers_with_their_own_random_seeds_are_refused(layer):
    with pytest.raises(ValueError, match="`augmentation` must be .* one by one"):
        build().fit(X, augmentation=layer, verbose=0)


def test_the_seed_determines_the_augmentation_without_shuffling():
    drawn = []
    for seed in (1, 2):
        dataset = batches.batches(X, 40, seed=seed, epoch=lambda: 0, augmentation=layers())
        drawn.append(next(iter(dataset)).numpy())
    assert not np.array_equal(*drawn)


def test_augmentation_of_vectors_is_refused():
    vae = kv.VAE(
        kv.nets.MLP([8]), kv.nets.MLP([8]), kv.distributions.IndependentNormal((3,)), 2
    )
    vae.compile("adam")
    with pytest.raises(ValueError, match="`augmentation` is for images"):
        vae.fit(np.zeros((8, 3)), augmentation=layers(), verbose=0)


def test_the_global_dtype_policy_does_not_change_the_dtype_of_the_data():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = layers()[:2]
    finally:
        keras.config.set_dtype_policy("float32")
    assert augmentation.augment(half, tf.cast(X, "float32"), seeds()).dtype == tf.float32
