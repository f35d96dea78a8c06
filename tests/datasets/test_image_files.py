"""Folders of images: the pixels that a viewer shows, parts, labels and broken files."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_vae as kv
from keras_vae import datasets
from keras_vae.datasets import image_files, image_folders
from tests.refusals import assert_refused

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)


def read(path):
    """Reads a single image as `load` does: `[height, width, channels]`."""
    header = image_files.read_header(path, complete=True)
    shape = (*header.size, 1 if header.grey else 3)
    return image_files.read_pixels(path, shape, header.deep)


def load_images(folder, **options):
    """Returns (data, its images in the order of their names)."""
    data = datasets.load(folder, **options)
    (_, test) = kv.datasets.dataset.permuted(len(data.x_train) + len(data.x_test), 2)
    assert len(test) == len(data.x_test)
    x = np.insert(data.x_train, test - np.arange(len(test)), data.x_test, axis=0)
    return data, x


# Pixels.


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "gif"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_formats_and_modes_of_the_same_pixels_agree(tmp_path, mode, suffix):
    # 16 colours, which a palette can hold exactly; black and white for mode 1.
    pixels = GREY // 128 * 255 if mode == "1" else GREY // 16 * 16
    path = tmp_path / f"image.{suffix}"
    save(path, pixels, mode, **({"lossless": True} if suffix == "webp" else {}))
    assert (read(path) == pixels[..., None]).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "RGBX"])
def test_other_colour_spaces_are_converted_to_rgb(tmp_path, mode):
    if mode == "LAB":
        image = Image.new("LAB", (9, 6), (255, 128, 128))  # L = 100: white
    else:
        image = Image.new("RGB", (9, 6), "white").convert(mode)
    save(tmp_path / "image.tif", image)
    assert (read(tmp_path / "image.tif") >= 254).all()  # rounded by the conversion


ROTATIONS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.T,
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].T,
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize(
    "suffix, dtype",
    [("png", "uint8"), ("tif", "uint8"), ("webp", "uint8"), ("png", "uint16"),
     ("tif", "uint16"), ("tif", "float32")],
)  # fmt: skip
@pytest.mark.parametrize("orientation", ROTATIONS)
def test_exif_orientation_is_applied(tmp_path, orientation, suffix, dtype):
    tags = Image.Exif()
    tags[0x0112] = orientation
    options = {"png": {"exif": tags}, "tif": {"tiffinfo": {0x0112: orientation}}}
    options["webp"] = {"exif": tags, "lossless": True}
    save(tmp_path / f"x.{suffix}", GREY.astype(dtype), **options[suffix])
    x = read(tmp_path / f"x.{suffix}")
    assert np.array_equal(x[..., 0], ROTATIONS[orientation](GREY))


def test_transparent_pixels_are_white(tmp_path):
    alpha = np.where(GREY < 128, 0, 255).astype(np.uint8)
    for i in range(6):
        save(tmp_path / f"{i}.png", np.dstack([COLOUR, alpha if i < 4 else alpha | 255]))
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    save(tmp_path / "6.png", grey)
    save(tmp_path / "7.png", Image.fromarray(GREY), transparency=int(GREY[0, 0]))
    save(tmp_path / "8.png", GREY // 16 * 16, "P", transparency=0)
    data, x = load_images(tmp_path)
    opaque = alpha[..., None] > 0
    assert (x[:4] == np.where(opaque, COLOUR, 255)).all() and (x[4:6] == COLOUR).all()
    assert (x[6] == np.where(opaque, GREY[..., None], 255)).all()
    assert (x[7][GREY == GREY[0, 0]] == 255).all()
    assert data.notes[0].startswith("7 of 9 images have transparent pixels")


def test_half_transparent_black_is_grey(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 3] = 51  # a fifth of black on white
    save(tmp_path / "x.png", pixels)
    assert (read(tmp_path / "x.png") == 204).all()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation_is_read(tmp_path, suffix):
    frames = [Image.fromarray(np.full((6, 9), 80 * i, np.uint8)) for i in range(3)]
    options = {"lossless": True} if suffix == "webp" else {}
    for i in range(10):
        path = tmp_path / f"{i}.{suffix}"
        save(path, frames[0], save_all=True, append_images=frames[1:], **options)
    data, x = load_images(tmp_path)
    assert (x == 0).all()
    assert "10 of 10 images have several frames: the first is read." in data.notes


def test_each_page_of_a_tiff_file_is_an_image(tmp_path):
    pages = [Image.fromarray(GREY // 9 * i) for i in range(1, 10)]
    save(tmp_path / "a.tif", pages[0], save_all=True, append_images=pages[1:-1])
    save(tmp_path / "b.tif", pages[-1])
    data, x = load_images(tmp_path)
    assert np.array_equal(x[..., 0], [GREY // 9 * i for i in range(1, 10)])
    assert "1 of 2 images have several pages: each page is a row." in data.notes
    # A preview of another size is not an image of its own.
    save(
        tmp_path / "a.tif", pages[0], save_all=True, append_images=[pages[0].resize((4, 4))]
    )
    assert image_files.read_header(tmp_path / "a.tif").pages == 1


# The range of values.


@pytest.mark.parametrize(
    "pixels, options, value_range, dtype, scaled",
    [
        (np.uint8([[0, 1]]), {}, None, "bool", [0, 1]),  # masks
        (np.uint8([[1, 4]]), {}, (0, 4), "float32", [0.25, 1]),  # label maps
        (np.uint8([[1, 4]]), {"value_range": (0, 16)}, (0, 16), "float32", [1 / 16, 0.25]),
        (np.uint8([[0, 40]]), {}, (0, 255), "uint8", [0, 40]),  # a dark photograph
        (np.uint16([[819, 4000]]), {}, (0, 4095), "float32", [0.2, 4000 / 4095]),
        (np.uint16([[819, 4000]]), {"value_range": (0, 8000)}, (0, 8000), "float32", None),
        (np.uint16([[0, 65535]]), {}, (0, 65535), "float32", [0, 1]),
        (np.uint16([[51, 255]]), {}, (0, 255), "float32", [0.2, 1]),
        (np.int32([[-1000, 1000]]), {}, (-1000, 1000), "float32", [0, 1]),  # tomography
        (np.float32([[0.25, 1]]), {}, None, "float32", [0.25, 1]),
        (np.float32([[-1, 1]]), {}, None, "float32", [-1, 1]),
    ],
)
def test_pixels_are_scaled_by_their_largest_value(
    tmp_path, pixels, options, value_range, dtype, scaled
):
    suffix = "tif" if pixels.dtype.itemsize == 4 else "png"
    for i in range(10):
        save(tmp_path / f"{i}.{suffix}", pixels)
    data, x = load_images(tmp_path, **options)
    assert data.value_range == value_range and x.dtype == dtype
    if scaled is None:
        scaled = (pixels - value_range[0]) / (value_range[1] - value_range[0])
    np.testing.assert_allclose(x, np.broadcast_to(np.reshape(scaled, (1, 2, 1)), x.shape))


def test_files_with_more_bits_are_streamed_as_they_are_loaded(tmp_path, monkeypatch):
    stack = [
        Image.fromarray(RNG.integers(0, 4096, (5, 7)).astype("uint16")) for _ in "1234"
    ]
    for i in range(4):
        save(tmp_path / f"{i}.tif", stack[0], save_all=True, append_images=stack[1:])
    loaded = datasets.load(tmp_path)
    monkeypatch.setattr(image_folders, "too_large", lambda size: True)
    streamed = datasets.load(tmp_path)
    assert streamed.streamed and streamed.value_range == loaded.value_range == (0, 4095)
    np.testing.assert_array_equal(streamed.x_train, loaded.x_train)
    np.testing.assert_array_equal(streamed.x_test, loaded.x_test)
    paths = sorted(tmp_path.iterdir())
    x = kv.ImageFiles(paths, (5, 7, 1), value_range=(0, 4095))[:]
    np.testing.assert_array_equal(x[0, ..., 0], np.float32(stack[0]) / 4095)
    assert_refused(lambda: kv.ImageFiles(paths, (5, 7, 1))[:], "`paths`", "8 bits")
    for wrong in (255, (1, 1), (0, 1, 2)):
        options = {"value_range": wrong}
        assert_refused(
            lambda o=options: kv.ImageFiles(paths, (5, 7, 1), **o), "`value_range`"
        )


def test_colour_of_16_bits_is_read_as_8_bits_with_a_note(tmp_path):
    pixels = COLOUR.astype("uint16") * 257
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    data, x = load_images(tmp_path)
    assert (x == COLOUR).all()
    assert "10 of 10 images have 16 bits per colour: the upper 8 are read." in data.notes


def test_only_images_of_one_depth_are_loaded(tmp_path):
    save(tmp_path / "a.png", GREY)
    save(tmp_path / "b.png", GREY.astype("uint16") * 256)
    assert_refused(lambda: datasets.load(tmp_path), "`data`", received=("1 of 2", "b.png"))


# Folders.


def save_all(folder, *names):
    for name in names:
        save(folder / name, GREY)


def test_deep_folders_hidden_files_and_any_case_of_endings(tmp_path):
    root = tmp_path / "pets"
    names = [f"{c}/{room}/{i}.{end}" for c in "ab" for room in "xy" for i, end in
             enumerate(["png", "PNG", "Tiff"])]  # fmt: skip
    save_all(root, *names, "__MACOSX/a/0.png", "a/.ipynb_checkpoints/0.png", "@eaDir/1.png")
    for name in (".DS_Store", "Thumbs.db", "b/._0.png", "notes.txt", "a/x/photo.heic"):
        (root / name).write_text("no image")
    data = datasets.load(root)
    assert len(data.x_train) + len(data.x_test) == len(names)
    assert sorted({*data.y_train, *data.y_test}) == ["a", "b"]
    assert "Files of other kinds are not read: 1 .heic, 1 .txt." in data.notes
    # A single folder around the classes, as archives have it, changes nothing.
    root.rename(tmp_path / "inner")
    wrapped = datasets.load(shutil.move(tmp_path / "inner", tmp_path / "zip" / "pets"))
    assert wrapped.fingerprint(labels=True) == data.fingerprint(labels=True)


def test_a_loop_of_links_ends(tmp_path):
    save_all(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(5)))
    for target, link in (("..", "a/up"), ("../b", "a/b"), ("../a", "b/a"), ("me", "me")):
        os.symlink(target, tmp_path / link)
    data = datasets.load(tmp_path)
    # The images of `b` are also in `a/b`, and those of `a` in `b/a`.
    assert len(data.x_train) + len(data.x_test) == 20


@pytest.mark.parametrize(
    "folders, rows",
    [
        (("TRAIN", "Test", "valid"), (4, 4, 4)),
        (("training", "testing"), (4, None, 4)),
        (("train", "dev"), (4, None, 4)),  # `dev` is the test set
        (("train",), (3, None, 1)),
        (("train", "bus", "plane"), (10, None, 2)),  # classes
    ],
)
def test_folders_of_parts_have_usual_names(tmp_path, folders, rows):
    save_all(tmp_path, *(f"{folder}/{i}.png" for folder in folders for i in range(4)))
    data = datasets.load(tmp_path)
    parts = (data.x_train, data.x_val, data.x_test)
    assert tuple(x if x is None else len(x) for x in parts) == rows
    assert (data.y_train is not None) == (len(rows) == 3 and "bus" in folders)


def test_labels_of_parts_are_their_first_subfolders(tmp_path):
    names = [f"{part}/{c}/{i}.png" for part in ("train", "val", "test") for c in "ab"
             for i in range(2)]  # fmt: skip
    save_all(tmp_path, *names, "masks/0.png")
    data = datasets.load(tmp_path)
    for y in (data.y_train, data.y_val, data.y_test):
        assert y.tolist() == ["a", "a", "b", "b"]
    assert any("not those in masks" in note for note in data.notes)
    shutil.rmtree(tmp_path / "test")
    save_all(tmp_path, "test/0.png")
    data = datasets.load(tmp_path)
    assert data.y_train is None and data.y_test is None
    assert "Labels are not used, because some images have none." in data.notes


@pytest.mark.parametrize("names", ["test train_1", "val train_1 x", "train test_1"])
def test_an_unclear_choice_of_parts_is_refused(tmp_path, names):
    save_all(tmp_path, *(f"{name}/{i}.png" for name in names.split() for i in range(4)))
    assert_refused(lambda: datasets.load(tmp_path), "`data`", received=names.split()[-1])


# Broken files.


@pytest.fixture
def broken(tmp_path):
    """A folder of 20 images and 7 files that cannot be read; returns their names."""
    save_all(tmp_path, *(f"{i:02}.png" for i in range(20)))
    content = (tmp_path / "00.png").read_bytes()
    for name, bad in {
        "cut.png": content[:60],
        "empty.jpg": b"",
        "page.jpg": b"<html>404</html>",
        "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 6\n",
    }.items():
        (tmp_path / name).write_bytes(bad)
    os.symlink("nowhere", tmp_path / "link.png")
    save(tmp_path / "nan.tif", np.full((6, 9), np.nan, np.float32))
    return ["cut.png", "empty.jpg", "link.png", "nan.tif", "page.jpg", "script.png"]


def test_all_broken_files_are_named_at_once(tmp_path, broken):
    words = ("`data`", "`skip_broken`")
    assert_refused(lambda: datasets.load(tmp_path), *words, received=("6 of 26", *broken))


def test_broken_files_are_left_out_and_listed(tmp_path, broken):
    data = datasets.load(tmp_path, skip_broken=True)
    assert len(data.x_train) + len(data.x_test) == 20
    assert (
        f"6 of 26 images cannot be read and are left out: {', '.join(broken)}."
        in data.notes
    )
    for i in range(20):
        (tmp_path / f"{i:02}.png").unlink()
    load = datasets.load
    assert_refused(lambda: load(tmp_path, skip_broken=True), "`data`", received="6 of 6")


def test_a_broken_file_after_the_headers_names_all(tmp_path):
    save_all(tmp_path, *(f"{i:02}.png" for i in range(40)))
    for i in range(12):
        path = tmp_path / f"{i:02}.png"
        path.write_bytes(path.read_bytes()[:60])  # the header is complete
    received = ("12 of 40", "00.png", "09.png", "2 more")
    assert_refused(lambda: datasets.load(tmp_path), "`data`", received=received)


def test_the_most_frequent_size_is_proposed(tmp_path):
    save_all(tmp_path, *(f"{i}.png" for i in range(8)))
    save(tmp_path / "0.png", GREY.T)
    received = ("7 of 8", "6 x 9", "0.png of 9 x 6")
    assert_refused(lambda: datasets.load(tmp_path), "`resize` 6x9", received=received)
