"""Names are shortened in one place, at whole characters, and whatever is named after a long name still has a place."""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path, PureWindowsPath

import pytest

from backend.errors import EffigyError
from backend.file_names import (
    MOST_BYTES,
    MOST_MADE,
    beside,
    datablock_name,
    file_name,
    numbered,
    shortened,
    size_of,
    split,
    with_end,
)
from backend.output_files import temporaries_of, temporary_beside, tidy
from backend.output_lock import lock_of
from backend.service.batch.sheet import read_sheet
from backend.service.commands import check_writable
from backend.service.plain_names import plain_name
from backend.storage import as_effigy_error, hash_file, held, rename, write_beside
from backend.training.checkpoint import checkpoint_path
from blender_addon.renaming import unused, write_new
from blender_addon.worker.plain_names import sendable

ROOT = Path(__file__).resolve().parents[2]
FILM = "長い名前の映像" * 11 + "長い名"
"""80 Japanese characters, 240 bytes."""
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
WAVE = "\U0001f44b\U0001f3fd"
FLAG = "\U0001f1ef\U0001f1f5"
SCOTLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
HAN = unicodedata.normalize("NFD", "한")
ACCENTED = unicodedata.normalize("NFD", "é")
HINDI = "\u0915\u093f"


def test_the_extension_shortens_in_the_same_way() -> None:
    assert (ROOT / "backend/file_names.py").read_bytes() == (ROOT / "blender_addon/file_names.py").read_bytes()


@pytest.mark.parametrize("whole", ["映", FAMILY, WAVE, FLAG, SCOTLAND, HAN, ACCENTED, HINDI, "a", "\u2764\ufe0f"])
@pytest.mark.parametrize("before", range(3))
def test_no_character_that_people_see_as_one_is_torn(whole: str, before: int) -> None:
    text = "x" * before + whole * 200
    for most in (40, 63, 64, 65, 66, 67, 100, 180):
        made = shortened(text, most)
        # As many whole ones as fit: none is torn, and none is left out without need.
        count = (most - before) // size_of(whole)
        assert made == "x" * before + whole * count, (most, made)


def test_a_text_that_fits_stays_and_one_character_alone_is_torn_rather_than_lost() -> None:
    assert shortened("Ann 2", 5) == "Ann 2" and shortened("Ann 2 …", 5) == "Ann 2" and shortened("Ann . b", 6) == "Ann"
    assert shortened(FAMILY, 8) and size_of(shortened("\ud800" * 100, 30)) <= 30


def test_a_film_of_80_japanese_characters_gives_names_for_everything_that_is_named_after_it() -> None:
    capture = file_name(FILM, ".capture")
    assert capture == "長い名前の映像" * 8 + "長.capture" and size_of(capture) <= MOST_MADE
    avatar = Path(file_name(capture.removesuffix(".capture"), ".effigy"))
    for path in (avatar, checkpoint_path(avatar), Path(f"{avatar}.mp4"), numbered(avatar, "-2"), lock_of(avatar)):
        assert size_of(path.name) <= MOST_BYTES
        assert size_of(temporary_beside(path).name + "~") <= MOST_BYTES


@pytest.mark.parametrize("name", [f"{FILM}.capture", "a" * 255, "é" * 127, f"{FAMILY * 10}.npz", "b" * 251 + ".png", "."
                                  + "c" * 254])  # fmt: skip
def test_a_name_as_long_as_the_disk_allows_is_written_locked_and_tidied(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    with write_beside(target) as temporary:
        assert temporary.suffix == target.suffix or not 0 < len(target.suffix) <= 20
        temporary.write_text("one")
        assert temporaries_of(target) == [temporary]
    with held(target), write_beside(tmp_path / "other") as temporary:
        temporary.write_text("two")
    assert target.read_text() == "one"
    # What a killed writer left is found again; that of another long name that begins alike is not touched.
    stem, suffix = split(name)
    left, other = temporary_beside(target), temporary_beside(tmp_path / f"{stem[:-1]}z{suffix}")
    left.write_text("left")
    other.write_text("other")
    tidy(target, rename)
    assert not left.exists() and other.exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted((name, "other", other.name))


def test_two_long_names_that_begin_alike_share_no_lock_and_no_checkpoint() -> None:
    one, other = Path("x" * 250 + "1.npz"), Path("x" * 250 + "2.npz")
    assert lock_of(one) != lock_of(other) and checkpoint_path(one) != checkpoint_path(other)
    assert checkpoint_path(one) == checkpoint_path(Path(one)) and size_of(checkpoint_path(one).name) <= MOST_BYTES
    # Names of earlier versions stay.
    assert checkpoint_path(Path("ann.effigy")).name == "ann.effigy.checkpoint"
    assert lock_of(Path("/tmp/ann.effigy")).name == ".ann.effigy.lock"


def test_a_name_that_is_too_long_is_refused_before_any_work(tmp_path: Path) -> None:
    for name in (f"{FILM}前.capture" + "x" * 20, "x" * 300):
        with pytest.raises(EffigyError, match=r"longer than the disk allows\. Choose a shorter one"):
            check_writable(tmp_path / name)
    check_writable(tmp_path / f"{FILM}.capture")
    assert not list(tmp_path.iterdir())
    said = str(as_effigy_error(OSError(errno.ENAMETOOLONG, "File name too long"), Path("映" * 90)))
    assert "映" * 20 in said and "longer than the disk allows" in said


def test_numbers_are_added_where_a_long_name_is_taken(tmp_path: Path) -> None:
    path = tmp_path / ("映" * 82 + ".effigy")
    made = {write_new(path, b"1"), write_new(path, b"2"), write_new(path, b"3")}
    assert len(made) == 3 and all(size_of(each.name) <= MOST_BYTES and each.suffix == ".effigy" for each in made)
    assert unused(tmp_path / "ann.effigy") == tmp_path / "ann.effigy"
    assert numbered(Path("head.ply"), "_0012") == Path("head_0012.ply")
    long = numbered(Path("映" * 84 + ".ply"), "_0012")
    assert size_of(long.name) <= MOST_BYTES and long.name.endswith("_0012.ply")


@pytest.mark.parametrize(
    "name",
    ["CON", "nul.capture", "COM1.effigy", "LPT¹", "a:b?", "trailing. ", "..", "", FILM, FAMILY * 40, "a\tb", "ü" * 300],
)
def test_every_made_name_is_one_that_windows_and_the_worker_take(name: str) -> None:
    for made in (file_name(name, ".capture"), sendable(f"{name}.mp4"), sendable(name or "x")):
        path = PureWindowsPath(made)
        assert path.parts == (made,) and not path.is_reserved() and made == made.strip(" .")
        assert not set(made) & set('\\/:*?"<>|\t') and size_of(made) <= MOST_MADE + 1
        assert plain_name(made) == made
    assert sendable("take.one.mp4") == "take.one.mp4" and sendable(f"{FILM}.mp4").endswith(".mp4")


def test_what_follows_a_long_suffix_is_a_name_and_not_a_suffix() -> None:
    assert split("a." + "b" * 30) == ("a." + "b" * 30, "") and split("a.tar.gz") == ("a.tar", ".gz")
    assert with_end("ann", ".lock", ".") == ".ann.lock"
    assert beside(Path("/x/ann"), ".lock") == Path("/x/ann.lock")


@pytest.mark.parametrize("end", ["", " rig", " camera", " footage"])
def test_a_datablocks_name_keeps_its_end_below_63_bytes(end: str) -> None:
    made = datablock_name(FILM, end)
    assert (
        made.endswith(end)
        and made.startswith("長い名前の映像長い名前の映像")
        and size_of(made + ".001") <= 63
        and datablock_name("Ann", end) == f"Ann{end}"
    )
    assert datablock_name("\udce4nn", end).endswith(f"nn{end}")


def test_a_clip_of_a_sheet_without_a_name_gets_a_short_one_of_its_film(tmp_path: Path) -> None:
    film = tmp_path / f"{FILM}.mp4"
    film.write_bytes(b"film")
    (tmp_path / "odd {1}!.mp4").write_bytes(b"film")
    (tmp_path / "shots.csv").write_text(f"footage\n{film.name}\nodd {{1}}!.mp4\n", "utf-8")
    first, second = read_sheet(tmp_path / "shots.csv")
    assert first.name == FILM[:60] and first.footage == film and hash_file(film)
    assert second.name == "odd _1__"


@pytest.mark.skipif(os.name == "nt", reason="needs names of bytes")
def test_a_name_that_is_no_text_is_written_too(tmp_path: Path) -> None:
    target = tmp_path / os.fsdecode(b"\xff" * 250)
    with write_beside(target) as temporary:
        temporary.write_text("x")
    assert target.read_text() == "x" and lock_of(target).name.startswith(".")
