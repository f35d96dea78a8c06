"""A script that exports in an endless loop, in processes that are killed.

    python -m tests.exporting.killed FOLDER KILLS SEED

Each process is a fork of this one, which has imported everything and run nothing. After
each kill all artefacts in the folder must be complete. The last line has their number and
the number of kills during an export.
"""

import itertools
import os
import pathlib
import random
import re
import signal
import sys
import time

import keras_vae as kv
from keras_vae.exporting import verify


def export_repeatedly(folder):
    import keras

    keras.utils.set_random_seed(0)
    vae = kv.VAE(
        kv.nets.MLP([8]),
        kv.nets.MLP([8]),
        kv.distributions.IndependentBernoulli((6,)),
        latent_dim=2,
        seed=0,
    )
    names = [
        "decode",
        "reconstruct",
    ]  # few operators, so that writing takes most of the time
    for number in itertools.count(1 + len(artefacts(folder))):
        vae.export(folder / str(number), names=names)
        (folder / "ready").touch()
        if number % 3 == 0:
            vae.export(folder / f"{number}.tflite", format="litert", names=["decode"])


def artefacts(folder):
    """Returns the paths that look like artefacts: version folders and .tflite files."""
    return [p for p in folder.iterdir() if re.fullmatch(r"[0-9]+(\.tflite)?", p.name)]


def main(folder, kills, seed):
    rng, interrupted = random.Random(seed), 0
    for last in reversed(range(kills)):
        (folder / "ready").unlink(missing_ok=True)
        child = os.fork()
        if not child:
            export_repeatedly(folder)
        while not (folder / "ready").exists():
            time.sleep(0.01)
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(rng.uniform(0.0, 2.0))
        while not last and not any(folder.glob(f".keras-vae-{child}-*")):
            time.sleep(0.001)  # the last kill is during an export
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        interrupted += any(folder.glob(f".keras-vae-{child}-*"))  # killed during an export
        for path in artefacts(folder):
            verify.read_card(path)  # checks that all files are present, by checksum
    print(len(artefacts(folder)), interrupted)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
