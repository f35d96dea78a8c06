"""A stand-in for TensorFlow Serving: its documented interfaces, no batching, no reload.

It reads models.config and runs the newest version of each model as the real server does:
the graph of a signature, in a session.
"""

import concurrent.futures
import http.server
import json
import pathlib
import re
import threading

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format, text_format
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

from keras_vae.exporting import serving


class RefusedError(Exception):
    """An error with arguments (code of gRPC, text)."""


HTTP = {grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.NOT_FOUND: 404}


def invalid(text):
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)


class Model:
    """One version of a model in a session."""

    def __init__(self, path):
        self.version = path.name
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(self.session, ["serve"], str(path))
        self.signatures = meta_graph.signature_def

    def signature(self, name):
        name = name or "serving_default"
        if name not in self.signatures:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        return self.signatures[name]

    def predict(self, name, inputs):
        signature = self.signature(name)
        if set(inputs) != set(signature.inputs):
            missing = sorted(set(signature.inputs) - set(inputs))
            raise invalid(
                f"input size does not match signature: {len(inputs)}!="
                f"{len(signature.inputs)}. Missing but required: {missing}"
            )
        feeds = {signature.inputs[key].name: value for key, value in inputs.items()}
        fetches = {key: info.name for key, info in signature.outputs.items()}
        try:
            return self.session.run(fetches, feeds)
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            raise invalid(str(error)) from error


class ModelServer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """A context manager. `rest` and `grpc` are addresses, `sizes` the rows of requests."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        config = model_server_config_pb2.ModelServerConfig()
        text_format.Parse((folder / "models.config").read_text(), config)
        self.models, self.sizes = {}, []
        for model in config.model_config_list.config:
            assert model.model_platform == "tensorflow"
            base = folder / pathlib.PurePosixPath(model.base_path).relative_to(serving.ROOT)
            newest = max(base.glob("[0-9]*"), key=lambda path: int(path.name))
            self.models[model.name] = Model(newest)

    def __enter__(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(4)
        self.server = grpc.server(self.pool)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            self, self.server
        )
        self.grpc = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()
        handler = type("Handler", (Handler,), {"models": self})
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.rest = f"127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()
        self.server.stop(None).wait()
        self.pool.shutdown()
        for model in self.models.values():
            model.session.close()

    def find(self, name, version=None):
        model = self.models.get(name)
        if model is None or version not in (None, model.version):
            which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise RefusedError(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {which}"
            )
        return model

    def Predict(self, request, context):  # noqa: N802
        spec = request.model_spec
        version = str(spec.version.value) if spec.HasField("version") else None
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        self.sizes.append({len(value) for value in inputs.values()})
        try:
            model = self.find(spec.name, version)
            outputs = model.predict(spec.signature_name, inputs)
        except RefusedError as error:
            context.abort(*error.args)
        response = predict_pb2.PredictResponse()
        for key, value in outputs.items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        return response


class Handler(http.server.BaseHTTPRequestHandler):
    """The REST interface of `models`."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == "/monitoring/prometheus/metrics":
            return self.respond(200, "# TYPE :tensorflow:serving:request_count counter\n")
        match = re.fullmatch(r"/v1/models/([^/:]+)(/metadata)?", self.path)
        if not match or match[1] not in self.models.models:
            return self.respond(404, {"error": f"Malformed request: GET {self.path}"})
        model = self.models.models[match[1]]
        if match[2]:
            signatures = {
                key: json_format.MessageToDict(value)
                for key, value in model.signatures.items()
            }
            return self.respond(200, {"metadata": {"signature_def": signatures}})
        status = {"version": model.version, "state": "AVAILABLE"}
        return self.respond(200, {"model_version_status": [status]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self.respond(200, self.predict(json.loads(body)))
        except RefusedError as error:
            self.respond(HTTP[error.args[0]], {"error": error.args[1]})

    def predict(self, request):
        pattern = r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict"
        model = self.models.find(*re.fullmatch(pattern, self.path).groups())
        name = request.get("signature_name", "")
        infos = model.signature(name).inputs
        rows = "instances" in request
        if rows == ("inputs" in request):
            raise invalid("Missing 'inputs' or 'instances' key, or both")
        values = by_row(request["instances"], infos) if rows else by_column(request, infos)
        inputs = {key: tensor(values[key], infos[key].dtype) for key in infos}
        self.models.sizes.append({len(value) for value in inputs.values()})
        outputs = {k: to_json(v) for k, v in model.predict(name, inputs).items()}
        if len(outputs) == 1:
            (outputs,) = outputs.values()
        elif rows:
            columns = zip(*outputs.values(), strict=True)
            outputs = [dict(zip(outputs, row, strict=True)) for row in columns]
        return {"predictions" if rows else "outputs": outputs}

    def respond(self, code, answer):
        body = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def by_row(instances, infos):
    if not isinstance(instances[0], dict):  # the name of a single input is optional
        if len(infos) > 1:
            raise invalid("instances is a plain list, but expecting list of objects")
        return {next(iter(infos)): instances}
    for row in instances:
        if set(row) != set(infos):
            raise invalid(f"keys must be equal to: {','.join(infos)}")
    return {key: [row[key] for row in instances] for key in infos}


def by_column(request, infos):
    inputs = request["inputs"]
    if not isinstance(inputs, dict):
        inputs = {next(iter(infos)): inputs}
    for key in infos:
        if key not in inputs:
            raise invalid(f"Missing named input: {key} in 'inputs' object.")
    return inputs


def tensor(values, dtype):
    """Returns an array of JSON numbers, with the strict type checks of the server."""
    try:
        array = np.array(values)
    except ValueError as error:
        raise invalid(f"Encountered list at unexpected size: {error}") from error
    if array.dtype.kind not in ("i" if dtype == tf.int64.as_datatype_enum else "if"):
        raise invalid(f"JSON Value of {array.dtype} is not of expected type: {dtype}")
    return array.astype(tf.as_dtype(dtype).as_numpy_dtype)


def to_json(array):
    """Returns nested lists, rounded to nine digits as by the server."""
    rounded = [float(f"{value:.9g}") for value in array.ravel().tolist()]
    return np.array(rounded).reshape(array.shape).tolist()
