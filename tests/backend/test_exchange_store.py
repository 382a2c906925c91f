"""The folder where a worker keeps the files of clients: contents by hash, checked names, a limited size."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.errors import EffigyError
from backend.output_lock import beginning_of
from backend.service import plain_names as backend_names
from backend.service.exchange import Exchange
from backend.service.exchange_cleanup import KEEP_SECONDS, LIMIT_VARIABLE, make_room, size_limit
from backend.service.exchange_store import ExchangeStore
from backend.service.parameters import Parameters
from backend.storage import write_beside
from blender_addon.errors import EffigyError as ClientError
from blender_addon.worker import plain_names as client_names
from blender_addon.worker.path_map import PathMap, joined


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path) -> ExchangeStore:
    return ExchangeStore(tmp_path / "exchange")


def put(store: ExchangeStore, data: bytes) -> str:
    store.put(digest(data), len(data), 0, data)
    return digest(data)


def test_a_content_sent_in_parts_by_two_workers_is_complete_only_with_its_hash(store):
    data = os.urandom(100_000)
    store.put(digest(data), len(data), 0, data[:40_000])
    assert store.present(digest(data), len(data)) == 40_000
    later = ExchangeStore(store.folder)
    with pytest.raises(EffigyError, match="missing"):
        later.put(digest(data), len(data), 50_000, data[50_000:])
    later.put(digest(data), len(data), 40_000, data[40_000:70_000])
    later.put(digest(data), len(data), 70_000, data[70_000:])
    assert later.present(digest(data), len(data)) == len(data)
    assert later.read(digest(data), 10, 20) == data[10:30]
    with pytest.raises(EffigyError, match="damaged"):
        store.put(digest(b"other"), 5, 0, b"OTHER")
    assert store.present(digest(b"other"), 5) == 0


def test_a_content_that_another_worker_completes_in_this_moment_is_whole(store):
    data, other = os.urandom(100_000), ExchangeStore(store.folder)
    for each in (store, other):
        each.put(digest(data), len(data), 0, data[:50_000])
    make = store._make

    def make_late(kind: str) -> None:
        other.put(digest(data), len(data), 50_000, data[50_000:])
        make(kind)

    store._make = make_late
    store.put(digest(data), len(data), 50_000, data[50_000:])
    assert store.read(digest(data), 0, len(data)) == data


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process began")
def test_the_results_of_a_worker_whose_number_another_process_has_got_are_found(store):
    key, process = "0" * 64, subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        folder, _ = store.open_results(key, {}, "made")
        path = store.folder / "notes" / f"{key}.json"
        mine = json.loads(path.read_text())
        path.write_text(json.dumps(mine | {"pid": process.pid}))
        assert store.open_results(key, {}, "made") == (folder, "made")
        path.write_text(json.dumps(mine | {"pid": process.pid, "began": beginning_of(process.pid)}))
        assert store.open_results(key, {}, "made")[0] != folder
    finally:
        process.communicate()


def test_a_job_that_writes_into_a_folder_does_not_change_the_contents_that_it_is_made_of(store):
    sha256 = put(store, b"frame")
    folder, note = store.open_results("0" * 64, {"capture/a.capture/frames/000001.jpg": sha256}, "running")
    file = folder / "capture/a.capture/frames/000001.jpg"
    assert note == "" and file.read_bytes() == b"frame" and not stat.S_IMODE(file.stat().st_mode) & 0o222
    file.with_suffix(".new").write_bytes(b"other")
    file.with_suffix(".new").replace(file)
    assert store.read(sha256, 0, 5) == b"frame"
    assert store.collect("0" * 64, ["capture/a.capture"]) == [
        ("capture/a.capture/frames/000001.jpg", 5, digest(b"other"))
    ]


def test_results_that_were_not_fetched_are_found_again_and_fetched_ones_are_not(store):
    folder, _ = store.open_results("1" * 64, {}, "running")
    (folder / "out").write_bytes(b"result")
    assert store.open_results("1" * 64, {}, "running") == (folder, "running")
    store.note("1" * 64, "")
    assert store.open_results("1" * 64, {}, "running")[0] != folder
    assert (folder / "out").read_bytes() == b"result"


def test_links_and_hidden_files_of_a_job_are_not_offered(store, tmp_path):
    (tmp_path / "secret").write_bytes(b"mine")
    folder, _ = store.open_results("2" * 64, {}, "running")
    (folder / "out").mkdir()
    (folder / "out" / "link").symlink_to(tmp_path / "secret")
    (folder / "out" / "folder").symlink_to(tmp_path)
    (folder / "out" / ".unfinished").write_bytes(b"half")
    (folder / "out" / "good").write_bytes(b"good")
    assert [name for name, _, _ in store.collect("2" * 64, ["out"])] == ["out/good"]


def test_the_longest_unused_entries_go_first_and_nothing_of_another_name_goes(store, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_bytes(b"x" * 1000)
    old, newer, fresh = (put(store, os.urandom(1000)) for _ in range(3))
    laid_out = store.lay_out("clip.mp4", {"": newer})
    files = store.folder / "files"
    (files / "notes.txt").write_bytes(b"x" * 1000)
    (store.folder / "results").mkdir()
    (store.folder / "results" / ("a" * 32)).symlink_to(tmp_path / "outside")
    long_ago = time.time() - 2 * KEEP_SECONDS
    for path, age in ((files / old, 100), (files / newer, 50), (laid_out.parent, 50), (files / "notes.txt", 200)):
        os.utime(path, (long_ago - age, long_ago - age))
    make_room(store.folder, 2500, used=())
    assert not (files / old).exists() and (files / newer).exists() and laid_out.exists()
    make_room(store.folder, 1500, used={laid_out.parent})
    assert laid_out.exists(), "an entry in use was removed"
    make_room(store.folder, 0, used=(), in_use=[laid_out])
    assert laid_out.exists(), "a head model that the registry names was removed"
    make_room(store.folder, 0, used=())
    assert not laid_out.exists() and (files / fresh).exists(), "an entry that was used a moment ago was removed"
    assert (files / "notes.txt").exists() and (tmp_path / "outside" / "precious").exists()


BAD = [
    "", "/etc/passwd", "../x", "a/../x", "a//b", "a/./b", ".hidden", "C:/x", "a\\b", "nul", "COM1.txt", "x.", "x ",
    "com¹", "con .txt", "CONIN$",
    "a\x00b", "a\nb", "x" * 201, "/".join("abcdefghi"), None, 3, ["x"], "a/", "/a",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD, ids=[repr(name)[:20] for name in BAD])
def test_names_that_could_lead_elsewhere_are_refused_on_both_sides(store, name):
    with pytest.raises(EffigyError):
        backend_names.plain_name(name)
    with pytest.raises(ClientError):
        client_names.plain_name(name)
    sha256 = put(store, b"x")
    exchange = Exchange(store)
    for method, params in (
        ("file.open", {"name": name, "files": [["", sha256]]}),
        ("file.open", {"name": "x", "files": [["y", sha256], [name, sha256]]}),
        ("file.output", {"key": "3" * 64, "note": "", "files": [[name, sha256]]}),
        ("file.collect", {"key": "3" * 64, "names": [name]}),
    ):
        with pytest.raises(EffigyError):
            exchange.methods[method](Parameters(params, method))


@pytest.mark.parametrize("sha256", ["../../x", "", "A" * 64, "0" * 63, None, "0" * 63 + "/"])
def test_hashes_that_are_none_are_refused(store, sha256):
    exchange = Exchange(store)
    part = {"sha256": sha256, "size": 1, "offset": 0, "data": "eA=="}
    for method, params in (
        ("file.have", {"files": [[sha256, 1]]}),
        ("file.put", {"parts": [part]}),
        ("file.get", {"parts": [[sha256, 0, 1]]}),
        ("file.open", {"name": "x", "files": [["", sha256]]}),
        ("file.note", {"key": sha256, "note": ""}),
    ):
        with pytest.raises(EffigyError):
            exchange.methods[method](Parameters(params, method))
    assert not store.folder.exists()


@pytest.mark.parametrize("name", ["clip.mp4", "Take 1: smile?.mov", "..", ".hidden.mp4", "nul.npz", "ü" * 300 + ".csv"])
def test_what_a_file_is_called_at_the_worker_passes_its_check_and_keeps_its_suffix(name):
    made = client_names.sendable(name)
    assert backend_names.plain_name(made) == made
    assert Path(made).suffix == Path(name).suffix and (made == name or name != "clip.mp4")


@pytest.mark.parametrize("letter", ["a", "顔", "\udc80"])
def test_a_long_name_from_windows_can_be_written_by_a_worker_on_linux(tmp_path, letter):
    """Windows counts characters, of which it allows 255, and Linux bytes. A training leaves a checkpoint beside."""
    name = f"{client_names.sendable(f'{letter * 240}.effigy')}.checkpoint"
    assert backend_names.plain_name(name) == name and name.endswith(".effigy.checkpoint")
    with write_beside(tmp_path / name) as temporary:
        temporary.touch()
    assert (tmp_path / name).is_file()


def test_paths_in_shared_folders_are_translated_both_ways():
    rows = [("P:\\film", "/mnt/film"), ("p:\\film\\shots", "/fast/shots"), ("//server/share", "/srv"), ("/a", "/b")]
    paths = PathMap.from_rows([*rows, ("", " ")])
    for here, there in (
        ("P:\\film\\x\\clip.mp4", "/mnt/film/x/clip.mp4"),
        ("p:/FILM/x.mp4", "/mnt/film/x.mp4"),
        ("P:\\film\\Shots\\1.mp4", "/fast/shots/1.mp4"),
        ("P:\\film", "/mnt/film"),
        ("P:\\films\\x.mp4", None),
        ("P:\\film\\..\\secret", None),
        ("\\\\SERVER\\share\\x", "/srv/x"),
        ("/a/x", "/b/x"),
        ("/A/x", None),
        ("/ab/x", None),
    ):
        assert paths.to_remote(here) == there, here
    assert paths.to_local("/mnt/film/x/y.npz") == "P:\\film\\x\\y.npz"
    assert paths.to_local("/mnt/film/../etc/passwd") is None and paths.to_local("/etc/passwd") is None
    assert joined("C:\\x", "a/b", "c") == "C:\\x\\a\\b\\c" and joined("/x/", "a/b") == "/x/a/b"
    for row in (("film", "/mnt/film"), ("P:\\film", ""), ("P:film", "/x")):
        with pytest.raises(ClientError, match="full path"):
            PathMap.from_rows([row])


def test_two_workers_that_receive_the_same_content_at_once_do_not_damage_it(store, monkeypatch):
    data = os.urandom(4000)
    other, opened = ExchangeStore(store.folder), []
    real = os.open

    def open_late(path, *rest):
        """Lets the other worker get ahead while this one is about to open the file for its first bytes."""
        if not opened:
            opened.append(path)
            for start in (0, 1000, 2000):
                other.put(digest(data), 4000, start, data[start : start + 1000])
        return real(path, *rest)

    monkeypatch.setattr(os, "open", open_late)
    store.put(digest(data), 4000, 0, data[:1000])
    assert opened
    other.put(digest(data), 4000, 3000, data[3000:])
    assert store.read(digest(data), 0, 4000) == data


def test_a_content_has_no_more_bytes_than_its_hash_covers(store):
    data = os.urandom(4000)
    store.put(digest(data), 9000, 0, data + data)
    store.put(digest(data), 4000, 0, data)
    assert store.read(digest(data), 0, 10_000) == data


@pytest.mark.parametrize(
    ("said", "limit"),
    [("0.5", 500_000_000), ("3", 3 * 10**9), ("much", 50 * 10**9), ("inf", 50 * 10**9), (None, 50 * 10**9)],
)
def test_the_size_of_the_folder_is_chosen_in_gigabytes(monkeypatch, said, limit):
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    if said is not None:
        monkeypatch.setenv(LIMIT_VARIABLE, said)
    assert LIMIT_VARIABLE == "EFFIGY_EXCHANGE_GB" and size_limit() == limit


def test_only_as_much_goes_as_must_and_a_content_of_two_names_counts_once(store):
    first, second, third = (put(store, os.urandom(1000)) for _ in range(3))
    laid_out = store.lay_out("clip.mp4", {"": first})
    files = store.folder / "files"
    long_ago = time.time() - KEEP_SECONDS - 60
    for age, path in enumerate((files / third, files / second, files / first, laid_out.parent)):
        os.utime(path, (long_ago - age, long_ago - age))
    make_room(store.folder, 3000, used=())
    assert all((files / name).exists() for name in (first, second, third)) and laid_out.exists(), "3000 bytes fit"
    # The folder's name of the first content goes without making room, then the content itself, and that is enough.
    make_room(store.folder, 2000, used=())
    assert not laid_out.exists() and not (files / first).exists()
    assert (files / second).exists() and (files / third).exists()


def test_an_entry_is_kept_for_three_days_after_its_last_use(store):
    old, recent = put(store, b"old"), put(store, b"recent")
    files = store.folder / "files"
    assert KEEP_SECONDS == 3 * 24 * 3600
    for name, age in ((old, KEEP_SECONDS + 60), (recent, KEEP_SECONDS - 60)):
        os.utime(files / name, (time.time() - age, time.time() - age))
    make_room(store.folder, 0, used=())
    assert not (files / old).exists() and (files / recent).exists()
