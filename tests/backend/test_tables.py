"""The doctor's and a batch's tables as a user sees them in a terminal and in a log."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from backend.avatar.avatar import FilePart
from backend.service.results import BROKEN, MISSING, OK, AvatarContents, BatchRow, Finding
from backend.service.sentences import describe
from backend.service.tables import batch_table, contents_table, findings_table

FINDINGS = (Finding("Python", OK, "3.11.7"), Finding("GPU", MISSING, "[none] here"), Finding("Disk", BROKEN, "full"))
ROWS = (
    BatchRow("anna.mp4", "done", 90, 80, 12.34, 25.678, 22.1, 3.25),
    BatchRow("[ben]", "failed", reason="No face in [it]."),
    BatchRow("cleo", "waiting"),
)
CONTENTS = AvatarContents(
    Path("/a.effigy"),
    1500,
    "open",
    {"steps": 2, "device": "cpu"},
    (FilePart("networks [unet]", 1234567, 2469134, ("float16",)), FilePart("identity", 60, 240, ("float32", "int8"))),
    2_500_000,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_findings_stand_in_columns_without_colours_in_a_log(wide: None) -> None:
    assert findings_table(FINDINGS).splitlines() == [
        "What    State",
        "Python  ok       3.11.7",
        "GPU     missing  [none] here",
        "Disk    broken   full",
    ]


def test_the_parts_of_an_avatar_are_listed_with_the_whole_file_last(wide: None) -> None:
    lines = [
        "Part               numbers      kB  stored as",
        "networks [unet]  1,234,567  2469.1  float16",
        "identity                60     0.2  float32 and int8",
        "the whole file              2500.0",
    ]
    assert contents_table(CONTENTS).splitlines() == lines
    first, *rest = describe(CONTENTS).splitlines()
    assert first == "/a.effigy: 1500 Gaussians on the head model “open”; steps 2, device cpu."
    assert rest == lines


def test_the_figures_of_a_batch_stand_below_each_other_at_their_units(wide: None) -> None:
    assert batch_table(ROWS).splitlines() == [
        "Clip      frames  reliable  minutes   PSNR  in the head   MB",
        "anna.mp4      90        80     12.3  25.68        22.10  3.2  done",
        "[ben]          –         –        –      –            –    –  failed: No face in [it].",
        "cleo           –         –        –      –            –    –  waiting",
    ]


def test_states_have_colours_in_a_terminal(wide: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())
    green, yellow, red = "\x1b[32m", "\x1b[33m", "\x1b[31m"
    shown = findings_table(FINDINGS)
    assert f"{green}ok\x1b" in shown and f"{yellow}missing\x1b" in shown and f"{red}broken\x1b" in shown
    shown = batch_table(ROWS)
    assert f"{green}done\x1b" in shown and f"{red}failed\x1b[0m: No" in shown and f"{yellow}waiting\x1b" in shown


def test_a_table_is_as_wide_as_the_terminal_and_140_characters_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding("Disk", BROKEN, "x" * 400)
    for columns, expected in (("60", 60), ("100", 100), ("", 140)):
        monkeypatch.setenv("COLUMNS", columns)
        assert max(map(len, findings_table([finding]).splitlines())) == expected
