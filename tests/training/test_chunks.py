"""Several steps in one call give the same numbers as one step at a time."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from keras_vae.training import batches, chunks, devices
from keras_vae.training.model import ResumableModel

X = np.random.default_rng(0).random((50, 6)).astype("float32")


def model(encoder=None, decoder=None, **options):
    keras.utils.set_random_seed(3)
    likelihood = kv.distributions.IndependentBernoulli((6,), grey="binarize")
    encoder, decoder = encoder or kv.nets.MLP([8]), decoder or kv.nets.MLP([8])
    vae = kv.VAE(encoder, decoder, likelihood, 2, seed=5)
    vae.compile(keras.optimizers.Adam(0.01), **options)
    return vae


def weights(vae):
    return np.concatenate([v.numpy().ravel() for v in vae.trainable_variables])


# Pace: the number of steps in one execution.


def test_the_number_of_steps_adapts_to_the_time_of_an_execution():
    pace = chunks.Pace("auto")
    sizes = []
    for step_seconds in [0.001] * 9 + [0.1] * 5:
        sizes.append(pace.steps)
        pace.record(step_seconds * pace.steps, pace.steps)
    assert sizes[:8] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert sizes[9:13] == [128, 64, 32, 16]  # 12.8 s: too long, until ...
    assert 0.1 * pace.steps <= 1.0


def test_short_executions_at_the_end_of_a_chunk_are_ignored():
    pace = chunks.Pace("auto")
    pace.record(0.001, 1)
    pace.record(0.001, 1)
    assert pace.steps == 2


def test_a_fixed_number_of_steps_does_not_change():
    pace = chunks.Pace(7)
    pace.record(0.0, 7)
    assert (pace.steps, pace.most) == (7, 7)


class BatchCallback(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(batch)


def test_a_callback_of_batches_is_called_for_each_batch():
    callback = BatchCallback()
    model().fit(X, batch_size=8, epochs=3, callbacks=[callback], verbose=0)
    assert callback.batches == 3 * list(range(7))


def test_only_callbacks_of_batches_limit_the_steps_to_one():
    without_batches = [
        keras.callbacks.History(),
        keras.callbacks.ModelCheckpoint("m.keras"),
    ]
    assert chunks.Pace("auto", without_batches).most > 1
    assert chunks.Pace("auto", [*without_batches, BatchCallback()]).most == 1
    with_batches = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: None
    )
    assert chunks.Pace("auto", with_batches).most == 1
    assert chunks.Pace("auto", keras.callbacks.CallbackList([BatchCallback()])).most == 1


# Chunks of batches.


@pytest.mark.parametrize("steps", [None, 3, 11])
@pytest.mark.parametrize("size", [8, 50, 64, 1])
def test_chunks_hold_the_batches_of_the_pipeline(size, steps):
    data = (np.arange(50), np.arange(100).reshape(50, 2))
    for epoch in range(3):
        options = data, size, steps, 7, True, lambda epoch=epoch: epoch
        expected = list(batches.batches(*options).as_numpy_iterator())
        adapter = chunks.Chunks(chunks.Pace(4), *options)
        actual = [
            tuple(a[i] for a in chunk.batches)
            for chunk in adapter
            for i in range(chunk.steps)
        ]
        assert adapter.num_batches == len(expected) == len(actual)
        for batch, expected_batch in zip(actual, expected, strict=True):
            for a, b in zip(batch, expected_batch, strict=True):
                np.testing.assert_array_equal(a, b)


def test_chunks_have_a_maximal_size_and_few_shapes():
    data = np.zeros((1000, 2**14), "uint8")  # 2 MiB are 128 rows
    adapter = chunks.Chunks(chunks.Pace("auto"), data, 64)
    shapes = [tuple(chunk.batches.shape) for chunk in adapter]
    assert {np.prod(shape) <= chunks.CHUNK_BYTES for shape in shapes} == {True}
    assert len(set(shapes)) == 2  # full batches, and the last batch of 40 rows


@pytest.mark.parametrize("free, home", [(2**20, "GPU"), (2**13, "CPU")])
def test_a_gpu_holds_data_that_fit_and_gets_larger_chunks(monkeypatch, free, home):
    homes = []
    monkeypatch.setattr(devices, "free_memory", lambda device: free)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 2**8)
    monkeypatch.setattr(chunks, "row_gatherer", lambda data, device: homes.append(device))
    data = np.zeros((1000, 4), "uint8")  # of 4000 bytes
    gpu = "/job:localhost/replica:0/task:0/device:GPU:0"
    adapter = chunks.Chunks(chunks.Pace("auto"), data, 16, device=gpu)
    assert tf.DeviceSpec.from_string(homes[0]).device_type == home
    assert adapter.chunk_steps == (62 if home == "GPU" else 4)


def test_the_order_of_the_next_epoch_is_drawn_ahead():
    epoch = 0
    data = np.arange(50)
    adapter = chunks.Chunks(chunks.Pace("auto"), data, 8, shuffle=True, epoch=lambda: epoch)
    for epoch in range(3):  # noqa: B007
        list(adapter)
    adapter.pool.submit(lambda: None).result()  # the last one is drawn, too
    assert adapter.order.cache_info().misses == 4


def test_the_data_are_freed_at_once():
    """A cycle would keep them, and a thread, until the garbage collector runs."""
    adapter = chunks.Chunks(chunks.Pace(1), np.arange(50), 8, shuffle=True)
    gc.disable()
    try:
        list(adapter)
        adapter.pool.submit(lambda: None).result()  # the thread holds no chunk any more
        found = weakref.ref(adapter)
        del adapter
        assert found() is None
    finally:
        gc.enable()


def test_closing_the_iterator_stops_reading():
    data = np.zeros((1000, 4), "uint8")
    iterator = iter(chunks.Chunks(chunks.Pace(1), data, 1))
    next(iterator)
    iterator.close()  # does not wait for 999 more
    with pytest.raises(StopIteration):
        next(iterator)


# XLA.


@pytest.mark.slow
def test_training_is_the_same_with_and_without_xla():
    trained = {}
    for jit in (False, True):
        vae = model(jit_compile=jit)
        vae.fit(X, batch_size=16, epochs=5, verbose=0, validation_data=X[:20])
        trained[jit] = weights(vae), vae.evaluate(X, verbose=0)
    # 20 steps of Adam at 0.01; the sums of two compilers differ by some 1e-7.
    np.testing.assert_allclose(trained[True][0], trained[False][0], rtol=0, atol=2e-5)
    np.testing.assert_allclose(trained[True][1], trained[False][1], rtol=1e-4)


def test_the_step_for_a_gpu_gives_the_same_weights(monkeypatch):
    """Its inner loop has a constant length, and it sums several tensors together."""
    trained, losses = [], []
    for gpu in (False, True):
        monkeypatch.setattr(devices, "is_gpu", lambda device, gpu=gpu: gpu)
        monkeypatch.setattr(devices, "free_memory", lambda device: 2**30)
        monkeypatch.setattr(chunks, "BLOCK", 3)
        vae = model(jit_compile=True, steps_per_execution=7)
        # Executions of 6 = 2 * 3, and rests.
        history = vae.fit(X, batch_size=4, epochs=2, verbose=0).history
        trained.append(weights(vae))
        losses.append([history["loss"], history["kl"]])
    np.testing.assert_array_equal(*trained)
    np.testing.assert_allclose(*losses, rtol=1e-12)  # float64 sums in another order


@pytest.mark.parametrize("jit", [True, False])
def test_a_step_with_nan_is_skipped(jit):
    bad = X.copy()
    bad[16:32] = np.nan  # one of four batches
    vae = model(jit_compile=jit)
    vae.likelihood.check = lambda x, name: None
    before = [v.numpy() for v in (*vae.trainable_variables, *vae.optimizer.variables)]
    with pytest.raises(RuntimeError, match="2 training steps"):
        vae.fit(bad[16:32], batch_size=16, shuffle=False, epochs=2, verbose=0)
    after = [v.numpy() for v in (*vae.trainable_variables, *vae.optimizer.variables)]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    history = vae.fit(bad, batch_size=16, shuffle=False, verbose=0).history
    assert history["skipped_steps"] == [1]
    assert np.isfinite(weights(vae)).all() and np.isfinite(history["elbo"]).all()


@keras.saving.register_keras_serializable("tests")
class WithoutXLA(keras.layers.Layer):
    def call(self, x):
        y = tf.numpy_function(np.tanh, [x], tf.float32)
        return tf.ensure_shape(y, x.shape) + x


def test_a_model_that_xla_cannot_compile_trains_without_xla(monkeypatch):
    monkeypatch.setattr(ResumableModel, "default_jit_compile", lambda self: True)
    vae = model(WithoutXLA())
    with pytest.warns(UserWarning, match="XLA cannot compile this model"):
        vae.fit(X, batch_size=16, epochs=2, verbose=0)
    plain = model(WithoutXLA(), jit_compile=False)
    plain.fit(X, batch_size=16, epochs=2, verbose=0)
    assert vae.step.numpy() == plain.step.numpy() == 8
    np.testing.assert_array_equal(weights(vae), weights(plain))
    assert vae.jit_compile is False  # XLA is not tried again


def test_sampling_and_likelihood_fall_back_to_plain_graphs(monkeypatch):
    monkeypatch.setattr(ResumableModel, "default_jit_compile", lambda self: True)

    def make(**options):
        keras.utils.set_random_seed(3)
        decoder = keras.Sequential([keras.layers.Dense(8), WithoutXLA()])
        return model(decoder=decoder, **options)

    with pytest.warns(UserWarning, match="XLA cannot compile this model"):
        actual = make().log_likelihood(X, 3)
    plain = make(jit_compile=False).log_likelihood(X, 3)
    np.testing.assert_array_equal(actual, plain)
    with pytest.warns(UserWarning, match="XLA cannot compile this model"):
        assert make().sample(3000, seed=1).shape == (3000, 6)


def test_jit_compile_true_raises_the_error_of_xla():
    vae = model(WithoutXLA(), jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError):
        vae.fit(X, batch_size=16, verbose=0)


def test_string_labels_do_not_prevent_xla():
    vae = model(jit_compile=True)
    names = np.array(["a", "b"] * 25)
    vae.optimizer.build(vae.trainable_variables)
    state = [*vae.variables, *vae.optimizer.variables]
    before = [variable.numpy() for variable in state]
    labelled = vae.fit(X, names, batch_size=16, verbose=0).history
    for variable, value in zip(state, before, strict=True):
        variable.assign(value)
    assert labelled == vae.fit(X, batch_size=16, verbose=0).history


@pytest.mark.parametrize(
    "network, xla",
    [
        (lambda: kv.nets.MLP([4]), True),
        (lambda: kv.nets.ConvEncoder([4]), False),
        (lambda: keras.layers.LSTM(4), False),
    ],
)
def test_auto_selects_xla_for_networks_that_it_speeds_up_on_a_cpu(
    xla_by_default, network, xla
):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("has a GPU")
    shape = (6, 5, 1) if isinstance(network(), keras.Sequential) else (6, 5)
    vae = kv.VAE(network(), kv.nets.MLP([4]), kv.distributions.IndependentNormal(shape), 2)
    vae.compile()
    assert xla_by_default(vae) == xla
    assert vae.get_compile_config()["jit_compile"] == "auto"
