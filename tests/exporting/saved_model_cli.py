"""A script that runs SavedModels with `saved_model_cli run`, one after the other.

    python saved_model_cli.py JOBS.json

The jobs are those of `keras_vae/exporting/runtimes.py`. They share one process, because
the command spends most of its time importing TensorFlow.
"""

import json
import pathlib
import sys
import tempfile

import numpy as np
from tensorflow.python.tools import saved_model_cli


def main(jobs):
    for job in jobs:
        feeds, results = np.load(job["feeds"]), {}
        with tempfile.TemporaryDirectory() as folder:
            for signature in sorted({key.split("/")[0] for key in feeds}):
                inputs = []
                for key in feeds:
                    name, tensor = key.split("/")
                    if name == signature:
                        file = pathlib.Path(folder, f"{name}-{tensor}.npy")
                        np.save(file, feeds[key])
                        inputs.append(f"{tensor}={file}")
                out = pathlib.Path(folder, signature)
                sys.argv = [
                    "saved_model_cli", "run", "--dir", job["artefact"],
                    "--tag_set", "serve", "--signature_def", signature,
                    "--inputs", ";".join(inputs), "--outdir", str(out),
                ]  # fmt: skip
                try:
                    saved_model_cli.main()
                except SystemExit as stop:  # how the command ends
                    assert not stop.code
                for file in out.glob("*.npy"):
                    results[f"{signature}/{file.stem}"] = np.load(file)
        np.savez(job["results"], **results)
    assert not {"keras_vae", "tensorflow_probability", "tf_keras"} & set(sys.modules)
    print(json.dumps([{}] * len(jobs)))


if __name__ == "__main__":
    main(json.loads(pathlib.Path(sys.argv[1]).read_text()))
