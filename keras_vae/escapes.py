"""Text from outside on a terminal: names, paths, labels, messages of other libraries."""

import re
import unicodedata

_NOT_ASCII = re.compile("[^ -~]")
_JOINERS = "\u200c\u200d"  # parts of Persian words and of emoji


class Lines(str):
    """Text of several lines. The names in it are already escaped."""


def visible(text: str, keep: str = "") -> str:
    r"""Replaces the characters that change how other text is shown, as `repr` does.

    They are control characters, such as the escape codes of terminals, the characters
    that reorder text, most of those without width, and line separators. Letters of all
    scripts and spaces stay as they are.

    Args:
        text: str from outside, such as a file name.
        keep: str, further characters that stay as they are, such as line ends.

    Example:

    >>> print(visible("图.csv\x1b[31m"))
    图.csv\x1b[31m
    """

    def shown(match):
        character = match[0]
        if character in keep or _is_shown(character):
            return character
        return repr(character)[1:-1]

    return _NOT_ASCII.sub(shown, text)


def _is_shown(character):
    is_space = unicodedata.category(character) == "Zs"
    return character.isprintable() or is_space or character in _JOINERS
