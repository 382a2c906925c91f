"""Recordings of ARKit's channels as programs write them, and as office programs save them again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from backend.errors import EffigyError
from backend.footage.detector import SCORE_NAMES
from backend.formats.capture import FrameFlag
from backend.formats.track import Track
from backend.head.formats import load_head
from backend.head.model import HeadModel
from backend.progress import SILENT, Progress
from backend.reading import reading
from backend.retargeting.curves import read_performance
from backend.retargeting.text_table import number_of, read_text_table
from backend.retargeting.timecodes import times_of
from backend.service.cli import main

ROWS = 40
ANGLES = [f"{what}{turn}" for what in ("Head", "LeftEye", "RightEye") for turn in ("Yaw", "Pitch", "Roll")]
NAMES = ["Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in SCORE_NAMES), *ANGLES]
SMILE = np.linspace(0, 0.9, ROWS)


class Messages(Progress):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head()


def take(codes: list[str] | None = None, rate: int = 60) -> list[list[str]]:
    """The cells of a take in which a smile grows, with its names."""
    rows = [NAMES]
    for row in range(ROWS):
        second, frame = divmod(row + 30, rate)
        values = [SMILE[row] if name == "mouthSmileLeft" else 0.25 for name in SCORE_NAMES]
        code = codes[row] if codes else f"10:00:{second:02d}:{frame:02d}.000"
        rows.append([code, "61", *(f"{value:.6f}" for value in values), "0.1", "0", "0", *["0"] * 6])
    return rows


def text_of(rows: list[list[str]], delimiter: str = ",", end: str = "\n") -> str:
    def cell(text: str) -> str:
        return f'"{text}"' if delimiter in text or '"' in text else text

    return end.join(delimiter.join(map(cell, row)) for row in rows) + end


def with_commas(rows: list[list[str]]) -> list[list[str]]:
    """As a program of a country with decimal commas writes numbers."""
    return [rows[0], *([row[0], *(cell.replace(".", ",") for cell in row[1:])] for row in rows[1:])]


def smile(track: Track, model: HeadModel) -> np.ndarray:
    return track.expression[:, model.expression_names.index("mouthSmileLeft")]


def is_the_take(track: Track, model: HeadModel) -> bool:
    return track.fps == 60 and not track.flags.any() and np.allclose(smile(track, model), SMILE, atol=1e-5)


def codec(text: str, encoding: str) -> bytes:
    return text.encode(encoding)


SAVED: dict[str, Callable[[], bytes]] = {
    "as it was": lambda: codec(text_of(take()), "utf-8"),
    "semicolons and decimal commas": lambda: codec(text_of(with_commas(take()), ";"), "utf-8"),
    "tabs": lambda: codec(text_of(take(), "\t"), "utf-8"),
    "tabs and decimal commas": lambda: codec(text_of(with_commas(take()), "\t"), "utf-8"),
    "commas, and decimal commas in quotes": lambda: codec(text_of(with_commas(take())), "utf-8"),
    "semicolons and decimal points": lambda: codec(text_of(take(), ";"), "utf-8"),
    "bars": lambda: codec(text_of(take(), "|"), "utf-8"),
    "Unicode text": lambda: codec(text_of(take(), "\t", "\r\n"), "utf-16"),
    "UTF-16, the other end first": lambda: b"\xfe\xff" + codec(text_of(take(), "\t"), "utf-16-be"),
    "UTF-16 without a mark": lambda: codec(text_of(take()), "utf-16-le"),
    "UTF-8 with a mark": lambda: codec(text_of(take(), end="\r\n"), "utf-8-sig"),
    "a title in the system's code page": lambda: codec("Aufnahme für Zoë;;;\n;;\n" + text_of(take(), ";"), "cp1252"),
    "a title of many cells": lambda: codec("A,B,C," + "x," * 90 + "\n\n" + text_of(take()), "utf-8"),
    "sep=": lambda: codec("sep=;\n" + text_of(with_commas(take()), ";"), "utf-8"),
    "quoted": lambda: codec("\n".join(",".join(f'"{cell}"' for cell in row) for row in take()), "utf-8"),
    "names in lower case": lambda: codec(text_of([[n.lower() for n in NAMES], *take()[1:]]), "utf-8"),
    "names with spaces": lambda: codec(text_of([["Timecode", "Blend Shape Count", *(" Eye Blink Left" if n ==
                                       "EyeBlinkLeft" else n for n in NAMES[2:])], *take()[1:]]), "utf-8"),
    "names of a mesh": lambda: codec(text_of([[n if n in ANGLES or n == "Timecode" else f"head|blendShape1.{n}"
                                     for n in NAMES], *take()[1:]]), "utf-8"),
    "L and R": lambda: codec(text_of([[n.replace("Left", "_L").replace("Right", "_R") if n not in ANGLES else n
                             for n in NAMES], *take()[1:]]), "utf-8"),
    "another order": lambda: codec(text_of([row[::-1] for row in take()]), "utf-8"),
    "line ends written twice": lambda: codec(text_of(take(), end="\n\n"), "utf-8"),
    "empty rows at the end": lambda: codec(text_of(take()) + "," * 62 + "\n\n\n", "utf-8"),
    "an apostrophe before": lambda: codec(text_of([NAMES, *(["'" + r[0], *r[1:]] for r in take()[1:])]), "utf-8"),
    "points in the time": lambda: codec(text_of([NAMES, *([r[0].replace(":", ".", 2), *r[1:]] for r in take()[1:])]),
                                        "utf-8"),
    "percents": lambda: codec(text_of([NAMES, *([r[0], "61", *(f"{100 * float(c):.4f} %" for c in r[2:54]), *r[54:]]
                              for r in take()[1:])]), "utf-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAVED)
def test_a_take_that_was_saved_again_is_the_same_take(model: HeadModel, tmp_path: Path, name: str) -> None:
    (tmp_path / "take.csv").write_bytes(SAVED[name]())
    assert is_the_take(read_performance(tmp_path / "take.csv", model), model)


CLOCKS: dict[str, Callable[[int], str]] = {
    "Live Link Face": lambda row: f"10:00:{row // 60:02d}:{row % 60:02d}.000",
    "a decimal comma": lambda row: f"10:00:{row // 60:02d}:{row % 60:02d},250",
    "drop-frame": lambda row: f"10:00:{row // 60:02d};{row % 60:02d}",
    "frames behind a point": lambda row: f"10:00:{row // 60:02d}.{row % 60:02d}",
    "milliseconds": lambda row: f"10:00:{row / 60:06.3f}",
    "milliseconds with a comma": lambda row: f"10:00:{row / 60:06.3f}".replace(".", ","),
    "afternoon": lambda row: f"1:00:{row / 60:06.3f} PM",
    "a date before": lambda row: f"2026-11-30T10:00:{row / 60:06.3f}",
    "a date and a space before": lambda row: f"30.11.2026 10:00:{row / 60:06.3f}",
    "a date before the afternoon": lambda row: f"11/30/2026 1:00:{row / 60:06.3f} PM",
    "a zone behind": lambda row: f"2026-11-30T10:00:{row / 60:06.3f}Z",
    "hours of a zone behind": lambda row: f"'2026-11-30 10:00:{row / 60:06.3f}+02:00",
    "minutes and seconds": lambda row: f"59:{row / 60:06.3f}" if row < 3600 else "",
    "seconds": lambda row: f"{row / 60:.5f}",
    "milliseconds as a number": lambda row: f"{row * 1000 / 60:.2f}",
    "frame numbers": lambda row: str(1001 + row),
    "seconds without a fraction": lambda row: f"10:00:{row // 60:02d}",
    "tenths of a second": lambda row: f"00:{row // 60:02d}.{row % 60 // 6}",
    "fractions of a day": lambda row: f"{(36000 + row / 60) / 86400:.12f}",
    "fractions of a day, rounded": lambda row: f"{round(36000 + row / 60) / 86400:.9f}",
}  # fmt: skip


@pytest.mark.parametrize("name", CLOCKS)
def test_times_in_every_writing_give_the_rows_their_places(name: str) -> None:
    found = times_of([CLOCKS[name](row) for row in range(300)], SILENT)
    assert found is not None
    times, rate = found
    assert abs(float(rate) / 60 - 1) < 0.002, rate
    np.testing.assert_allclose(times - times[0], np.arange(300) / 60, atol=0.011 if name == "drop-frame" else 0.006)


@pytest.mark.parametrize("nominal", [30, 60])
def test_numbers_that_drop_frame_counts_skip_are_no_missing_frames(nominal: int) -> None:
    """Over the minutes 8 to 11 of the clock: the tenth minute skips none."""
    skipped = nominal // 15
    codes = [
        f"10:{minute:02d}:{second:02d};{frame:02d}.000"
        for minute in range(8, 12)
        for second in range(60)
        for frame in range(skipped if second == 0 and minute % 10 else 0, nominal)
    ]
    found = times_of(codes, SILENT)
    assert found is not None and found[1] == Fraction(1000 * nominal, 1001)
    np.testing.assert_allclose(found[0] - found[0][0], np.arange(len(codes)) / float(found[1]), atol=1e-6)


@pytest.mark.parametrize(
    ("hour", "start"), [("23:", "00:"), ("", "")], ids=["midnight", "a full hour where only minutes are written"]
)
def test_times_go_on_after_midnight_and_after_a_full_hour(hour: str, start: str) -> None:
    before = [f"{hour}59:{59.5 + row / 60:06.3f}" for row in range(30)]
    after = [f"{start}00:{row / 60:06.3f}" for row in range(30)]
    found = times_of(before + after, SILENT)
    assert found is not None and found[1] == 60
    np.testing.assert_allclose(found[0] - found[0][0], np.arange(60) / 60, atol=0.002)


@pytest.mark.parametrize(("half", "hours"), [("PM", (11, 12)), ("AM", (12, 1)), ("PM", (12, 1))])
def test_twelve_is_the_first_hour_of_each_half_of_a_day(half: str, hours: tuple[int, int]) -> None:
    before, after = (f"{hour}:{{}} {name}" for hour, name in zip(hours, ("AM" if hours[0] == 11 else half, half)))
    codes = [before.format(f"59:{59.5 + row / 60:06.3f}") for row in range(30)]
    found = times_of(codes + [after.format(f"00:{row / 60:06.3f}") for row in range(30)], SILENT)
    assert found is not None and found[1] == 60
    np.testing.assert_allclose(found[0] - found[0][0], np.arange(60) / 60, atol=0.002)


@pytest.mark.parametrize("rate", [24, 25, 30, 50, 60])
def test_rounded_times_tell_the_rate_too(rate: int) -> None:
    codes = [f"10:00:{(row + 7) // rate:02d}" for row in range(5 * rate)]
    messages = Messages()
    found = times_of(codes, messages)
    assert found is not None and found[1] == rate and "were rounded" in messages.texts[0]


@pytest.mark.parametrize("step", [1e14, 300.0, 1e-7])
def test_rounded_times_too_far_apart_for_a_film_are_rows_at_the_default_rate(step: float) -> None:
    days = np.repeat(np.arange(-5.0, 1.0), [4, 4, 1, 4, 4, 4]) * step / 86_400
    found = times_of([repr(float(day)) for day in days], SILENT)
    assert found is not None and found[1] == 60 and np.allclose(found[0], np.arange(21) / 60)


@pytest.mark.parametrize("code", ["00:00:00:00.000", "10:00:00;00", "0", "00:00:00"])
def test_rows_that_all_have_one_time_are_frames_all_the_same(code: str) -> None:
    messages = Messages()
    found = times_of([code] * 30, messages)
    assert found is not None and found[1] == 60 and "taken as 60 a second" in messages.texts[0]
    np.testing.assert_allclose(found[0], np.arange(30) / 60)


@pytest.mark.parametrize(("step", "rate"), [(2, 30), (3, 20)])
def test_numbers_of_every_second_or_third_frame_are_no_milliseconds(step: int, rate: int) -> None:
    messages = Messages()
    found = times_of([str(1001 + step * row) for row in range(30)], messages)
    assert found is not None and found[1] == rate
    np.testing.assert_allclose(found[0], np.arange(30) / rate)
    assert messages.texts == [
        f"The performance counts its frames in steps of {step}, of 60 a second: its rows are taken as {rate} a second."
    ]
    assert times_of([str(20 * row) for row in range(30)], SILENT)[1] == 50  # type: ignore[index]


def test_a_column_that_is_called_frame_holds_frames_however_far_they_are_apart(
    model: HeadModel, tmp_path: Path
) -> None:
    codes = [str(10 * row) for row in range(ROWS)]
    for name, rate in (("Frame", 6), ("Time", 100)):
        rows = take(codes)
        rows[0] = [name, *rows[0][1:]]
        (tmp_path / "take.csv").write_text(text_of(rows))
        assert read_performance(tmp_path / "take.csv", model).fps == rate


def test_what_is_no_time_is_said(model: HeadModel, tmp_path: Path) -> None:
    assert times_of(["now", "then"], SILENT) is None and times_of(["", ""], SILENT) is None
    assert times_of(["3", "2", "1"], SILENT) is None
    messages = Messages()
    (tmp_path / "take.csv").write_text(text_of(take(["#####"] * ROWS)))
    track = read_performance(tmp_path / "take.csv", model, messages)
    assert track.frame_count == ROWS and "no timecodes that can be read" in messages.texts[0]


def test_numbers_are_read_in_every_writing() -> None:
    written = {
        "0.5": 0.5, "0,5": 0.5, " 0.5 ": 0.5, "-0,25": -0.25, "\u22120.25": -0.25, "1e-3": 1e-3, "1,23E-05": 1.23e-5,
        "1.234,5": 1234.5, "1,234.5": 1234.5, "1 234,5": 1234.5, "1\u00a0234,5": 1234.5, "1\u202f234.5": 1234.5,
        "1'234.5": 1234.5, "1\u2019234.5": 1234.5, "12 %": 0.12, "50%": 0.5, "1.234.567": 1234567, "1,234,567": 1234567,
        "0\u066b5": 0.5, "\u0660\u066b\u0665": 0.5, ",5": 0.5, "5,": 5.0,
    }  # fmt: skip
    assert {text: number_of(text) for text in written} == pytest.approx(written)
    assert np.isnan(number_of("")) and np.isnan(number_of("  "))
    for text in ("#VALUE!", "01. Mai", "true", "1:2", "--1"):
        with pytest.raises(ValueError, match="could not convert"):
            number_of(text)


BLANK = {
    "commas alone": lambda row: [""] * len(row),
    "nothing": lambda row: [],
    "a time without channels": lambda row: [row[0], "", *[""] * (len(row) - 2)],
}


@pytest.mark.parametrize("kind", BLANK)
@pytest.mark.parametrize("places", [(12,), (12, 13, 14), tuple(range(10, 25))])
def test_a_blank_row_is_a_frame_without_a_face(
    model: HeadModel, tmp_path: Path, kind: str, places: tuple[int, ...]
) -> None:
    rows = take()
    for place in places:
        rows[place + 1] = BLANK[kind](rows[place + 1])
    (tmp_path / "take.csv").write_text(text_of(rows))
    track = read_performance(tmp_path / "take.csv", model)
    assert track.frame_count == ROWS and track.fps == 60
    assert list(np.flatnonzero(track.flags)) == list(places) and track.flags[places[0]] == FrameFlag.NO_FACE
    seen = np.delete(np.arange(ROWS), places)
    np.testing.assert_allclose(smile(track, model)[seen], SMILE[seen], atol=1e-5)
    # The face is bridged where it was not seen.
    np.testing.assert_allclose(smile(track, model), SMILE, atol=0.02)


def test_blank_rows_of_a_take_without_times_are_frames_too(model: HeadModel, tmp_path: Path) -> None:
    rows = take([""] * ROWS)
    for place in (12, 20, 21):
        rows[place + 1] = []
    (tmp_path / "take.csv").write_text(text_of(rows))
    track = read_performance(tmp_path / "take.csv", model)
    assert track.frame_count == ROWS and list(np.flatnonzero(track.flags)) == [12, 20, 21]
    (tmp_path / "double.csv").write_text(text_of(take([""] * ROWS), end="\n\n"))
    track = read_performance(tmp_path / "double.csv", model)
    assert track.frame_count == ROWS and not track.flags.any()


def test_single_cells_without_a_number_are_bridged(model: HeadModel, tmp_path: Path) -> None:
    rows = take()
    column = NAMES.index("MouthSmileLeft")
    for place in (5, 6, 30):
        rows[place + 1][column] = ""
    (tmp_path / "take.csv").write_text(text_of(rows))
    track = read_performance(tmp_path / "take.csv", model)
    assert not track.flags.any()
    np.testing.assert_allclose(smile(track, model), SMILE, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: [["a", "b"], ["1", "2"]], "it has 0 of ARKit's 52 channels; its columns are a, b"),
        (lambda rows: [row[:8] for row in rows], r"it has 6 of ARKit's 52 channels; its columns are Timecode, Blend"),
        (lambda rows: [["hello there"], ["nothing"]], "it is no table of text"),
        (lambda rows: rows[:1], "holds no performance: it has 0 rows below its names"),
        (lambda rows: [rows[0], [*rows[1][:5], "01. Mai", *rows[1][6:]], *rows[2:]],
         r"has no number for BrowOuterUpLeft in row 2 but “01\. Mai”"),
        (lambda rows: [rows[0], *([r[0], "61", *(c.replace("0.", "") for c in r[2:])] for r in rows[1:])],
         r"is 250,000 where ARKit's channels go from 0 to 1: .*do not save it in an office program"),
        (lambda rows: [rows[0], *([r[0], "61", *(str(100 * float(c)) for c in r[2:54]), *r[54:]] for r in rows[1:])],
         r"is 25 where ARKit's channels go from 0 to 1: percents"),
    ],
    ids=["another table", "too few", "no table", "no rows", "a date", "points lost", "0 to 100"],
)  # fmt: skip
def test_what_is_no_take_is_told_by_what_was_found(
    model: HeadModel, tmp_path: Path, change: Callable[[list[list[str]]], list[list[str]]], said: str
) -> None:
    (tmp_path / "take.csv").write_text(text_of(change(take())))
    with pytest.raises(EffigyError, match=said):
        read_performance(tmp_path / "take.csv", model)


def test_angles_in_degrees_are_turned_to_radians(model: HeadModel, tmp_path: Path) -> None:
    rows = take()
    for row in rows[1:]:
        row[NAMES.index("HeadYaw")] = "17.188734"
    (tmp_path / "take.csv").write_text(text_of(rows))
    messages = Messages()
    track = read_performance(tmp_path / "take.csv", model, messages)
    np.testing.assert_allclose(track.rotations[:, 1, 1], 0.3, atol=1e-4)
    assert "taken for degrees" in messages.texts[0]


def weights() -> list[list[float]]:
    return [[float(SMILE[row]) if name == "mouthSmileLeft" else 0.25 for name in SCORE_NAMES] for row in range(ROWS)]


def test_an_audio2face_export_is_read(model: HeadModel, tmp_path: Path) -> None:
    content = {
        "exportFps": 60.0, "trackPath": "a.wav", "numPoses": 52, "numFrames": ROWS, "facsNames": list(SCORE_NAMES),
        "weightMat": weights(), "joints": ["jaw"], "rotations": [], "translations": [],
    }  # fmt: skip
    (tmp_path / "a2f.json").write_text(json.dumps(content))
    assert is_the_take(read_performance(tmp_path / "a2f.json", model), model)
    (tmp_path / "a2f.json").write_text(json.dumps(content | {"exportFps": 29.97}))
    assert read_performance(tmp_path / "a2f.json", model).fps == Fraction(2997, 100)
    own = content | {"facsNames": ["innerBrowRaiser", "outerBrowRaiser"], "weightMat": [[0.1, 0.2]] * 5}
    (tmp_path / "own.json").write_text(json.dumps(own))
    with pytest.raises(EffigyError, match="0 of ARKit's 52 channels; its columns are innerBrowRaiser, outerBrowRaiser"):
        read_performance(tmp_path / "own.json", model)
    for change in ({"weightMat": [[0.1]] * 5}, {"exportFps": "x"}, {"weightMat": 3}, {"weightMat": [["a"] * 52] * 3}):
        (tmp_path / "bad.json").write_text(json.dumps(content | change))
        with pytest.raises(EffigyError, match="is damaged"):
            read_performance(tmp_path / "bad.json", model)


def test_a_lam_export_is_read_and_another_json_is_told_by_its_keys(model: HeadModel, tmp_path: Path) -> None:
    frames = [{"weights": row, "time": index / 60, "rotation": []} for index, row in enumerate(weights())]
    content = {"names": list(SCORE_NAMES), "metadata": {"fps": 60, "frame_count": ROWS}, "frames": frames}
    (tmp_path / "lam.json").write_text(json.dumps(content))
    assert is_the_take(read_performance(tmp_path / "lam.json", model), model)
    messages = Messages()
    (tmp_path / "lam.json").write_text(json.dumps({"names": list(SCORE_NAMES), "frames": frames[::2]}))
    assert read_performance(tmp_path / "lam.json", model, messages).fps == 30 and not messages.texts
    untimed = {"names": list(SCORE_NAMES), "frames": [{"weights": row} for row in weights()]}
    (tmp_path / "lam.json").write_text(json.dumps(untimed))
    assert read_performance(tmp_path / "lam.json", model, messages).fps == 60
    assert "does not say its rate" in messages.texts[0]
    (tmp_path / "x.json").write_text("3")
    with pytest.raises(EffigyError, match="it holds no channels"):
        read_performance(tmp_path / "x.json", model)
    (tmp_path / "x.json").write_text(json.dumps({"mouthCues": [], "metadata": {}}))
    with pytest.raises(EffigyError, match=r"x\.json is not a performance \(it holds mouthCues, metadata\): choose"):
        read_performance(tmp_path / "x.json", model)


def test_a_face_cap_recording_is_read_without_its_turns(model: HeadModel, tmp_path: Path) -> None:
    names = [name.replace("Left", "_L").replace("Right", "_R") if "Left" in name[-5:] or "Right" in name[-5:] else name
             for name in SCORE_NAMES]  # fmt: skip
    lines = ["info,1.5,iPhone", ",".join(("bs", *names))]
    for row, values in enumerate(weights()):
        lines.append(",".join(("k", str(round(row * 1000 / 60)), *["3.5"] * 10, *(f"{value:.6f}" for value in values))))
    (tmp_path / "facecap.txt").write_text("\n".join(lines))
    messages = Messages()
    track = read_performance(tmp_path / "facecap.txt", model, messages)
    assert track.fps == 60 and track.frame_count == ROWS and not track.rotations[:, 1].any()
    np.testing.assert_allclose(smile(track, model), SMILE, atol=0.002)
    assert "turns of its head and eyes are not taken over" in messages.texts[-1]
    (tmp_path / "facecap.txt").write_text("\n".join([*lines[:5], lines[5][:60]]))
    with pytest.raises(EffigyError, match="do not have as many numbers as there are channels"):
        read_performance(tmp_path / "facecap.txt", model)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "words.TextGrid",
            b'File type = "ooTextFile"\nObject class = "TextGrid"\n',
            "is a Praat TextGrid .* use it with Lip Sync, beside its sound",
        ),
        ("words.txt", b'File type = "ooTextFile"\nObject class = "TextGrid"\n', "a Praat TextGrid"),
        ("take.mov", b"\0\0\0\x14ftypqt  ", "is a video, where a performance is needed: import it with Import Video"),
        ("walk.bvh", b"HIERARCHY\nROOT Hips", "a motion of a skeleton"),
        ("take.xlsx", b"PK\3\4" + bytes(60), "is not a performance .*Audio2Face"),
    ],
)
def test_the_command_says_what_another_file_is(
    tmp_path: Path, capsys: pytest.CaptureFixture, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["retarget", str(tmp_path / name), str(tmp_path / "t.npz"), str(tmp_path / "out.npz")]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error), error


@pytest.mark.parametrize("rows", [["1;2"] * 25, [";".join("1" * 1100)]], ids=["rows", "cells"])
def test_a_table_of_too_many_rows_or_cells_is_refused(rows: list[str], tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["jawOpen;mouthClose", *rows]))
    with pytest.raises(EffigyError, match="too large .*10 rows"), reading(path, "performance", "export it again"):
        read_text_table(path, "performance", "export it again", lambda cells: "jawOpen" in cells, 10**6, 10)
