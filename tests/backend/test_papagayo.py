"""Phones from Papagayo's projects and switch files, in all their forms, and what a damaged one is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.errors import EffigyError
from backend.progress import Progress
from backend.speech.phone_tables import read_phone_table
from backend.speech.phones import Phone, Phones
from backend.speech.visemes import REST, segments_of, visemes_of

PROJECT = (
    "lipsync version 1\nline.wav\n25\n80\n1\n\tVoice 1\n\tBe my food.|Ma.\n\t2\n"
    "\t\tBe my food.\n\t\t5\n\t\t49\n\t\t3\n"
    "\t\t\tBe 5 9 2\n\t\t\t\t5 MBP\n\t\t\t\t7 E\n"
    "\t\t\tmy 10 19 2\n\t\t\t\t10 MBP\n\t\t\t\t15 AI\n"
    "\t\t\tfood. 30 49 3\n\t\t\t\t30 FV\n\t\t\t\t35 U\n\t\t\t\t45 etc\n"
    "\t\tMa.\n\t\t60\n\t\t69\n\t\t1\n"
    "\t\t\tMa. 60 69 2\n\t\t\t\t60 MBP\n\t\t\t\t64 AI\n"
)
STARTS = ((5, "MBP"), (7, "E"), (10, "MBP"), (15, "AI"), (30, "FV"), (35, "U"), (45, "etc"), (60, "MBP"), (64, "AI"))
ENDS = (7, 10, 15, 20, 35, 45, 50, 64, 70)
PHONES = tuple(Phone(at / 25, end / 25, shape) for (at, shape), end in zip(STARTS, ENDS, strict=True))
"""By hand: a phone lasts until the next one of its word, or over the word's last frame."""
SWITCH = "MohoSwitch1\n1 rest\n6 MBP\n8 E\n11 rest\n20 rest\n21 FV\n26 U\n31 rest\n"


class Told(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def table(
    folder: Path, text: str | bytes, name: str = "line.pgo", rate: float | None = None
) -> tuple[Phones, list[str]]:
    told = Told()
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_phone_table(folder / name, told, rate), told.texts


def as_json() -> dict:
    words = [
        {"text": "Be", "start_frame": 5, "end_frame": 9, "tags": [],
         "phonemes": [{"id": 0, "text": "MBP", "frame": 5, "tags": []}, {"id": 1, "text": "E", "frame": 7, "tags": []}]}
    ]  # fmt: skip
    phrases = [{"id": 0, "text": "Be", "start_frame": 5, "end_frame": 9, "tags": [], "words": words}]
    voice = {"name": "Ann", "start_frame": 5, "end_frame": 9, "text": "Be", "num_children": 1, "phrases": phrases}
    return {"version": 2, "sound_path": "line.wav", "fps": 25, "sound_duration": 80, "num_voices": 1, "voices": [voice]}


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_project_says_when_each_shape_begins_and_its_word_ends(tmp_path: Path, ends: str) -> None:
    phones, told = table(tmp_path, PROJECT.replace("\n", ends))
    assert phones == Phones("Preston Blair", PHONES) and told == []
    assert [each.viseme for each in segments_of(phones)] == ["PP", "E", "PP", "aa", "FF", "ou", "DD", "PP", "aa"]


def test_a_project_of_version_2_and_an_exported_voice_say_the_same(tmp_path: Path) -> None:
    first_two = Phones("Preston Blair", PHONES[:2])
    assert table(tmp_path, json.dumps(as_json()), "line.pg2") == (first_two, [])
    voice, told = table(tmp_path, json.dumps(as_json()["voices"][0]), "line.json", 25.0)
    assert voice == first_two and told == [
        "line.json counts frames and does not say how many a second has: they are taken as 25 a second."
    ]


def test_a_switch_file_counts_frames_from_1_at_the_rate_of_the_lip_sync_or_its_own(tmp_path: Path) -> None:
    phones, told = table(tmp_path, SWITCH, "line.dat", 25.0)
    assert told == ["line.dat counts frames and does not say how many a second has: they are taken as 25 a second."]
    assert [(round(25 * each.start, 6), round(25 * each.end, 6), each.label) for each in phones.phones] == [
        (0, 5, "rest"), (5, 7, "MBP"), (7, 10, "E"), (10, 19, "rest"), (19, 20, "rest"), (20, 25, "FV"),
        (25, 30, "U"), (30, 31, "rest"),
    ]  # fmt: skip
    own, told = table(tmp_path, SWITCH.replace("\n", "\nFPS 50\npng\n", 1), "line.lst", 25.0)
    assert told == [] and own.phones[1] == Phone(0.1, 0.14, "MBP")
    letters, _ = table(tmp_path, "MohoSwitch1\n1 X\n6 A\n8 D\n31 X\n", "rhubarb.dat", 24.0)
    assert letters.alphabet == "Rhubarb" and [each.viseme for each in segments_of(letters)] == [REST, "PP", "aa", REST]


def test_each_set_of_papagayo_is_recognised_by_its_names(tmp_path: Path) -> None:
    sets = {
        "Preston Blair": "AI O E U etc L WQ MBP FV rest",
        "Fleming Dobbs": "MBP NLTDR FV TH GK SH O EHSZ AA IY rest",
        "Rhubarb": "A B C D E F G H rest",
        "ARPAbet": "AA AH0 B K IY1 M rest",
    }
    for name, shapes in sets.items():
        rows = "".join(f"{3 * row + 1} {shape}\n" for row, shape in enumerate(shapes.split()))
        phones, told = table(tmp_path, f"MohoSwitch1\n{rows}", "a.dat", 24.0)
        assert phones.alphabet == name and len(told) == 1
        for shape in shapes.split():
            assert visemes_of(shape, phones.alphabet), (name, shape)


def test_what_is_said_may_be_in_an_old_encoding_and_the_text_of_a_voice_may_be_empty(tmp_path: Path) -> None:
    old = PROJECT.replace("food.", "café").encode("latin-1")
    assert table(tmp_path, old)[0].phones == PHONES
    assert table(tmp_path, b"\xef\xbb\xbf" + PROJECT.replace("\tBe my food.|Ma.", "\t").encode())[0].phones == PHONES


def test_the_first_voice_with_phones_is_spoken_and_phones_dragged_over_others_end_those(tmp_path: Path) -> None:
    empty = "\tNobody\n\t\n\t0\n"
    other = PROJECT.split("80\n1\n")[1].replace("Voice 1", "Bob").replace("5 MBP", "6 MBP")
    phones, told = table(tmp_path, PROJECT.replace("80\n1\n", f"80\n3\n{empty}") + other)
    assert phones.phones == PHONES
    assert told == ["The project has 2 voices (“Voice 1”, “Bob”): the first one is spoken."]
    dragged = table(tmp_path, PROJECT.replace("\t10 MBP", "\t8 MBP"))[0]
    assert dragged.phones[1:3] == (Phone(7 / 25, 8 / 25, "E"), Phone(8 / 25, 15 / 25, "MBP"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.pgo", PROJECT[: PROJECT.index("\t\t\tmy")], "it is cut short"),
        ("a.pgo", PROJECT.replace("version 1", "version 3"), "“lipsync version 3”, and version 1 is read"),
        ("a.pgo", PROJECT.replace("\n25\n", "\n1e99\n"), "it claims 1e99 frames a second"),
        ("a.pgo", PROJECT.replace("\n25\n", "\n0\n"), "it claims 0 frames a second"),
        ("a.pgo", PROJECT.replace("80\n1\n", "80\n999999999\n"), "it claims 999999999 voices"),
        ("a.pgo", PROJECT.replace("Be 5 9 2", "Be 5 9 99999999"), "it claims 99999999 phones in a word"),
        ("a.pgo", PROJECT.replace("Be 5 9 2", "Be 5 9 -1"), "it claims -1 phones in a word"),
        ("a.pgo", PROJECT.replace("Be 5 9 2", "Be"), "a word has no first and last frame"),
        ("a.pgo", PROJECT.replace("\t7 E", "\tsoon E"), "“soon” stands where a number"),
        ("a.pgo", PROJECT.replace("\t7 E", "\t7"), "“7” is no frame with a shape"),
        ("a.pgo", PROJECT.replace("64 AI", "999999999 AI"), "“MBP” lasts from 2.4 to 4e\\+07 seconds"),
        ("a.pgo", PROJECT.replace("\t2\n\t\tBe", "\t0\n\t\tBe"), "it holds no phones"),
        ("a.dat", "MohoSwitch1\n", "it holds no phones"),
        ("a.dat", "MohoSwitch1\n1 smile\n9 frown\n", "its shapes are “smile”, “frown”, and no set of Papagayo's"),
        ("a.dat", "MohoSwitch1\n1 rest\nx AI\n", "“x” stands where a number"),
        ("a.dat", "MohoSwitch1\nFPS 1/0\n1 rest\n", "it claims 1/0 frames a second"),
        ("a.json", json.dumps({"voices": [1], "fps": 24}), "no phrases, words and phonemes"),
        ("a.json", json.dumps({"voices": None, "fps": 24}), "no phrases, words and phonemes"),
        ("a.json", json.dumps({"phrases": []}), "how many frames a second has"),
        ("a.json", json.dumps(as_json() | {"fps": "often"}), "it claims often frames a second"),
        ("a.json", json.dumps(as_json()).replace('"frame": 7', '"frame": 1e400'), "has no frame or no name"),
        ("a.json", json.dumps(as_json()).replace('"text": "E"', '"text": null'), "has no frame or no name"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_a_sentence(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(EffigyError, match=message) as refusal:
        table(tmp_path, text, name, 24.0 if name.endswith(".dat") else None)
    assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value)
