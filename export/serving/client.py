"""Client of a VAE in TensorFlow Serving, for REST and gRPC: a script and a module.

    python client.py sample --name digits --seeds 1 2 3
    python client.py score --name digits --seeds 1 2 --input x.npy --grpc --out score.npz

REST needs only NumPy, gRPC also tensorflow-serving-api (and its TensorFlow). It does not
need keras_vae.

`inputs` are dicts of arrays by name, one row per example: "x" and "z" are floats, "seed" is
one 64-bit int per row. Note for JavaScript clients: its numbers, and so its JSON, are exact
only up to 2**53. A larger seed silently becomes another seed.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request

import numpy as np

MAX_ROWS = 64  # max_batch_size of batching.config: the server rejects larger requests
INPUTS = {  # of each signature
    "encode": ("x", "seed"),
    "encode_mean": ("x",),
    "decode": ("z",),
    "sample": ("seed",),
    "reconstruct": ("x",),
    "score": ("x", "seed"),
}


class ServerError(RuntimeError):
    """An error of the server, or no response."""


# Requests.


def rest_request(url, name, signature, inputs, rows=True):
    """Builds a REST request: (url, body).

    Args:
        url: str, address of the server, such as "http://127.0.0.1:8501".
        name: str, name of the model; "digits/versions/2" selects a version.
        signature: str.
        inputs: dict of arrays, see above.
        rows: bool, row format ("instances") or column format ("inputs").
    """
    inputs = checked_inputs(inputs)
    lists = {key: value.tolist() for key, value in inputs.items()}
    if rows:
        values = zip(*lists.values(), strict=True)
        data = {"instances": [dict(zip(lists, row, strict=True)) for row in values]}
    else:
        data = {"inputs": lists}
    body = json.dumps({"signature_name": signature, **data}, allow_nan=False)
    return f"{url}/v1/models/{name}:predict", body.encode()


def predict_request(name, signature, inputs):
    """Builds a gRPC request, a `PredictRequest`."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    name, _, version = name.partition("/versions/")
    request.model_spec.name = name
    if version:
        request.model_spec.version.value = int(version)
    request.model_spec.signature_name = signature
    for key, value in checked_inputs(inputs).items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


def checked_inputs(inputs):
    """Checks inputs and converts them to the server's types.

    Raises:
        ValueError: for inputs that would cause NaN or an error of the server.
    """
    inputs = {key: np.asarray(value) for key, value in inputs.items()}
    for key, value in inputs.items():
        if not value.ndim or not len(value):
            raise ValueError(f"`{key}` must have rows. Received: shape {value.shape}")
        if key == "seed":
            large = value.dtype.kind == "u" and value.max() >= 2**63
            if value.dtype.kind not in "iu" or value.ndim != 1 or large:
                raise ValueError(
                    "`seed` must be ints of 64 bits, one for each row. "
                    f"Received: dtype {value.dtype}, shape {value.shape}"
                )
            inputs[key] = value.astype(np.int64)
        else:
            if value.dtype.kind not in "biuf":
                raise ValueError(f"`{key}` must be floats. Received: dtype {value.dtype}")
            with np.errstate(over="ignore"):  # inf is rejected below
                inputs[key] = value.astype(np.float32)
            if not np.isfinite(inputs[key]).all():
                bad = _bad_rows(inputs[key])
                raise ValueError(f"`{key}` must be finite. Received: NaN or inf in {bad}")
    rows = {key: len(value) for key, value in inputs.items()}
    if len(set(rows.values())) != 1:
        raise ValueError(f"All inputs must have as many rows. Received: {rows}")
    return inputs


# Responses.


def rest_answer(body, signature):
    """Reads a REST response in either format: outputs, a dict of arrays by name."""
    answer = json.loads(body)
    if "outputs" in answer:
        outputs = answer["outputs"]
    else:
        outputs = answer["predictions"]
        if isinstance(outputs[0], dict):
            outputs = {key: [row[key] for row in outputs] for key in outputs[0]}
    if not isinstance(outputs, dict):  # the server omits the name of a single output
        outputs = {"log_likelihood" if signature == "score" else "mean": outputs}
    return {key: np.array(value, np.float32) for key, value in outputs.items()}


def predict_answer(response):
    """Reads a gRPC response, a `PredictResponse`."""
    import tensorflow as tf

    return {key: tf.make_ndarray(value) for key, value in response.outputs.items()}


def checked_outputs(outputs, rows):
    """Checks that outputs have the requested number of rows and no NaN.

    Raises:
        ServerError: for another number of rows.
        ValueError: for NaN, which marks an invalid row. An error would fail the whole
            batch, including the rows of other clients.
    """
    for key, value in outputs.items():
        if len(value) != rows:
            raise ServerError(f"asked for {rows} rows, got {len(value)} of {key!r}")
    for key, value in outputs.items():
        if np.isnan(value).any():
            raise ValueError(
                f"`inputs` must have values that the likelihood allows, such as 0 to 1 for "
                f"a Bernoulli. Received: {_bad_rows(value)} whose {key!r} is NaN"
            )
    return outputs


def _bad_rows(value):
    bad = ~np.isfinite(value).reshape(len(value), -1).all(1)
    listed = np.flatnonzero(bad)
    return f"rows {listed[:10].tolist()}{' ...' if len(listed) > 10 else ''}"


# Sending.


def rest(host, name, signature, inputs, rows=True, timeout=60):
    """Calls a signature by REST; returns its outputs, a dict of arrays by name.

    Raises:
        ServerError: with the server's message, or if there is no server.
        ValueError: for inputs, or rows of them, that the model does not support.
    """

    def send(part):
        url, body = rest_request(f"http://{host}", name, signature, part, rows)
        return rest_answer(fetch(url, body, timeout), signature)

    return _in_parts(send, inputs)


def fetch(url, body=None, timeout=60):
    """Returns the bytes at a URL, such as http://HOST/v1/models/NAME (the status)."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode(errors="replace")
        try:
            text = json.loads(text, strict=False)["error"]
        except (ValueError, KeyError, TypeError):
            pass  # a proxy's page instead of the server's JSON
        raise ServerError(f"the server refuses {url}: {error.code}: {text}") from None
    except OSError as error:  # connection refused, unknown host, timeout
        reason = getattr(error, "reason", error)
        raise ServerError(f"no server answers at {url}: {reason}") from None


def grpc(host, name, signature, inputs, timeout=60):
    """Calls a signature by gRPC, see `rest`: faster for images, which are not text."""
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    # The default limit is 4 MiB per response; 64 rows of images may be larger.
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(host, options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def send(part):
            request = predict_request(name, signature, part)
            try:
                return predict_answer(stub.Predict(request, timeout=timeout))
            except grpc.RpcError as error:
                raise ServerError(
                    f"the server at {host} refuses or does not answer: "
                    f"{error.code().name}: {error.details()}"
                ) from None

        return _in_parts(send, inputs)


def _in_parts(send, inputs):
    """Sends at most MAX_ROWS rows at a time: rows are independent."""
    inputs = checked_inputs(inputs)
    total = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, total, MAX_ROWS):
        part = {key: value[start : start + MAX_ROWS] for key, value in inputs.items()}
        parts.append(checked_outputs(send(part), min(MAX_ROWS, total - start)))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def main(arguments=None):
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Client of a VAE in TensorFlow Serving.")
    parser.add_argument("signature", choices=list(INPUTS))
    parser.add_argument(
        "--name", default="vae", help="name of the model, or NAME/versions/N"
    )
    parser.add_argument("--host", help="default: 127.0.0.1:8501, for gRPC 127.0.0.1:8500")
    parser.add_argument("--grpc", action="store_true", help="use gRPC instead of REST")
    parser.add_argument("--seeds", type=int, nargs="+", help="one seed per row")
    parser.add_argument("--input", help=".npy file of x, or of z for decode")
    parser.add_argument("--out", help=".npz file to write; default: print shapes")
    args = parser.parse_args(arguments)
    given = {"seed": args.seeds, "x": args.input, "z": args.input}
    inputs = {}
    for key in INPUTS[args.signature]:
        option = "--seeds" if key == "seed" else "--input"
        if given[key] is None:
            parser.error(f"{args.signature} needs {option}")
        inputs[key] = given[key] if key == "seed" else np.load(given[key])
    host = args.host or ("127.0.0.1:8500" if args.grpc else "127.0.0.1:8501")
    outputs = (grpc if args.grpc else rest)(host, args.name, args.signature, inputs)
    if args.out:
        np.savez(args.out, **outputs)
    for key, value in outputs.items():
        print(key, value.dtype, list(value.shape), value if value.ndim == 1 else "")


if __name__ == "__main__":
    try:
        main()
    except (ServerError, ValueError, OSError) as error:
        sys.exit(f"client.py: {error}")
