"""A run: the folder that `keras-vae train` makes, and how it is trained and resumed.

    run.json         what made it: the command, the options, the data, the versions
    backup/          what `--resume` goes on from, see `keras_vae.callbacks.Backup`
    model.keras      the model of the newest backup, optimizer and all
    metrics.csv      what Keras' History has, a row for each epoch
    tensorboard/     the same, and image grids
    scaler.json      how a table was standardised
    evaluation.json, baselines.json, figures/, report.html: see keras_vae/report

Each file is written beside its place and then renamed, so that a run that is killed, at
whatever moment, holds a whole model and can be resumed.
"""

import contextlib
import csv
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_vae
from keras_vae import callbacks, datasets, distribute, nets, objectives, schedules
from keras_vae.distributions import IndependentBernoulli, IndependentNormal
from keras_vae.models import VAE, Autoencoder, ConditionalVAE

FORMAT = 1  # of run.json and of what lies beside it

# The options that make a run, in the order of the report.
OPTIONS = (
    "data", "label", "drop", "resize", "value_range", "validation", "model", "condition",
    "network",
    "hidden", "filters", "activation", "latent", "likelihood", "grey", "scale", "objective",
    "samples", "beta", "beta_schedule", "beta_steps", "free_bits", "epochs", "batch",
    "learning_rate", "lr_schedule", "seed", "precision", "xla", "shift", "rotate", "crop",
)  # fmt: skip
FILTERS = [32, 64]  # by default


class Run:
    """A run's folder.

    Args:
        folder: path.

    Attributes:
        options: dict of the options of `keras-vae train`, to be set before `start`; those
            of a run that is there are read from it.
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.options: dict = {}
        self.info: dict = {}

    def path(self, *names):
        """The path of a file of the run."""
        return self.folder.joinpath(*names)

    @property
    def exists(self):
        """Whether the folder holds a run."""
        return self.path("run.json").is_file()

    @classmethod
    def open(cls, folder):
        """The run of a folder.

        Raises:
            ValueError: if there is none, or it was made by a newer version.
        """
        run = cls(folder)
        path = run.path("run.json")
        try:
            run.info = json.loads(path.read_text())
            number = run.info["format"]
            if number > FORMAT:
                raise ValueError(
                    f"`run` must be one of keras_vae {keras_vae.__version__} or older: "
                    f"update keras_vae. Received: {folder}, made by keras_vae "
                    f"{run.info['versions']['keras_vae']} (format {number}; this version "
                    f"reads {FORMAT})"
                )
            run.info["options"] = {"condition": None} | run.info["options"]  # if it is old
            run.options = run.info["options"]
            missing = {*OPTIONS} - {*run.options}
            if missing:
                raise KeyError(f"options: {', '.join(sorted(missing))}")
            run.info["data"]["fingerprint"], run.info["data"]["shown_range"]
            run.info["command"], run.info["versions"]
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(
                "`run` must be a folder made by `keras-vae train`. "
                f"Received: {folder}, which has no run.json"
            ) from None
        except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(
                f"`run` must have a run.json that can be read. Received: {path}: "
                f"{type(error).__name__} {error}"
            ) from None
        return run

    def start(self, command, data):
        """Makes the folder; from here on it holds a run."""
        packages = ("keras", "tensorflow", "tensorflow-probability", "numpy")
        versions = {name: importlib.metadata.version(name) for name in packages}
        self.info = {
            "format": FORMAT,
            "command": command,
            "options": self.options,
            "data": {
                "name": data.name,
                "fingerprint": data.fingerprint(self.conditional),
                "event_shape": data.event_shape,
                "value_range": data.value_range,
                "shown_range": data.shown_range,
                "classes": list(map(str, data.classes)) if self.conditional else None,
            },
            "versions": {
                "keras_vae": keras_vae.__version__,
                "python": platform.python_version(),
                **versions,
            },
        }
        there = self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if data.scaler is not None:
                self.write_json("scaler.json", data.scaler.to_dict())
            self.write_json("run.json", self.info)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.path("scaler.json").unlink(missing_ok=True)
                if not there:
                    self.folder.rmdir()
            raise ValueError(
                f"`out` must be a folder that can be written. Received: {self.folder}: "
                f"{error}"
            ) from error

    def resume(self, given):
        """Takes up the number of epochs from the options that were `given` anew.

        Raises:
            ValueError: naming the first option that would make it another run.
        """
        free = {"epochs"} if self.options["lr_schedule"] == "constant" else set()
        for name, value in given.items():
            was = self.options[name]
            if value != was and name not in free:
                why = " (the learning rate falls with them)" if name == "epochs" else ""
                raise ValueError(
                    f"`{name}` must be as the run began, {was}, to resume it{why}. "
                    f"Received: {name}={value}"
                )
        self.options["epochs"] = given.get("epochs", self.options["epochs"])

    @property
    def conditional(self):
        """Whether its model is given the labels."""
        return self.options["condition"] is not None

    def given(self, data, part, rows=slice(None)):
        """What its model is given beside rows of a part of the data: keyword arguments."""
        return {"condition": data.class_numbers(part)[rows]} if self.conditional else {}

    def write_json(self, name, value):
        """Writes a JSON file of the run, whole or not at all."""
        self.write(name, json.dumps(value, indent=2) + "\n")

    def read_json(self, name):
        """Reads a JSON file of the run, or returns None if there is none.

        Raises:
            ValueError: if it cannot be read.
        """
        path = self.path(name)
        try:
            return json.loads(path.read_text()) if path.is_file() else None
        except ValueError as error:  # of JSON and of UTF-8
            raise self.unreadable(name, error) from error

    def unreadable(self, name, why):
        """The error for a file of the run that is not what it was."""
        return ValueError(
            f"`run` must have a {name} that can be read. Received: {self.path(name)}: {why}"
        )

    def write(self, name, text):
        """Writes a text file of the run, whole or not at all."""
        part = self.path(f".{name}-{os.getpid()}")
        try:
            with open(part, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path(name))
        finally:
            part.unlink(missing_ok=True)

    def data(self):
        """The data of the run.

        Raises:
            ValueError: if they are not what they were.
        """
        data = load_data(self.options)
        if data.fingerprint(self.conditional) != self.info["data"]["fingerprint"]:
            raise ValueError(
                f"`data` must be what the run was made with. Received: {data.name}, which "
                "has changed since"
            )
        return data

    def facts(self, data):
        """What must be the same on all workers of the run: a dict of str by name."""
        package = pathlib.Path(keras_vae.__file__).parent
        code = hashlib.sha256()
        for path in sorted(package.rglob("*.py")):
            code.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
        packages = ("keras", "tensorflow", "numpy")
        options = {name: str(value) for name, value in self.options.items()}
        return {
            "code": f"{keras_vae.__version__}, {code.hexdigest()[:12]}",
            **{name: importlib.metadata.version(name) for name in packages},
            **options,
            "data": data.fingerprint(self.conditional),  # whose path may be another one
            "folder": "with a run" if self.exists else "without a run",
        }

    def model(self):
        """The model as it was last kept.

        Raises:
            ValueError: if there is none yet, or it cannot be read.
        """
        path = self.path("model.keras")
        if not path.is_file():
            raise ValueError(
                "`run` must hold a trained model: `keras-vae train ... --resume` goes on "
                f"with it. Received: {self.folder}, stopped before its first epoch ended"
            )
        try:
            model = keras.saving.load_model(path)
        except Exception as error:  # of zipfile, json, h5py and Keras
            raise self.unreadable("model.keras", error) from error
        if not isinstance(model, VAE):
            raise self.unreadable("model.keras", f"a {type(model).__name__}, not a VAE")
        return model

    def about(self):
        """What a model card says of the run, a dict."""
        data, scaler = self.info["data"], self.read_json("scaler.json")
        numbers = self.read_json("evaluation.json") or {}
        if not isinstance(numbers, dict):
            kind = type(numbers).__name__
            raise self.unreadable("evaluation.json", f"a {kind}, where a dict should be")
        # JSON has no NaN, such as the Monte Carlo error of one sample.
        numbers = {key: value for key, value in numbers.items() if _is_finite(value)}
        steps = {}
        if data["value_range"] is not None:
            low, high = data["value_range"]
            steps["scale"] = f"(x - {low:g}) / {high - low:g}"
        if scaler is not None:
            steps["standardise"] = scaler
        return {
            "preprocessing": steps or {"none": "x as it is"},
            "training": {
                "data": pathlib.Path(data["name"]).name,
                "fingerprint": data["fingerprint"],
                "shown_range": data["shown_range"],
                "epochs": len(self.metrics().get("epoch", ())),
                **numbers,
            },
        }

    def metrics(self):
        """The columns of metrics.csv, in the order of the epochs: a dict of lists."""
        path = self.path("metrics.csv")
        if not path.is_file():
            if self.path("model.keras").exists():
                raise self.unreadable("metrics.csv", "no such file")
            return {}
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            return {name: [float(row[name]) for row in rows] for name in rows[0]}
        except (ValueError, TypeError, IndexError, csv.Error) as error:
            raise self.unreadable("metrics.csv", error) from error

    def epochs_done(self):
        """How many epochs the run has behind it, an int.

        Raises:
            ValueError: if it is unfinished and has no backup to go on from.
        """
        done = _Keeper(self).epochs_done
        if done is None:
            done = len(self.metrics().get("epoch", ()))
            if 0 < done < self.options["epochs"]:
                raise ValueError(
                    "`run` must have a folder `backup`, to be resumed (keras_vae 0.1 made "
                    f"none). Received: {self.folder}, with {done} epochs and no backup"
                )
        return done

    def train(self, model, data, watchers=()):
        """Trains on to the last epoch, keeping the model and the metrics of each.

        Args:
            model: from `build`. It goes on from the newest backup.
            data: `Dataset`.
            watchers: further callbacks, which the chief of several workers has alone.

        Raises:
            OSError: if the last epoch could not be written.
        """
        epochs, keeper = self.options["epochs"], _Keeper(self)
        if self.epochs_done() and keeper.epochs_done is None:  # finished, without backups
            return
        look = "test" if data.x_val is None else "val"
        x_look = getattr(data, f"x_{look}")
        watch = [keeper]
        if distribute.is_chief(model.distribute_strategy):
            self.write_json("run.json", self.info)  # `epochs` may have grown
            for path in self.folder.glob(".*-*"):  # of processes that were killed
                path.unlink(missing_ok=True)
            given = self.given(data, look, slice(8))
            watch += [*self._pictures(data, x_look, given), *watchers]
        if self.options["model"] != "autoencoder":  # first: the others write what it counts
            patience = max(3, epochs // 10)  # many begin with a collapse and recover
            given = self.given(data, look, slice(500))
            monitor = callbacks.PosteriorCollapse(x_look[:500], patience=patience, **given)
            watch.insert(0, monitor)
        y, validation = None, data.x_val
        if self.conditional:
            y = data.class_numbers("train")
            if validation is not None:
                validation = (validation, data.class_numbers("val"))
        model.fit(
            data.x_train,
            y,
            batch_size=self.options["batch"],
            epochs=epochs,
            verbose=0,
            validation_data=validation,
            callbacks=watch,
            augmentation=augmentation(self.options) or None,
        )
        if keeper.failed is not None:
            raise keeper.failed

    def _pictures(self, data, x, given):
        """What writes for TensorBoard."""
        folder, shape = self.path("tensorboard"), data.event_shape
        if len(shape) == 3 and shape[-1] in (1, 3):
            every = max(1, self.options["epochs"] // 50)
            yield callbacks.ImageGrids(folder / "images", x[:8], every=every, **given)
        yield keras.callbacks.TensorBoard(str(folder), write_graph=False)


class _Keeper(callbacks.Backup):
    """Backs a run up, and puts what the other commands read in its place."""

    def __init__(self, run):
        super().__init__(run.path("backup"))
        self.run = run
        self.hint = f"The same command with --out {run.folder} --resume goes on"

    def restore(self):
        super().restore()
        if self._chief:
            self.publish()  # a process that was killed may not have come to it

    def commit(self, epoch):
        if epoch:
            self.run.path("report.html").unlink(missing_ok=True)  # it is of fewer epochs
        super().commit(epoch)
        self.publish()

    def publish(self):
        """Writes model.keras and metrics.csv as the newest backup has them."""
        history = self.model.history
        if self.newest is None or not history.epoch:  # not of the untrained model
            return
        part, model = self.run.path(f".model.keras-{os.getpid()}"), "model.keras"
        try:
            try:
                os.link(self.newest / model, part)
            except OSError:  # a file system without links
                shutil.copyfile(self.newest / model, part)
            part.replace(self.run.path(model))
        finally:
            part.unlink(missing_ok=True)  # a rename to a link of the same file does nothing
        columns = {"epoch": history.epoch, **history.history}
        rows = zip(*columns.values(), strict=True)
        lines = [",".join(columns), *(",".join(map(_text, row)) for row in rows)]
        self.run.write("metrics.csv", "\n".join(lines) + "\n")


def _is_finite(value):
    return isinstance(value, (int, float)) and np.isfinite(value)


def _text(value):
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def load_data(options):
    """The data set that the options name, with its validation rows."""
    data = datasets.load(
        options["data"],
        label=options["label"],
        drop=tuple(options["drop"]),
        resize=options["resize"],
        value_range=options["value_range"],
    )
    data = data.hold_out(options["validation"])
    if options["crop"]:
        shape = data.event_shape
        if len(shape) != 3 or min(np.subtract(shape[:2], options["crop"])) < 0:
            raise ValueError(
                f"`crop` must be a part of the images. Received: crop={options['crop']} of "
                f"rows of shape {shape}"
            )
        if sum(np.equal(shape[:2], options["crop"])) == 1:
            raise ValueError(  # Keras' layer would not move then
                "`crop` must be smaller than the images in height and in width. Received: "
                f"crop={options['crop']} of rows of shape {shape}"
            )
        event_shape = (*options["crop"], shape[2])
        parts = {
            part: datasets.center(getattr(data, part), event_shape)
            for part in ("x_val", "x_test")
        }
        data = data._replace(**parts)
    return data


def augmentation(options):
    """The layers that the options ask for."""
    layers = []
    # Not in the policy of the process, which is that of the networks.
    more = {"fill_mode": "nearest", "dtype": "float32"}
    if options["rotate"]:
        factor = options["rotate"] / 360
        layers.append(keras.layers.RandomRotation(factor, **more))
    if options["shift"]:
        shift = options["shift"]
        layers.append(keras.layers.RandomTranslation(shift, shift, **more))
    if options["crop"]:
        layers.append(keras.layers.RandomCrop(*options["crop"], dtype="float32"))
    return layers


def resolve(options, data):
    """The options with the defaults that depend on the data filled in.

    Raises:
        ValueError: for options that do not fit the data or each other.
    """
    options = dict(options)
    conditional = options["model"] == "conditional"
    if not conditional and options["condition"] is not None:
        _refuse("condition", "left out unless the model is conditional", "label")
    if conditional:
        options["condition"] = "label"
        if not data.has_classes:
            raise ValueError(
                "`condition` label needs 2 to 100 classes: folders of images, y_train and "
                "y_test of an .npz, or `label`, a column of a table. Received: "
                f"{'no labels' if data.y_train is None else 'other labels'} in {data.name}"
            )
    images, binary = len(data.event_shape) == 3, data.x_train.dtype == bool
    if options["network"] is None:
        options["network"] = "conv" if images else "mlp"
    if options["network"] == "conv" and not images:
        _refuse("network", "mlp for data that are no images", "conv")
    if options["network"] == "mlp" and options["filters"] != FILTERS:
        _refuse("filters", "left out unless the network is conv", options["filters"])
    try:
        keras.activations.get(options["activation"])
    except ValueError:
        _refuse("activation", "the name of a Keras activation", options["activation"])
    if options["likelihood"] is None:
        grey = images and data.event_shape[-1] == 1 and _unit(data)
        options["likelihood"] = "bernoulli" if binary or grey else "normal"
    for name, kind in (("grey", "bernoulli"), ("scale", "normal")):
        if options[name] is not None and options["likelihood"] != kind:
            _refuse(name, f"left out unless the likelihood is {kind}", options[name])
    if options["likelihood"] == "bernoulli" and not _unit(data):
        low, high = data.x_seen.min(), data.x_seen.max()
        raise ValueError(
            "`likelihood` bernoulli needs values in [0, 1]: scale an array by its "
            f"`value_range`, or take normal. Received: values from {low:g} to {high:g} in "
            f"the training rows, {data.x_test.min():g} to {data.x_test.max():g} in the test"
        )
    if options["grey"] is None and options["likelihood"] == "bernoulli":
        options["grey"] = "error" if binary else "binarize"
    if options["scale"] is None and options["likelihood"] == "normal":
        options["scale"] = "shared"
    for name in ("rotate", "shift", "crop"):
        if options[name] and not images:
            _refuse(name, "left out for data that are no images", options[name])
    steps = -(-len(data.x_train) // options["batch"])
    if options["epochs"] is None:  # some 5,000 steps
        options["epochs"] = min(200, max(10, -(-5000 // steps)))
    if options["beta_schedule"] != "constant" and options["beta_steps"] is None:
        options["beta_steps"] = max(1, steps * options["epochs"] // 10)
    if options["xla"] is None:  # convolutions are slower with it on a CPU
        gpu = bool(tf.config.list_physical_devices("GPU"))
        options["xla"] = options["network"] == "mlp" or gpu
    _check_objective(options)
    return options


def _check_objective(options):
    """Raises a ValueError for an option of another objective than the one asked for."""
    knobs = {"samples": 1, "beta": 1.0, "beta_schedule": "constant", "beta_steps": None}
    knobs |= {"free_bits": 0.0}
    if options["beta_schedule"] == "constant" and options["beta_steps"] is not None:
        _refuse("beta_steps", "left out without `beta_schedule`", options["beta_steps"])
    if options["model"] == "autoencoder":
        kind, knobs = "model is vae", {"objective": "elbo", **knobs}
    elif options["objective"] == "iwae":
        kind = "objective is elbo"
        del knobs["samples"]
    else:
        return
    for name, default in knobs.items():
        if options[name] != default:
            _refuse(name, f"left out unless the {kind}", options[name])


def _refuse(name, expected, value):
    raise ValueError(f"`{name}` must be {expected}. Received: {name}={value}")


def _unit(data):
    """Whether all values are in [0, 1] where the likelihood sees them."""
    parts = [x for x in (data.x_seen, data.x_val, data.x_test) if x is not None]
    return parts[0].dtype == np.uint8 or all(x.min() >= 0 and x.max() <= 1 for x in parts)


def likelihood(options, data):
    """The likelihood head of the options, which starts at the mean of the data."""
    # Of each channel for convolutions, which see no places, else of each element.
    mean = data.mean((0, 1, 2) if options["network"] == "conv" else 0)
    if options["likelihood"] == "bernoulli":
        mean = np.clip(mean, 0.001, 0.999)  # Burda et al. (2016)
        bias = keras.initializers.Constant(np.log(mean / (1 - mean)).tolist())
        return IndependentBernoulli(
            data.event_shape, grey=options["grey"], bias_initializer=bias
        )
    return IndependentNormal(
        data.event_shape,
        scale=options["scale"],
        bias_initializer=keras.initializers.Constant(mean.tolist()),
        initial_scale=max(0.01, data.spread),
    )


def build(options, data):
    """The compiled model that the options describe.

    Args:
        options: dict, from `resolve`.
        data: `Dataset`.

    Raises:
        ValueError: for options that do not fit each other.
    """
    keras.utils.set_random_seed(options["seed"] % 2**32)
    keras.config.set_dtype_policy(options["precision"])
    hidden, activation = options["hidden"], options["activation"]
    encoder = nets.MLP(hidden, activation)
    decoder = nets.MLP(hidden[::-1], activation)
    if options["network"] == "conv":
        filters = options["filters"]
        encoder = keras.Sequential(
            [nets.ConvEncoder(filters, activation=activation), encoder]
        )
        to_images = nets.ConvDecoder(filters[::-1], data.event_shape, activation=activation)
        decoder = keras.Sequential([decoder, to_images])
    kind: Any = {"autoencoder": Autoencoder}.get(options["model"], VAE)
    if options["model"] == "conditional":
        kind = functools.partial(ConditionalVAE, condition=len(data.classes))
        if options["network"] == "conv":
            encoder = nets.Planes(encoder)
    head = likelihood(options, data)
    model = kind(encoder, decoder, head, options["latent"], seed=options["seed"])
    steps = -(-len(data.x_train) // options["batch"])
    rate = options["learning_rate"]
    if options["lr_schedule"] == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            rate, steps * options["epochs"], alpha=0.01
        )
    at_once = "auto"
    if tf.distribute.has_strategy():
        strategy = tf.distribute.get_strategy()
        at_once = distribute.steps_per_execution(strategy, min(100, steps))
    model.compile(
        keras.optimizers.Adam(rate),
        objective(options),
        steps_per_execution=at_once,
        jit_compile=options["xla"],
    )
    model.check_data(data.x_train, "data", augmentation(options))
    for x in (data.x_test, data.x_val):
        if x is not None:
            model.check_data(x, "data")
    return model


def objective(options):
    """The objective of the options, or None for an autoencoder's own."""
    if options["model"] == "autoencoder":
        return None
    if options["objective"] == "iwae":
        return objectives.IWAE(options["samples"])
    beta, steps = options["beta"], options["beta_steps"]
    kind = options["beta_schedule"]
    if kind == "cyclical":
        beta = schedules.Cyclical(0.0, beta, period=steps)
    elif kind != "constant":
        ramp = {"linear": schedules.Linear, "cosine": schedules.Cosine}[kind]
        beta = ramp(0.0, beta, steps=steps)
    return objectives.ELBO(beta, options["free_bits"], num_samples=options["samples"])
