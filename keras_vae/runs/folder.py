"""The folder of a run, which `keras-vae train` makes.

    run.json         the command, the options, the data and the versions
    run.yaml         the options, for `keras-vae train --config`
    backup/          backups for `--resume`, see `keras_vae.callbacks.Backup`
    model.keras      the model of the newest backup, with its optimizer
    metrics.csv      Keras' History, a row for each epoch
    tensorboard/     the same metrics, and image grids
    scaler.json      the standardisation of a table
    evaluation.json, baselines.json, figures/, report.html: see keras_vae/runs/report

Files are written atomically: a run that is killed at any moment has a complete model and
can be resumed. The commands that write these files lock the folder, see
`keras_vae.runs.lock`.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import warnings
import zipfile
from typing import Any

import numpy as np
import yaml

import keras_vae
from keras_vae import atomic, typed_files
from keras_vae.callbacks import Backup
from keras_vae.datasets import NAMED, Dataset, Scaler
from keras_vae.models import VAE
from keras_vae.runs import contents
from keras_vae.runs.data import load_data
from keras_vae.runs.options import Options
from keras_vae.training.saving import load_model


class Run:
    """The folder of a run.

    Args:
        folder: path.
        options: the options of a new run.

    Attributes:
        options: `Options`; `open` reads them from run.json.
        info: dict, the content of run.json.
    """

    def __init__(self, folder: str | os.PathLike, options: Options | None = None):
        self.folder = pathlib.Path(folder)
        self.options: Any = options
        self.info: dict = {}

    def path(self, *names: str) -> pathlib.Path:
        """Returns the path of a file of the run."""
        return self.folder.joinpath(*names)

    @property
    def exists(self) -> bool:
        """Returns True if the folder holds a run."""
        return self.path("run.json").is_file()

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "Run":
        """Opens the run of a folder.

        Raises:
            ValueError: if the folder has no run, or a newer version made it, or run.json
                cannot be read.
        """
        run = cls(folder)
        info = run.read("run.json")
        if info is None:
            fault = "has no run.json" if run.folder.exists() else "does not exist"
            raise ValueError(
                "`run` must be a folder made by `keras-vae train`. "
                f"Received: {folder}, which {fault}"
            )
        run.info, run.options = info, Options.from_dict(info["options"])
        return run

    def check_links(self, argument: str = "run") -> None:
        """Checks the folder before a command writes into it, so that it stays inside.

        A link to a file does no harm: files are replaced by a rename, and not written
        through the link.

        Args:
            argument: name of the argument with the folder, for the error.

        Raises:
            ValueError: for a link in the folder that does not lead to a file.
        """
        for top, folders, files in os.walk(self.folder):
            for path in (os.path.join(top, name) for name in (*folders, *files)):
                if os.path.islink(path) and not os.path.isfile(path):
                    raise ValueError(
                        f"`{argument}` must not have links inside it, except to files. "
                        f"Received: {path}, a link to {os.readlink(path)}"
                    )

    def start(self, command: str, data: Dataset) -> None:
        """Makes the folder and writes run.json, which marks it as a run.

        Raises:
            ValueError: if the folder has a run, or cannot be written.
        """
        packages = ("keras", "tensorflow", "tensorflow-probability", "numpy")
        versions = {name: importlib.metadata.version(name) for name in packages}
        self.info = {
            "format": contents.FORMAT,
            "command": command,
            "options": {},
            "data": {
                "name": data.name,
                "fingerprint": data.fingerprint(self.conditional),
                "event_shape": data.event_shape,
                "dtype": str(data.x_train.dtype),
                "value_range": data.value_range,
                "shown_range": data.shown_range,
                "classes": list(map(str, data.classes)) if self.conditional else None,
                "standardised": data.scaler is not None,
            },
            "versions": {
                "keras_vae": keras_vae.__version__,
                "python": platform.python_version(),
                **versions,
            },
        }
        if self.exists:
            raise ValueError(
                f"`out` must be a new folder. Received: {self.folder}, which has a run"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if data.scaler is not None:
                self.write_json("scaler.json", data.scaler.to_dict())
            self.write_info()
        except OSError as error:
            with contextlib.suppress(OSError):
                for name in ("scaler.json", "run.json"):
                    self.path(name).unlink(missing_ok=True)
            raise ValueError(
                f"`out` must be a folder that can be written. Received: {self.folder}: "
                f"{error}"
            ) from error

    def resume(self, changes: dict[str, Any]) -> None:
        """Checks repeated options against those of the run; only `epochs` may change.

        Raises:
            ValueError: naming the first option with another value.
        """
        free = {"epochs"} if self.options.lr_schedule == "constant" else set()
        for name, value in changes.items():
            before = getattr(self.options, name)
            if value != before and name not in free:
                reason = " (the learning rate depends on it)" if name == "epochs" else ""
                raise ValueError(
                    f"`{name}` must be {before}, as when the run started, to resume it"
                    f"{reason}. Received: {name}={value}"
                )
        self.options.epochs = changes.get("epochs", self.options.epochs)

    @property
    def conditional(self) -> bool:
        """Returns True if the labels are the condition of the model."""
        return self.options.condition is not None

    def condition_kwargs(
        self, data: Dataset, part: str, rows: Any = slice(None)
    ) -> dict[str, Any]:
        """Returns the condition of some rows as keyword arguments.

        Args:
            data: the data set of the run.
            part: `"train"`, `"val"` or `"test"`.
            rows: slice or array of row numbers.

        Returns:
            `{"condition": labels}` for a conditional model, otherwise an empty dict.
        """
        return {"condition": data.class_numbers(part)[rows]} if self.conditional else {}

    def write_info(self) -> None:
        """Writes run.json and run.yaml with the current options."""
        self.info["options"] = options = self.options.to_dict()
        self.write_json("run.json", self.info)
        listed = {name: value for name, value in options.items() if value not in (None, [])}
        text = yaml.safe_dump(listed, sort_keys=False, allow_unicode=True)
        self.write("run.yaml", f"# keras-vae train --config run.yaml\n{text}")

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file of the run, atomically."""
        self.write(name, json.dumps(value, indent=2) + "\n")

    def write(self, name: str, text: str) -> None:
        """Writes a text file of the run, atomically."""
        atomic.write_text(self.path(name), text, sole_writer=True)

    def read(self, name: str) -> Any:
        """Reads a file of the run; None if it does not exist. See `contents.read`."""
        return contents.read(self.path(name))

    @property
    def scaler(self) -> Scaler | None:
        """The standardisation of a table, or None for other data.

        Raises:
            ValueError: if scaler.json cannot be read, or is missing.
        """
        path, about = self.path("scaler.json"), self.info["data"]
        values = contents.read(path)
        if values is None:
            if about.get("standardised"):
                raise contents.unreadable(path, "no such file")
            return None
        if [len(values["columns"])] != about["event_shape"]:
            size = len(values["columns"])
            raise contents.unreadable(path, f"{size} columns, unlike the rows of the run")
        return Scaler.from_dict(values)

    @property
    def channels(self) -> dict[str, int]:
        """The argument `channels` of `datasets.load`, if the rows are images."""
        shape = self.info["data"]["event_shape"]
        return {"channels": shape[2]} if len(shape) == 3 and shape[2] in (1, 3) else {}

    @property
    def dtype(self) -> str:
        """The dtype of the rows; older versions of run.json do not record it."""
        is_bytes = self.info["data"]["value_range"] == [0, 255]
        return self.info["data"].get("dtype", "uint8" if is_bytes else "float32")

    def data(
        self, path: str | os.PathLike | None = None, unchanged: bool = False
    ) -> Dataset:
        """Loads the data of the run, read and scaled as when it started.

        Args:
            path: where the data are now, if they were moved.
            unchanged: bool, whether to refuse data that have changed. Default: a warning.

        Raises:
            ValueError: if the data are not there or do not suit the model.
        """
        options = self.options if path is None else self.options.replace(data=str(path))
        if options.data not in NAMED and not os.path.exists(options.data):
            moved = "" if unchanged else " (--data reads them from another path)"
            raise ValueError(
                f"`data` must exist{moved}. Received: {options.data}, which does not exist"
            )
        about = self.info["data"]
        if options.data not in NAMED and self.scaler is None and about["value_range"]:
            options = options.replace(value_range=about["value_range"])
        data = load_data(options, scaler=self.scaler, **self.channels)
        if data.fingerprint(self.conditional) == about["fingerprint"]:
            return data
        if unchanged:
            raise ValueError(
                "`data` must be unchanged since the run started. Received: "
                f"{data.name}, which has changed"
            )
        self.check_suits(data, "when the run started")
        warnings.warn(
            f"{data.name} has changed since the run started, or holds other data. The "
            "results are for the data as they are now; the model may have been trained on "
            "some of the test rows.",
            stacklevel=2,
        )
        return data

    def check_suits(self, data: Dataset, origin: str) -> None:
        """Raises a ValueError unless the data have the rows and classes of the run.

        Args:
            data: other data.
            origin: str, where the rows and classes come from, for the message.
        """
        shape, classes = list(data.event_shape), self.info["data"].get("classes")
        expected = self.info["data"]["event_shape"]
        if shape != expected:
            raise ValueError(
                f"`data` must have rows of shape {tuple(expected)}, as {origin}. "
                f"Received: {data.name} with rows of shape {tuple(shape)}"
            )
        if self.conditional:
            names = list(map(str, data.classes)) if data.has_classes else ["no classes"]
            if names != classes:
                raise ValueError(
                    f"`data` must have the classes {', '.join(classes)}, as {origin}. "
                    f"Received: {data.name} with {', '.join(names)}"
                )

    def facts(self, data: Dataset) -> dict[str, str]:
        """Returns the facts that must be equal on all workers of the run."""
        package = pathlib.Path(keras_vae.__file__).parent
        code = hashlib.sha256()
        for path in sorted(package.rglob("*.py")):
            code.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
        packages = ("keras", "tensorflow", "numpy")
        options = {name: str(value) for name, value in self.options.to_dict().items()}
        return {
            "code": f"{keras_vae.__version__}, {code.hexdigest()[:12]}",
            **{name: importlib.metadata.version(name) for name in packages},
            **options,
            "data": data.fingerprint(self.conditional),  # its path may differ
            "folder": "with a run" if self.exists else "without a run",
        }

    def model(self) -> Any:
        """Loads the model of the newest backup.

        Raises:
            ValueError: if there is no model yet, or it cannot be read.
        """
        path = self.path("model.keras")
        if not os.path.lexists(path):
            raise ValueError(
                "`run` must hold a trained model: continue it with `keras-vae train ... "
                f"--resume`. Received: {self.folder}, stopped during its first epoch"
            )
        try:
            with typed_files.open_regular(path) as file:
                if not zipfile.is_zipfile(file):
                    raise ValueError("not a .keras file")
            model = load_model(path)
        except Exception as error:  # of zipfile, json, h5py and Keras
            raise contents.unreadable(path, _cause(error)) from error
        if not isinstance(model, VAE):
            raise contents.unreadable(path, f"a {type(model).__name__}, not a VAE")
        return model

    def about(self) -> dict[str, Any]:
        """Returns the entries of a model card that describe the run."""
        data, scaler = self.info["data"], self.read("scaler.json")
        numbers = self.read("evaluation.json") or {}
        if numbers.get("data", data["fingerprint"]) != data["fingerprint"]:
            numbers = {}  # of other data than those of the training
        # JSON does not support NaN, such as the Monte Carlo error of one sample.
        numbers = {key: value for key, value in numbers.items() if _is_finite(value)}
        steps = {}
        if data["value_range"] is not None:
            low, high = data["value_range"]
            steps["scale"] = f"(x - {low:g}) / {high - low:g}"
        if scaler is not None:
            steps["standardise"] = scaler
        return {
            "preprocessing": steps or {"none": "x unchanged"},
            "training": {
                "data": pathlib.Path(data["name"]).name,
                "fingerprint": data["fingerprint"],
                "shown_range": data["shown_range"],
                "epochs": len(self.metrics().get("epoch", ())),
                **numbers,
            },
        }

    def metrics(self) -> dict[str, list[float]]:
        """Reads the columns of metrics.csv by name, with one value for each epoch.

        Raises:
            ValueError: if it cannot be read, or is missing though there is a model.
        """
        columns = self.read("metrics.csv")
        if columns is None and self.path("model.keras").exists():
            raise contents.unreadable(self.path("metrics.csv"), "no such file")
        return columns or {}

    @property
    def has_backup(self) -> bool:
        """Returns True if there is a backup, even one from before the first epoch."""
        return Backup(self.path("backup")).epochs_done is not None

    def epochs_done(self) -> int:
        """Returns the number of completed epochs.

        Raises:
            ValueError: if the run is unfinished and has no backup to resume from.
        """
        done = Backup(self.path("backup")).epochs_done
        if done is None:
            done = len(self.metrics().get("epoch", ()))
            if 0 < done < self.options.epochs:
                raise ValueError(
                    "`run` must have a folder `backup`, to resume it. Received: "
                    f"{self.folder}, with {done} epochs and no backup"
                )
        return done


def _cause(error):
    """Returns the last cause in a message of Keras, without the configs that it shows."""
    text = " ".join(str(error).split()).rpartition("Exception encountered: ")[2]
    return ". ".join(text.split(". ")[:2])[:400]


def _is_finite(value):
    return isinstance(value, (int, float)) and np.isfinite(value)
