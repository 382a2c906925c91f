"""Phones with their times, whoever has found them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from ..progress import Progress
from .sound import Sound

Alphabet = Literal["ARPAbet", "IPA", "Rhubarb", "Preston Blair", "Fleming Dobbs"]
"""The last three are sets of mouth shapes."""
SILENCES: Final = frozenset(
    ("", "sil", "sp", "spn", "pau", "pause", "_", "#", "<p>", "<p:>", "<eps>", "<sil>", "h#", "nsn", "+spn+", "rest")
)
"""Lower-case labels by which programs mean that nobody speaks."""


@dataclass(frozen=True)
class Phone:
    """One sound of speech."""

    start: float
    """Seconds from the beginning of the sound."""
    end: float
    label: str
    """In the alphabet of its `Phones`; a silence has one of `SILENCES`."""


@dataclass(frozen=True)
class Phones:
    """The phones of a sound in the order of time; they do not overlap, and nobody speaks between them."""

    alphabet: Alphabet
    phones: tuple[Phone, ...]


class Recogniser(Protocol):
    """Finds the phones in a sound. `text` is what is said, where that is known."""

    def __call__(self, sound: Sound, text: str, progress: Progress) -> Phones: ...
