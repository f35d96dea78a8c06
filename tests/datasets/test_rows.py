"""Rows on the disk: the same fit as with an array, bit for bit, and bounded memory."""

import functools
import gzip
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_vae as kv
from keras_vae import datasets
from keras_vae.datasets import array_files, image_folders
from keras_vae.datasets.rows import RowsOnDisk
from keras_vae.training import arrays, batches

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(131, 6)).astype(np.float32)
PIXELS = RNG.integers(0, 256, (30, 8, 8, 3)).astype(np.uint8)


def memory_map(folder, x=X, rows=slice(None)):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")[rows]


def shards(folder):
    for i, part in enumerate(np.split(X, [50, 51])):
        np.save(folder / f"{i}.npy", part)
    return kv.Shards(sorted(folder.glob("[0-9].npy")))


def write_records(path, rows):
    kinds = {
        "bytes": lambda row: {"bytes_list": {"value": [row.tobytes()]}},
        "floats": lambda row: {"float_list": {"value": row}},
        "ints": lambda row: {"int64_list": {"value": (300 * row).astype(int)}},
    }
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            features = {k: tf.train.Feature(**make(row)) for k, make in kinds.items()}
            example = tf.train.Example(features={"feature": features})
            writer.write(example.SerializeToString())


def records(folder, feature="bytes", shape=(6,), dtype="float32"):
    for i, part in enumerate(np.split(X, [50, 51])):
        write_records(folder / f"{i}.tfrecord", part)
    return kv.TFRecords(sorted(folder.glob("*.tfrecord")), feature, shape, dtype)


def images(folder):
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return kv.ImageFiles(folder, (8, 8, 3))


KINDS = {
    "mapped": (memory_map, X),
    "float64": (lambda folder: memory_map(folder, X.astype(np.float64)), X),
    "big-endian": (lambda folder: memory_map(folder, X.astype(">f4")), X),
    "every third": (lambda folder: memory_map(folder, X, slice(100, 10, -3)), X[100:10:-3]),
    "shards": (shards, X),
    "records": (records, X),
    "records of lists": (lambda folder: records(folder, "floats"), X),
    "a part": (lambda folder: shards(folder).part(slice(20, None, 2)), X[20::2]),
    "images": (images, PIXELS),
}


@pytest.fixture(params=KINDS)
def pair(request, tmp_path):
    """(rows on the disk, the same rows as an array)."""
    make, x = KINDS[request.param]
    return make(tmp_path), x


@functools.cache
def compiled_model(shape):
    """Returns a model, compiled once for each shape, and pairs (variable, start value)."""
    keras.utils.set_random_seed(2)
    vae = kv.VAE(
        kv.nets.MLP([8]),
        kv.nets.MLP([8]),
        kv.distributions.IndependentBernoulli(shape, grey="binarize"),
        latent_dim=2,
        seed=5,
    )
    vae.compile("adam")
    vae.optimizer.build(vae.trainable_variables)
    variables = (*vae.variables, *vae.optimizer.variables)
    return vae, [(variable, variable.numpy()) for variable in variables]


def model_at_start(shape):
    """Returns the model of this shape with its start values."""
    vae, start = compiled_model(shape)
    for variable, value in start:
        variable.assign(value)
    return vae


def train(x, epochs=(3,), **options):
    """Returns the weights after a fit for each number of epochs, from the start values."""
    vae = model_at_start(np.shape(x)[1:])
    for count in epochs:
        vae.fit(x, epochs=count, batch_size=16, verbose=0, **options)
    return vae.get_weights()


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


# The other kinds differ only in how they are read, which faster tests below check.
FAST_KINDS = {"mapped", "shards", "records", "a part", "images"}


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(kind, marks=[] if kind in FAST_KINDS else pytest.mark.slow)
        for kind in KINDS
    ],
    indirect=True,
)
def test_a_fit_equals_that_of_the_array(pair):
    source, x = pair
    options = {"steps_per_epoch": 3, "sample_weight": RNG.uniform(size=len(x))}
    array = train(x, **options)
    assert_same(train(source, **options), array)
    assert_same(train(source, epochs=(1, 2), **options), array)  # resumes
    split = {"validation_split": 0.2}
    assert_same(train(source, **split), train(x, **split))


def test_evaluation_and_prediction_equal_those_of_the_array(pair):
    source, x = pair
    vae = model_at_start(x.shape[1:])
    assert vae.evaluate(source, verbose=0) == vae.evaluate(x, verbose=0)
    for call in (
        lambda x: vae.predict(x, batch_size=20, verbose=0),
        lambda x: vae.log_likelihood(x, 5),
        lambda x: vae.encode(x).mean(),
        lambda x: vae.encode(x, batch_size=7).mean(),
        vae.reconstruct,
        lambda x: kv.evaluation.PCA(2).fit(x).pca.components_,
    ):
        np.testing.assert_array_equal(call(source), call(x))


def test_rows_are_read_by_index_and_split_between_replicas(pair):
    source, x = pair
    if isinstance(source, np.memmap):
        source = arrays.as_array(source, "x")
    assert len(source) == len(x) and source.ndim == x.ndim and source.dtype == x.dtype
    for rows in (slice(3, 9), slice(None, None, -2), [5, 5, -1, 0], np.zeros(0, int)):
        np.testing.assert_array_equal(source[rows], x[rows])
    np.testing.assert_array_equal(np.asarray(source), x)
    source[:2][:] = 0  # a copy
    for index in ([len(x)], 0, ["a"]):
        with pytest.raises(ValueError, match="`rows` must be a slice or an int array"):
            source[index]
    options = {"batch_size": 16, "seed": 1, "shuffle": True}
    full = np.concatenate([*batches.batches(x, **options).as_numpy_iterator()])
    shares = [
        batches.batches(source, replicas=(r, r + 1, 3), **options).as_numpy_iterator()
        for r in range(3)
    ]
    count = -(-len(x) // 16)
    rows = [next(share) for _ in range(count) for share in shares]
    np.testing.assert_array_equal(np.concatenate(rows), full)


def test_augmented_rows_equal_those_of_the_array(tmp_path):
    def fit(x):
        layer = keras.layers.RandomTranslation(0.2, 0.2)
        return train(x, augmentation=[layer])

    assert_same(fit(images(tmp_path)), fit(PIXELS))


def test_a_backup_compares_some_rows_of_the_data(tmp_path):
    def fit(x):
        train(x, callbacks=[kv.callbacks.Backup(tmp_path / "backup")])

    fit(memory_map(tmp_path))
    fit(shards(tmp_path))  # the same rows
    with pytest.raises(ValueError, match="backups of the same training"):
        fit(memory_map(tmp_path, 1 - X))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda f: kv.Shards([]), "`paths` must be one .npy file or more"),
        (lambda f: kv.Shards(f / "a.npy"), "`paths` must be a list of .npy files"),
        (lambda f: kv.Shards([f / "none.npy"]), "`paths` must be .npy files.*none.npy"),
        (lambda f: kv.Shards([f / "fortran.npy"]), "C order.*fortran.npy"),
        (lambda f: kv.Shards([f / "text.npy"]), "`paths` must hold numbers.*<U1"),
        (lambda f: kv.Shards([f / "cut.npy"]), "`paths` must be .npy files.*cut.npy"),
        (lambda f: kv.Shards([f / "x.npy", f / "less.npy"]), "of one dtype and shape"),
        (lambda f: kv.TFRecords([], "bytes", (6,), "float32"), "one TFRecord file or more"),
        (lambda f: records(f, "x"), "one of the features bytes, floats, ints. Received"),
        (lambda f: records(f, shape=(7,)), "28 bytes of `bytes`.*Received: 24 bytes"),
        (lambda f: records(f, "floats", (7,)), "`floats` of shape.*Values size: 6"),
        (lambda f: records(f, "ints", dtype="uint8"), "`dtype` must be .* exactly"),
        (lambda f: records(f, dtype="U1"), "`dtype` must hold numbers"),
        (lambda f: records(f, dtype="nothing"), "`dtype` must hold numbers"),
        (lambda f: records(f, shape=()), "`shape` must be a tuple of positive ints"),
        (lambda f: bad_records(f, "none"), "`paths` must be TFRecord files.*none"),
        (lambda f: bad_records(f, "empty"), "complete, uncompressed.*of 0 bytes"),
        (lambda f: bad_records(f, "cut"), "complete, uncompressed.*record 2 is"),
        (lambda f: bad_records(f, "gz"), "complete, uncompressed.*record 0 is"),
        (lambda f: bad_records(f, "text"), "TFRecord files of tf.train.Example"),
        (lambda f: kv.ImageFiles(f, (8, 8, 3)), "`paths` must be one image file or more"),
        (lambda f: kv.ImageFiles([f], (8, 8)), "`shape` must be .height, width, 1 or 3"),
        (
            lambda f: kv.ImageFiles([f / "x.npy"], (8, 8, 3))[:],
            "`paths` must have readable images",
        ),
    ],
)
def test_bad_files_and_arguments_are_refused(make, message, tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "less.npy", X[:, 1:])
    np.save(tmp_path / "fortran.npy", np.asfortranarray(X))
    np.save(tmp_path / "text.npy", np.array(["a"]))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-4])
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        make(tmp_path)


def bad_records(folder, name):
    path = folder / name
    write_records(folder / "x", X[:3])
    content = (folder / "x").read_bytes()
    if name == "text":
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(b"no example")
    elif name != "none":
        path.write_bytes(
            {"empty": b"", "cut": content[:-9], "gz": gzip.compress(content)}[name]
        )
    return kv.TFRecords([path], "bytes", (6,), "float32")


def test_a_memory_map_that_differs_from_its_file_is_refused(tmp_path):
    vae = model_at_start((6,))
    x = memory_map(tmp_path, np.asfortranarray(X))
    with pytest.raises(ValueError, match="`x` must have contiguous rows"):
        vae.fit(x)
    memory_map(tmp_path)
    x = np.load(tmp_path / "x.npy", mmap_mode="c")
    with pytest.raises(ValueError, match="`validation_data: x` must be mapped .* mode 'r'"):
        vae.fit(X, validation_data=x)
    x = arrays.as_array(memory_map(tmp_path), "x")
    with open(tmp_path / "x.npy", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match="x.npy.*shorter"):
        x[:]


def test_streamed_images_equal_loaded_images(tmp_path, monkeypatch):
    for i in range(9):
        size, mode = (6 + i % 2, 9), "L" if i % 3 else "RGB"
        shape = size if mode == "L" else (*size, 3)
        pixels = RNG.integers(0, 256, shape).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    loaded = datasets.load(tmp_path, resize=(5, 4))
    monkeypatch.setattr(image_folders, "too_large", lambda size: True)
    streamed = datasets.load(tmp_path, resize=(5, 4))
    assert streamed.streamed and not loaded.streamed
    np.testing.assert_array_equal(streamed.x_train, loaded.x_train)
    np.testing.assert_array_equal(streamed.x_test, loaded.x_test)
    with pytest.raises(ValueError, match="images of one size, or give `resize`"):
        datasets.load(tmp_path)


def test_streamed_rows_are_held_out_as_loaded_rows(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", PIXELS[..., 0])
    loaded = datasets.load(tmp_path / "x.npy").hold_out(0.25)
    monkeypatch.setattr(array_files, "too_large", lambda size: True)
    streamed = datasets.load(tmp_path / "x.npy").hold_out(0.25)
    for part in ("x_train", "x_val", "x_test", "x_fit"):
        np.testing.assert_array_equal(getattr(streamed, part), getattr(loaded, part))
    assert isinstance(streamed.x_train, RowsOnDisk)
    assert isinstance(streamed.x_val, np.ndarray)


MEMORY_SCRIPT = """
import re, numpy as np, keras_vae as kv
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
x = np.lib.format.open_memmap("x.npy", "w+", np.uint8, (100_000, 128, 128, 1))  # sparse
x = np.load("x.npy", mmap_mode="r")
vae = kv.VAE(
    kv.nets.MLP([4]), kv.nets.MLP([4]),
    kv.distributions.IndependentNormal((128, 128, 1)), latent_dim=2, seed=0,
)
vae.compile("adam", jit_compile=False)
before = peak()
backup = kv.callbacks.Backup("backup")
options = {"validation_split": 0.5, "validation_steps": 9, "callbacks": [backup]}
vae.fit(x, epochs=2, batch_size=128, steps_per_epoch=50, verbose=0, **options)
vae.evaluate(x[:50_000], batch_size=500, verbose=0)
print(peak() - before)
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="no /proc")
def test_memory_is_bounded(tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT], cwd=tmp_path, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    # In MB, for some read rows, orders, batches and code. Half of the 1,638 MB are read.
    assert float(process.stdout) < 700
