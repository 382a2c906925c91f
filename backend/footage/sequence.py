"""Numbered images that are one film: `shot.1001.exr`, `shot.1002.exr`, ...

A sequence is named by its folder, or by its files' common name with # for the digits: `shot.####.exr`. One image alone
is a photograph, also where others stand beside it: a telephone numbers its photographs too.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from ..errors import EffigyError
from ..formats.capture import MOST_FRAMES
from ..reading import Unlike, check_regular, reading
from ..storage import hash_file
from .still import read_still

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".exr", ".dpx", ".bmp", ".webp")
_REMEDY: Final = "render or export it again"
_PLACE: Final = re.compile(r"#+|%0?\d*d")
"""Where the number stands in a pattern: `####`, or `%04d` as FFmpeg and Nuke write it."""
_MOST_GAPS: Final = 4
"""Gaps between images that are named."""
_NUMBER: Final = re.compile(r"\d{1,9}")
"""Longer digits are dates and hashes."""


@dataclass(frozen=True)
class ImageSequence:
    folder: Path
    pattern: str
    """The files' common name, with # for each digit."""
    names: tuple[str, ...]
    """Names of the files, by number."""
    numbers: tuple[int, ...]
    """The numbers in the names, ascending; some may be missing between them."""

    def path_of(self, number: int) -> Path:
        return self.folder / self.names[bisect_left(self.numbers, number)]

    def missing(self, first: int, last: int) -> str:
        """The numbers between two of its numbers that have no image, such as `1004, 1010-1012`; empty for none. Of
        many gaps, as where each second image was rendered, some are named.
        """
        numbers = [number for number in self.numbers if first <= number <= last]
        gaps = [(one + 1, other - 1) for one, other in pairwise(numbers) if other - one > 1]
        named = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in gaps[:_MOST_GAPS])
        others = sum(b - a + 1 for a, b in gaps[_MOST_GAPS:])
        return f"{named} and {others:,} more" if others else named

    def sha256(self) -> str:
        """Of all images' contents, in hexadecimal digits. Raises an `OSError`."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(hash_file(self.folder / name).encode())
        return digest.hexdigest()


def find_sequence(path: Path) -> ImageSequence | None:
    """The sequence of a folder or a pattern; None if the path is neither. Raises `EffigyError` where there is no
    sequence, or more than one.
    """
    path = Path(path)
    with reading(path, "video or photograph", _REMEDY):
        is_folder = path.is_dir()
        if not is_folder and (path.exists() or not _PLACE.search(path.name)):
            return None
    folder = path if is_folder else path.parent
    with reading(folder, "folder of images", _REMEDY):
        names = sorted(
            each.name
            for each in folder.iterdir()
            if each.suffix.lower() in SUFFIXES and not each.name.startswith(".") and each.is_file()
        )
    if not is_folder:
        before, after = path.name[: (place := _place_of(path.name))[0]], path.name[place[1] :]
        found = _run(folder, before, after, names)
        if found is None:
            raise EffigyError(f"There are no images {path.name} in {folder}: check the name and the folder.")
        return found
    runs = _runs_of(folder, names)
    if not runs:
        with reading(folder, "video or photograph", _REMEDY):
            if len(names) == 1:
                raise Unlike(f"it is a folder with one image, {names[0]}", "name the image itself, as a photograph")
            raise Unlike("it is a folder without numbered images", "name a video, or a folder of images")
    if len(runs) > 1:
        shown = ", ".join(run.pattern for run in runs[:4])
        raise EffigyError(f"{folder} holds several sequences ({shown}): name one of them, {folder / runs[0].pattern}.")
    return runs[0]


def sequence_around(image: Path) -> ImageSequence | None:
    """The sequence to which an image would belong if it were no photograph."""
    if Path(image).suffix.lower() not in SUFFIXES:
        return None
    with suppress(EffigyError, OSError):
        names = [each.name for each in Path(image).parent.iterdir() if each.suffix.lower() in SUFFIXES]
        return next((run for run in _runs_of(Path(image).parent, sorted(names)) if Path(image).name in run.names), None)
    return None


def _place_of(pattern: str) -> tuple[int, int]:
    """Beginning and end of the last place for a number."""
    return list(_PLACE.finditer(pattern))[-1].span()


def _runs_of(folder: Path, names: list[str]) -> list[ImageSequence]:
    """The runs of at least two images. A name with several numbers belongs to the run with the most images."""
    members: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name in names:
        for match in _NUMBER.finditer(Path(name).stem):
            members[name[: match.start()], name[match.end() :]].add(name)
    left, runs = set(names), []
    for (before, after), found in sorted(members.items(), key=lambda item: (-len(item[1]), -len(item[0][0]))):
        if len(found & left) >= 2 and (run := _run(folder, before, after, sorted(found & left))):
            runs.append(run)
            left -= found
    return sorted(runs, key=lambda run: run.pattern)


def _run(folder: Path, before: str, after: str, names: list[str]) -> ImageSequence | None:
    number = re.compile(re.escape(before) + rf"({_NUMBER.pattern})" + re.escape(after))
    by_number: dict[int, str] = {}
    for name in names:
        if match := number.fullmatch(name):
            other = by_number.setdefault(int(match[1]), name)
            if other != name:
                raise EffigyError(
                    f"{folder} holds two images with the number {int(match[1])}, {other} and {name}: move those that "
                    "do not belong to the sequence to another folder."
                )
    if not by_number:
        return None
    if len(by_number) > MOST_FRAMES:
        raise EffigyError(f"{folder} holds more than {MOST_FRAMES:,} images: take a part of them.")
    numbers = sorted(by_number)
    digits = len(by_number[numbers[0]]) - len(before) - len(after)
    pattern = f"{before}{'#' * digits}{after}"
    return ImageSequence(folder, pattern, tuple(by_number[each] for each in numbers), tuple(numbers))


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 sRGB of one image of a sequence. Raises `EffigyError` for one that cannot be read."""
    with reading(path, "image", _REMEDY):
        check_regular(path, "image")
        image = read_still(path)
    if image is None:
        raise EffigyError(f"{path.name} is no image that can be read: {_REMEDY}, as PNG, JPEG, TIFF or OpenEXR.")
    return image
