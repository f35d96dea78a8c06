"""The model card in Markdown shows text from outside as text."""

import re

import numpy as np
import pytest

import keras_vae as kv

TEXTS = {
    "a|b": r"a\|b",
    "_x_ and *y* and `z`": r"\_x\_ and \*y\* and \`z\`",
    "event_shape [8, 8]": "event_shape [8, 8]",
    "![a](http://b)": r"![a\](http://b)",
    "<img src=x onerror=y> &amp;": r"\<img src=x onerror=y\> \&amp;",
    "# a\n\n## Signatures": r"# a\\n\\n## Signatures",
    "\x1b[31m\x07\x9b\u202e\u2028": r"\\x1b[31m\\x07\\x9b\\u202e\\u2028",
    "类别 é": "类别 é",
}


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    head = kv.distributions.IndependentNormal((3,))
    mlp = kv.nets.MLP([4])
    vae = kv.VAE(mlp, kv.nets.MLP([4]), head, latent_dim=2, seed=0, name="vae")
    about = {f"key {text}": text for text in TEXTS}
    about |= {"in a table": {f"key {text}": [text] for text in TEXTS}}
    about["a | title\n# x"] = {"mean": np.float32(0.5)}
    path = tmp_path_factory.mktemp("card") / "`name` | <b>"
    return (
        vae.export(path, names=["encode_mean"], about=about) / "model_card.md"
    ).read_text("utf-8")


@pytest.mark.parametrize("text", TEXTS)
def test_text_has_no_meaning_as_markup(card, text):
    assert f"\n| key {TEXTS[text]} | {TEXTS[text]} |\n" in card


def test_the_structure_is_that_of_the_card(card):
    assert card.splitlines()[0] == r"# VAE \`name\` \| \<b\>"
    headings = re.findall(r"^##+ (.*)$", card, re.MULTILINE)
    about = ["Model", "In a table", r"A \| title\\n# x", "Versions"]
    assert headings == [*about, "Signatures", "encode_mean", "Files"]
    assert "| input | x | float32 | [batch, 3] |" in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    for row in rows:
        assert row.endswith(" |") or row == "| --- |"
