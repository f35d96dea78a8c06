"""Tests that need a GPU, skipped if TensorFlow sees none. `make bench-gpu` runs them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from keras_vae.training import chunks

GPUS = [device.name.split(":", 1)[1] for device in tf.config.list_physical_devices("GPU")]
pytestmark = pytest.mark.skipif(not GPUS, reason="TensorFlow sees no GPU")


@pytest.fixture(autouse=True)
def exact_float32():
    """Turns off TF32, which keeps 10 bits, and restores the dtype policy."""
    tf32, policy = (
        tf.config.experimental.tensor_float_32_execution_enabled(),
        keras.config.dtype_policy(),
    )
    tf.config.experimental.enable_tensor_float_32_execution(False)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    keras.config.set_dtype_policy(policy)


def train(strategy, policy="float32", epochs=3, optimizer="sgd", **options):
    """Returns a small convolutional model after some epochs, and its losses."""
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    # Bars of some width in grey. 41 rows in batches of 16: the last has 9, an uneven share.
    width = np.random.default_rng(0).integers(1, 8, (41, 1, 1, 1))
    x = np.where(np.arange(8)[:, None] < width, 0.9, 0.1).astype(np.float32)
    x = np.broadcast_to(x, (41, 8, 8, 1))
    with strategy.scope():
        vae = kv.VAE(
            kv.nets.ConvEncoder([4, 8], activation="tanh"),
            kv.nets.ConvDecoder([8, 4], (8, 8, 1), activation="tanh"),
            kv.distributions.IndependentBernoulli((8, 8, 1)),
            latent_dim=3,
            seed=0,
        )
        vae.compile(optimizer, **options)
    return vae, vae.fit(x, batch_size=16, epochs=epochs, verbose=0).history["loss"]


def use_device(device):
    return tf.distribute.OneDeviceStrategy(device)


def assert_same_weights(one, other):
    # float32 sums in another order, by other kernels, over 9 steps of SGD (Adam would make
    # full steps from gradients that are only rounding errors). Other noise gives 0.03.
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


def test_one_gpu_and_the_cpu_train_the_same():
    assert_same_weights(train(use_device(GPUS[0]))[0], train(use_device("CPU:0"))[0])


@pytest.mark.skipif(len(GPUS) < 2, reason="TensorFlow sees one GPU")
def test_several_gpus_and_one_train_the_same():
    assert_same_weights(
        train(tf.distribute.MirroredStrategy(GPUS))[0], train(use_device(GPUS[0]))[0]
    )


def test_data_on_the_gpu_and_in_chunks_train_the_same(monkeypatch):
    x = np.random.default_rng(0).integers(0, 256, (2100, 16), np.uint8)
    trained = []
    for share in (chunks.DATA_SHARE, 0):  # on the GPU; in the memory of the host
        monkeypatch.setattr(chunks, "DATA_SHARE", share)
        keras.utils.set_random_seed(0)
        networks = kv.nets.MLP([32]), kv.nets.MLP([32])
        vae = kv.VAE(*networks, kv.distributions.IndependentNormal((16,)), 2, seed=0)
        vae.compile(keras.optimizers.SGD(1e-3))
        vae.fit(x, batch_size=32, epochs=3, verbose=0)
        trained.append(vae)
    assert_same_weights(*trained)


def test_xla_and_plain_graphs_train_the_same():
    one, _ = train(use_device(GPUS[0]), jit_compile=True)
    assert_same_weights(one, train(use_device(GPUS[0]), jit_compile=False)[0])


def test_bfloat16_lowers_the_loss():
    vae, losses = train(
        use_device(GPUS[0]), policy="mixed_bfloat16", epochs=60, optimizer="adam"
    )
    assert all(np.isfinite(w).all() for w in vae.get_weights())
    assert losses[-1] < 0.9 * losses[0]
