"""Trains one VAE on several workers that Ray starts, and starts again when one is lost.

    pip install "ray[train]" keras-vae
    python ray_train.py --workers 2 --backup /shared/runs/digits

Ray Train places the workers, sets TF_CONFIG for each and calls `train` there; nothing of
its data or checkpoints is used. The folder of --backup must be one that all nodes see.

TensorFlow's gRPC ports have neither passwords nor encryption, and listen on all interfaces,
as do Ray's own: keep the nodes in a network that only you reach.

Run with Ray 2.60 on one machine with two workers on its CPU; NOT on a cluster or on GPUs.
"""

import argparse
import pathlib


def train(config):
    """What each worker does; all with the same arguments."""
    # Inside, as Ray sends the function to other machines.
    import keras
    import tensorflow as tf

    import keras_vae as kv

    data = kv.datasets.load("digits")
    keras.utils.set_random_seed(0)  # workers must begin with the same weights
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        vae = kv.VAE(
            encoder=kv.nets.MLP([256]),
            decoder=kv.nets.MLP([256]),
            likelihood=kv.distributions.IndependentBernoulli(data.event_shape),
            latent_dim=16,
        )
        vae.compile(keras.optimizers.Adam(1e-3))
    # The whole data on each worker, which takes its share of each batch by itself; and the
    # batch size of all of them together.
    vae.fit(
        data.x_train,
        batch_size=config["batch"],
        epochs=config["epochs"],
        verbose=0,
        callbacks=[kv.callbacks.Backup(config["backup"])],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpu", action="store_true", help="one GPU for each worker")
    parser.add_argument("--backup", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument(
        "--batch", type=int, default=128, help="rows of all workers together"
    )
    parser.add_argument("--epochs", type=int, default=50)
    args = parser.parse_args()

    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    config = {
        "batch": args.batch,
        "epochs": args.epochs,
        "backup": str(args.backup.resolve()),
    }
    TensorflowTrainer(
        train,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=args.workers, use_gpu=args.gpu),
        # When one worker fails, Ray ends all and calls `train` anew: it goes on from the
        # last backup. Lost nodes are counted apart, without a limit.
        run_config=RunConfig(failure_config=FailureConfig(max_failures=3)),
    ).fit()


if __name__ == "__main__":
    main()
