"""The error of a full disk is recognised, whatever library raised it, and has a path."""

import errno

import pytest
import tensorflow as tf

from keras_vae import disks


def pyarrow_table(path):
    import pyarrow.csv

    with open(path, "wb") as file:
        table = pyarrow.table({"a": range(10_000)})
        pyarrow.csv.write_csv(table, pyarrow.PythonFile(file))


def picture(path):
    from matplotlib import image

    image.imsave(path, [[0.0, 1.0]] * 99, format="png")


def archive(path):
    import zipfile

    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", bytes(10**6))


def weights(path):
    import h5py

    with h5py.File(path, "w") as file:
        file["a"] = bytes(10**6)


def events(path):
    text = f"{{{{function_node f}}}} {path}; No space left on device\n\tCould not flush"
    raise tf.errors.ResourceExhaustedError(None, None, text)


def short_write(path):
    raise OSError("1000 requested and 24 written")


@pytest.mark.parametrize(
    "write", [pyarrow_table, picture, archive, weights, events, short_write]
)
def test_a_full_disk_is_recognised_and_the_path_is_named(write, tmp_path):
    # Writes to /dev/full fail like those to a full disk.
    path = tmp_path / "file"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError) as caught, disks.writing(path):
        write(path)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
