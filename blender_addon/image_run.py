"""Numbered images that are one film, as the backend reads them (`backend.footage.sequence`): they are named by their
common name with # for the digits of the number, or by their folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".exr", ".dpx", ".bmp", ".webp")
_NUMBER: Final = re.compile(r"\d{1,9}")
_PLACE: Final = re.compile(r"#+")


def pattern_of(image: Path) -> Path | None:
    """`shot.####.exr` for an image beside which there is the one with the number before or after it; else None."""
    if image.suffix.lower() not in SUFFIXES:
        return None
    for digits in reversed(list(_NUMBER.finditer(image.stem))):
        before, after = image.name[: digits.start()], image.name[digits.end() :]
        for number in (int(digits[0]) + 1, int(digits[0]) - 1):
            names = {f"{before}{number:0{width}d}{after}" for width in (len(digits[0]), 1)}
            if number >= 0 and any((image.parent / name).is_file() for name in names):
                return image.parent / f"{before}{'#' * len(digits[0])}{after}"
    return None


def number_in(name: str, pattern: Path) -> int | None:
    """The number in a file's name that fits the pattern, else None."""
    places = list(_PLACE.finditer(pattern.name))
    if not places:
        return None
    before, after = pattern.name[: places[-1].start()], pattern.name[places[-1].end() :]
    found = re.fullmatch(re.escape(before) + rf"({_NUMBER.pattern})" + re.escape(after), name)
    return int(found[1]) if found else None


def images_of(path: Path) -> dict[str, Path]:
    """The images of a folder, or those that fit a pattern, by their names; empty for any other path."""
    is_folder = path.is_dir()
    if path.is_file() or not (is_folder or (_PLACE.search(path.name) and path.parent.is_dir())):
        return {}
    return {
        each.name: each
        for each in sorted((path if is_folder else path.parent).iterdir())
        if each.suffix.lower() in SUFFIXES
        and not each.name.startswith(".")
        and (is_folder or number_in(each.name, path) is not None)
    }


def name_of(footage: Path) -> str:
    """What a film is called: a file's name without its suffix, and without the number of a sequence's images."""
    if footage.suffix.lower() not in SUFFIXES or not _PLACE.search(footage.stem):
        return footage.stem
    return _PLACE.sub("", footage.stem).strip(" ._-") or footage.parent.name or "images"
