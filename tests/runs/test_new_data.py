"""A trained run on new data: read, scaled and named as the run does it."""

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from keras_vae import runs
from keras_vae.runs import build, trained
from keras_vae.runs.data import load_data
from keras_vae.runs.folder import Run
from keras_vae.runs.options import Options
from tests.refusals import assert_fails, assert_refused, assert_succeeds

X = np.random.default_rng(0).normal(size=(40, 3)) * [1, 100, 0.01] + [0, 1000, -3]
NAMES = ["cat", "dog"] * 20


def load_arrays(path):
    """Returns the arrays of an .npz file, which is closed."""
    with np.load(path) as file:
        return dict(file)


def make_run(folder, path, **options):
    """Makes a run with an untrained model: the identities hold for any weights."""
    options = Options(str(path), hidden=[8], latent=2, epochs=1, network="mlp", **options)
    data = load_data(options)
    run = Run(folder, build.resolve(options, data))
    model = build.build_model(run.options, data)
    run.start("", data)
    model.save(run.path("model.keras"))
    return str(folder)


def write_table(path, x=X, names=("a", "b", "c"), **more):
    columns = dict(zip(names, x.T, strict=True)) | more
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path)
    else:
        pa.csv.write_csv(table, path)
    return path


def read_table(path):
    path = pathlib.Path(path)
    parquet = path.suffix == ".parquet"
    return (pa.parquet.read_table if parquet else pa.csv.read_csv)(path).to_pydict()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with runs on a table, labelled rows and images."""
    home = tmp_path_factory.mktemp("new")
    write_table(home / "t.csv")
    write_table(home / "named.csv", kind=NAMES)
    rng = np.random.default_rng(1)
    np.savez(home / "x.npz", x=rng.integers(0, 256, (30, 4, 3)).astype("uint8"))
    np.save(home / "levels.npy", rng.integers(0, 17, (30, 5)))
    for i in range(12):
        folder = home / "images" / NAMES[i]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (4, 3, 3)).astype("uint8")
        Image.fromarray(pixels).save(folder / f"{i:02}é.png")
    make_run(home / "table", home / "t.csv")
    make_run(home / "named", home / "named.csv", label="kind", model="conditional")
    make_run(home / "arrays", home / "x.npz", likelihood="normal")
    make_run(home / "scaled", home / "levels.npy", value_range=[0, 16])
    make_run(home / "pictures", home / "images", likelihood="normal")
    return home


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_latents_of_a_table_are_those_of_its_standardised_rows_in_order(home):
    run = runs.load(home / "table")
    expected = run.model.encode(run.scaler.transform(X))
    encoded = run.encode_file(home / "t.csv", std=True)
    np.testing.assert_array_equal(encoded["row"], np.arange(40))
    np.testing.assert_allclose(encoded["mean"], expected.mean(), atol=1e-6)
    np.testing.assert_allclose(encoded["std"], expected.stddev(), atol=1e-6)


def test_the_kind_of_the_file_does_not_change_the_results(home, work):
    write_table(work / "n.parquet")
    expected = runs.load(home / "table").encode_file(home / "t.csv", std=True)
    for name in ("o.csv", "o.parquet", "o.npz"):
        assert_succeeds(f"encode {home}/table n.parquet --std --out {name}")
    with np.load("o.npz") as arrays:
        assert [*arrays] == ["row", "mean", "std"]
        for key, values in expected.items():
            np.testing.assert_array_equal(arrays[key], values)
    for name in ("o.csv", "o.parquet"):
        table = read_table(name)
        assert [*table] == ["row", "z0", "z1", "z0_std", "z1_std"]
        np.testing.assert_allclose(table["z1"], expected["mean"][:, 1], rtol=1e-6)
        np.testing.assert_allclose(table["z0_std"], expected["std"][:, 0], rtol=1e-6)


def test_batches_do_not_change_the_results(home, monkeypatch):
    run = runs.load(home / "table")
    whole = run.encode_file(home / "t.csv"), run.reconstruct_file(home / "t.csv")
    monkeypatch.setattr(trained, "BATCH_ROWS", 7)
    parts = run.encode_file(home / "t.csv"), run.reconstruct_file(home / "t.csv")
    for a, b in zip(whole, parts, strict=True):
        for key in a:
            np.testing.assert_allclose(a[key], b[key], rtol=1e-5, atol=1e-6)


def test_columns_are_found_by_name(home, work):
    write_table(work / "n.csv", X[:, ::-1], "cba", note=["text"] * 40)
    expected = runs.load(home / "table").encode_file(home / "t.csv")["mean"]
    out = assert_succeeds(f"encode {home}/table n.csv --out o.npz").output
    assert "ignored: note" in out
    np.testing.assert_array_equal(load_arrays("o.npz")["mean"], expected)


def test_missing_columns_are_named_at_once(home, work):
    write_table(work / "n.csv", X[:, :1], "a")
    command = f"encode {home}/table n.csv --out o.csv"
    assert_fails(command, "NEWFILE", "a, b, c", received=("n.csv", "b, c"))
    assert not (work / "o.csv").exists()


def test_one_row_is_enough(home, work):
    write_table(work / "n.csv", X[:1])
    expected = runs.load(home / "table").encode_file(home / "t.csv")["mean"][:1]
    encoded = runs.load(home / "table").encode_file("n.csv")["mean"]
    np.testing.assert_allclose(encoded, expected, atol=1e-6)


def test_scores_are_the_log_likelihood_and_the_terms_of_its_bound(home):
    run = runs.load(home / "table")
    scores = run.score_file(home / "t.csv", num_samples=20)
    x = run.transform(X)
    expected = run.model.log_likelihood(x, 20)
    np.testing.assert_allclose(scores["log_likelihood"], expected, rtol=1e-5)
    np.testing.assert_allclose(
        scores["elbo"], -(scores["reconstruction"] + scores["kl"]), rtol=1e-5
    )
    # The bound over 16 samples of z is below log p(x), but for its Monte Carlo error.
    assert scores["elbo"].mean() < scores["log_likelihood"].mean() + 0.1
    errors = np.sum((run.model.reconstruct(x) - x) ** 2, axis=1)
    np.testing.assert_allclose(scores["reconstruction_error"], errors, rtol=1e-4)


def test_the_least_likely_rows_are_printed(home, work):
    outlier = X.copy()
    outlier[17] += [0, 5000, 0]
    write_table(work / "n.csv", outlier)
    out = assert_succeeds(f"score {home}/table n.csv --num-samples 5 --out o.csv").output
    assert out.split("least likely:")[1].split()[0] == "17"
    assert int(np.argmin(read_table("o.csv")["log_likelihood"])) == 17


def test_reconstructions_of_a_table_have_its_columns_and_units(home):
    run = runs.load(home / "table")
    assert_succeeds(f"reconstruct {home}/table {home}/t.csv --out o.csv")
    table = read_table("o.csv")
    assert [*table] == ["row", "a", "b", "c"] and len(table["a"]) == 40
    expected = run.scaler.inverse(run.model.reconstruct(run.transform(X)))
    np.testing.assert_allclose(table["b"], expected[:, 1], rtol=1e-6)
    originals = run.reconstruct_file(home / "t.csv")["originals"]
    np.testing.assert_allclose(originals, X, rtol=1e-5)


def test_the_runs_own_rows_have_their_row_numbers_in_the_file(home):
    assert_succeeds(f"encode {home}/table --out test.npz")
    assert_succeeds(f"encode {home}/table --part train --out train.npz")
    expected = runs.load(home / "table").encode_file(home / "t.csv")["mean"]
    test, train = load_arrays("test.npz"), load_arrays("train.npz")
    assert len(test["row"]) == 8 and not {*test["row"]} & {*train["row"]}
    for part in (test, train):
        np.testing.assert_allclose(part["mean"], expected[part["row"]], atol=1e-6)


def test_all_rows_of_the_run_are_in_the_order_of_the_file(home, work):
    assert_succeeds(f"encode {home}/table --part all --out all.npz")
    expected = runs.load(home / "table").encode_file(home / "t.csv")
    for key, values in load_arrays("all.npz").items():
        np.testing.assert_allclose(values, expected[key], atol=1e-6)
    images = load_arrays(home / "x.npz")["x"]
    np.savez("n.npz", x_train=images[:20], x_test=images[20:])
    make_run(work / "split", work / "n.npz", likelihood="normal")
    split = runs.load(work / "split")
    rows = split.part(split.run.data(), "all")
    np.testing.assert_array_equal(rows.x[..., 0], images)
    np.testing.assert_array_equal(rows.ids, np.arange(30))


def test_a_data_set_by_name_is_a_new_file(home, work):
    make_run(work / "run", "digits", likelihood="normal")
    rows = runs.load(work / "run").read("digits")
    np.testing.assert_allclose(rows.x[..., 0] * 16, load_digits().images, atol=1e-5)
    np.testing.assert_array_equal(rows.labels, load_digits().target)


def test_incomplete_labels_of_new_rows_are_left_out(home, work):
    make_run(work / "run", home / "named.csv", label="kind")
    write_table(work / "n.csv", kind=["cat", None] * 20)
    encoded = runs.load(work / "run").encode_file("n.csv")
    assert [*encoded] == ["row", "mean"]
    read = runs.load(home / "named").read
    assert_refused(lambda: read("n.csv"), "`file`", "`label`", received="without labels")


def test_fewer_rows_than_asked_are_announced(home):
    out = assert_succeeds(f"reconstruct {home}/table -n 500 --out o.csv").output
    assert "only 8 rows" in out and len(read_table("o.csv")["row"]) == 8


def test_arrays_have_their_own_range(home):
    run = runs.load(home / "arrays")
    images = load_arrays(home / "x.npz")["x"]
    originals = run.reconstruct_file(home / "x.npz")["originals"]
    np.testing.assert_allclose(originals[..., 0], images, atol=1e-3)
    levels = np.load(home / "levels.npy")
    scaled = runs.load(home / "scaled")
    originals = scaled.reconstruct_file(home / "levels.npy")["originals"]
    np.testing.assert_allclose(originals, levels, atol=1e-5)
    for used, x in ((run, images[..., None]), (scaled, levels)):
        unscaled = used.inverse(used.model.as_float(used.transform(x)))
        np.testing.assert_allclose(unscaled, x, atol=1e-3)
        samples, raw = used.sample(5, seed=3)["samples"], used.model.sample(5, seed=3)
        np.testing.assert_allclose(samples, used.inverse(raw), rtol=1e-5, atol=1e-5)


def test_the_dtype_of_new_images_does_not_change_the_latents(home, work):
    run = runs.load(home / "arrays")
    images = load_arrays(home / "x.npz")["x"]
    expected = run.encode_file(home / "x.npz")["mean"]
    for dtype in ("uint8", "float32", "int64"):
        np.save("n.npy", images.astype(dtype))
        np.testing.assert_allclose(run.encode_file("n.npy")["mean"], expected, atol=1e-5)
    # 0 and 1 of 255 are nearly black; read as bool they would be black and white.
    np.save("n.npy", (images > 127).astype("uint8"))
    assert_refused(lambda: run.read("n.npy"), "`file`", "uint8", received="1")


def test_values_in_other_units_are_refused(home, work):
    images = load_arrays(home / "x.npz")["x"] / 255
    np.save("n.npy", images)
    read = runs.load(home / "arrays").read
    assert_refused(lambda: read("n.npy"), "`file`", "0 to 255", received="up to 1")
    np.save("n.npy", images[:, :2])
    shapes = "(2, 3, 1)"
    assert_refused(lambda: read("n.npy"), "`file`", "(4, 3, 1)", received=shapes)


def test_an_archive_with_a_test_split_is_read_in_order(home, work):
    images = load_arrays(home / "x.npz")["x"]
    np.savez("n.npz", x_train=images[:20], x_test=images[20:])
    run = runs.load(home / "arrays")
    expected = run.encode_file(home / "x.npz")
    for key, values in run.encode_file("n.npz").items():
        np.testing.assert_allclose(values, expected[key], atol=1e-6)


def test_images_have_their_names_and_the_channels_of_the_run(home, work):
    run = runs.load(home / "pictures")
    encoded = run.encode_file(home / "images")
    assert encoded["file"].tolist()[:2] == ["cat/00é.png", "cat/02é.png"]
    assert encoded["label"].tolist() == ["cat"] * 6 + ["dog"] * 6
    one = run.encode_file(home / "images" / "dog" / "01é.png")
    assert one["file"].tolist() == ["01é.png"]
    np.testing.assert_allclose(one["mean"], encoded["mean"][6:7], atol=1e-6)
    Image.fromarray(np.full((4, 3), 99, "uint8")).save("grey.png")  # read as RGB
    Image.fromarray(np.full((4, 3, 3), 99, "uint8")).save("colour.png")
    grey, colour = (run.encode_file(f"{name}.png")["mean"] for name in ("grey", "colour"))
    np.testing.assert_array_equal(grey, colour)
    assert_succeeds(f"encode {home}/pictures {home}/images --out o.csv")
    assert read_table("o.csv")["file"][0] == "cat/00é.png"


def test_pictures_show_the_first_rows(home):
    assert_succeeds(f"reconstruct {home}/pictures {home}/images -n 3 --out o.png")
    with Image.open("o.png") as image:
        assert image.width > image.height  # three columns of an original and its mean


def test_the_labels_of_new_rows_are_the_condition(home, work):
    run = runs.load(home / "named")
    assert run.classes == ["cat", "dog"]
    expected = run.model.encode(run.transform(X), condition=np.array([0, 1] * 20))
    encoded = run.encode_file(home / "named.csv")
    assert encoded["kind"].tolist() == NAMES
    np.testing.assert_allclose(encoded["mean"], expected.mean(), atol=1e-6)
    dogs = run.encode_file(home / "t.csv", label="dog")
    expected = run.model.encode(run.transform(X), condition=1).mean()
    np.testing.assert_allclose(dogs["mean"], expected, atol=1e-6)
    assert_refused(lambda: run.read(home / "t.csv"), "`file`", "cat, dog", "`label`")
    write_table(work / "n.csv", kind=["eel", "cat", "ant", "dog"] * 10)
    assert_refused(lambda: run.read("n.csv"), "cat, dog", received="ant, eel")
    plain = runs.load(home / "table")
    assert_refused(
        lambda: plain.read(home / "t.csv", label="cat"), "`label`", received="cat"
    )


def test_samples_of_a_conditional_model_have_their_labels(home):
    assert_succeeds(f"sample {home}/named -n 3 --out o.parquet")
    table = read_table("o.parquet")
    assert [*table] == ["kind", "a", "b", "c"] and table["kind"] == ["cat", "dog", "cat"]
    assert runs.load(home / "named").sample(2, label="dog")["kind"].tolist() == ["dog"] * 2


def test_results_are_not_overwritten_and_are_complete_or_absent(home, work, monkeypatch):
    command = f"encode {home}/table {home}/t.csv --out o.csv"
    (work / "o.csv").write_text("mine")
    assert_fails(command, "--out", "--overwrite", received="o.csv")
    assert_succeeds(f"{command} --overwrite")
    assert read_table("o.csv")["row"][-1] == 39

    def stops(self, rows, std):
        yield {"row": np.arange(2), "mean": np.zeros((2, 2))}
        raise ValueError("Received: a bad row")

    monkeypatch.setattr(trained.TrainedRun, "encode", stops)
    for name in ("p.csv", "p.parquet", "p.npz"):
        assert_fails(f"encode {home}/table {home}/t.csv --out {name}", "a bad row")
    assert [path.name for path in work.iterdir()] == ["o.csv"]


def test_own_rows_and_new_rows_are_not_mixed(home):
    command = f"score {home}/table {home}/t.csv"
    assert_fails(f"{command} --part train", "--part", "NEWFILE", received="train")
    assert_fails(f"encode {home}/table no.csv", "NEWFILE", received="no.csv")
