"""Tables in text files, such as CSV, in any usual layout."""

import collections
import csv
import itertools
import pathlib
import re
from collections.abc import Collection, Iterator
from typing import Any, NoReturn

import numpy as np

from keras_vae import checks
from keras_vae.datasets import text_layout as layout
from keras_vae.datasets.table_columns import listed


class TextTable:
    """A table in a text file; its layout is noticed from its first lines.

    Args:
        path: path of a file, also compressed (gzip, bzip2, xz, or alone in a zip archive).
        header: bool, whether the first line has the column names; None notices it.

    Attributes:
        names: list of str, the column names; "" for a column without a name.
        separator: str, one of `text_layout.SEPARATORS`.
        decimal: str, the decimal mark.
        notes: list of str, what was noticed.

    Raises:
        ValueError: for a file that is empty or not a table in text.
    """

    def __init__(self, path: pathlib.Path, header: bool | None = None):
        self.path = path
        self.notes: list[str] = []
        self._rows_kept: Any = None
        text = self._decode(layout.read_bytes(path))
        lines = layout.first_lines(text)
        # A line "sep=;" is for Excel.
        first = 1 if re.fullmatch(r'"?sep=.?"?\s*', lines[0]) else 0
        while first < len(lines) and re.match(r"\s*([#%]|[\s,;|]*$)", lines[first]):
            first += 1
        if first == len(lines):
            self._refuse("rows", "which has only comments")
        self.separator, rows = layout.separate(lines[first:])
        if self.separator == " ":
            text = layout.collapse_spaces(text)
        self.decimal = layout.decimal_mark(rows, self.separator)
        self._text, self._first = text, first
        self._width = layout.width(rows[1:] or rows)
        self._note_separator()
        comments = [line for line in lines[:first] if line.strip()[:1] in ("#", "%")]
        self._notice_names(rows, header, comments)

    def read(self) -> Any:
        """Reads the table: a `pyarrow.Table` of numbers, text and dates.

        Raises:
            ValueError: for a file without rows, and for rows of several lengths.
        """
        import pyarrow
        import pyarrow.csv

        head = itertools.islice(layout.lines(self._text), self._first)
        body = memoryview(self._text)[sum(len(line.encode()) for line in head) :]
        if next(self._rows(), None) is None:
            self._refuse("rows", "which has only a header")
        longest = max(map(len, layout.first_lines(self._text)))
        try:
            table = pyarrow.csv.read_csv(
                pyarrow.BufferReader(pyarrow.py_buffer(body)),
                pyarrow.csv.ReadOptions(
                    column_names=[str(i) for i in range(self._width)],
                    block_size=min(2**30, max(2**20, 16 * longest)),  # one line or more
                ),
                pyarrow.csv.ParseOptions(
                    delimiter=self.separator,
                    newlines_in_values=b'"' in self._text,
                    invalid_row_handler=lambda row: (
                        "skip" if _is_blank(row.text) else "error"
                    ),
                ),
                pyarrow.csv.ConvertOptions(
                    null_values=layout.MISSING,
                    strings_can_be_null=True,
                    decimal_point=self.decimal,
                ),
            )
        except pyarrow.ArrowException as error:
            self._refuse_lengths(str(error))
        return self._without_empty_rows(self._convert(table))

    def locate(self, rows: Collection[int]) -> dict[int, tuple[str, list[str]]]:
        """Finds rows of `read` in the file.

        Args:
            rows: numbers of rows.

        Returns:
            `{row: (place, cells)}`, such as `{0: ("line 2", ["1.5", "?"])}`.
        """
        kept = self._rows_kept
        wanted = {int(row if kept is None else kept[row]): row for row in rows}
        found = {}
        for number, (line, cells) in enumerate(self._rows()):
            if number in wanted:
                found[wanted[number]] = f"line {line}", cells
            if len(found) == len(wanted):
                break
        return found

    def _decode(self, content):
        if not content.strip():
            self._refuse("rows", "which is empty")
        try:
            text, encoding = layout.to_utf8(content)
        except UnicodeError:
            self._refuse("cells in text", "which is a binary or damaged file")
        if encoding != "UTF-8":
            self.notes.append(
                f"The text is read as {encoding} (if letters are wrong, save it as UTF-8)."
            )
        return text

    def _note_separator(self):
        usual = "\t" if ".tsv" in self.path.name.lower() else ","
        name = layout.SEPARATORS[self.separator]
        mark = "" if self.decimal == "." else " The decimal mark is ','."
        if self._width == 1:
            self.notes.append(f"The table has one column: no separator was found.{mark}")
        elif self.separator != usual or mark:
            self.notes.append(f"The separator is {name}.{mark}")

    def _notice_names(self, rows, header, comments):
        """Sets `names`, and `_first` to the number of lines before the first row."""
        if comments:
            self.notes.append(f"Comment lines before the table: {len(comments)}.")
        first, number = rows[0], self._first + 1
        is_header = layout.is_header(rows, self.decimal) if header is None else header
        commented = self._split_names(comments)
        if header is None and not is_header and commented:
            self.names = commented
            self.notes[-1] = "The column names are in the last comment line."
        elif not is_header:
            self.names = [f"x{i}" for i in range(self._width)]
            if header is None:
                self.notes.append(
                    f"The file has no column names: line {number} is a row, and the "
                    f"columns are named x0 to x{self._width - 1} (--header yes: it has the "
                    "names)."
                )
        else:
            reader = self._reader()
            next(reader)
            self._first += reader.line_num
            self.names = self._fit_names(first, rows[1:])
            if header is None and layout.all_numbers(first):
                self.notes.append(
                    f"Line {number} has the column names, {', '.join(first[:3])}, ... "
                    "(--header no: it is a row)."
                )

    def _split_names(self, comments):
        """Returns the names in the last comment, as numpy.savetxt writes them, or None."""
        texts = [re.sub(r"^\s*[#%]+\s*", "", line) for line in comments[-1:]]
        for names in layout.split(texts, self.separator):
            if len(names) == self._width and layout.is_header([names], self.decimal):
                return names
        return None

    def _fit_names(self, names, rows):
        """Returns one name for each column, or raises a ValueError."""
        ends = {row[-1] for row in rows if len(row) == self._width}
        if rows and len(names) == self._width - 1:
            # A separator at the end of each row, or R's names of rows.
            return [*names, ""] if ends == {""} else ["", *names]
        if len(names) == self._width + 1 and not names[-1]:
            return names[:-1]
        if len(names) != self._width:
            self._refuse_lengths("", len(names))
        return names

    def _convert(self, table):
        """Names the columns, and converts text whose cells are all numbers."""
        import pyarrow

        columns, marks = table.columns, collections.defaultdict(list)
        for i, column in enumerate(columns):
            if str(column.type) == "string":
                columns[i], mark = _to_numbers(column, self.decimal)
                marks[mark].append(self.names[i])
        marks.pop("", None)
        for mark, names in marks.items():
            shown = "a space" if mark.isspace() else repr(mark)
            self.notes.append(f"Thousands are separated by {shown} in {listed(names)}.")
        return pyarrow.Table.from_arrays(columns, names=self.names)

    def _without_empty_rows(self, table):
        """Leaves out rows without any value, such as ";;;" from a spreadsheet."""
        if not all(column.null_count for column in table.columns):
            return table
        empty = np.ones(table.num_rows, bool)
        for column in table.columns:
            empty &= column.is_null().to_numpy()
        if not empty.any() or empty.all():
            return table
        self._rows_kept = np.flatnonzero(~empty)
        self.notes.append(f"Rows without any value are left out: {empty.sum()}.")
        return table.filter(~empty)

    def _reader(self):
        lines = itertools.islice(layout.lines(self._text), self._first, None)
        return csv.reader(lines, delimiter=self.separator, skipinitialspace=True)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yields (number of its first line, cells) of each row."""
        reader, line = self._reader(), self._first + 1
        try:
            for cells in reader:
                if cells and not (len(cells) < self._width and _is_blank(*cells)):
                    yield line, [cell.strip() for cell in cells]
                line = self._first + reader.line_num + 1
        except csv.Error:  # a cell of more than 131,072 characters
            return

    def _refuse_lengths(self, error: str, header: int | None = None) -> NoReturn:
        """Raises the error for rows of several lengths, and names the first such line."""
        width, place = self._width, "most lines"
        if header is not None:
            width, place = header, f"line {self._first}"
        for line, cells in self._rows():
            if len(cells) != width:
                text = checks.short(self.separator.join(cells))
                error = f"{width} in {place} and {len(cells)} in line {line}: {text!r}"
                break
        raise ValueError(
            "`data` must have the same number of columns in all lines, and lines before "
            f"the column names must begin with #. Received: {self.path.name} with {error}"
        )

    def _refuse(self, expected: str, received: str) -> NoReturn:
        raise ValueError(
            f"`data` must be a table with {expected}. Received: {self.path.name}, "
            f"{received}"
        )


def _is_blank(*cells):
    """Returns True for a line without cells; old DOS files end with Ctrl-Z."""
    return not "".join(cells).strip(" \t\x1a")


def _to_numbers(column, decimal):
    """Converts a column of text to numbers, if possible: (column, mark of thousands)."""
    import pyarrow
    import pyarrow.compute as pc

    column = pc.utf8_trim_whitespace(column)
    is_missing = pc.is_in(column, pyarrow.array(layout.MISSING))
    column = pc.if_else(is_missing, pyarrow.scalar(None, pyarrow.string()), column)
    for thousands in ("", *".,' \u00a0\u202f".replace(decimal, "")):
        pattern = f"^{layout.number_pattern(decimal, thousands)}$"
        if pc.all(pc.match_substring_regex(column, pattern)).as_py():
            if thousands:
                column = pc.replace_substring(column, thousands, "")
            for mark, replacement in ((decimal, "."), ("+", "")):
                column = pc.replace_substring(column, mark, replacement)
            return column.cast(pyarrow.float64()), thousands
    return column, ""
