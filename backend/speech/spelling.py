"""A guess of how an English word is pronounced that no dictionary has, such as a name, from its letters."""

from __future__ import annotations

import unicodedata
from typing import Final

_GROUPS: Final = {
    "tch": "CH", "sch": "SH", "igh": "AY", "ough": "OW", "augh": "AO", "tion": "SH AH N", "sion": "ZH AH N",
    "ch": "CH", "sh": "SH", "th": "TH", "ph": "F", "wh": "W", "ck": "K", "ng": "NG", "qu": "K W", "gh": "G",
    "kn": "N", "wr": "R", "dge": "JH", "ee": "IY", "ea": "IY", "oo": "UW", "ou": "AW", "ow": "OW", "oa": "OW",
    "ai": "EY", "ay": "EY", "oi": "OY", "oy": "OY", "au": "AO", "aw": "AO", "ew": "UW", "ie": "IY", "ey": "IY",
    "ar": "AA R", "er": "ER", "ir": "ER", "or": "AO R", "ur": "ER", "ce": "S EH", "ci": "S IH", "cy": "S IY",
    "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH", "j": "JH",
    "k": "K", "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T",
    "u": "AH", "v": "V", "w": "W", "x": "K S", "y": "IY", "z": "Z",
}  # fmt: skip
"""Letters -> phones of the ARPAbet."""
_LONGEST: Final = max(map(len, _GROUPS))


def phones_of_spelling(word: str) -> list[str]:
    """The phones of a word, by its longest groups of letters from the left; doubled consonants are one."""
    letters = [letter for letter in unicodedata.normalize("NFD", word.lower()) if letter in _GROUPS]
    if len(letters) > 3 and letters[-1] == "e" and letters[-2] not in "aeiou":
        letters.pop()
    phones: list[str] = []
    at = 0
    while at < len(letters):
        length = next(n for n in range(_LONGEST, 0, -1) if "".join(letters[at : at + n]) in _GROUPS)
        for phone in _GROUPS["".join(letters[at : at + length])].split():
            if phones[-1:] != [phone]:
                phones.append(phone)
        at += length
    return phones or ["AH"]
