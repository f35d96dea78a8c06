"""Models in forked processes: an error where TensorFlow would wait forever."""

import os
import pathlib
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

import keras_vae as kv

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")


def make():
    vae = kv.VAE(
        kv.nets.MLP([4]),
        kv.nets.MLP([4]),
        kv.distributions.IndependentNormal((4,)),
        latent_dim=2,
    )
    vae.compile()
    return vae


@pytest.fixture(scope="module")
def vae():
    return make()


def exit_code_of_fork(function):
    """Runs a function in a forked process, which is killed after 30 s."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns about forks of threads, too
        child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)
        try:
            function()
            os._exit(0)
        except RuntimeError as error:
            os._exit(3 if 'get_context("spawn")' in str(error) else 4)
        finally:
            os._exit(5)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    "call",
    [
        lambda vae: vae.fit(X, verbose=0),
        lambda vae: vae.evaluate(X, verbose=0),
        lambda vae: vae.predict(X, verbose=0),
        lambda vae: vae.train_on_batch(X),
        lambda vae: vae.test_on_batch(X),
        lambda vae: vae.encode(X),
        lambda vae: vae.decode(np.zeros((3, 2), "float32")),
        lambda vae: vae.reconstruct(X),
        lambda vae: vae.sample(3),
        lambda vae: vae.log_likelihood(X, num_samples=2),
    ],
    ids=[
        "fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "encode", "decode",
        "reconstruct", "sample", "log_likelihood",
    ],
)  # fmt: skip
def test_a_fork_of_a_process_that_used_tensorflow_is_an_error(vae, call):
    assert exit_code_of_fork(lambda: call(vae)) == 3


def test_the_process_itself_is_not_affected(vae):
    exit_code_of_fork(lambda: None)
    assert np.isfinite(vae.evaluate(X, verbose=0)).all()


SCRIPT = """
from tests.training.test_forks import X, exit_code_of_fork, make
fit = lambda: make().fit(X, verbose=0)
print("codes", exit_code_of_fork(fit), make() and exit_code_of_fork(fit))
"""


@pytest.mark.slow
def test_a_fork_of_a_process_that_only_imported_tensorflow_trains():
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", SCRIPT]
    output = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert "codes 0 3\n" in output.stdout, output
