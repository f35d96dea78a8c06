"""Both random generators: known answers, distribution and independence."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from keras_vae import ciphers, random


def int32(*values):
    return tuple(tf.constant(np.array([v], np.uint32).view(np.int32)) for v in values)


# Random123's known-answer file kat_vectors, lines "threefry2x32 20".
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
@pytest.mark.parametrize("jit", [False, True])
def test_threefry_known_answers(counter, key, words, jit):
    cipher = tf.function(ciphers.threefry_2x32, jit_compile=jit)
    actual = [w.numpy().view(np.uint32)[0] for w in cipher(int32(*key), int32(*counter))]
    assert actual == list(words)


def reference(seed, n, stream, kind):
    """Computes the noise of the file format with Python integers and float64."""
    mask = 0xFFFFFFFF
    key = [seed & mask, (seed >> 32) & mask]
    key.append(key[0] ^ key[1] ^ 0x1BD11BDA)
    words = []
    for block in range((n + 1) // 2):
        a, b = (block + key[0]) & mask, (stream + key[1]) & mask
        for r in range(20):
            turn = [[13, 15, 26, 6], [17, 29, 16, 24]][(r // 4) % 2][r % 4]
            a = (a + b) & mask
            b = ((b << turn | b >> (32 - turn)) & mask) ^ a
            if r % 4 == 3:
                s = r // 4 + 1
                a = (a + key[s % 3]) & mask
                b = (b + key[(s + 1) % 3] + s) & mask
        words.append((a, b))
    a, b = ((2 * (np.array(w) >> 9) + 1) * 2.0**-24 for w in zip(*words, strict=True))
    if kind == "uniform":
        return np.concatenate([a, b])[:n]
    radius, angle = np.sqrt(-2 * np.log(a)), 2 * np.pi * b
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]


@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("xla", [False, True])
def test_the_noise_of_a_row_follows_the_file_format(kind, n, xla):
    seeds = [0, 1, -1, 2**31 - 1, -(2**31), 2**31, 2**40 + 3, -(2**40), 2**63 - 1, -(2**63)]

    @tf.function(jit_compile=xla)
    def noise(seeds):
        draw = random.row_noise(*random.seed_words(seeds), xla)
        return draw(kind, (n,), random.OBSERVATION)[0]

    actual = noise(tf.constant(seeds, tf.int64))
    expected = [reference(seed, n, random.OBSERVATION, kind) for seed in seeds]
    # float32 logarithm, root and cosine; uniforms are exact.
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=0 if kind == "uniform" else 2e-6
    )


def test_int32_and_int64_seeds_are_the_same():
    seeds = np.array([0, 5, -5, 2**31 - 1, -(2**31)])
    for a, b in zip(
        random.seed_words(tf.constant(seeds, tf.int32)),
        random.seed_words(tf.constant(seeds, tf.int64)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_sample_seeds_wrap_around():
    assert random.sample_seeds(3, 0).tolist() == [0, 1, 2]
    assert random.sample_seeds(2, 1).tolist() == [1000003, 1000004]
    expected = [(5000 * 1000003 + i + 2**31) % 2**32 - 2**31 for i in range(3)]
    assert random.sample_seeds(3, 5000).tolist() == expected
    assert random.sample_seeds(2, -1).tolist() == [-1000003, -1000002]


def test_philox_known_answers():
    # kat_vectors of Random123: philox 4x32, 10 rounds, key and counter 0.
    expected = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    words = ciphers.philox_4x32(0, 0, 0, 4).numpy()
    assert words.view(np.uint32).tolist() == expected
    # A block is one count of the low counter, and -1 is the seed without its sign.
    many = ciphers.philox_4x32(-1, 5, 7, 12)
    np.testing.assert_array_equal(ciphers.philox_4x32(2**32 - 1, 7, 7, 4), many[8:])


def row_draw():
    rows = tf.range(4000)
    return random.row_noise(rows, tf.zeros_like(rows))


def step_draw():
    return random.step_noise(3, tf.constant(7, tf.int64), tf.constant(4000))


@pytest.mark.parametrize("make", [row_draw, step_draw])
def test_noise_has_its_distribution(make):
    draw = make()
    # The seeds are fixed: this either always passes or always fails.
    for kind, cdf in (("normal", "norm"), ("uniform", "uniform")):
        noise = draw(kind, (5,), random.POSTERIOR, 3).numpy()
        assert noise.shape == (3, 4000, 5)
        assert stats.kstest(noise.ravel(), cdf).pvalue > 1e-3
        flat = noise.transpose(1, 0, 2).reshape(4000, 15)
        # 105 correlations of 4000 rows: none beyond 4.5 standard errors.
        correlation = np.corrcoef(flat.T) - np.eye(15)
        assert np.abs(correlation).max() < 4.5 / np.sqrt(4000)


@pytest.mark.parametrize("kind", ["normal", "uniform", "seed"])
def test_noise_of_different_keys_does_not_repeat(kind):
    values = set()
    for seed in (0, 1, -1):
        for step in (0, 1, 2):
            draw = random.step_noise(seed, tf.constant(step, tf.int64), tf.constant(2))
            for stream in range(4):
                values |= set(draw(kind, (2,), stream, 2).numpy().ravel().tolist())
    draw = random.row_noise(tf.range(3), tf.ones(3, tf.int32))
    for stream in range(4):
        values |= set(draw(kind, (2,), stream, 2).numpy().ravel().tolist())
    assert len(values) == 3 * 3 * 4 * 8 + 4 * 12


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_a_replica_draws_its_rows_of_the_global_noise(kind):
    step = tf.constant(11, tf.int64)
    full = random.step_noise(5, step, tf.constant(7))(kind, (3,), 1, 2)
    part = random.step_noise(5, step, tf.constant(3), tf.constant(2))
    # The same words; a vectorised cosine treats the ends of an array differently.
    atol = 2e-7 if kind == "normal" else 0
    part = part(kind, (3,), 1, 2)
    np.testing.assert_allclose(part, full[:, 2:5], rtol=0, atol=atol)


def test_noise_does_not_depend_on_the_other_rows_and_samples():
    rows = tf.range(6)
    high = tf.fill([6], 9)
    full = random.row_noise(rows, high)("normal", (4,), 1, 5)
    part = random.row_noise(rows[2:4], high[2:4])("normal", (4,), 1, 2, first=3)
    np.testing.assert_array_equal(part, full[3:5, 2:4])


def test_seeds_are_the_same_with_xla():
    rows = tf.range(-3, 3)
    plain, xla = (
        random.row_noise(rows, rows, xla)("seed", (), 1, 2, first=1) for xla in (0, 1)
    )
    np.testing.assert_array_equal(plain, xla)


@pytest.mark.parametrize("seed", [0, 3, -3, 2**31 - 1, -(2**31)])
def test_the_noise_of_a_step_is_the_same_with_xla(seed):
    def noise(step):
        draw = random.step_noise(seed, step, tf.constant(4))
        return draw("uniform", (3,), 1), draw("normal", (3,), 1)

    plain, with_xla = tf.function(noise), tf.function(noise, jit_compile=True)
    for step in (0, 5, 2**40):
        step = tf.constant(step, tf.int64)
        (uniform, normal), (xla_uniform, xla_normal) = plain(step), with_xla(step)
        np.testing.assert_array_equal(uniform, xla_uniform)
        # The same words; compilers round float32 logarithm, root and cosine differently.
        np.testing.assert_allclose(normal, xla_normal, rtol=0, atol=2e-6)


def test_shuffled_orders_are_permutations_that_do_not_repeat():
    def order(seed, epoch):
        return tuple(random.order(seed, epoch, 50).tolist())

    orders = [order(seed, epoch) for seed in (0, 1, -1) for epoch in range(400)]
    assert all(sorted(o) == list(range(50)) for o in orders[:5])
    assert len(set(orders)) == len(orders)
    assert order(0, 7) == orders[7]
    # Each row is at each position equally often: 1200 orders of 50, none beyond 5 errors.
    counts = np.array([np.bincount(rows, minlength=50) for rows in np.array(orders).T])
    assert np.abs(counts - 24).max() < 5 * np.sqrt(24)


def test_a_shuffled_order_is_the_stable_argsort_of_its_random_words():
    rows, epoch = 300_000, tf.constant(2, tf.int64)
    words = ciphers.philox_4x32(-3, 0, epoch * random.STREAMS + random.ORDER, rows)
    assert len(np.unique(words)) < rows  # some are equal
    order = random.order(-3, epoch, rows)
    np.testing.assert_array_equal(order, np.argsort(words.numpy(), kind="stable"))


def test_evaluation_shares_no_noise_with_sampling():
    import keras

    import keras_vae as kv

    vae = kv.VAE(
        keras.layers.Identity(),
        keras.layers.Identity(),
        kv.distributions.IndependentBernoulli((4,)),
        latent_dim=2,
        seed=0,
    )
    rows = tf.range(5)
    sampling = random.row_noise(*random.seed_words(rows))
    for stream in range(4):
        a = vae.row_noise(rows)("uniform", (3,), stream)
        assert not np.isin(a, sampling("uniform", (3,), stream)).any()
