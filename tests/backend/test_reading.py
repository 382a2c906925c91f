"""Whatever is wrong with a file, its loader says it in a sentence, soon, and without taking memory for what it claims.

The loaders are those of `bench.fault_rows._loaders`: every way by which the backend reads a file.
"""

from __future__ import annotations

import errno
import os
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.errors import EffigyError
from backend.reading import Damaged, read_bytes, reading
from bench.fault_rows._loaders import Loader, loaders

LOADERS = loaders()
QUIET = ("list of head models", "stamp", "note of an attempt")
"""Loaders of files without which everything is made again: they answer as if there were no file."""


def sentence(read: Callable[[], object]) -> str:
    with pytest.raises(EffigyError) as refusal:
        read()
    text = str(refusal.value)
    assert "\n" not in text and text.endswith("."), text
    return text


def refused_or_quiet(loader: Loader, samples: Path) -> None:
    if loader.name in QUIET:
        loader.read(samples)
    else:
        said = sentence(lambda: loader.read(samples))
        assert any(name in said for name in (Path(loader.file).name, "person.capture")), said


@pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.name)
class TestEveryLoader:
    def test_reads_its_sample(self, samples: Path, loader: Loader) -> None:
        loader.read(samples)

    def test_says_that_a_file_is_missing(self, samples: Path, loader: Loader) -> None:
        (samples / loader.file).unlink()
        refused_or_quiet(loader, samples)

    def test_says_that_a_file_is_a_folder(self, samples: Path, loader: Loader) -> None:
        (samples / loader.file).unlink()
        (samples / loader.file).mkdir()
        if loader.name != "note of an attempt":
            refused_or_quiet(loader, samples)

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
    def test_does_not_wait_for_a_pipe(self, samples: Path, loader: Loader) -> None:
        (samples / loader.file).unlink()
        os.mkfifo(samples / loader.file)
        refused_or_quiet(loader, samples)

    @pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no device to link to")
    def test_does_not_read_a_device(self, samples: Path, loader: Loader) -> None:
        (samples / loader.file).unlink()
        (samples / loader.file).symlink_to("/dev/zero")
        refused_or_quiet(loader, samples)

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
    def test_says_that_a_file_may_not_be_read(self, samples: Path, loader: Loader) -> None:
        (samples / loader.file).chmod(0)
        refused_or_quiet(loader, samples)

    @pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PK\5\6", b"\x80\x04", b"[" * 100_000, b"\xff\xfe\xfd"])
    def test_says_that_content_is_no_content(self, samples: Path, loader: Loader, content: bytes) -> None:
        (samples / loader.file).write_bytes(content)
        refused_or_quiet(loader, samples)

    def test_says_that_a_file_is_cut_short(self, samples: Path, loader: Loader) -> None:
        content = (samples / loader.file).read_bytes()
        for share in (0.05, 0.5, 0.95):
            (samples / loader.file).write_bytes(content[: int(share * len(content))])
            try:
                loader.read(samples)
            except EffigyError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "none"), "There is no track at x.npz: look again."),
        (PermissionError(errno.EACCES, "no"), "no permission to open it. Ask its owner"),
        (IsADirectoryError(errno.EISDIR, "is"), "x.npz is a folder, where the file of a track is needed"),
        (NotADirectoryError(errno.ENOTDIR, "is not"), "a file stands where a folder is needed"),
        (OSError(errno.EIO, "Input/output error"), r"cannot be read \(Input/output error\): copy it to another disk"),
        (OSError("cannot identify"), r"is damaged \(its content cannot be read\): track again"),
        (MemoryError(), "not enough free memory"),
        (zlib.error("Error -3"), "is damaged .*: track again"),
        (NotImplementedError("That compression method is not supported"), "is damaged"),
        (RecursionError(), "is damaged"),
        (Damaged("flags are no numbers"), r"is damaged \(flags are no numbers\)"),
        (EffigyError("The track is newer."), "^The track is newer.$"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_exception_becomes_a_sentence_of_its_own(error: Exception, said: str) -> None:
    with (
        pytest.raises(EffigyError, match=said),
        reading(Path("x.npz"), "track", "track again", missing="look again"),
    ):
        raise error


def test_a_small_file_takes_no_memory_for_the_largest_of_its_kind(tmp_path: Path) -> None:
    (tmp_path / "frame.jpg").write_bytes(b"x" * 50_000)
    tracemalloc.start()
    try:
        assert len(read_bytes(tmp_path / "frame.jpg", "image", 2**28, "make it again")) == 50_000
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_is_no_damage(stop: type[BaseException]) -> None:
    with pytest.raises(stop), reading(Path("x.npz"), "track", "track again"):
        raise stop


def test_a_sentence_quotes_names_of_strangers_shortened_and_without_control_characters() -> None:
    said = str(EffigyError(f"There is no head “{'x' * 10**6}\x1b[2J\u202e” here: track again."))
    assert len(said) < 1500 and said.startswith("There is no head “xxx") and said.endswith("” here: track again.")
    assert said.isprintable() and "\x1b" not in said
    assert str(EffigyError("Zoë – 3 × 4\nand")) == "Zoë – 3 × 4\nand" and str(EffigyError()) == ""
