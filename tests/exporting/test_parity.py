"""Every exported form gives what the model gives: one process per runtime, all models."""

import json
import pathlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from keras_vae.exporting import signatures, verify
from tests.zoo import ZOO

# The objective is no part of what is exported: rows that only differ in it are one model.
MODELS = [row for row in ZOO if row.objective is None or row.name == "structured"]
IN_FULL = ("bernoulli", "per_element_scale", "autoencoder")  # all signatures in ONNX
# In ONNX, where each signature takes three seconds: of the operators of other rows.
LIKE_OTHERS = (
    "shared_scale", "fixed_scale", "shared_posterior", "dropout", "label", "structured",
    "semi_supervised",
)  # fmt: skip
SOME = ("conv", "learned_prior", *IN_FULL)  # for further ways to run a SavedModel
SEEDS = 200  # two calls of each signature
pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
HERE = pathlib.Path(__file__).parent

models = pytest.mark.parametrize("name", [row.name for row in MODELS])
some = pytest.mark.parametrize("name", SOME)


class Exports:
    """The models and their artefacts, each exported when first asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.models = {row.name: row.make() for row in MODELS}
        self.x = {row.name: row.x for row in MODELS}
        rng = np.random.default_rng(0)
        for model in self.models.values():  # away from the start, which is special
            for weight in model.trainable_variables:
                weight.assign_add(0.1 * rng.normal(size=weight.shape).astype(np.float32))
        self.done, self.wanted = {}, {}

    def names(self, name):
        """The signatures that can be exported."""
        model = self.models[name]
        return [n for n in signatures.build_signatures(model)
                if not signatures.parts_without_formula(model, n)]  # fmt: skip

    def path(self, name, format, **options):
        suffix = ".tflite" if format == "litert" else ""
        path = self.folder / f"{name}-{format}{suffix}"
        if not path.exists():
            names = self.names(name)
            if format == "onnx" and name not in IN_FULL:  # three seconds a file
                names = [n for n in names if n in ("encode", "decode", "sample")]
            kwargs = {"names": names, "num_samples": 3, **options}
            self.models[name].export(path, format, **kwargs)
        return path

    def expected(self, name, path):
        """(feeds, outputs) of the model, the same for all formats but the seeds' bits."""
        card = verify.read_card(path)
        key = name, card["format"] == "tf_saved_model"  # whose seeds have 64 bits
        if key not in self.wanted:
            model, x = self.models[name], self.x[name]
            self.wanted[key] = verify.expected(model, card, x, SEEDS)
        feeds, outputs = self.wanted[key]
        dtypes = {
            f"{signature}/{key}": tensor["dtype"]
            for signature, fields in card["signatures"].items()
            for key, tensor in fields["inputs"].items()
        }
        feeds = {k: v.astype(dtypes[k]) for k, v in feeds.items() if k in dtypes}
        listed = card["signatures"]
        return feeds, {k: v for k, v in outputs.items() if k.split("/")[0] in listed}

    def results(self, format, script=verify.SCRIPT, more=None, only=None, names=None):
        """{name: (wanted, got)} of the models in one runtime."""
        names = tuple(self.models) if names is None else names
        key = (format, script, names)
        if key not in self.done:
            jobs, wanted = [], []
            for name in names:
                path = self.path(name, format)
                feeds, outputs = self.expected(name, path)
                if only:
                    feeds = {k: v for k, v in feeds.items() if k.split("/")[0] in only}
                    outputs = {k: v for k, v in outputs.items() if k.split("/")[0] in only}
                jobs.append({"runtime": format, "artefact": path, "feeds": feeds})
                if more:
                    jobs[-1] |= more(path, feeds)
                wanted.append(outputs)
            got = [results for results, _ in verify.run(jobs, script=script)]
            self.done[key] = dict(zip(names, zip(wanted, got, strict=True), strict=True))
        return self.done[key]


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    return Exports(tmp_path_factory.mktemp("exports"))


def assert_same(wanted, got):
    """Not by `verify.compare`: parameters, z and nats within 1e-5, pixels alike."""
    assert wanted.keys() == got.keys()
    for key, one in wanted.items():
        other = got[key]
        assert (other.shape, other.dtype) == (one.shape, one.dtype), key
        assert np.isfinite(one).all() and np.isfinite(other).all(), key
        if key == "sample/x" and set(np.unique(one)) <= {0.0, 1.0}:
            assert np.mean(one != other) <= 1e-5, key
        else:
            # Nats are sums of many terms, and round with their size.
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5, err_msg=key)


@models
def test_saved_model(exports, name):
    assert_same(*exports.results("tf_saved_model")[name])


@models
def test_litert(exports, name):
    assert_same(*exports.results("litert")[name])


IN_ONNX = tuple(row.name for row in MODELS if row.name not in LIKE_OTHERS)


@pytest.mark.parametrize(
    ("name", "names"),
    [pytest.param(n, IN_ONNX, id=n) for n in IN_ONNX]
    + [pytest.param(n, LIKE_OTHERS, id=n, marks=pytest.mark.slow) for n in LIKE_OTHERS],
)
def test_onnx(exports, name, names):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    assert_same(*exports.results("onnx", names=names)[name])


def graph_names(path, feeds):
    """The names of tensors in the graph, by "signature/tensor"."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    names = {}
    for signature, definition in saved.meta_graphs[0].signature_def.items():
        if any(key.startswith(f"{signature}/") for key in feeds):
            for tensors in (definition.inputs, definition.outputs):
                names |= {f"{signature}/{key}": t.name for key, t in tensors.items()}
    return {"names": names}


@some
def test_the_c_api(exports, name):
    script = HERE / "c_api.py"
    assert_same(*exports.results("tf_saved_model", script, graph_names, names=SOME)[name])


@some
def test_saved_model_cli(exports, name):
    script = HERE / "saved_model_cli.py"
    only = ("sample", "decode")  # a session each: half a second
    results = exports.results("tf_saved_model", script, only=only, names=SOME)
    assert_same(*results[name])


def test_the_same_seed_is_the_same_sample_for_users(exports):
    model = exports.models["conv"]
    _, got = exports.results("litert")["conv"]
    seeds = np.arange(SEEDS) - SEEDS // 2  # as `expected` takes them
    np.testing.assert_array_equal(got["sample/x"], model.sample(seeds=seeds))
    np.testing.assert_allclose(
        got["reconstruct/mean"][:24], model.predict(exports.x["conv"], verbose=0), atol=1e-5
    )
    np.testing.assert_allclose(
        got["encode/mean"][:24], model.encode(exports.x["conv"]).mean(), atol=1e-5
    )


def test_a_verdict_can_be_bad(exports, tmp_path):
    model, x = exports.models["shared_scale"], exports.x["shared_scale"]
    path = exports.path("shared_scale", "litert")
    assert all(one.agrees for one in verify.verify(model, path, x, rows=50))
    kernel = model.decoder.weights[0]
    before = kernel.numpy()
    kernel.assign(before * 1.001)
    wrong = {d.signature for d in verify.verify(model, path, x, rows=50) if not d.agrees}
    kernel.assign(before)
    assert wrong == {"decode", "sample", "reconstruct", "score"}


def test_no_weight_is_stored_twice(exports):
    for name, model in exports.models.items():
        path = exports.path(name, "tf_saved_model") / "variables"
        size = sum(p.stat().st_size for p in path.glob("*.data-*"))
        weights = sum(w.numpy().nbytes for w in model.weights)
        # The weights that no signature reads, such as counters, are not there; the names
        # of the others are.
        assert size < weights + 4000, name


def test_litert_has_builtin_operators_only(exports):
    from tensorflow.lite.python import schema_py_generated as schema

    for name in exports.models:
        content = exports.path(name, "litert").read_bytes()
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
        assert not any(code.customCode for code in model.operatorCodes), name
        custom = schema.BuiltinOperator.CUSTOM
        assert all(code.builtinCode != custom for code in model.operatorCodes), name


def test_a_part_without_a_formula_is_named(exports, tmp_path):
    model = exports.models["learned_prior"]
    with pytest.raises(ValueError, match="'sample' cannot.*LearnedNormal.*names="):
        model.export(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_an_autoencoder_has_nothing_to_sample(exports):
    card = verify.read_card(exports.path("autoencoder", "tf_saved_model"))
    assert list(card["signatures"]) == ["encode_mean", "decode", "reconstruct", "score"]
    assert list(card["signatures"]["score"]["outputs"]) == ["log_likelihood"]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_half_precision_is_exported_in_float32(tmp_path, policy):
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(50, 6)).astype(np.float32)

    def build():
        normalization = keras.layers.Normalization()  # derives state from its weights
        normalization.adapt(x)
        encoder = keras.Sequential([normalization, kv.nets.MLP([8], "tanh")])
        decoder = keras.Sequential([kv.nets.MLP([8]), keras.layers.BatchNormalization()])
        likelihood = kv.distributions.IndependentNormal((6,))
        return kv.VAE(encoder, decoder, likelihood, latent_dim=2, seed=0)

    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(policy)
        half = build()
    finally:
        keras.config.set_dtype_policy(before)
    whole = build()
    for one, other in zip(whole.weights, half.weights, strict=True):
        one.assign(keras.ops.cast(other, one.dtype))
    whole.encoder.layers[0].finalize_state()
    path = half.export(tmp_path / "m.tflite", format="litert", names=["encode", "sample"])
    # The artefact is the model's twin that has always been in float32.
    feeds, wanted = verify.expected(whole, verify.read_card(path), x, rows=50)
    ((got, _),) = verify.run([{"runtime": "litert", "artefact": path, "feeds": feeds}])
    assert_same(wanted, got)
    # What `verify` compares with is that twin, too.
    _, of_half = verify.expected(half, verify.read_card(path), x, rows=50)
    assert_same(wanted, of_half)


def test_half_precision_that_cannot_be_built_anew(tmp_path):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = kv.VAE(
            keras.Sequential([keras.layers.Lambda(lambda x: 2 * x), kv.nets.MLP([4])]),
            kv.nets.MLP([4]),
            kv.distributions.IndependentNormal((6,)),
            latent_dim=2,
        )
    finally:
        keras.config.set_dtype_policy(before)
    with pytest.raises(ValueError, match="half precision is exported in float32"):
        model.export(tmp_path / "1")
    assert not list(tmp_path.iterdir())


QUANTIZED = {"float16": 0.02, "dynamic": 0.1, "int8": 0.3}


@pytest.mark.parametrize("quantize", QUANTIZED)
def test_quantisation_leaves_the_noise_exact(tmp_path, quantize):
    # Of a size that is worth it: the converter leaves weights of under 1024 elements.
    x = np.random.default_rng(0).uniform(size=(40, 8, 8, 1)).astype(np.float32)
    model = kv.VAE(
        kv.nets.MLP([64]),
        kv.nets.MLP([64]),
        kv.distributions.IndependentBernoulli((8, 8, 1)),
        latent_dim=16,
        seed=0,
    )
    more = {"representative_data": x} if quantize == "int8" else {}
    names = ["encode", "decode", "sample"]
    options = {"names": names, "quantize": quantize, "batch_size": 1, **more}
    path = model.export(tmp_path / "q.tflite", format="litert", **options)
    differences = verify.verify(model, path, x, rows=200)
    by_output = {(d.signature, d.output): d for d in differences}
    assert by_output["sample", "z"].agrees and by_output["sample", "z"].largest < 1e-5
    # The rest is near, and not the same: it is quantised.
    mean = by_output["decode", "mean"]
    assert mean.agrees is None and 1e-6 < mean.largest < QUANTIZED[quantize]
    assert by_output["sample", "x"].differ < 0.02
    model.decoder.weights[0].assign_add(model.decoder.weights[0])
    with pytest.raises(ValueError, match="exported from other weights"):
        verify.verify(model, path, x)
    z = np.zeros((3, 16), np.float32)
    z[1, 5] = np.nan  # stays NaN, and no number is made of it
    feeds = {"decode/z": z}
    ((got, _),) = verify.run([{"runtime": "litert", "artefact": path, "feeds": feeds}])
    for value in got.values():
        bad = np.isnan(value.reshape(3, -1))
        assert bad[1].all() and not bad[[0, 2]].any()


def test_a_fixed_batch_is_what_it_says(exports, tmp_path):
    model, x = exports.models["conv"], exports.x["conv"]
    options = {"batch_size": 7, "names": ["encode", "sample", "score"], "num_samples": 3}
    path = model.export(tmp_path / "b.tflite", format="litert", **options)
    card = json.loads((tmp_path / "b.card.json").read_text())
    assert card["signatures"]["sample"]["inputs"]["seed"]["shape"] == [7]
    assert all(one.agrees for one in verify.verify(model, path, x, rows=30))


def test_the_functions_do_not_mix_rows(exports):
    for name, model in exports.models.items():
        every = signatures.build_signatures(model, 3)
        x = model.as_float(exports.x[name][:6]).numpy()
        condition = model.example_condition(6)
        values = {
            "x": x,
            "seed": np.arange(6, dtype=np.int64) * 977,
            "z": signatures.encode_mean(model, x, condition)["mean"].numpy(),
            **signatures.by_name(condition),
        }
        for signature in exports.names(name):
            function = every[signature].function
            inputs = [values[key] for key in every[signature].inputs]
            together = function(*inputs)
            alone = function(*[value[4:5] for value in inputs])
            for key, value in together.items():
                # float32: matrix products of other shapes round differently.
                np.testing.assert_allclose(
                    value[4:5], alone[key], 1e-5, 1e-5, err_msg=f"{name} {signature} {key}"
                )


def test_rows_without_a_density_are_nan_alone(exports):
    model = exports.models["bernoulli"]
    x = np.array(exports.x["bernoulli"][:4])
    x[1, 2], x[2, 0] = np.nan, 0.5  # grey="error": 0.5 has no probability
    seeds = np.arange(4)
    for outputs in (
        signatures.encode(model, x, seeds),
        signatures.encode_mean(model, x),
        signatures.reconstruct(model, x),
        signatures.score(model, x, seeds),
    ):
        for value in outputs.values():
            bad = np.isnan(value.numpy().reshape(4, -1))
            assert bad[1:3].all() and not bad[[0, 3]].any()
    z = np.zeros((3, 2), np.float32)
    z[1, 0] = np.inf
    for value in signatures.decode(model, z).values():
        bad = np.isnan(value.numpy().reshape(3, -1))
        assert bad[1].all() and not bad[[0, 2]].any()


def test_one_seed_for_many_rows_is_refused(exports):
    model, x = exports.models["bernoulli"], exports.x["bernoulli"][:4]
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        signatures.encode(model, x, np.array([7]))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        signatures.sample(model, np.array(7))


def test_score_is_the_terms_of_the_bound(exports):
    model, x = exports.models["per_element_scale"], exports.x["per_element_scale"]
    one = signatures.score(model, x, np.arange(len(x)), num_samples=1)
    np.testing.assert_allclose(
        one["elbo"], one["log_likelihood"] - one["kl"], rtol=1e-6, atol=1e-6
    )
    # With many draws: the bound of `evaluate`, and the estimate of `log_likelihood`.
    many = signatures.score(model, x, np.arange(len(x)), num_samples=2000)
    evaluated = model.evaluate(np.repeat(x, 50, axis=0), verbose=0, return_dict=True)
    error = np.std(one["elbo"]) / np.sqrt(50 * len(x))  # of the fewer draws
    assert abs(np.mean(many["elbo"]) - evaluated["elbo"]) < 5 * error
    exact = kv.evaluation.importance_weighted(model, x, 20_000)
    gap = np.abs(many["log_prob"] - exact.log_likelihood)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit = 5 * exact.standard_error * np.sqrt(10) + 1e-3
    assert (gap < limit).mean() > 0.95
