"""TensorFlow Serving: exported files, the client, and batching of requests.

The server is a C++ program that no Python package contains. `model_server.py` replaces its
two interfaces, and TensorFlow's own batch scheduler replaces its batching.
"""

import concurrent.futures
import importlib.util
import itertools
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

import keras_vae as kv
from keras_vae.exporting import serving

pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api")
yaml = pytest.importorskip("yaml", reason="needs PyYAML")

from google.protobuf import text_format  # noqa: E402
from tensorflow_serving.apis import prediction_log_pb2  # noqa: E402
from tensorflow_serving.config import model_server_config_pb2  # noqa: E402

from tests.exporting.model_server import ModelServer  # noqa: E402

FILES = pathlib.Path(__file__).parent.parent.parent / "export" / "serving"
NAMES = ("encode", "encode_mean", "decode", "sample", "reconstruct", "score")
EVENT, LATENT = (8, 8, 1), 16  # as in the curl commands of the README
SAMPLES = 4


def load_client():
    spec = importlib.util.spec_from_file_location("serving_client", FILES / "client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


client = load_client()


@pytest.fixture(scope="module")
def model():
    return kv.VAE(
        kv.nets.MLP([32]),
        kv.nets.MLP([32]),
        kv.distributions.IndependentBernoulli(EVENT),
        LATENT,
        seed=3,
    )


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    serving.export(model, folder, "digits", num_samples=SAMPLES)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with ModelServer(folder) as server:
        yield server


def inputs(name, rows):
    rng = np.random.default_rng(rows)
    values = {
        "x": (rng.random((rows, *EVENT)) < 0.3).astype(np.float32),
        "z": rng.normal(size=(rows, LATENT)).astype(np.float32),
        "seed": rng.integers(-(2**63), 2**63 - 1, rows),
    }
    return {key: values[key] for key in client.INPUTS[name]}


def assert_same(actual, expected):
    """Asserts equality within the rounding errors of another batch size."""
    assert set(actual) == set(expected)
    for key, value in expected.items():
        assert actual[key].shape == value.shape, key
        scale = max(1.0, np.abs(value).max())
        different = np.abs(actual[key] - value) > 1e-5 * scale
        # A drawn pixel may flip if its uniform number is within rounding of its mean.
        assert different.mean() <= (1e-3 if key == "x" else 0), (key, different.mean())


# Exported files.


class Exportable:
    """A model with a fast export."""

    def export(self, path, warmup, **options):
        path.mkdir(parents=True)


def read_config(folder):
    config = model_server_config_pb2.ModelServerConfig()
    return text_format.Parse((folder / "models.config").read_text(), config)


def test_versions_increase_and_models_are_added(tmp_path):
    paths = [serving.export(Exportable(), tmp_path, "digits") for _ in range(2)]
    (tmp_path / "digits" / "10").mkdir()  # compared as a number, not as text
    (tmp_path / "digits" / "notes").mkdir()
    paths.append(serving.export(Exportable(), tmp_path, "digits"))
    paths.append(serving.export(Exportable(), tmp_path, "faces"))
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "digits/1", "digits/2", "digits/11", "faces/1",
    ]  # fmt: skip
    models = read_config(tmp_path).model_config_list.config
    assert [(m.name, m.base_path, m.model_platform) for m in models] == [
        ("digits", "/models/digits", "tensorflow"),
        ("faces", "/models/faces", "tensorflow"),
    ]
    written = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert written == {"models.config", "batching.config", "monitoring.config"}


def test_manual_changes_of_the_configuration_are_kept(tmp_path):
    serving.export(Exportable(), tmp_path, "digits")
    config = read_config(tmp_path)
    edited = config.model_config_list.config[0]
    edited.model_version_policy.specific.versions.append(1)
    edited.version_labels["stable"] = 1
    config.model_config_list.config.add(name="other", base_path="/models/elsewhere")
    (tmp_path / "models.config").write_text(text_format.MessageToString(config))
    (tmp_path / "batching.config").write_text("max_batch_size { value: 8 }\n")
    serving.export(Exportable(), tmp_path, "digits")
    assert read_config(tmp_path) == config
    serving.export(Exportable(), tmp_path, "faces")
    models = read_config(tmp_path).model_config_list.config
    assert list(models)[:2] == list(config.model_config_list.config)
    assert (tmp_path / "batching.config").read_text() == "max_batch_size { value: 8 }\n"


def test_comments_are_kept_if_no_model_is_added(tmp_path):
    serving.export(Exportable(), tmp_path, "digits")
    path = tmp_path / "models.config"
    text = "# Ask before you change it.\n" + path.read_text()
    path.write_text(text)
    serving.export(Exportable(), tmp_path, "digits")
    assert path.read_text() == text


@pytest.mark.parametrize("content", [b"model_config_list {", b"\xff\xfe", b"models: []"])
def test_a_damaged_configuration_is_refused_and_not_changed(tmp_path, content):
    (tmp_path / "models.config").write_bytes(content)
    with pytest.raises(ValueError, match="must have a models.config that can be read"):
        serving.export(Exportable(), tmp_path, "digits")
    assert [path.name for path in tmp_path.iterdir()] == ["models.config"]
    assert (tmp_path / "models.config").read_bytes() == content


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", ".", "a b", "a:predict", None, "ä", "a\n"]
)
def test_names_that_cannot_be_in_a_url_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="`name` must be the name"):
        serving.export(Exportable(), tmp_path / "models", name)
    assert not any(tmp_path.iterdir())


def test_without_the_serving_package_nothing_is_written(tmp_path, monkeypatch):
    for module in ("tensorflow_serving", "tensorflow_serving.apis"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match="need tensorflow-serving-api: pip install"):
        serving.export(Exportable(), tmp_path / "models", "digits")
    assert not any(tmp_path.iterdir())


def test_batching_and_monitoring_configurations_have_valid_fields(folder):
    pattern = r"([a-z_]+) \{ value: ([0-9]+) \}"
    lines = (folder / "batching.config").read_text().splitlines()
    values = {m[1]: int(m[2]) for m in (re.fullmatch(pattern, line) for line in lines)}
    # The fields of session_bundle_config.proto, which is not in the Python package.
    known = {
        "max_batch_size", "batch_timeout_micros", "num_batch_threads",
        "max_enqueued_batches", "max_execution_batch_size",
    }  # fmt: skip
    assert set(values) <= known and all(value > 0 for value in values.values())
    assert values["max_batch_size"] == serving.MAX_BATCH == client.MAX_ROWS
    monitoring = (folder / "monitoring.config").read_text()
    path = re.fullmatch(r'prometheus_config \{ enable: true path: "(.*)" \}\n', monitoring)
    assert path[1] == "/monitoring/prometheus/metrics"


def warmup_requests(folder):
    path = folder / "digits" / "1" / "assets.extra" / "tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        yield log.predict_log.request


def test_warmup_requests_cover_all_signatures_and_both_batch_sizes(folder, server):
    found = set()
    for request in warmup_requests(folder):
        arrays = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        name = request.model_spec.signature_name
        outputs = server.models["digits"].predict(name, arrays)
        (rows,) = {len(value) for value in outputs.values()}
        assert all(np.isfinite(value).all() for value in outputs.values())
        found.add((name, rows))
    assert found == {(name, rows) for name in NAMES for rows in (1, serving.MAX_BATCH)}


def test_warmup_requests_name_the_model(folder):
    assert {request.model_spec.name for request in warmup_requests(folder)} == {"digits"}


# The client.


@pytest.fixture(params=["rows", "columns", "grpc"])
def send(request, server):
    """A function of (name, signature, inputs) that calls the client by each protocol."""
    if request.param == "grpc":
        return lambda *args: client.grpc(server.grpc, *args)
    return lambda *args: client.rest(server.rest, *args, rows=request.param == "rows")


def expected_outputs(model, name, values):
    function = model.signatures(SAMPLES)[name].function
    return {key: value.numpy() for key, value in function(**values).items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_client_returns_the_same_as_the_model(send, model, name):
    for rows in (1, 3):
        values = inputs(name, rows)
        assert_same(send("digits", name, values), expected_outputs(model, name, values))


def test_served_signatures_equal_methods_of_the_model(server, model):
    seeds = [1, -5, 2**53 + 1, 2**63 - 1]
    drawn = {"x": model.sample(seeds=seeds).numpy()}
    for send, host in ((client.rest, server.rest), (client.grpc, server.grpc)):
        actual = send(host, "digits", "sample", {"seed": seeds})
        assert_same({"x": actual["x"]}, drawn)
    x = inputs("reconstruct", 2)["x"]
    actual = client.rest(server.rest, "digits", "", {"x": x})  # the default signature
    assert_same(actual, {"mean": model.predict(x, verbose=0)})


def test_many_rows_are_sent_in_parts(send, server, model):
    values = inputs("encode", 150)
    server.sizes.clear()
    assert_same(send("digits", "encode", values), expected_outputs(model, "encode", values))
    assert server.sizes == [{64}, {64}, {22}]


def test_a_version_can_be_selected(send, model):
    values = inputs("decode", 2)
    assert_same(
        send("digits/versions/1", "decode", values),
        expected_outputs(model, "decode", values),
    )
    with pytest.raises(client.ServerError, match=r"Servable not found.*digits, 7"):
        send("digits/versions/7", "decode", values)


def test_errors_of_the_server_reach_the_user(send):
    values = inputs("sample", 2)
    with pytest.raises(client.ServerError, match=r"not found for request: Latest\(faces\)"):
        send("faces", "sample", values)
    with pytest.raises(client.ServerError, match='"samples" not found in signature def'):
        send("digits", "samples", values)
    with pytest.raises(client.ServerError, match=r"\bx\b"):  # names the missing input
        send("digits", "score", values)
    with pytest.raises(client.ServerError, match="refuses"):
        send("digits", "decode", {"z": np.zeros((2, 3))})


def test_a_missing_server_is_an_error():
    with pytest.raises(client.ServerError, match="no server answers at http"):
        client.rest("127.0.0.1:1", "digits", "sample", {"seed": [1]})
    with pytest.raises(client.ServerError, match="UNAVAILABLE"):
        client.grpc("127.0.0.1:1", "digits", "sample", {"seed": [1]})


def test_an_unexpected_http_response_is_an_error(server):
    with pytest.raises(client.ServerError, match="404: .*Malformed"):
        client.fetch(f"http://{server.rest}/elsewhere")
    assert b"AVAILABLE" in client.fetch(f"http://{server.rest}/v1/models/digits")


X = np.zeros((2, *EVENT))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"x": X, "seed": [1]}, r"as many rows. Received: \{'x': 2, 'seed': 1\}"),
        ({"x": X + [[[[np.nan]]], [[[0]]]], "seed": [1, 2]}, r"NaN or inf in rows \[0\]"),
        ({"x": X * 1e300 + 1e300, "seed": [1, 2]}, r"NaN or inf in rows \[0, 1\]"),
        ({"x": X[:0], "seed": []}, "must have rows"),
        ({"x": X, "seed": 1}, "must have rows"),
        ({"x": X, "seed": [1.0, 2.0]}, "`seed` must be ints"),
        ({"x": X, "seed": [True, False]}, "`seed` must be ints"),
        ({"x": X, "seed": [2**63, 1]}, "`seed` must be ints"),
        ({"x": X, "seed": [2**64, 1]}, "`seed` must be ints"),
        ({"x": X, "seed": [[1], [2]]}, "`seed` must be ints"),
        ({"x": [["a"], ["b"]], "seed": [1, 2]}, "must be floats"),
    ],
)
def test_bad_inputs_are_refused_before_the_request(values, message):
    for send in (client.rest, client.grpc):
        with pytest.raises(ValueError, match=message):
            send("127.0.0.1:1", "digits", "encode", values)
    with pytest.raises(ValueError, match=message):
        client.rest_request("http://127.0.0.1:1", "digits", "encode", values)
    with pytest.raises(ValueError, match=message):
        client.predict_request("digits", "encode", values)


def test_the_error_names_the_bad_row(send):
    values = inputs("score", 5)
    values["x"][3] = 7
    with pytest.raises(ValueError, match=r"rows \[3\] whose '[a-z_]+' is NaN"):
        send("digits", "score", values)


def test_a_response_with_a_wrong_number_of_rows_is_an_error():
    with pytest.raises(client.ServerError, match="asked for 3 rows, got 2 of 'z'"):
        client.checked_outputs({"z": np.zeros((2, 4))}, 3)


@pytest.mark.parametrize("way", [[], ["--grpc"]])
def test_the_command_line_of_the_client(server, model, tmp_path, capsys, way):
    out = tmp_path / "out.npz"
    host = ["--host", server.grpc if way else server.rest, "--name", "digits", *way]
    client.main(["sample", "--seeds", "1", "-2", "3", *host, "--out", str(out)])
    printed = capsys.readouterr().out
    assert "z float32 [3, 16]" in printed and "x float32 [3, 8, 8, 1]" in printed
    values = {"seed": np.array([1, -2, 3])}
    with np.load(out) as file:
        assert_same(dict(file), expected_outputs(model, "sample", values))
    np.save(tmp_path / "x.npy", inputs("score", 2)["x"])
    data = ["--input", str(tmp_path / "x.npy")]
    client.main(["score", "--seeds", "1", "2", *host, *data])
    assert "elbo float32 [2] [" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        client.main(["score", "--seeds", "1", "2", *host])
    assert "score needs --input" in capsys.readouterr().err


def test_the_client_imports_only_numpy():
    code = (
        "import sys, client; client.rest_request('http://a', 'b', '', {'seed': [1]})\n"
        "print({'keras_vae', 'tensorflow', 'keras', 'grpc'} & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=FILES, capture_output=True, text=True, check=True
    )
    assert process.stdout == "set()\n"


def test_the_server_leaves_no_thread(folder):
    before = set(threading.enumerate())
    with ModelServer(folder) as server:
        client.rest(server.rest, "digits", "sample", {"seed": [1]})
        client.grpc(server.grpc, "digits", "sample", {"seed": [1]})
    deadline = time.monotonic() + 5  # gRPC's own threads end a moment later
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(threading.enumerate()) - before


# Batching.


class Batched:
    """Calls a function through the same kind of batch scheduler as the server.

    Args:
        function: tensors by name -> dict of tensors.
        values: dict of arrays, for their types and shapes.
        sizes: the sizes that a batch is padded to, or None.
    """

    numbers = itertools.count()

    def __init__(self, function, values, sizes=None):
        self.function, names = function, list(values)

        # 0.1 s instead of the 1 ms of batching.config, so that all threads arrive in time
        # on a busy machine, too.
        @tf.nondifferentiable_batch_function(
            2, serving.MAX_BATCH, 100_000, sizes, max_enqueued_batches=100
        )
        def joined(*tensors):
            rows = tf.shape(tensors[0])[:1]
            outputs = function(**dict(zip(names, tensors, strict=True)))
            # Each row also gets the size of its batch.
            return {**outputs, "batch": tf.fill(rows, rows[0])}

        specs = [tf.TensorSpec((None, *v.shape[1:]), v.dtype) for v in values.values()]
        # Operations with the same name share a scheduler and its sizes.
        scope = f"batched_{next(self.numbers)}"

        @tf.function(input_signature=specs)
        def run(*tensors):
            with tf.name_scope(scope):
                return joined(*tensors)

        self.run = run.get_concrete_function()
        # The first call optimises the graph; 64 parallel first calls would do so 64 times.
        self.run(*map(tf.constant, values.values()))

    def __call__(self, requests):
        """Sends all requests at the same time; returns outputs and the sizes of batches."""
        start = threading.Barrier(len(requests))

        def send(values):
            tensors = [tf.constant(value) for value in values.values()]
            start.wait()
            return {k: v.numpy() for k, v in self.run(*tensors).items()}

        with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
            outputs = list(pool.map(send, requests))
        return outputs, np.concatenate([o.pop("batch") for o in outputs])


def assert_batching(batched, requests):
    """Asserts that batching changes no outputs; returns the sizes of the batches."""
    alone = [{k: v.numpy() for k, v in batched.function(**g).items()} for g in requests]
    together, batches = batched(requests)
    for actual, expected in zip(together, alone, strict=True):
        assert_same(actual, expected)
    assert_joined(batches, len(requests))
    return batches


def assert_joined(batches, requests):
    # Fewer batches than requests: over the rows of a batch, 1 / size sums to 1, or to less
    # with padding.
    assert batches.max() > 1 and np.sum(1 / batches) < requests / 2


def make_requests(name, count=64, rows=(1,)):
    values = inputs(name, 3 * count)
    starts = np.cumsum([0] + [rows[i % len(rows)] for i in range(count)])
    return [
        {key: value[a:b] for key, value in values.items()}
        for a, b in zip(starts[:-1], starts[1:], strict=True)
    ]


@pytest.fixture(scope="module")
def loaded(folder):
    return tf.saved_model.load(str(folder / "digits" / "1"))


@pytest.mark.parametrize("name", NAMES)
def test_batched_requests_get_the_same_outputs_as_single_ones(loaded, name):
    batched = Batched(loaded.signatures[name], inputs(name, 1))
    assert_batching(batched, make_requests(name))
    if name == "score":  # tracing this graph takes seconds
        assert_bad_row_is_nan(batched)


def assert_bad_row_is_nan(batched):
    requests = make_requests("score")
    requests[20]["x"][0, 4, 4] = np.nan
    outputs, batches = batched(requests)
    assert_joined(batches, len(requests))
    for i, output in enumerate(outputs):
        assert all(np.isnan(value).all() == (i == 20) for value in output.values())


def test_requests_of_several_rows_are_batched_with_padding(loaded):
    values = make_requests("encode", rows=(1, 3, 2))
    batched = Batched(loaded.signatures["encode"], values[0], sizes=[16, 64])
    assert set(assert_batching(batched, values)) <= {16, 64}


def one_seed_for_all(loaded):
    def function(seed):
        return loaded.signatures["sample"](seed=tf.fill(tf.shape(seed), seed[0]))

    return "sample", function


def mean_over_the_batch(loaded):
    def function(z):
        mean = loaded.signatures["decode"](z=z)["mean"]
        return {"mean": tf.reduce_mean(mean, axis=0, keepdims=True) + 0.0 * mean}

    return "decode", function


@pytest.mark.parametrize("make", [one_seed_for_all, mean_over_the_batch])
def test_functions_that_mix_requests_are_detected(loaded, make):
    name, function = make(loaded)
    batched = Batched(function, inputs(name, 1))
    with pytest.raises(AssertionError, match="'(mean|z|x)', "):  # from assert_same
        assert_batching(batched, make_requests(name))
    # Tests of single requests would not find the fault.
    for values in make_requests(name, count=3):
        alone = {key: value.numpy() for key, value in function(**values).items()}
        right = loaded.signatures[name](**{k: tf.constant(v) for k, v in values.items()})
        assert_same(alone, {key: right[key].numpy() for key in alone})


# The files next to the client.


def parse_flags(words):
    return dict(word.removeprefix("--").partition("=")[::2] for word in words)


def assert_flags(words, written):
    values = parse_flags(words)
    assert values.pop("enable_batching") == ""
    assert int(values.pop("model_config_file_poll_wait_seconds")) > 0
    files = {name: path for name, path in values.items() if name.endswith("_file")}
    assert set(files) == set(values) == {
        "model_config_file", "batching_parameters_file", "monitoring_config_file",
    }  # fmt: skip
    assert set(files.values()) == {f"{serving.ROOT}/{name}" for name in written}


@pytest.fixture
def written(folder):
    return [path.name for path in folder.iterdir() if path.is_file()]


@pytest.fixture
def compose():
    return yaml.safe_load((FILES / "docker-compose.yml").read_text())["services"]["serving"]


def test_docker_compose_uses_the_exported_files(compose, written):
    assert_flags(compose["command"], written)
    (mount,) = compose["volumes"]
    assert mount["target"] == serving.ROOT and mount["read_only"] is True
    assert re.fullmatch(r"\$\{MODELS:-\S+\}", mount["source"])
    assert compose["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    assert re.fullmatch(r"tensorflow/serving:\$\{TAG:-\d+\.\d+\.\d+\}", compose["image"])


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_health_check_of_docker_compose(compose, server):
    kind, *command = compose["healthcheck"]["test"]
    assert kind == "CMD"
    port = server.rest.split(":")[1]
    command[-1] = command[-1].replace("$$", "$").replace("8501", port)

    def is_healthy(**environment):
        process = subprocess.run(command, env=environment, capture_output=True, timeout=10)
        return process.returncode == 0

    assert is_healthy(PROBED="digits", PATH="/usr/bin:/bin")
    assert not is_healthy(PROBED="faces", PATH="/usr/bin:/bin")
    command[-1] = command[-1].replace(port, "1")
    assert not is_healthy(PROBED="digits", PATH="/usr/bin:/bin")


@pytest.fixture
def kubernetes():
    objects = [
        yaml.safe_load(path.read_text()) for path in (FILES / "kubernetes").iterdir()
    ]
    return {item["kind"]: item for item in objects}


def test_the_kubernetes_manifests_are_consistent(kubernetes, written, compose):
    deployment = kubernetes["Deployment"]
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert_flags(container["args"], written)
    assert container["image"] == re.sub(r"\$\{TAG:-(.*)\}", r"\1", compose["image"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/v1/models/digits", "port": "rest"}
    metrics = "/monitoring/prometheus/metrics"
    assert metrics in serving.MONITORING
    assert container["livenessProbe"]["httpGet"] == {"path": metrics, "port": "rest"}
    annotations = template["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == metrics
    assert annotations["prometheus.io/port"] == "8501"
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    assert set(mounts) == set(volumes)
    assert mounts["models"]["mountPath"] == serving.ROOT and mounts["models"]["readOnly"]
    claim = volumes["models"]["persistentVolumeClaim"]["claimName"]
    assert claim == kubernetes["PersistentVolumeClaim"]["metadata"]["name"]
    labels = template["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    service = kubernetes["Service"]["spec"]
    assert service["selector"] == labels
    assert {p["targetPort"]: p["port"] for p in service["ports"]} == ports
    target = kubernetes["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (
        "Deployment",
        deployment["metadata"]["name"],
    )


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_commands_of_the_readme(server):
    text = (FILES / "README.md").read_text()
    blocks = [b for b in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "curl" in b]
    script = "set -eu\n" + "".join(blocks).replace("127.0.0.1:8501", server.rest)
    process = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    for name in NAMES:
        assert f'"{name}"' in script or name == "reconstruct"
    assert '"error"' not in process.stdout and "NaN" not in process.stdout
    assert process.stdout.count('"predictions"') >= 5
    assert process.stdout.count('"outputs"') >= 2
    assert "AVAILABLE" in process.stdout and "request_count" in process.stdout
