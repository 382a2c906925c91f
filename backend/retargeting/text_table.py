"""Reading of tables of text as any program saves them.

A table that was saved again by an office program has other delimiters (`;`, a tab), decimal commas, another encoding
(UTF-16 with a byte-order mark, the system's code page), quoted cells, a title above the names, or rows without cells.
None of that is declared in the file. It is inferred from the names of the columns, which the reader knows: the
delimiter and the row for which most names are known are right. Python's `csv.Sniffer` guesses from the frequencies of
characters instead, and takes the comma of decimals or the colon of timecodes for the delimiter.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

from ..errors import EffigyError
from ..reading import Unlike, open_regular, too_large

DELIMITERS: Final = ",;\t|"
HEADER_WITHIN: Final = 30
"""Rows at the beginning among which that of the names is: programs write a title, a date or `sep=;` above it."""
MOST_LINE: Final = 65_536
"""Characters of a row: 61 numbers take 1,200."""
_GROUPING: Final = re.compile("[\\s\\u00a0\\u202f'\\u2019]")
"""Characters that group digits by thousands."""
_OTHER_ENCODING: Final = "cp1252"
"""Of an old export that is no UTF-8. Names and numbers are the same in all code pages."""


@dataclass(frozen=True)
class TextTable:
    """The cells below the names."""

    names: list[str]
    rows: list[list[str]]
    """A row without text in any cell is empty."""
    numbers: list[int]
    """Of each row in the file, counted from 1."""


def read_text_table(
    path: Path, noun: str, remedy: str, count_known: Callable[[list[str]], int], most_bytes: int, most_rows: int
) -> TextTable:
    """The table in a file. `count_known` says how many of some cells are names that the reader knows. Call it within
    `reading`. Where no row has any, the names are those of the widest row.
    """
    beginning = _beginning(path, noun, most_bytes, remedy)
    encoding = _encoding_of(beginning)
    try:
        return _read(path, noun, remedy, count_known, most_bytes, most_rows, encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8-sig":
            raise
    return _read(path, noun, remedy, count_known, most_bytes, most_rows, _OTHER_ENCODING)


def number_of(cell: str) -> float:
    """The number in a cell, with a decimal point or a decimal comma, digits in groups, or in percent; NaN for no text.
    Raises a `ValueError`.
    """
    text = _GROUPING.sub("", cell).replace("\u2212", "-").replace("\u066b", ".")
    if not text:
        return float("nan")
    percent = text.endswith("%")
    text = text.rstrip("%")
    last = max(text.rfind("."), text.rfind(","))
    if last >= 0:
        whole, mark, decimals = text[:last], text[last], text[last + 1 :]
        if mark in whole:
            # 1.234.567: twice the same mark groups digits.
            whole, decimals = whole + decimals, ""
        text = f"{whole.replace('.', '').replace(',', '')}.{decimals}"
    number = float(text)
    return number / 100 if percent else number


def _beginning(path: Path, noun: str, most: int, remedy: str) -> bytes:
    with open_regular(path, noun, most, remedy) as file:
        return file.read(4096)


def _encoding_of(beginning: bytes) -> str:
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    # Without a byte-order mark, text in Latin letters has zeros in every second byte.
    for encoding, zeros in (("utf-16-le", beginning[1:200:2]), ("utf-16-be", beginning[:200:2])):
        if zeros and not any(zeros):
            return encoding
    return "utf-8-sig"


def _read(
    path: Path,
    noun: str,
    remedy: str,
    count_known: Callable[[list[str]], int],
    most_bytes: int,
    most_rows: int,
    encoding: str,
) -> TextTable:
    with open_regular(path, noun, most_bytes, remedy) as file:
        lines = _lines(file, encoding, path, noun, remedy)
        first = [line for _, line in zip(range(HEADER_WITHIN), lines, strict=False)]
        delimiter, header = _names_of(first, count_known)
        names = [cell.strip() for cell in _cells(first[header], delimiter)]
        table = TextTable(names, [], [])
        cells = 0
        for number, line in enumerate(chain(first[header + 1 :], lines), header + 2):
            row = _cells(line, delimiter)
            cells += len(row)
            if number > 2 * most_rows or cells > 100 * most_rows:
                raise too_large(path, noun, "more rows", f"{most_rows} rows", remedy)
            table.rows.append(row if any(cell.strip() for cell in row) else [])
            table.numbers.append(number)
    while table.rows and not table.rows[-1]:
        table.rows.pop()
        table.numbers.pop()
    return table


def _lines(file: BinaryIO, encoding: str, path: Path, noun: str, remedy: str) -> Iterator[str]:
    """Each line is a row: a quotation mark that is never closed would otherwise make one row of the rest of the
    file.
    """
    errors = "replace" if encoding == _OTHER_ENCODING else "strict"
    with io.TextIOWrapper(file, encoding, errors) as text:
        while line := text.readline(MOST_LINE + 1):
            if len(line) > MOST_LINE:
                raise too_large(path, noun, "a row is longer", f"{MOST_LINE} characters", remedy)
            yield line


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error as error:
        raise EffigyError(f"A row cannot be read as cells ({error}): export the table again.") from error


def _names_of(lines: list[str], count_known: Callable[[list[str]], int]) -> tuple[str, int]:
    """The delimiter, and the index of the row with the names. Raises an `Unlike` where no row has two cells."""
    found = [
        (count_known(cells := _cells(line, delimiter)), len(cells), -index, delimiter)
        for index, line in enumerate(lines)
        for delimiter in DELIMITERS
    ]
    _, columns, index, delimiter = max(found, default=(0, 0, 0, ","))
    if columns < 2:
        raise Unlike("it is no table of text")
    return delimiter, -index
