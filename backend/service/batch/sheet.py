"""A sheet of clips: a CSV file with a header, one row for each clip. Everything in it is checked before work starts."""

from __future__ import annotations

import csv
import io
import re
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from ...devices import DEVICES
from ...errors import EffigyError
from ...file_kinds import sentence_of_kind, sentence_of_system
from ...file_names import file_name, is_device, shortened
from ...reading import Damaged, read_text, reading
from ...training.presets import PRESETS
from ..parameters import Parameters
from ..request_fields import Request, field_types, option, parameter_names, read_request

MAX_BYTES: Final = 4 * 2**20
"""A larger file is no sheet of clips; it is refused before it is read."""
MAX_NAME: Final = 64
"""Characters of a clip's name: on Windows the paths below its folder must stay below 260."""
NOUN: Final = "sheet of clips"
REMEDY: Final = "save it again as “CSV UTF-8”"
YES, NO = ("yes", "true", "1"), ("no", "false", "0")


@dataclass(frozen=True)
class Clip(Request):
    """One row of a sheet. Its fields are the sheet's columns, and are declared and checked as those of a command."""

    command: ClassVar = "row"
    summary: ClassVar = "one clip of a batch"

    name: str = option("the clip's name, which its folder gets", default="")
    footage: Path | None = option("a video", default=None)
    capture: Path | None = option("a finished capture instead of footage", default=None)
    start: float | None = option("seconds from the start of the footage", default=None, minimum=0)
    end: float | None = option("seconds from the start of the footage", default=None, minimum=0)
    size: int | None = option("side of the capture's frames, pixels", default=None, minimum=64)
    head: Path | None = option("a FLAME file instead of the open head", default=None)
    expression_count: int | None = option(
        "how many of the FLAME file's components are expressions, where it does not say", default=None, minimum=0
    )
    preset: str = option("how carefully to train", default="draft", choices=tuple(PRESETS))
    minutes: float | None = option("how long to train", default=None, minimum=0, above_minimum=True)
    device: str = option("what to train on", default="auto", choices=DEVICES)
    evaluate: bool = option("whether to measure the avatar on the held-out frames", default=True)


COLUMNS: Final = parameter_names(Clip)
TABLES: Final = ("batch.csv", "batch.json")
"""What a batch writes beside the folders of its clips."""
_FOOTAGE_ONLY: Final = ("start", "end", "size")


def read_sheet(sheet: Path) -> tuple[Clip, ...]:
    """The clips of a sheet, in its order, with full paths and a safe name each.

    Columns are separated by commas, semicolons or tabs. Relative paths start at the sheet's folder. A clip without a
    name gets that of its footage or capture. Raises an `EffigyError` that names the row, as a spreadsheet numbers it,
    and the column of the first cell that is wrong.
    """
    header, rows = _read_cells(sheet)
    _check_header(sheet, header)
    clips: list[Clip] = []
    rows_by_name: dict[str, int] = {}
    for number, cells in rows:
        clip = _read_row(sheet, header, number, cells)
        # File systems of Windows and macOS do not distinguish case, nor an accented letter from its decomposition.
        key = unicodedata.normalize("NFC", clip.name).casefold()
        if key in rows_by_name:
            raise EffigyError(
                f"{sheet.name}, row {number}: name “{clip.name}” is taken by row {rows_by_name[key]}: give each clip a "
                "name of its own."
            )
        rows_by_name[key] = number
        clips.append(clip)
    if not clips:
        raise EffigyError(f"{sheet.name} lists no clips: write one row for each, below the header.")
    return tuple(clips)


def unsafe_name(name: str) -> str | None:
    """Why a folder cannot have this name on every system that Effigy runs on; None if it can."""
    if len(name) > MAX_NAME:
        return f"is longer than {MAX_NAME} characters"
    if not re.match(r"\w", name):
        return "must begin with a letter or a digit"
    if wrong := re.search(r"[^\w .()+#&,'=@~-]", name):
        return f"holds the character “{wrong[0]}”" if wrong[0].isprintable() else "holds an invisible character"
    if name[-1] in " .":
        return "ends in a dot or a space"
    if is_device(name):
        return "is reserved by Windows"
    if name.casefold() in TABLES:
        return "is that of the batch's table"
    return None


def _read_cells(sheet: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and each row that is not blank with its number (the header is row 1)."""
    with reading(sheet, NOUN, REMEDY):
        text = read_text(sheet, NOUN, REMEDY, MAX_BYTES)
        first = text.partition("\n")[0]
        if not first.replace("\t", "").rstrip("\r").isprintable():
            raise Damaged("its first row is no text")
    delimiter = max(",;\t", key=first.count)
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise EffigyError(f"{sheet} is no CSV file that can be read ({error}): export it again.") from error
    numbered = [
        (number, cells) for number, record in enumerate(records, 1) if any(cells := [cell.strip() for cell in record])
    ]
    if not numbered:
        raise EffigyError(f"{sheet.name} is empty: its first row names the columns ({', '.join(COLUMNS)}).")
    return [cell.casefold() for cell in numbered[0][1]], numbered[1:]


def _check_header(sheet: Path, header: list[str]) -> None:
    for column in header:
        if column not in COLUMNS:
            if (other := sentence_of_kind(sheet, NOUN)) is not None:
                raise EffigyError(other)
            raise EffigyError(
                f"{sheet.name}, row 1: there is no column “{column}”; the columns are {', '.join(COLUMNS)}."
            )
        if header.count(column) > 1:
            raise EffigyError(f"{sheet.name}, row 1: there are {header.count(column)} columns “{column}”: keep one.")


def _read_row(sheet: Path, header: list[str], number: int, cells: list[str]) -> Clip:
    where = f"{sheet.name}, row {number}"
    if any(cells[len(header) :]):
        raise EffigyError(f"{where}: there are {len(cells)} cells, but the header names {len(header)} columns.")
    values = {column: _value(where, column, cell, sheet) for column, cell in zip(header, cells, strict=False) if cell}
    if ("footage" in values) == ("capture" in values):
        raise EffigyError(f"{where}: fill in either the column footage or the column capture.")
    if "capture" in values and (extra := [column for column in _FOOTAGE_ONLY if column in values]):
        raise EffigyError(f"{where}: {extra[0]} is for footage; leave it empty beside a capture.")
    values.setdefault("name", _name_of(Path(values.get("footage") or values["capture"])))
    if reason := unsafe_name(values["name"]):
        raise EffigyError(f"{where}: name “{values['name']}” {reason}: choose another name for the clip.")
    clip = read_request(Clip, Parameters(values, where))
    if clip.start is not None and clip.end is not None and clip.end <= clip.start:
        raise EffigyError(f"{where}: end is {clip.end:g}, but must be later than start.")
    for column, path in (("footage", clip.footage), ("head", clip.head)):
        if path and not _is_file(path, f"{where}: {column}"):
            raise EffigyError(f"{where}: {column}: there is no file {path}.")
    if clip.capture and not _is_file(clip.capture / "capture.json", f"{where}: capture"):
        raise EffigyError(f"{where}: capture: {clip.capture} is no capture folder.")
    return clip


def _name_of(source: Path) -> str:
    """The name of a clip that has none, after its footage or capture: without what `unsafe_name` refuses."""
    plain = re.sub(r"[^\w .()+#&,'=@~-]", "_", file_name(source.stem, otherwise="clip"))
    return shortened(re.sub(r"^\W+", "", plain)[:MAX_NAME] or "clip")


def _is_file(path: Path, where: str) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        # A folder that may not be searched, or a name that is too long.
        said = sentence_of_system(error, path, "file", "choose another file", "check the cell")
        raise EffigyError(f"{where}: {said}") from error


def _value(where: str, column: str, cell: str, sheet: Path) -> Any:
    """A cell as JSON would carry it to the worker. A cell that is no number is returned as text, for the check that
    follows.
    """
    kind = field_types(Clip)[column]
    if kind is Path:
        if "\0" in cell:
            raise EffigyError(f"{where}: {column} holds an invisible character.")
        return str(sheet.absolute().parent / cell)
    if kind is bool:
        if cell.casefold() not in YES + NO:
            raise EffigyError(f"{where}: {column} must be yes or no, but is “{cell}”.")
        return cell.casefold() in YES
    if kind in (int, float):
        for number in (int, float):
            try:
                return number(cell)
            except ValueError:
                continue
    return cell
