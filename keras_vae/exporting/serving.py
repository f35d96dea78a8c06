"""TF Serving: versions of a SavedModel, the server's configuration, warm-up requests.

The folder that a server reads:

    DIR/models.config        the models that the server loads
    DIR/batching.config      combines simultaneous requests into batches
    DIR/monitoring.config    exports the server's counters to Prometheus
    DIR/NAME/1/              a version: a SavedModel with its card and warm-up requests
    DIR/NAME/2/              the next version, which the server loads automatically
"""

import os
import pathlib
import re
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae import atomic, checks
from keras_vae.exporting.signatures import Shapes
from keras_vae.models import VAE

ROOT = "/models"  # DIR inside the server's container
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


def check() -> None:
    """Raises an ImportError if tensorflow-serving-api is not installed."""
    try:
        import tensorflow_serving.apis  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "warm-up requests and the server's configuration need tensorflow-serving-api: "
            f'pip install "keras-vae[export]". Received: {error}'
        ) from error


def check_name(value: Any, name: str) -> None:
    """Raises a ValueError unless `value` can be the name of a model and of its folder."""
    is_name = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]+", value)
    checks.require(is_name, name, "the name of a model: letters, digits, _ or -", value)


def export(
    model: VAE, folder: str | os.PathLike, name: str = "vae", **options: Any
) -> pathlib.Path:
    """Writes the next version of a model for TF Serving, and the server's configuration.

    Args:
        model: `keras_vae.VAE`.
        folder: path of DIR above; existing versions and files are kept.
        name: str, of the model: letters, digits, `_` and `-`.
        **options: options of `keras_vae.exporting.export`, except `format` and `warmup`.

    Returns:
        `pathlib.Path` of the new version.

    Raises:
        ValueError: for an invalid name or folder, and as for `VAE.export`.
        ImportError: if tensorflow-serving-api is not installed.
    """
    check_name(name, "name")
    for key in ("format", "warmup"):
        expected = "left out for TF Serving, which sets it"
        checks.require(key not in options, key, expected, options.get(key))
    root = checks.path(folder, "folder")
    check()
    base = root / name
    if root.exists() and not root.is_dir():
        raise ValueError(f"`folder` must be a folder. Received: {folder}, which is a file")
    models_config(root, name)  # raises an error before the export
    versions = [int(p.name) for p in base.glob("*") if re.fullmatch("[0-9]+", p.name)]
    path = base / str(max(versions, default=0) + 1)
    model.export(path, warmup=name, **options)
    files = {
        # Read again: it may have changed during the export.
        "models.config": models_config(root, name),
        "batching.config": BATCHING,
        "monitoring.config": MONITORING,
    }
    for file_name, content in files.items():
        file = root / file_name
        old = file.read_text() if file.exists() else None
        # Users may edit the other two files.
        if old is None or (file_name == "models.config" and old != content):
            atomic.write_text(file, content)
    return path


def models_config(folder: pathlib.Path, name: str) -> str:
    """Returns the text of models.config, with the model added if it is not listed.

    Raises:
        ValueError: for a file that cannot be read or lists the name with another path.
    """
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
                f"`name` must not be listed in {path} with another path. Received: "
                f"name={name!r}, which is listed with {model.base_path}"
            )
        if model.name == name:
            return text  # keeps comments, which a parsed message loses
    models.add(name=name, base_path=f"{ROOT}/{name}", model_platform="tensorflow")
    return text_format.MessageToString(config)


def predict_request(name: str, signature: str, inputs: dict[str, np.ndarray]) -> Any:
    """Makes a `PredictRequest` of TF Serving.

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


def write_warmup(path: pathlib.Path, name: str, shapes: Shapes) -> None:
    """Writes warm-up requests, which the server runs before a version is available.

    Args:
        path: of the SavedModel.
        name: str, of the model.
        shapes: (inputs, outputs) of each signature, dicts of `tf.TensorSpec`.
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
