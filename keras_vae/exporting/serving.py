"""What TF Serving wants beside a SavedModel: versions, configuration, warm-up requests.

The folder that a server reads:

    DIR/models.config        the models that the server loads
    DIR/batching.config      how it joins requests that come at the same time
    DIR/monitoring.config    that it tells its counters to Prometheus
    DIR/NAME/1/              a version: a SavedModel with its card and warm-up requests
    DIR/NAME/2/              the next one; the server finds it by itself
"""

import re

import numpy as np
import tensorflow as tf

from keras_vae import atomic, checks

ROOT = "/models"  # of DIR inside the server's container
MAX_BATCH = 64

BATCHING = f"""\
max_batch_size {{ value: {MAX_BATCH} }}
batch_timeout_micros {{ value: 1000 }}
num_batch_threads {{ value: 2 }}
max_enqueued_batches {{ value: 100 }}
"""
MONITORING = """\
prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }
"""


def check():
    """Raises an ImportError that says what to install."""
    try:
        import tensorflow_serving.apis  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "warm-up requests and the server's configuration need tensorflow-serving-api: "
            f'pip install "keras-vae[export]". Received: {error}'
        ) from error


def check_name(value, name):
    """Raises a ValueError for what cannot be the name of a model, and of its folder."""
    fits = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]+", value)
    checks.require(fits, name, "the name of a model: letters, digits, _ or -", value)


def export(model, folder, name="vae", **options):
    """Writes the next version of a model for TF Serving, and the server's configuration.

    Args:
        model: `keras_vae.VAE`.
        folder: path, DIR above; what is there stays.
        name: str, of the model: letters, digits, `_` and `-`.
        **options: of `keras_vae.exporting.export`, but `format` and `warmup`.

    Returns:
        `pathlib.Path` of the new version.

    Raises:
        ValueError: for a name or a folder that cannot be, and as `VAE.export`.
        ImportError: without tensorflow-serving-api.
    """
    check_name(name, "name")
    for key in ("format", "warmup"):
        expected = "left out for TF Serving, for which it is known"
        checks.require(key not in options, key, expected, options.get(key))
    folder = checks.path(folder, "folder")
    check()
    base = folder / name
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`folder` must be a folder. Received: {folder}, which is a file")
    models_config(folder, name)  # whether it can be read and has place for the name
    versions = [int(p.name) for p in base.glob("*") if re.fullmatch("[0-9]+", p.name)]
    path = base / str(max(versions, default=0) + 1)
    model.export(path, warmup=name, **options)
    files = {
        "models.config": models_config(folder, name),  # others may have changed it since
        "batching.config": BATCHING,
        "monitoring.config": MONITORING,
    }
    for file, content in files.items():
        place = folder / file
        there = place.read_text() if place.exists() else None
        # The last two are the user's once they are there.
        if there is None or (file == "models.config" and there != content):
            atomic.write_text(place, content)
    return path


def models_config(folder, name):
    """The text of models.config with one more model, or as it is if that is in it."""
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    path, text = folder / "models.config", ""
    if path.exists():
        try:
            text = path.read_text()
            text_format.Parse(text, config)
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise ValueError(
                "`folder` must have a models.config that can be read, or none. Received: "
                f"{path}: {error}"
            ) from error
    if config.WhichOneof("config") == "custom_model_config":
        raise ValueError(
            "`folder` must have a models.config with a model_config_list. Received: "
            f"{path}, with a custom_model_config"
        )
    models = config.model_config_list.config
    for model in models:
        if model.name == name and model.base_path.rstrip("/") != f"{ROOT}/{name}":
            raise ValueError(
                f"`name` must be one that {path} does not have elsewhere. Received: "
                f"name={name!r}, which the server reads from {model.base_path}"
            )
        if model.name == name:
            return text  # with its comments, which a parsed message has lost
    models.add(name=name, base_path=f"{ROOT}/{name}", model_platform="tensorflow")
    return text_format.MessageToString(config)


def predict_request(name, signature, inputs):
    """A `PredictRequest` of TF Serving.

    Args:
        name: str, of the model.
        signature: str.
        inputs: dict of arrays by name.
    """
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


def write_warmup(path, name, shapes):
    """Writes the requests that the server runs before it says that a version is there.

    Args:
        path: `pathlib.Path` of the SavedModel.
        name: str, of the model.
        shapes: for each signature (inputs, outputs), dicts of `tf.TensorSpec`.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    (path / "assets.extra").mkdir()
    file = path / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature, (inputs, _) in shapes.items():
            for rows in (1, MAX_BATCH):
                arrays = {
                    key: np.zeros((rows, *spec.shape[1:]), spec.dtype.as_numpy_dtype)
                    for key, spec in inputs.items()
                }
                request = predict_request(name, signature, arrays)
                log = prediction_log_pb2.PredictLog(request=request)
                record = prediction_log_pb2.PredictionLog(predict_log=log)
                writer.write(record.SerializeToString())
