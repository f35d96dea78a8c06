"""Tables are read in the layouts that people have; what is noticed is in the notes."""

import bz2
import datetime
import gzip
import io
import lzma
import subprocess
import sys
import zipfile

import numpy as np
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from keras_vae import datasets
from keras_vae.datasets import text_tables
from tests.refusals import assert_fails, assert_refused, rows, write_file

# Three decimals: the hardest case for decimal commas, as 1,234 may also be a thousand.
X = np.random.default_rng(0).normal(size=(12, 3)).round(3)
ABC = ("a", "b", "c")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def lines(separator=",", decimal=".", x=X, start="", end=""):
    """Returns the rows of x as text; `start` may contain {} for the number of the row."""
    texts = (separator.join(f"{v:.3f}" for v in row).replace(".", decimal) for row in x)
    return "".join(f"{start.format(i)}{t}{end}\n" for i, t in enumerate(texts))


def load(content, name="t.csv", **options):
    return datasets.load(write_file(name, content), **options)


def assert_read(data, columns=ABC, x=X):
    """Asserts that the table has these columns and rows, in any order."""
    assert data.scaler.columns == tuple(columns)
    read = data.scaler.inverse(np.concatenate([data.x_train, data.x_test]))
    order = [np.lexsort(np.round(values, 3).T) for values in (read, x)]
    # Standardised values have 24 bits.
    np.testing.assert_allclose(read[order[0]], x[order[1]], rtol=1e-6, atol=1e-6)


@rows(
    comma=("a,b,c\n" + lines(), []),
    semicolon=("a;b;c\n" + lines(";"), ["separator", "';'"]),
    tab=("a\tb\tc\n" + lines("\t"), ["separator", "tab"]),
    pipe=("a|b|c\n" + lines("|"), ["separator", "'|'"]),
    space=("a b c\n" + lines(" "), ["separator", "white space"]),
    aligned=("  a    b \t c\r\n" + lines("    ", start="  ", end="  \r"), ["white space"]),
    decimal_comma=("a;b;c\n" + lines(";", ","), ["';'", "decimal mark is ','"]),
    quoted_decimal_comma=('a,b,c\n' + lines('","', ",", start='"', end='"'),
                          ["decimal mark is ','"]),
    windows=(("a,b,c\n" + lines()).replace("\n", "\r\n"), []),
    old_macintosh=(("a,b,c\n" + lines()).replace("\n", "\r"), []),
    excel=("sep=;\na;b;c\n" + lines(";"), ["';'"]),
    spaces=(" a ,b , c\n" + lines(" , "), []),
    quotes=('"a","b","c"\n' + lines('","', start='"', end='"'), []),
    blank_lines=("\n\na,b,c\n\n" + lines() + "\n  \n\x1a", []),
    empty_rows=("a;b;c\n" + lines(";") + ";;\n;;\n", ["without any value", "2"]),
    separator_at_the_end=("a,b,c,\n" + lines(end=","), []),
    separator_after_names=("a,b,c,\n" + lines(), []),
    separator_after_rows=("a,b,c\n" + lines(end=","), []),
    comments=("# logger 7, site A\n% 12 °C\n\na,b,c\n" + lines(), ["Comment lines", "2"]),
    numpy_savetxt=("# a,b,c\n" + lines(), ["names", "comment"]),
    bom=("\ufeffa,b,c\n" + lines(), []),
    utf_16=(("a\tb\tc\n" + lines("\t")).encode("utf-16"), ["UTF-16"]),
    utf_16_cyrillic=("# Москва\na,b,c\n".encode("utf-16-le") + lines().encode("utf-16-le"),
                     ["UTF-16", "Comment"]),
    utf_16_without_mark=(("a,b,c\n" + lines()).encode("utf-16-be"), ["UTF-16"]),
)  # fmt: skip
def test_the_layout_is_noticed(row):
    content, notes = row
    data = load(content)
    assert_read(data)
    text = " ".join(data.notes)
    assert all(word in text for word in notes), text
    assert notes or not text


@rows(
    no_header=(lines(), ["x0", "x1", "x2"], "--header yes"),
    no_header_german=(lines(";", ","), ["x0", "x1", "x2"], "--header yes"),
    pandas=("0,1,2\n" + lines(), ["0", "1", "2"], "--header no"),
    years=("1990,1991,1992\n" + lines(), ["1990", "1991", "1992"], "--header no"),
    duplicates=("a,a,a.1\n" + lines(), ["a", "a.2", "a.1"], "'a.2'"),
    latin_1=("größe;b;c\n".encode("latin-1") + lines(";").encode(), ["größe", "b", "c"],
             "Windows-1252"),
    any_script=("名前,größe,😀\n" + lines(), ["名前", "größe", "😀"], ""),
    comment=("% fat,b,c\n" + lines(), ["fat", "b", "c"], "comment"),
    line_break=('"a\nb",b,c\n' + lines(), ["a\nb", "b", "c"], ""),
    no_name=("a,,c\n" + lines(), ["a", "x1", "c"], "x1"),
)  # fmt: skip
def test_column_names_are_noticed(row):
    content, columns, note = row
    data = load(content)
    assert_read(data, columns)
    assert note in " ".join(data.notes)


@pytest.mark.parametrize("first", ["0,1", "1,2", "5,3", "1990,5.5", "0.5,?"])
def test_a_first_row_of_numbers_is_a_row(first):
    content = first + "\n" + "0,1\n1,0\n2,2\n1,2\n3,4\n"
    table = text_tables.TextTable(write_file("t.csv", content)).read()
    assert table.num_rows == 6 and table.column_names == ["x0", "x1"]


def test_wavelengths_are_column_names():
    x = np.random.default_rng(0).normal(size=(12, 9)).round(3)
    names = [f"{400.5 + i**1.5:.1f}" for i in range(9)]
    assert_read(load(",".join(names) + "\n" + lines(x=x)), names, x)
    growth = np.cumsum(np.abs(x), axis=1)  # here each row is in sorted order
    assert_read(load(lines(x=growth)), [f"x{i}" for i in range(9)], growth)


def test_the_option_header_decides_what_the_first_line_is():
    assert_read(load("1.5,2.5,4\n" + lines(), header=True), ["1.5", "2.5", "4"])
    x = np.vstack([[0, 1, 2], X])
    assert_read(load("0,1,2\n" + lines(), header=False), ["x0", "x1", "x2"], x)


def test_a_row_with_text_is_not_a_header():
    flowers = "".join(
        f"{line},Iris-{'ab'[i % 2]}\n" for i, line in enumerate(lines().split())
    )
    data = load(flowers, "iris.data", label="x3")
    assert_read(data, ["x0", "x1", "x2"])
    assert set(data.y_train) == {"Iris-a", "Iris-b"}
    assert_refused(lambda: datasets.load("iris.data", label="species"), "--header yes")


@rows(
    pandas=(",a,b,c\n" + lines(start="{},"), "without a name"),
    pandas_twice=(",Unnamed: 0,a,b,c\n" + lines(start="{0},{0},"), "Unnamed: 0"),
    pandas_filtered=("Unnamed: 0,a,b,c\n" + lines(start="9{},"), "Unnamed: 0"),
    r=('"a" "b" "c"\n' + lines(" ", start='"{}" '), "without a name"),
    names_of_rows=(",a,b,c\n" + lines(start="gene{},"), "without a name"),
)
def test_an_index_is_left_out(row):
    content, note = row
    data = load(content)
    assert_read(data)
    assert "index" in " ".join(data.notes) and note in " ".join(data.notes)


def test_a_first_column_that_is_no_index_stays():
    data = load("id,a,b,c\n" + lines(start="{},"))
    assert data.scaler.columns == ("id", *ABC) and "--drop id" in data.notes[0]
    assert_read(load(",b,c\n" + lines()), ["x0", "b", "c"])  # not whole numbers
    data = load(",b\n" + "0,1\n1,2\n2,5\n", drop="")  # dropped by its name
    assert data.scaler.columns == ("b",) and data.notes == ()


@pytest.mark.parametrize("separator, thousands, decimal", [
    (",", ",", "."), (";", ".", ","), (";", " ", ","), (";", "\u202f", ","),
    ("\t", "'", "."),
])  # fmt: skip
def test_thousands_are_read(separator, thousands, decimal):
    x = X * 1e6
    signs = str.maketrans({",": thousands, ".": decimal})
    cells = [[f'"{v:,.2f}"'.translate(signs) for v in row] for row in x]
    text = "\n".join(separator.join(row) for row in [ABC, *cells])
    data = load(text)
    assert_read(data, x=x)
    assert "Thousands" in " ".join(data.notes)


def compressed_by_zip(content, *others):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("t.csv", *others):
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("name, compress", [
    ("t.csv.gz", gzip.compress), ("t.tsv.bz2", bz2.compress), ("t.txt.xz", lzma.compress),
    ("t.csv.zip", compressed_by_zip), ("t.zip", compressed_by_zip), ("t.dat", bytes),
    ("t.csv.gz", bytes),  # decompressed by the browser that saved it
])  # fmt: skip
def test_compressed_tables_are_read(name, compress):
    assert_read(load(compress(("a,b,c\n" + lines()).encode()), name))


def test_an_archive_of_several_files_or_a_workbook_is_refused():
    content = compressed_by_zip(b"a,b\n1,2\n", "u.csv")
    assert_refused(lambda: load(content, "t.zip"), "`data`", received="2 files")
    content = compressed_by_zip(b"", "xl/workbook.xml")
    assert_refused(lambda: load(content, "t.xlsx"), "`data`", "CSV", received="Excel")


def test_parquet_and_feather_are_read():
    columns = dict(zip(ABC, X.T, strict=True)) | {"__index_level_0__": np.arange(12)}
    table = pyarrow.table(columns)
    pyarrow.feather.write_feather(table, "t.feather")
    pyarrow.parquet.write_table(table, "t.parquet")
    (folder := write_file("d.parquet/1.parquet", b"").parent).mkdir(exist_ok=True)
    pyarrow.parquet.write_table(table, folder / "1.parquet")
    for name in ("t.feather", "t.parquet", "d.parquet"):
        data = datasets.load(name)
        assert_read(data)
        assert "index" in " ".join(data.notes)


# Columns that are not modelled.


def test_all_unsuitable_columns_of_a_text_are_named_at_once():
    header = "age,workclass,hours,when,mass,share,big,none,a 'b'\n"
    row = "{0},Private,4{0},2016-07-0{0},{0}.5,{0}%,{0},,01.07.2016\n"
    text = header + "".join(row.format(i) for i in range(1, 8))
    text = text.replace(",43,", ", ? ,").replace(",45,", ",,").replace("6.5", "12 kg")
    text = text.replace(",7,,", ",1e300,,")
    message = assert_refused(
        lambda: load("# units\n" + text),
        "8 unsuitable columns",
        "'workclass': text, such as 'Private' in line 3",
        "'hours': 2 missing cells, the first '?' in line 5",
        "'when': dates or times, such as '2016-07-01' in line 3",
        "'mass': 1 cell without a number, the first '12 kg' in line 8",
        "'share': text, such as '1%' in line 3",
        "'big': 1 infinite or too large number, the first '1e300' in line 9",
        "'none': no values",
        "dates, such as '01.07.2016' in line 3",
    )
    words = """--drop workclass --drop hours --drop when --drop mass --drop share
            --drop big --drop none --drop 'a '"'"'b'"'"''"""
    assert " ".join(words.split()) in message
    assert "'age':" not in message


def test_all_unsuitable_columns_of_a_parquet_file_are_named_at_once():
    columns = {
        "text": ["x", None, "y"], "nan": [1, 2, np.nan], "infinite": [1, np.inf, 2],
        "list": [[1]] * 3, "date": [datetime.date(2020, 1, 2)] * 3,
        "time": pyarrow.array([1, 2, 3], pyarrow.timestamp("ns")),
        "kind": pyarrow.array(["x", "y", "x"]).dictionary_encode(), "none": [None] * 3,
        "a": [1, 2, 3],
    }  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table(columns), "t.parquet")
    assert_refused(
        lambda: datasets.load("t.parquet"),
        "'text': text, such as 'x' in row 1, and 1 missing cell",
        "'nan': 1 missing cell, the first 'nan' in row 3",
        "'infinite': 1 infinite or too large number, the first 'inf' in row 2",
        "'list': values of type list",
        "'date': dates or times, such as '2020-01-02' in row 1",
        "'time': dates or times",
        "'kind': categories, such as 'x'",
        "'none': no values",
    )


def test_many_unsuitable_columns_are_counted():
    text = ",".join(f"c{i}" for i in range(100)) + 3 * ("\n" + ",".join(["x"] * 100))
    message = assert_refused(lambda: load(text), "100 unsuitable columns", "80 more")
    assert "'c19'" in message and "'c20'" not in message


@pytest.mark.parametrize(
    "text", [" ", "?", "NA", "N/A", "null", "-", "nan", "None", "#N/A"]
)
def test_words_for_a_missing_value_are_missing(text):
    content = f"a,b,c\n{lines()}1,{text},2\n"
    assert_refused(lambda: load(content), "`data`", "'b': 1 missing cell", "in line 14")


@rows(
    short=("a,b,c\n" + lines() + "1,2\n" + lines(), "2 in line 14"),
    long=("a,b,c\n1,2,3\n4,5,6,7\n", "4 in line 3"),
    title=("Logger 7\nSite A\n\na;b;c\n" + lines(";"), "3 in line 4"),
    cut=("a,b,c\n1,2,3\n4,5,6\n7,8", "2 in line 4"),
)
def test_lines_of_another_length_are_named(row):
    content, place = row
    assert_refused(lambda: load(content), "`data`", received=("t.csv", place))


@rows(
    empty=(b"", "empty"),
    blank=(" \n\n", "empty"),
    header=("a,b,c\n", "header"),
    comments=("# a\n# b\n", "comments"),
    one_row=("a,b\n1,2\n", "1 in t.csv"),
    binary=(bytes(range(256)) * 9, "binary"),
    picture=(b"\x89PNG\r\n\x1a\n\x00\x00", "binary"),
    damaged=("a,b,c\n1,2,3\n".encode("utf-16")[:-1], "binary or damaged"),
    one_column_of_text=("a\nx\ny\n", "no separator was found"),
    web_page=("<!DOCTYPE html>\n<html>\n<body>Not found</body>\n</html>\n", "<html>"),
)
def test_other_files_are_refused(row):
    content, received = row
    assert_refused(lambda: load(content), "`data`", received=("t.csv", received))


def test_a_folder_with_the_name_of_a_table_is_refused(tmp_path):
    (tmp_path / "t.csv").mkdir()
    assert_refused(lambda: datasets.load("t.csv"), "`data`", received="t.csv, a folder")


def test_arrays_and_data_frames_are_refused():
    for data in (X, None, {"a": [1]}):
        assert_refused(lambda data=data: datasets.load(data), "`data`", type(data).__name__)


def test_a_table_may_have_many_columns():
    # More than 131,072 characters in a line, the limit of a cell of Python's csv.
    x = np.arange(3 * 3000.0).reshape(3, 3000)
    names = [f"the column with a quite long name and number {i:04}" for i in range(3000)]
    text = ";".join(names) + "\n" + lines(";", x=x)
    assert_read(load(text), names, x)


# Labels.


@pytest.mark.parametrize("texts, classes, kind", [
    (["1.0", "2.0"], [1, 2], "i"), (["0", "1"], [0, 1], "i"), (["1.5", "2"], [1.5, 2], "f"),
    (["true", "false"], [False, True], "b"), ([" >50K", " <=50K"], ["<=50K", ">50K"], "U"),
    (["2020-01-01", "2020-01-02"], ["2020-01-01", "2020-01-02"], "U"),
])  # fmt: skip
def test_labels_of_each_kind_are_read(texts, classes, kind):
    text = "".join(f"{i},{texts[i % 2]}\n" for i in range(20))
    data = load("a,y\n" + text, label="y")
    assert data.y_train.dtype.kind == kind
    np.testing.assert_array_equal(data.classes, classes)
    assert data.has_classes == (kind != "f")


def test_missing_labels_are_counted_and_located():
    content = "a,y\n1,x\n2,NA\n3,\n4,y\n"
    words = ("label=y", "2 of 4", "line 3")
    assert_refused(lambda: load(content, label="y"), "`label`", received=words)


# The command line.


def test_tables_and_arrays_are_loaded_without_tensorflow():
    write_file("t.csv", "a,b,c\n" + lines())
    np.save("x.npy", X)
    code = """
import sys
from keras_vae import cli, datasets
print(len(datasets.load("t.csv").x_train), len(datasets.load("x.npy").x_train))
sys.argv = ["keras-vae", "train", "t.csv", "--label", "d"]
try:
    cli.main()
finally:
    print({"tensorflow", "keras"} & sys.modules.keys())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == ["10", "10", "set()"]
    assert run.returncode == 2 and "--label must name a column" in run.stderr


def test_a_command_names_its_options():
    write_file("t.csv", "a,b b\n1,x\n2,y\n")
    assert_fails("train t.csv --out new", "DATA", "--label", received="--drop 'b b'")
    assert_fails("train t.csv --out new --header maybe", "--header", received=None)
