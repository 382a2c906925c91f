"""A sheet of clips is checked before any work starts; one sentence names the row and the column that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import EffigyError
from backend.service.batch.sheet import Clip, read_sheet, unsafe_name
from backend.service.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("anna.mp4", "ben.mp4", "head.npz"):
        (tmp_path / name).touch()
    (tmp_path / "carl.capture").mkdir()
    (tmp_path / "carl.capture" / "capture.json").touch()
    return tmp_path


def read(folder: Path, text: str, encoding: str = "utf-8") -> tuple[Clip, ...]:
    (folder / "shots.csv").write_bytes(text.encode(encoding))
    return read_sheet(folder / "shots.csv")


def test_every_column_reaches_the_clip(folder):
    (clip,) = read(
        folder,
        "name,footage,start,end,size,head,preset,minutes,device,evaluate\n"
        "Anna 1,anna.mp4,1.5,9,256,head.npz,standard,2.5,cpu,no\n",
    )
    assert clip == Clip(
        name="Anna 1",
        footage=folder / "anna.mp4",
        start=1.5,
        end=9.0,
        size=256,
        head=folder / "head.npz",
        preset="standard",
        minutes=2.5,
        device="cpu",
        evaluate=False,
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separators_and_the_byte_order_mark_of_spreadsheets_are_read(folder, separator):
    rows = [["Footage", "Preset"], ["anna.mp4", "full"], ["", ""], [" ben.mp4 ", ""]]
    clips = read(folder, "\r\n".join(separator.join(row) for row in rows), "utf-8-sig")
    assert [(clip.name, clip.preset, clip.evaluate) for clip in clips] == [
        ("anna", "full", True),
        ("ben", "draft", True),
    ]


def test_a_capture_stands_in_for_footage(folder):
    (clip,) = read(folder, "capture\ncarl.capture\n")
    assert clip.capture == folder / "carl.capture" and clip.name == "carl"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("footage,colour\nanna.mp4,red\n", "shots.csv, row 1: there is no column “colour”"),
        ("footage,size,size\nanna.mp4,1,1\n", "row 1: there are 2 columns “size”"),
        ("footage\nanna.mp4\n\ngone.mp4\n", "row 4: footage: there is no file"),
        ("footage,head\nanna.mp4,gone.pkl\n", "row 2: head: there is no file"),
        ("capture\ngone.capture\n", "row 2: capture: .* is no capture folder"),
        ("name,preset\nanna,draft\n", "row 2: fill in either the column footage or the column capture"),
        ("footage,capture\nanna.mp4,carl.capture\n", "row 2: fill in either"),
        ("capture,size\ncarl.capture,256\n", "row 2: size is for footage"),
        ("name,footage\nshot,anna.mp4\nShot,ben.mp4\n", "row 3: name “Shot” is taken by row 2"),
        ("name,footage\n../shot,anna.mp4\n", "row 2: name “../shot” must begin with a letter"),
        ("name,footage\na/b,anna.mp4\n", "row 2: name “a/b” holds the character “/”"),
        ("name,footage\nCON,anna.mp4\n", "row 2: name “CON” is reserved by Windows"),
        (
            "footage,preset\nanna.mp4,best\n",
            "row 2: there is no preset “best”; choose one of instant, draft, standard, full",
        ),
        ("footage,minutes\nanna.mp4,0\n", "row 2: minutes is 0, but must be above 0"),
        ("footage,size\nanna.mp4,big\n", "row 2: size must be a whole number, but is “big”"),
        ("footage,start,end\nanna.mp4,5,4\n", "row 2: end is 4, but must be later than start"),
        ("footage,end\nanna.mp4,-1\n", "row 2: end is -1, but must be 0 or more"),
        ("footage,evaluate\nanna.mp4,perhaps\n", "row 2: evaluate must be yes or no"),
        ("footage\nanna.mp4,draft\n", "row 2: there are 2 cells"),
        (f"name,footage\na,{'x' * 300}.mp4\n", "row 2: footage: .*([Tt]here is no)"),
        (f"name,capture\na,{'x' * 300}\n", "row 2: capture: .*(There is no file|is no capture)"),
        ("", "is empty"),
        ("footage\n", "lists no clips"),
        ('footage\n"anna.mp4\n', "is no CSV file"),
    ],
)
def test_a_wrong_cell_is_named(folder, text, sentence):
    with pytest.raises(EffigyError, match=sentence) as refusal:
        read(folder, text)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".hidden",
        "/etc",
        "C:x",
        "a\\b",
        "a:b",
        "nul.txt",
        "LPT1",
        "com².x",
        "Batch.csv",
        "batch.json",
        "ends.",
        "a\nb",
        "a\u202eb",
        "-rf",
        "x" * 65,
    ],
)
def test_a_name_that_is_unsafe_on_some_system_is_refused(name):
    assert unsafe_name(name)


@pytest.mark.parametrize("name", ["Anna", "shot 010 (take 2)", "Åsa", "王", "a.b", "console", "x" * 64])
def test_an_ordinary_name_is_accepted(name):
    assert unsafe_name(name) is None


def test_nothing_is_made_for_a_sheet_that_is_refused(folder, capsys):
    (folder / "shots.csv").write_text("footage\nanna.mp4\ngone.mp4\n")
    before = sorted(folder.rglob("*"))
    assert main(["batch", str(folder / "shots.csv")]) == 2
    error = capsys.readouterr().err
    assert "shots.csv, row 3: footage" in error and len(error.splitlines()) == 1
    assert sorted(folder.rglob("*")) == before
