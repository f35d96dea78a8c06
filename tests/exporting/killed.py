"""Exports without end in a process that is killed, again and again. A script.

    python -m tests.exporting.killed FOLDER KILLS SEED

Each process is a fork of this one, which has imported everything and run nothing. After
each kill the folder must hold whole artefacts only. The last line says how many.
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


def export_for_ever(folder):
    import keras

    keras.utils.set_random_seed(0)
    vae = kv.VAE(
        kv.nets.MLP([8]),
        kv.nets.MLP([8]),
        kv.distributions.IndependentBernoulli((6,)),
        latent_dim=2,
        seed=0,
    )
    names = ["decode", "reconstruct"]  # the fewest operators, so that most time is writing
    for number in itertools.count(1 + len(artefacts(folder))):
        vae.export(folder / str(number), names=names)
        (folder / "ready").touch()
        if number % 3 == 0:
            vae.export(folder / f"{number}.tflite", format="litert", names=["decode"])


def artefacts(folder):
    """What a reader would take for an artefact: version folders, and files."""
    return [p for p in folder.iterdir() if re.fullmatch(r"[0-9]+(\.tflite)?", p.name)]


def main(folder, kills, seed):
    draw, during = random.Random(seed), 0
    for last in reversed(range(kills)):
        (folder / "ready").unlink(missing_ok=True)
        child = os.fork()
        if not child:
            export_for_ever(folder)
        while not (folder / "ready").exists():
            time.sleep(0.01)
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(draw.uniform(0.0, 2.0))
        while not last and not any(folder.glob(f".keras-vae-{child}-*")):
            time.sleep(0.001)  # the last one in the middle of an export
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        during += any(folder.glob(f".keras-vae-{child}-*"))  # in the middle of one
        for path in artefacts(folder):
            verify.read_card(path)  # checks that all files are there, by their checksums
    print(len(artefacts(folder)), during)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
