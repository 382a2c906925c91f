"""Names of files and datablocks that are made from other names: which characters they have, and how they are shortened.

A name is made from that of a film or a datablock, which may hold any character and be as long as any. It has to be
allowed on Linux (255 bytes), Windows (255 units of UTF-16, some characters and names not) and macOS alike, because
files move between them; 255 bytes of UTF-8 are never more than 255 units. Names are cut between characters as people
see them: no accent, joined emoji or syllable block is torn.

The extension has this same file, because it does not import the backend; a test compares the two.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 255
"""Of a file's name on the file systems of Linux and macOS."""
MOST_MADE: Final = 180
"""Bytes of a name that is made from another one: what is named after that in turn (`.effigy.checkpoint`, a number)
still fits. 60 Japanese characters."""
MOST_DATABLOCK: Final = 63
"""Bytes of a datablock's name before Blender 5.0."""
REFUSED: Final = re.compile(r'[\x00-\x1f\x7f\ud800-\udfff\\/:*?"<>|]')
"""Characters that Windows refuses in names, and halves of characters, which cannot be written as UTF-8."""
DEVICES: Final = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])( *\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices, with any suffix (Microsoft, "Naming Files, Paths, and Namespaces")."""
_LONGEST_SUFFIX: Final = 20
"""Characters after a name's last dot that are taken for its suffix."""
_JOINER: Final = "\u200d"
_DIGEST: Final = 8


def readable(name: str) -> str:
    """A file's name or path as text that Blender's interface and a terminal take, also if its bytes are no text."""
    return name.encode("utf-8", "replace").decode("utf-8")


def is_device(name: str) -> bool:
    """Whether Windows keeps this name, with any suffix, for a device."""
    return DEVICES.fullmatch(name) is not None


def size_of(name: str) -> int:
    """Bytes of a name on Linux. A name that is no text may hold halves of characters."""
    return len(name.encode("utf-8", "surrogatepass"))


def shortened(text: str, most: int = MOST_MADE) -> str:
    """The beginning of a text that has at most `most` bytes, cut between characters as people see them."""
    if size_of(text) <= most:
        return text
    end = min(len(text), most)
    while size_of(text[:end]) > most:
        end -= 1
    whole = end
    while whole and _continues(text, whole):
        whole -= 1
    # A single character of more bytes than that is torn.
    return text[: whole or end].rstrip(" .")


def _continues(text: str, index: int) -> bool:
    """Whether the character at `index` belongs to the one before it (Unicode Standard Annex 29, in its main cases)."""
    here, before = text[index], text[index - 1]
    if unicodedata.category(here) in ("Mn", "Mc", "Me") or here == _JOINER or before == _JOINER:
        return True
    if "\U0001f3fb" <= here <= "\U0001f3ff" or "\U000e0020" <= here <= "\U000e007f" or "\u1160" <= here <= "\u11ff":
        # Tones of skin, the tags of a flag, and vowels and finals of a Korean syllable.
        return True
    if _is_flag_half(here):
        halves = 0
        while halves < index and _is_flag_half(text[index - 1 - halves]):
            halves += 1
        return halves % 2 == 1
    return False


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def file_name(name: str, end: str = "", otherwise: str = "avatar", most: int = MOST_MADE) -> str:
    """A file name like `name` that Windows, macOS and Linux all accept, that names no folder, and after which other
    files can be named.

    `end` is added unless `name` ends with it. A name of which nothing remains becomes `otherwise`.
    """
    stem = name[: -len(end)] if end and name.lower().endswith(end.lower()) else name
    stem = shortened(REFUSED.sub("_", stem).strip(" ."), most - size_of(end)) or otherwise
    return f"{'_' if is_device(stem) else ''}{stem}{end}"


def with_end(name: str, end: str, before: str = "", most: int = MOST_BYTES) -> str:
    """`before`, `name` and `end` as one name. Where that is too long, the name is cut and a hash of it added, so that
    other long names give others, and this one always the same.
    """
    room = most - size_of(before) - size_of(end)
    if size_of(name) > room:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
        name = f"{shortened(name, room - _DIGEST - 1)}~{digest}"
    return f"{before}{name}{end}"


def beside(path: Path, end: str, before: str = "") -> Path:
    """The file beside `path` whose name is that of `path` between `before` and `end`."""
    return path.with_name(with_end(path.name, end, before))


def numbered(path: Path, number: str) -> Path:
    """`head.ply`, `_0012` -> `head_0012.ply`."""
    stem, suffix = split(path.name)
    return path.with_name(with_end(stem, f"{number}{suffix}"))


def split(name: str) -> tuple[str, str]:
    """A name without its suffix, and the suffix. What is longer than any suffix belongs to the name."""
    path = Path(name)
    return (path.stem, path.suffix) if len(path.suffix) <= _LONGEST_SUFFIX else (name, "")


def datablock_name(name: str, end: str = "") -> str:
    """A name for a datablock, of which Blender would cut the end. Room is left for the number that it adds."""
    return f"{shortened(readable(name), MOST_DATABLOCK - len('.001') - size_of(end))}{end}"
