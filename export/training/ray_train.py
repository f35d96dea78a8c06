"""Trains one VAE on several workers that Ray starts, and restarts if one is lost.

    pip install "ray[train]" keras-vae
    python ray_train.py --workers 2 --backup /shared/runs/digits

Ray Train places the workers, sets TF_CONFIG for each and calls `train` on it. Its data and
checkpoints are not used. --backup must be a folder that all nodes can access.

TensorFlow's gRPC ports have neither passwords nor encryption, and listen on all interfaces,
as do Ray's own: keep the nodes in a private network.

Run with Ray 2.60 on one machine with two workers on its CPU; NOT on a cluster or on GPUs.
"""

import argparse
import pathlib


def train(config):
    """Runs on each worker, with the same arguments."""
    # Imported here, because Ray sends this function to other machines.
    import keras
    import tensorflow as tf

    import keras_vae as kv

    data = kv.datasets.load("digits")
    keras.utils.set_random_seed(0)  # workers must start with the same weights
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        vae = kv.VAE(
            encoder=kv.nets.MLP([256]),
            decoder=kv.nets.MLP([256]),
            likelihood=kv.distributions.IndependentBernoulli(
                data.event_shape, grey="binarize"
            ),
            latent_dim=16,
        )
        vae.compile(keras.optimizers.Adam(1e-3))
    # Each worker has all data and computes its share of each batch. The batch size is the
    # global one.
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
    parser.add_argument("--gpu", action="store_true", help="one GPU per worker")
    parser.add_argument("--backup", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--batch", type=int, default=128, help="global batch size")
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
        # If one worker fails, Ray stops all and calls `train` again, which resumes from the
        # last backup. Lost nodes are counted separately, without a limit.
        run_config=RunConfig(failure_config=FailureConfig(max_failures=3)),
    ).fit()


if __name__ == "__main__":
    main()
