"""The layout of a table in text: encoding, separator, decimal mark and column names.

It is noticed from the first lines of the file.
"""

import bz2
import codecs
import collections
import csv
import gzip
import io
import itertools
import lzma
import pathlib
import re
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np

# Separators and their names; in doubt, the first one is used.
SEPARATORS = {",": "','", "\t": "a tab", ";": "';'", "|": "'|'", " ": "white space"}
# Cells without a value.
MISSING = (
    *("", "?", "-", "--", ".", "NA", "N/A", "n/a", "n.a.", "<NA>", "#N/A", "#NA"),
    *("NaN", "nan", "NAN", "-nan", "-NaN", "null", "NULL", "Null", "None", "none"),
    *("#DIV/0!", "#VALUE!", "#REF!", "#NUM!", "#NAME?", "#NULL!"),
)
Rows = list[list[str]]  # the cells of lines


def read_bytes(path: pathlib.Path) -> bytes:
    """Reads a file, and decompresses gzip, bzip2, xz and a zip archive of one file.

    Raises:
        ValueError: for a damaged file, and for an archive of several files.
    """
    decompress = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress}
    decompress[b"\xfd7zXZ"] = lzma.decompress
    try:
        content = path.read_bytes()
        for magic, function in decompress.items():
            if content.startswith(magic):
                return function(content)
        return _unzip(content) if content.startswith(b"PK\x03\x04") else content
    except Exception as error:  # damaged files raise many kinds of errors
        raise ValueError(
            f"`data` must be a readable table. Received: {path}: {error}"
        ) from error


def _unzip(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [n for n in archive.namelist() if not re.search(r"/$|^__MACOSX/", n)]
        if "xl/workbook.xml" in names:
            raise ValueError("an Excel workbook; save its sheet as CSV")
        if len(names) != 1:
            raise ValueError(f"an archive of {len(names)} files; extract the table")
        return archive.read(names[0])


def to_utf8(content: bytes) -> tuple[bytes, str]:
    """Converts text to UTF-8: (text, name of the encoding of `content`).

    Raises:
        UnicodeError: for binary content.
    """
    head = content[:1000]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "UTF-16"
    elif max(even, odd) > len(head) / 8:  # the first bytes of digits and separators
        encoding = "UTF-16-LE" if odd > even else "UTF-16-BE"
    else:
        encoding = "UTF-8" if _is_utf8(content) else "Windows-1252"
    text = content.removeprefix(codecs.BOM_UTF8)
    if encoding == "Windows-1252":
        text = content.decode("cp1252", errors="replace").encode()
    elif encoding != "UTF-8":
        text = content.decode(encoding).encode()
    if re.search(rb"[\x00-\x08\x0e-\x19]", text[:10_000]):
        raise UnicodeError("control characters")
    return text, encoding


def _is_utf8(content):
    try:
        return content.isascii() or bool(content.decode())
    except UnicodeDecodeError:
        return False


def lines(text: bytes) -> Iterator[str]:
    """Yields the lines of text in UTF-8, with their ends unchanged."""
    return io.TextIOWrapper(io.BytesIO(text), "utf-8", newline="")


def first_lines(text: bytes) -> list[str]:
    """Returns up to 500 lines, or fewer long ones, which show the layout."""
    sample, length = [], 0
    for line in lines(text):
        sample.append(line)
        length += len(line)
        if len(sample) == 500 or (len(sample) > 3 and length > 500_000):
            break
    return sample


def collapse_spaces(text: bytes) -> bytes:
    """Replaces runs of spaces and tabs by one space, and removes those around lines."""
    return b"\n".join(b" ".join(line.split()) for line in text.splitlines())


def split(sample: Sequence[str], separator: str) -> Rows:
    """Splits lines into cells without spaces around them; leaves out blank lines."""
    if separator == " ":
        sample = [re.sub(r"[ \t]+", " ", line.strip()) for line in sample]
    reader = csv.reader(sample, delimiter=separator, skipinitialspace=True)
    try:
        rows = [[cell.strip() for cell in row] for row in reader]
    except csv.Error:  # a cell of more than 131,072 characters
        return []
    return [row for row in rows if any(row) or len(row) > 1]


def separate(sample: Sequence[str]) -> tuple[str, Rows]:
    """Finds the separator that gives equal numbers of cells, and numbers in them.

    Args:
        sample: lines.

    Returns:
        (separator, cells of the lines); a tab for a table of one column.
    """
    rows = {separator: split(sample, separator) for separator in SEPARATORS}
    rows = {separator: r for separator, r in rows.items() if width(r) > 1}
    single = [[line.strip()] for line in sample if line.strip()]
    scores = {separator: _score(r) for separator, r in rows.items()}
    best = max(scores, key=lambda separator: scores[separator], default=None)
    # One column of numbers with decimal commas is not two columns.
    if best is None or (len(rows[best][0]) == 1 and _score(single) > scores[best]):
        return "\t", single
    return best, rows[best]


def _score(rows):
    """Returns (share of rows of equal length + share of cells with numbers, length)."""
    equal = sum(len(row) == width(rows) for row in rows) / len(rows)
    cells = [cell for row in rows[1:] for cell in row]
    pattern = re.compile(r"[-+]?[0-9.,' ]*[0-9](e[-+]?[0-9]+)?", re.IGNORECASE)
    numbers = sum(bool(pattern.fullmatch(cell)) for cell in cells) / max(1, len(cells))
    if width(rows) == 1 and numbers < 0.5:
        return 0.0, 1
    return equal + numbers, width(rows)


def width(rows: Rows) -> int:
    """Returns the number of cells that most rows have."""
    counts = collections.Counter(map(len, rows)).most_common(1)
    return counts[0][0] if counts else 0


def decimal_mark(rows: Rows, separator: str) -> str:
    """Finds the decimal mark of the numbers: "." or ",".

    1,234 may have a separator of thousands. It is 1.234 if the columns are separated by
    something other than commas and no number has a decimal point.
    """
    certain, possible = collections.Counter[str](), collections.Counter[str]()
    for mark, other in (".,", ",."):
        number = re.compile(
            rf"[-+]?[0-9]*(\{other}[0-9]{{3}})*\{mark}[0-9]+(e[-+]?[0-9]+)?"
        )
        thousands = re.compile(rf"[-+]?[1-9][0-9]{{0,2}}\{mark}[0-9]{{3}}")
        for cell in filter(re.compile("[.,]").search, itertools.chain(*rows)):
            cell = re.sub(r"(?<=[0-9])[ \u00a0\u202f'](?=[0-9]{3})", "", cell.lower())
            if number.fullmatch(cell):
                (possible if thousands.fullmatch(cell) else certain)[mark] += 1
    if not certain and separator != "," and not possible["."]:
        certain = possible
    return "," if certain[","] > certain["."] else "."


def number_pattern(decimal: str, thousands: str = "") -> str:
    """Makes a regular expression for numbers with these marks."""
    whole = "[0-9]+"
    if thousands:
        whole = f"(?:[0-9]{{1,3}}(?:{re.escape(thousands)}[0-9]{{3}})+|[0-9]+)"
    mark = re.escape(decimal)
    return f"[-+]?(?:{whole}(?:{mark}[0-9]*)?|{mark}[0-9]+)(?:[eE][-+]?[0-9]+)?"


def is_header(rows: Rows, decimal: str) -> bool:
    """Returns True if the first row has names, not values.

    A word above a column of numbers is a name. Numbers are names if they count and the
    second row does not: years, or the 0, 1, 2, ... that pandas writes without names.
    """
    first, *others = rows
    numbers = [cell for cell in first if _is_number(cell, decimal)]
    if not numbers:
        return True
    for i, cell in enumerate(first):
        below = [row[i] for row in others if len(row) > i and row[i] not in MISSING]
        is_index = i == 0 and not cell and below[:3] == ["0", "1", "2"]
        is_word = cell not in MISSING and not _is_number(cell, decimal)
        share = sum(_is_number(value, decimal) for value in below) / max(1, len(below))
        if is_index or (is_word and share > 0.5):
            return True
    next_numbers = [c for c in (others or [[]])[0] if _is_number(c, decimal)]
    return (
        first not in others
        and _counts(numbers, decimal, len(first))
        and not _counts(next_numbers, decimal, len(first))
    )


def all_numbers(cells: Sequence[str]) -> bool:
    """Returns True if all cells are numbers with a decimal point."""
    return all(_is_number(cell, ".") for cell in cells)


def _is_number(cell, decimal):
    return re.fullmatch(number_pattern(decimal), cell) is not None


def _counts(cells, decimal, columns):
    """Returns True for 0, 1, 2, ..., for years, and for long regular sequences."""
    values = np.array([float(cell.replace(decimal, ".")) for cell in cells])
    steps = np.diff(values)
    if len(values) >= 5:  # such as wavelengths
        ordered = (steps > 0).all() or (steps < 0).all()
        return bool(ordered and (len(values) >= 8 or np.allclose(steps, steps[0])))
    years = (values >= 1900) & (values <= 2100) & (values % 1 == 0)
    from_0 = len(values) > 1 and values[0] == 0 and (steps == 1).all()
    return bool(from_0 or (columns > 1 and years.all() and (steps > 0).all()))
