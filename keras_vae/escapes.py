"""Text from outside on a terminal: names, paths, labels, messages of other libraries."""

import unicodedata


class Lines(str):
    """Text of several lines. The names in it are already escaped."""


def visible(text: str, keep: str = "") -> str:
    r"""Replaces the characters that change how other text is shown, as `repr` does.

    They are control characters, such as the escape codes of terminals, the characters
    that reorder text, those without width, and line separators. Letters of all scripts
    and spaces stay as they are.

    Args:
        text: str from outside, such as a file name.
        keep: str, further characters that stay as they are, such as line ends.

    Example:

    >>> print(visible("图.csv\x1b[31m"))
    图.csv\x1b[31m
    """
    if text.isprintable():
        return text
    return "".join(c if _is_shown(c) or c in keep else repr(c)[1:-1] for c in text)


def _is_shown(character):
    return character.isprintable() or unicodedata.category(character) == "Zs"
