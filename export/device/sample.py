"""Samples from a .tflite file by seed, with only LiteRT: no TensorFlow, no keras_vae.

    pip install ai-edge-litert numpy pillow
    python sample.py model.tflite --seeds 1 2 3 --out samples.png

A seed returns the same sample as `vae.sample(seeds=[...])` in Keras. A .png file shows the
samples in lines of --columns; an .npz file has the arrays x, mean, z and seed.
"""

import argparse
import pathlib
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def sample(path, seeds):
    """Returns the outputs of `sample`, each `[rows, ...]`, for int32 seeds `[rows]`."""
    interpreter = Interpreter(str(path), num_threads=1)
    if "sample" not in interpreter.get_signature_list():
        raise ValueError(
            f"the file has no signature `sample`: {interpreter.get_signature_list()}"
        )
    run = interpreter.get_signature_runner("sample")
    size = run.get_input_details()["seed"]["shape_signature"][0]
    if size == -1:  # exported for any number of rows
        return run(seed=seeds)
    parts = []
    for start in range(0, len(seeds), size):
        place = np.arange(start, start + size).clip(max=len(seeds) - 1)
        parts.append(run(seed=seeds[place]))
    return {key: np.concatenate([p[key] for p in parts])[: len(seeds)] for key in parts[0]}


def save_png(path, images, columns):
    """Writes images in [0, 1], `[rows, height, width, 1 or 3]`, as one picture."""
    from PIL import Image

    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"rows of shape {images.shape[1:]} are no images: use --out FILE.npz"
        )
    rows, height, width, channels = images.shape
    lines = -(-rows // columns)
    grid = np.zeros((lines * columns, height, width, channels), np.uint8)
    grid[:rows] = np.round(255 * images.clip(0, 1))
    grid = grid.reshape(lines, columns, height, width, channels).swapaxes(1, 2)
    grid = grid.reshape(lines * height, columns * width, channels)
    Image.fromarray(grid.squeeze(-1) if channels == 1 else grid).save(path)


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path, metavar="MODEL.tflite")
    parser.add_argument("--seeds", type=int, nargs="+", required=True, metavar="SEED")
    parser.add_argument("--out", type=pathlib.Path, required=True, help=".png or .npz")
    parser.add_argument("--mean", action="store_true", help="show means of p(x|z)")
    parser.add_argument("--columns", type=int, default=8, help="columns of the picture")
    args = parser.parse_args()
    if args.out.suffix not in (".png", ".npz"):
        parser.error(f"--out must end with .png or .npz. Received: {args.out}")
    if not all(-(2**31) <= seed < 2**31 for seed in args.seeds):
        parser.error(f"--seeds must be of 32 bits. Received: {args.seeds}")
    if args.columns < 1:
        parser.error(f"--columns must be at least 1. Received: {args.columns}")
    seeds = np.array(args.seeds, np.int32)
    try:
        drawn = sample(args.model, seeds)
        if args.out.suffix == ".npz":
            np.savez(args.out, seed=seeds, **drawn)
        else:
            columns = min(args.columns, len(seeds))
            save_png(args.out, drawn["mean" if args.mean else "x"], columns)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        sys.exit(f"{parser.prog}: {args.model} -> {args.out}: {error}")
    print(args.out)


if __name__ == "__main__":
    main()
