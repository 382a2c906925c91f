"""Reading phones and their times from files of other programs.

- Praat's TextGrid, long or short form, as the Montreal Forced Aligner and WebMAUS write it, with a tier of phones in
  the ARPAbet or in the IPA: any language.
- Rhubarb Lip Sync's table of mouth shapes, TSV (`0.05<tab>B`) or JSON (`mouthCues`).
- Papagayo's projects and switch files for Moho (`papagayo`).

Sources: Praat's manual, "TextGrid file formats"; Rhubarb's README, "Output formats".
"""

from __future__ import annotations

import re
from collections import Counter
from math import isfinite
from pathlib import Path
from typing import Any, Final

from ..progress import SILENT, Progress
from ..reading import Damaged, Unlike, parse_json, read_bytes, read_text, reading, shown
from . import papagayo
from .phones import Alphabet, Phone, Phones
from .sound import MOST_SECONDS
from .visemes import visemes_of

NOUN: Final = "phone table"
REMEDY: Final = "export it again"
READ: Final = (
    "choose a Praat TextGrid with a tier of phones, a table of Rhubarb Lip Sync (.tsv, .json), or a project or a "
    "switch file of Papagayo (.pgo, .dat)"
)
MOST_BYTES: Final = 16 * 2**20
MOST_PHONES: Final = 100_000
"""Fifty a second over half an hour."""
KNOWN_SHARE: Final = 0.8
"""Of the labels of a tier, for it to be one of phones."""
SHAPE_SETS: Final[tuple[Alphabet, ...]] = ("Preston Blair", "Fleming Dobbs", "Rhubarb", "ARPAbet")
"""What Papagayo names mouth shapes by; the first one that a file's names may belong to."""
_TIERS: Final[tuple[Alphabet, ...]] = ("ARPAbet", "IPA")
_MARK: Final = b"\xef\xbb\xbf"
_TOKEN: Final = re.compile(r'"((?:[^"]|"")*)"|(?<![^\s=])(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?![^\s])')
"""A text in quotes, or a number that stands alone, which `[1]` does not."""
_ROW: Final = re.compile(r"\s*(\d+(?:\.\d*)?)\t([A-HX])\s*")


def read_phone_table(path: Path, progress: Progress = SILENT, rate: float | None = None) -> Phones:
    """The phones in a file. `rate` is frames a second, for files that count frames and do not say their rate.

    Raises an `EffigyError` for a file that holds no phones.
    """
    path = Path(path)
    with reading(path, NOUN, REMEDY):
        data = read_bytes(path, NOUN, MOST_BYTES, REMEDY)
        if data.removeprefix(_MARK).startswith(papagayo.PROJECT.encode()):
            # Old versions of Papagayo write what is said in the encoding of the system; the shapes' names are ASCII.
            text = data.decode("utf-8-sig", "replace")
            return _of_shapes(papagayo.of_project(text, progress), path, progress)
        text = read_text(path, NOUN, REMEDY, MOST_BYTES)
        if text.startswith(papagayo.SWITCH):
            return _of_shapes(papagayo.of_switch(text, _told(rate, path, progress, "\nFPS" in text)), path, progress)
        if "ooTextFile" in text[:200]:
            return _of_text_grid(text, path, progress)
        if text.lstrip()[:1] in ("{", "["):
            content = parse_json(text)
            if papagayo.is_of_papagayo(content):
                phones = papagayo.of_json(content, _told(rate, path, progress, "fps" in content), progress)
                return _of_shapes(phones, path, progress)
            return _of_rhubarb(_cues_of_json(content))
        rows = [_ROW.fullmatch(line) for line in text.splitlines() if line.strip()]
        if not rows or any(row is None for row in rows):
            raise Unlike("it is neither of the forms that are read", READ)
        return _of_rhubarb(_cues_of_rows([(float(row[1]), row[2]) for row in rows if row]))


def _checked(phones: list[Phone]) -> tuple[Phone, ...]:
    """The phones in the order of time. Raises `Damaged` for times that no sound has."""
    if not phones:
        raise Damaged("it holds no phones")
    if len(phones) > MOST_PHONES:
        raise Damaged(f"it holds {len(phones):,} phones")
    phones.sort(key=lambda phone: phone.start)
    before = 0.0
    for phone in phones:
        if not (isfinite(phone.start) and isfinite(phone.end) and 0 <= phone.start <= phone.end <= MOST_SECONDS):
            raise Damaged(f"“{shown(phone.label, 20)}” lasts from {phone.start:g} to {phone.end:g} seconds")
        if phone.start < before - 0.01:
            raise Damaged(f"“{shown(phone.label, 20)}” at {phone.start:g} seconds begins before another one has ended")
        before = phone.end
    return tuple(phones)


def _told(rate: float | None, path: Path, progress: Progress, known: bool) -> float | None:
    """The rate for a file that counts frames. `known`: whether the file says it itself."""
    if rate is not None and not known:
        progress.message(
            f"{path.name} counts frames and does not say how many a second has: they are taken as {rate:g} a second."
        )
    return rate


def _of_shapes(phones: list[Phone], path: Path, progress: Progress) -> Phones:
    """Phones that are named by one of Papagayo's sets of mouth shapes: the first set that knows most of the names."""
    labels = [phone.label for phone in phones]
    known = {alphabet: sum(visemes_of(label, alphabet) is not None for label in labels) for alphabet in SHAPE_SETS}
    alphabet = max(SHAPE_SETS, key=lambda name: known[name])
    if known[alphabet] < KNOWN_SHARE * len(labels):
        listed = ", ".join(f"“{shown(label, 20)}”" for label in list(dict.fromkeys(labels))[:5])
        raise Unlike(f"its shapes are {listed}, and no set of Papagayo's has most of them", READ)
    _tell_unknown(labels, alphabet, path, progress)
    return Phones(alphabet, _checked(phones))


def _of_rhubarb(cues: list[Phone]) -> Phones:
    return Phones("Rhubarb", _checked(cues))


def _cues_of_json(content: Any) -> list[Phone]:
    cues = content.get("mouthCues") if isinstance(content, dict) else None
    if not isinstance(cues, list):
        raise Unlike("it has no mouthCues", READ)
    made = []
    for cue in cues:
        try:
            phone = Phone(float(cue["start"]), float(cue["end"]), cue["value"])
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged("a mouth cue has no start, end and value") from error
        if not isinstance(phone.label, str) or visemes_of(phone.label, "Rhubarb") is None:
            raise Damaged(f"“{shown(phone.label, 20)}” is none of Rhubarb's mouth shapes")
        made.append(phone)
    return made


def _cues_of_rows(rows: list[tuple[float, str]]) -> list[Phone]:
    """Each shape lasts until the next one; the last one is the rest after the end."""
    starts = [start for start, _ in rows]
    return [Phone(start, end, label) for (start, label), end in zip(rows, [*starts[1:], starts[-1]], strict=True)]


def _of_text_grid(text: str, path: Path, progress: Progress) -> Phones:
    tiers = _tiers(text)
    named = [name for name in tiers if re.search(r"phon|segment|^mau$", name, re.IGNORECASE)]
    # The tiers that are named after phones come first, then that with the most labels.
    for name in [*named, *sorted(set(tiers) - set(named), key=lambda each: -len(tiers[each]))]:
        labels = [phone.label for phone in tiers[name]]
        for alphabet in _TIERS:
            known = sum(visemes_of(label, alphabet) is not None for label in labels)
            words = sum(len(label) > 4 and visemes_of(label, "ARPAbet") is None for label in labels)
            if labels and known >= KNOWN_SHARE * len(labels) and words <= (1 - KNOWN_SHARE) * len(labels):
                _tell_unknown(labels, alphabet, path, progress)
                return Phones(alphabet, _checked(tiers[name]))
    listed = ", ".join(f"“{shown(name, 30)}”" for name in list(tiers)[:5]) or "none"
    raise Unlike(f"its tiers are {listed}, and none holds phones of the ARPAbet or the IPA", READ)


def _tell_unknown(labels: list[str], alphabet: Alphabet, path: Path, progress: Progress) -> None:
    unknown = Counter(label for label in labels if visemes_of(label, alphabet) is None)
    if unknown:
        listed = ", ".join(f"“{shown(label, 10)}”" for label, _ in unknown.most_common(5))
        progress.message(f"{path.name} has phones that are not known ({listed}): the mouth rests there.")


def _tiers(text: str) -> dict[str, list[Phone]]:
    """The tiers of intervals by their names."""
    tokens = [(quoted.replace('""', '"'), number) for quoted, number in _TOKEN.findall(text)]
    at = 0

    def take_number() -> float:
        nonlocal at
        at += 1
        try:
            return float(tokens[at - 1][1])
        except (IndexError, ValueError) as error:
            raise Damaged("a number is missing in it") from error

    def take_text() -> str:
        nonlocal at
        at += 1
        if at > len(tokens) or tokens[at - 1][1]:
            raise Damaged("a text is missing in it")
        return tokens[at - 1][0].strip()

    if (take_text(), take_text()) != ("ooTextFile", "TextGrid"):
        raise Unlike("it is a file of Praat's without phones", READ)
    _, _, count = take_number(), take_number(), take_number()
    tiers: dict[str, list[Phone]] = {}
    for _ in range(_count(count, 1000)):
        kind, name, _, _, size = take_text(), take_text(), take_number(), take_number(), take_number()
        size = _count(size, MOST_PHONES)
        if kind == "IntervalTier":
            tiers[name] = [Phone(take_number(), take_number(), take_text()) for _ in range(size)]
        else:
            for _ in range(size):
                take_number()
                take_text()
    return tiers


def _count(number: float, most: int) -> int:
    if not (number == int(number) and 0 <= number <= most):
        raise Damaged(f"it claims {number:g} tiers or intervals")
    return int(number)
