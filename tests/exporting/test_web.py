"""The web page in a browser, compared with LiteRT in Python."""

import functools
import http.server
import json
import pathlib
import shutil
import subprocess
import threading

import numpy as np
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
litert = pytest.importorskip(
    "ai_edge_litert.interpreter", reason="ai-edge-litert is not installed"
)

WEB = next(
    folder / "export/web"
    for folder in pathlib.Path(__file__).resolve().parents
    if (folder / "export/web/index.html").is_file()
)
OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "network")


def make_model_folder(tmp_path, classes=()):
    """Returns a folder with model.tflite, model.card.json and examples.json.

    With names of classes, the model is conditional on their labels.
    """
    import keras

    import keras_vae as kv

    keras.utils.set_random_seed(0)
    shape = (8, 8, 1)
    encoder = keras.Sequential([kv.nets.ConvEncoder([8]), kv.nets.MLP([32])])
    decoder = keras.Sequential([kv.nets.MLP([32]), kv.nets.ConvDecoder([8], shape)])
    likelihood = kv.distributions.IndependentBernoulli(shape)
    if classes:
        planes = kv.nets.Planes(encoder)
        vae = kv.ConditionalVAE(planes, decoder, likelihood, 10, len(classes), seed=0)
    else:
        vae = kv.VAE(encoder, decoder, likelihood, latent_dim=10, seed=0)
    vae.build((None, *shape))
    # Large weights instead of training, so that pictures differ by several grey levels.
    rng = np.random.default_rng(0)
    for network in (encoder, decoder):
        weights = network.get_weights()
        network.set_weights([w + 0.2 * rng.normal(size=w.shape) for w in weights])
    vae.export(
        tmp_path / "model.tflite",
        format="litert",
        names=["encode", "encode_mean", "decode", "sample"],
        batch_size=1,
        about={"training": {"data": "noise", "shown_range": [0, 1]}},
    )
    images = rng.uniform(size=(3, 64)).round(3).tolist()
    kl = rng.uniform(size=10).tolist()
    examples = {"event_shape": shape, "images": images, "kl_per_unit": kl}
    if classes:
        examples |= {"classes": classes, "labels": [classes[-1]] * 3}
    (tmp_path / "examples.json").write_text(json.dumps(examples))
    return tmp_path


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A function (name, model) -> folder that builds the page as in its README."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm")
    source = tmp_path_factory.mktemp("web") / "source"
    ignored = shutil.ignore_patterns("node_modules", "dist")
    shutil.copytree(WEB, source, ignore=ignored)
    install = ["npm", "install", "--no-audit", "--no-fund", "--fetch-retries=0"]
    run = functools.partial(subprocess.run, cwd=source, capture_output=True, text=True)
    process = run(install)
    if process.returncode and any(word in process.stderr for word in OFFLINE):
        pytest.skip("npm cannot reach its registry")
    assert process.returncode == 0, process.stderr

    def build(name, model=None):
        out = source.parent / "served" / name
        arguments = [str(model) if model else "", str(out)]
        process = run(["node", "build.mjs", *arguments])
        assert process.returncode == 0, process.stderr
        return out

    return build


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return make_model_folder(tmp_path_factory.mktemp("labelled"), ["cat", "dog", "owl"])


@pytest.fixture(scope="module")
def served(build, model, labelled):
    """The address of a server: /page/, /labelled/, and without a model /empty/, /text/."""
    root = build("page", model).parent
    build("labelled", labelled)
    build("empty")
    (build("text") / "model.tflite").write_text("not a model at all")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(root))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def open_page(chromium, served):
    """The page with its model, the list of its errors, and the list of its requests."""
    page = chromium.new_page(viewport={"width": 1200, "height": 800})
    errors, requests = [], []
    page.on("console", lambda line: line.type == "error" and errors.append(line.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{served}/page/")
    page.wait_for_selector("body[data-state=ready], body[data-state=failed]")
    return page, errors, requests


@pytest.fixture
def page(open_page):
    page, errors, _ = open_page
    page.set_viewport_size({"width": 1200, "height": 800})
    page.evaluate("vae.idle()")
    yield page
    assert errors == []


def run_in_python(model, name, **inputs):
    runner = litert.Interpreter(str(model / "model.tflite")).get_signature_runner(name)
    return {key: value.ravel() for key, value in runner(**inputs).items()}


def numbers(page, expression):
    """Returns an array of the page after it has drawn everything."""
    return np.array(page.evaluate(f"vae.idle().then(() => [...{expression}])"))


def pixels(page, canvas="#picture"):
    """Returns the red channel of a canvas with the size of the model's images."""
    context = f"document.querySelector('{canvas}').getContext('2d')"
    return numbers(page, f"{context}.getImageData(0, 0, 8, 8).data")[::4]


def wait_for(page, condition):
    """Waits for a condition. The page forbids eval, which Playwright's own wait needs."""
    for _ in range(500):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"not after 10 s: {condition}")


def draw_sample(page, seed):
    page.fill("#seed", str(seed))
    page.click("text=New sample")
    wait_for(page, f"vae.state.caption.startsWith('Sample of seed {seed}:')")


def test_the_page_loads_its_model_only_from_its_own_server(open_page, served):
    page, errors, requests = open_page
    assert page.get_attribute("body", "data-state") == "ready", page.inner_text("#status")
    assert errors == []
    assert page.inner_text("#about").startswith("noise · 8 × 8 grey · 10 latent units")
    assert len(pixels(page)) == 64
    own_urls = (f"{served}/page/", "data:", "blob:")
    assert [url for url in requests if not url.startswith(own_urls)] == []


def test_a_seed_gives_the_same_sample_as_in_python(page, model):
    for seed in (7, -3, 2**31 - 1):
        expected = run_in_python(model, "sample", seed=np.array([seed], np.int32))
        draw_sample(page, seed)
        np.testing.assert_allclose(numbers(page, "vae.state.z"), expected["z"], atol=1e-5)
        np.testing.assert_array_equal(numbers(page, "vae.state.sample.x"), expected["x"])
        np.testing.assert_array_equal(pixels(page, "#draw canvas"), 255 * expected["x"])
        mean = numbers(page, "vae.state.picture")
        np.testing.assert_allclose(mean, expected["mean"], atol=1e-5)
        np.testing.assert_allclose(pixels(page), 255 * expected["mean"], atol=0.501)


def test_a_new_sample_has_the_next_seed_and_bad_seeds_are_refused(page):
    draw_sample(page, 7)
    page.click("text=New sample")
    wait_for(page, "vae.state.sample.seed === 8")
    assert page.input_value("#seed") == "8"
    for text in ("seven", "1.5", "2147483648", ""):
        page.fill("#seed", text)
        page.click("text=New sample")
        assert "whole number" in page.inner_text("#seed-error")
        assert page.evaluate("vae.state.sample.seed") == 8
    draw_sample(page, 7)
    assert page.inner_text("#seed-error") == ""


def test_a_slider_moves_its_unit_and_the_picture(page):
    draw_sample(page, 7)
    before, z = pixels(page), numbers(page, "vae.state.z")
    unit = page.evaluate("vae.state.order[0]")
    page.get_by_label(f"Latent unit {unit}", exact=True).fill("2.5")
    after = numbers(page, "vae.state.z")
    assert after[unit] == 2.5
    np.testing.assert_array_equal(np.delete(after, unit), np.delete(z, unit))
    assert (pixels(page) != before).any()


def test_units_are_sorted_by_kl(page, model):
    kl = json.loads((model / "examples.json").read_text())["kl_per_unit"]
    assert page.evaluate("vae.state.order") == np.argsort(kl)[::-1].tolist()
    assert page.locator(".unit:visible").count() == 8
    page.click("#more")
    assert page.locator(".unit:visible").count() == 10
    assert not page.is_visible("#more")


def test_dragging_on_the_map_changes_two_units(page):
    draw_sample(page, 7)
    before, z = pixels(page), numbers(page, "vae.state.z")
    page.locator("#plane").scroll_into_view_if_needed()
    box = page.locator("#plane").bounding_box()

    def position(x, y):
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    page.mouse.move(*position(0.3, 0.3))
    page.mouse.down()
    page.mouse.move(*position(0.5, 0.5))
    page.mouse.move(*position(0.75, 0.25))
    page.mouse.up()
    page.mouse.move(*position(0.1, 0.1))  # the drag has ended
    axes = [int(page.input_value(name)) for name in ("#across", "#up")]
    after = numbers(page, "vae.state.z")
    np.testing.assert_allclose(after[axes], [1.5, 1.5], atol=0.05)
    np.testing.assert_array_equal(np.delete(after, axes), np.delete(z, axes))
    assert (pixels(page) != before).any()
    side = page.evaluate("document.querySelector('#plane canvas').width")
    middles = [round(side * (i + 0.5) / 11) for i in range(11)]
    alpha = page.evaluate(
        "middles => {"
        "  const context = document.querySelector('#plane canvas').getContext('2d');"
        "  const alpha = (x, y) => context.getImageData(x, y, 1, 1).data[3];"
        "  return middles.flatMap(x => middles.map(y => alpha(x, y))) }",
        middles,
    )
    assert set(alpha) == {255}  # all 121 pictures are there
    page.locator("#plane").press("ArrowLeft")
    assert numbers(page, "vae.state.z")[axes[0]] == pytest.approx(after[axes[0]] - 0.1)


def test_an_image_is_encoded_as_in_python(page, model, tmp_path):
    image = pytest.importorskip("PIL.Image")
    grey = np.random.default_rng(1).integers(0, 256, (8, 8), np.uint8)
    image.fromarray(grey).save(tmp_path / "grey.png")
    page.set_input_files("#file", tmp_path / "grey.png")
    wait_for(page, "vae.state.caption.includes('grey.png')")
    seed = np.array([0], np.int32)
    x = (grey / np.float32(255)).reshape(1, 8, 8, 1)
    first = "vae.state.encoded.x[0]"
    for inverted in (False, True):
        if inverted:
            before = page.evaluate(first)
            page.check("#invert")
            wait_for(page, f"{first} !== {before}")
            x = 1 - x
        expected = run_in_python(model, "encode", x=x, seed=seed)
        for name in ("mean", "stddev"):
            actual = numbers(page, f"vae.state.encoded.{name}")
            np.testing.assert_allclose(actual, expected[name], atol=1e-4)
        z = numbers(page, "vae.state.z")
        np.testing.assert_allclose(z, expected["mean"], atol=1e-4)
        decoded = run_in_python(model, "decode", z=expected["mean"][None])["mean"]
        np.testing.assert_allclose(pixels(page, "#output"), 255 * decoded, atol=0.6)
    page.uncheck("#invert")


def test_images_are_resized_and_other_files_are_refused(page, tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (301, 200), (255, 0, 0)).save(tmp_path / "red.png")
    page.set_input_files("#file", tmp_path / "red.png")
    wait_for(page, "vae.state.caption.includes('red.png')")
    np.testing.assert_allclose(numbers(page, "vae.state.encoded.x"), 0.299, atol=1e-6)
    (tmp_path / "words.png").write_text("no image")
    page.set_input_files("#file", tmp_path / "words.png")
    page.wait_for_selector("#encode-error:has-text('words.png could not be encoded')")
    page.click("[aria-label='Encode example 2']")
    wait_for(page, "vae.state.caption.includes('example 2')")
    assert page.inner_text("#encode-error") == ""


def test_interpolation_starts_at_a_and_ends_at_b(page):
    draw_sample(page, 7)
    a, picture_a = numbers(page, "vae.state.z"), pixels(page)
    page.click("text=Keep as A")
    draw_sample(page, 9)
    b, picture_b = numbers(page, "vae.state.z"), pixels(page)
    page.click("text=Keep as B")
    ends = [(0, a, picture_a), (1, b, picture_b)]
    for t, z, picture in ends:
        page.fill("#mix", str(t))
        np.testing.assert_array_equal(numbers(page, "vae.state.z"), z)
        np.testing.assert_array_equal(pixels(page), picture)
    page.fill("#mix", "0.5")
    np.testing.assert_allclose(numbers(page, "vae.state.z"), (a + b) / 2, atol=1e-6)


def test_a_label_can_be_selected(chromium, served, labelled):
    page = chromium.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{served}/labelled/")
    page.wait_for_selector("body[data-state=ready], body[data-state=failed]")
    assert page.get_attribute("body", "data-state") == "ready", page.inner_text("#status")
    assert page.inner_text("#label").split() == ["cat", "dog", "owl"]
    draw_sample(page, 7)
    z, first = numbers(page, "vae.state.z"), pixels(page)
    page.select_option("#label", "owl")
    condition = np.array([2], np.int32)
    decoded = run_in_python(
        labelled, "decode", z=z[None].astype(np.float32), condition=condition
    )
    np.testing.assert_allclose(pixels(page), 255 * decoded["mean"], atol=0.6)
    assert (pixels(page) != first).any()
    np.testing.assert_array_equal(numbers(page, "vae.state.z"), z)
    page.select_option("#label", "dog")
    draw_sample(page, 8)
    seed = np.array([8], np.int32)
    drawn = run_in_python(labelled, "sample", seed=seed, condition=np.array([1], np.int32))
    np.testing.assert_array_equal(numbers(page, "vae.state.sample.x"), drawn["x"])
    page.click("[aria-label='Encode example owl']" + " >> nth=0")
    wait_for(page, "vae.state.caption.includes('example owl')")
    assert page.input_value("#label") == "owl"
    assert errors == []
    page.close()


def test_the_page_fits_a_small_phone(page):
    page.set_viewport_size({"width": 360, "height": 740})
    page.click("[aria-label='Encode example 1']")  # with all sections open
    wait_for(page, "vae.state.caption.includes('example 1')")
    too_wide = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(element => {"
        "  const { left, right } = element.getBoundingClientRect();"
        "  return left < 0 || right > 360 }).map(element => element.outerHTML.slice(0, 80))"
    )
    assert too_wide == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize(
    "folder, words",
    [("empty", "There is no model.tflite beside this page"), ("text", "not a LiteRT file")],
)
def test_a_missing_or_wrong_model_shows_a_message(chromium, served, folder, words):
    page = chromium.new_page()
    page.goto(f"{served}/{folder}/")
    page.wait_for_selector("body[data-state=failed]")
    assert words in page.inner_text("#status")
    assert not page.is_visible("main")
    page.close()


def test_a_runtime_that_does_not_start_shows_a_message(chromium, served):
    page = chromium.new_page()
    page.route("**/*.wasm", lambda route: route.abort())
    page.goto(f"{served}/page/")
    page.wait_for_selector("body[data-state=failed]")
    assert "The LiteRT runtime did not start" in page.inner_text("#status")
    page.close()
