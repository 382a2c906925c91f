"""Files that go to a worker on another machine and come back, with both ends in this process."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backend.service.exchange import Exchange
from backend.service.exchange_store import ExchangeStore
from backend.service.parameters import Parameters
from blender_addon.errors import EffigyError
from blender_addon.worker import file_exchange, file_fetcher, file_sender, remote
from blender_addon.worker.file_exchange import in_messages
from blender_addon.worker.file_fetcher import FileFetcher, RemoteFile
from blender_addon.worker.file_sender import FileSender, scan
from blender_addon.worker.path_fields import JOBS, METHODS, PathField
from blender_addon.worker.path_map import PathMap
from blender_addon.worker.transfer import Transfer

PART = 100
"""Bytes of a message, here."""
KEY = "a" * 64


class Line:
    """A connection to a worker's exchange, through JSON; keeps what was said and reported."""

    def __init__(self, folder: Path) -> None:
        self.exchange = Exchange(ExchangeStore(folder))
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.reported: list[tuple[str, int, int]] = []
        self.waiting = self.most_waiting = 0

    def ask(self, method: str, params: dict[str, Any]) -> Callable[[], Any]:
        self.said.append((method, params))
        answer = self.exchange.methods[method](Parameters(json.loads(json.dumps(params)), method))
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)

        def answered() -> Any:
            self.waiting -= 1
            return json.loads(json.dumps(answer))

        return answered

    def report(self, stage: str, done: int, total: int) -> None:
        self.reported.append((stage, done, total))

    def methods(self) -> list[str]:
        return [method for method, _ in self.said]

    def put(self) -> list[list[tuple[int, int]]]:
        """(offset, bytes) of the parts of every message with contents."""
        messages = [params["parts"] for method, params in self.said if method == "file.put"]
        return [[(part["offset"], len(base64.b64decode(part["data"]))) for part in parts] for parts in messages]


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    for module in (file_exchange, file_sender, file_fetcher):
        monkeypatch.setattr(module, "PART_BYTES", PART)
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    return Line(tmp_path / "there")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def written(path: Path, size: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(hashlib.shake_128(bytes([seed])).digest(size))
    return path


def put(path: str | Path, data: bytes) -> None:
    """Written by the job, at the worker."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_pieces_fill_messages_up_to_their_bytes_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_exchange, "PART_BYTES", 10)
    monkeypatch.setattr(file_exchange, "LIST_ENTRIES", 3)
    sizes = [4, 6, 1, 12, 0, 0, 0, 0, 10]
    groups = list(in_messages((index, size) for index, size in enumerate(sizes)))
    assert groups == [[0, 1], [2], [3], [4, 5, 6], [7, 8]] and list(in_messages([])) == []


def test_a_file_is_sent_in_parts_that_are_counted_and_only_once(line: Line, here: Path) -> None:
    sender, video = FileSender(line.ask), written(here / "video.mp4", 250)
    there = sender.open(video, (), "footage", line.report)
    assert Path(there).read_bytes() == video.read_bytes() and Path(there).name == "video.mp4"
    assert line.put() == [[(0, 100)], [(100, 100)], [(200, 50)]] and sender.bytes_sent == 250
    sending = "Sending footage to the worker"
    assert line.reported[0] == ("Reading footage", 250, 250)
    assert line.reported[1:] == [(sending, done, 250) for done in (0, 0, 0, 200, 250)]
    assert line.most_waiting == 3
    assert sender.opened(video) == there and sender.open(video, (), "footage", line.report) == there
    assert sender.bytes_sent == 250 and line.methods().count("file.open") == 1
    copy = here / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    assert sender.open(copy, (), "footage", line.report) != there and sender.bytes_sent == 250, "the content is there"
    sender.forget()
    assert sender.opened(video) is None


def test_a_changed_file_is_sent_again_and_a_deleted_one_is_still_there(line: Line, here: Path) -> None:
    sender, file = FileSender(line.ask), written(here / "a.effigy", 30)
    first = sender.open(file, (), "the avatar", line.report)
    written(file, 31, seed=1)
    assert sender.opened(file) is None
    second = sender.open(file, (), "the avatar", line.report)
    assert Path(second).read_bytes() == file.read_bytes() and second != first and sender.bytes_sent == 61
    file.unlink()
    assert sender.opened(file) == second
    with pytest.raises(EffigyError, match="nothing at .* that could be sent"):
        sender.open(here / "missing", (), "the avatar", line.report)


def test_what_was_sent_of_a_file_is_not_sent_again(line: Line, here: Path) -> None:
    file = written(here / "video.mp4", 330)
    data, name = file.read_bytes(), digest(file)
    line.exchange.methods["file.put"](
        Parameters(
            {"parts": [{"sha256": name, "size": 330, "offset": 0, "data": base64.b64encode(data[:120]).decode()}]}, ""
        )
    )
    sender = FileSender(line.ask)
    files = sender.send({"x": file, "again": file}, "footage", line.report)
    assert line.put() == [[(120, 100)], [(220, 100)], [(320, 10)]] and sender.bytes_sent == 210
    assert files["x"].sha256 == files["again"].sha256 == name and files["x"].size == 330
    done = [row[1] for row in line.reported if row[0].startswith("Sending")]
    assert done[0] == 120 and done[-1] == 330 and done == sorted(done)


def test_small_and_empty_files_share_a_message_and_lists_are_cut(
    line: Line, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_sender, "LIST_ENTRIES", 2)
    files = {str(index): written(here / str(index), size, index) for index, size in enumerate((30, 0, 40, 30, 20))}
    sender = FileSender(line.ask)
    sender.send(files, "frames", line.report)
    assert line.put() == [[(0, 30), (0, 0), (0, 40), (0, 30)], [(0, 20)]] and sender.bytes_sent == 120
    assert [len(params["files"]) for method, params in line.said if method == "file.have"] == [2, 2, 1]
    line.said.clear()
    sender.send(files, "frames", line.report)
    # An empty file is always sent, because nothing of it is never all of it.
    assert line.put() == [[(0, 0)]] and sender.bytes_sent == 120


def test_a_file_is_hashed_once_until_it_changes(line: Line, here: Path) -> None:
    sender, file = FileSender(line.ask), written(here / "x", 50)
    sender.send({"": file}, "footage", line.report)
    sender.send({"": file}, "footage", line.report)
    assert [row for row in line.reported if row[0] == "Reading footage"] == [("Reading footage", 50, 50)]
    os.utime(file, ns=(1, 1))
    sender.send({"": file}, "footage", line.report)
    assert len([row for row in line.reported if row[0] == "Reading footage"]) == 2
    file.unlink()
    with pytest.raises(EffigyError, match="cannot be read"):
        sender.send({"": file}, "footage", line.report)


def test_of_a_folder_only_its_parts_are_sent_and_no_hidden_file(line: Line, here: Path) -> None:
    capture = here / "x.capture"
    for name in ("capture.json", "frames/1.png", "frames/deep/2.png", "frames/.hidden", "notes.txt", "other/3.png"):
        written(capture / name, 5, len(name))
    found = scan(capture, ("frames", "capture.json", "missing"))
    assert list(found) == ["frames/1.png", "frames/deep/2.png", "capture.json"]
    assert found["frames/1.png"] == capture / "frames" / "1.png"
    there = Path(FileSender(line.ask).open(capture, ("frames", "capture.json"), "the capture", line.report))
    assert sorted(path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()) == sorted(found)
    (capture / "frames" / "link.png").symlink_to(capture / "notes.txt")
    with pytest.raises(EffigyError, match="is a link to another place"):
        scan(capture, ("frames",))
    linked = here / "y.capture"
    linked.mkdir()
    (linked / "frames").symlink_to(capture / "other")
    with pytest.raises(EffigyError, match="is a link to another place"):
        scan(linked, ("frames",))


def offered(line: Line, files: dict[str, bytes], key: str = KEY) -> list[RemoteFile]:
    """What the worker has written for a job."""
    answer = line.ask("file.output", {"key": key, "files": [], "note": "running"})()
    for name, data in files.items():
        place = Path(answer["path"]) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return FileFetcher(line.ask, Path("unused")).collect(key, sorted({name.split("/")[0] for name in files}))


def test_results_are_fetched_in_parts_that_are_counted_and_each_content_once(line: Line, tmp_path: Path) -> None:
    files = {"out/a": b"a" * 250, "out/b": b"", "out/c": b"c" * 30, "out/again": b"a" * 250}
    rows, fetcher = offered(line, files), FileFetcher(line.ask, tmp_path / "staging")
    assert {row.name: row.size for row in rows} == {name: len(data) for name, data in files.items()}
    line.said.clear()
    contents = fetcher.fetch(KEY, rows, "the result", line.report)
    for row in rows:
        assert contents[row.sha256].read_bytes() == files[row.name]
        assert contents[row.sha256].parent == tmp_path / "staging" / KEY
    assert fetcher.bytes_fetched == 280 and line.most_waiting <= 3
    wanted = [[size for _, _, size in params["parts"]] for method, params in line.said if method == "file.get"]
    assert sum(map(sum, wanted)) == 280 and all(sum(sizes) <= PART for sizes in wanted)
    stage = "Fetching the result from the worker"
    assert line.reported[0] == (stage, 0, 280) and line.reported[-1] == (stage, 280, 280)
    fetcher.fetch(KEY, rows, "the result", line.report)
    assert fetcher.bytes_fetched == 280, "what is here is not fetched again"
    fetcher.discard(KEY)
    assert not (tmp_path / "staging" / KEY).exists()


def test_an_interrupted_fetch_goes_on_where_it_ended(line: Line, tmp_path: Path) -> None:
    data = hashlib.shake_128(b"x").digest(250)
    (row,) = offered(line, {"out": data})
    folder = tmp_path / "staging" / KEY
    folder.mkdir(parents=True)
    (folder / f"{row.sha256}.part").write_bytes(data[:130])
    fetcher = FileFetcher(line.ask, tmp_path / "staging")
    assert fetcher.fetch(KEY, [row], "the result", line.report)[row.sha256].read_bytes() == data
    assert fetcher.bytes_fetched == 120 and line.reported[0][1:] == (130, 250)
    fetcher.discard(KEY)
    # A part as long as the whole may be damaged: it is fetched anew.
    folder.mkdir(parents=True)
    (folder / f"{row.sha256}.part").write_bytes(b"?" * 250)
    assert fetcher.fetch(KEY, [row], "the result", line.report)[row.sha256].read_bytes() == data
    assert fetcher.bytes_fetched == 370


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"parts": [base64.b64encode(b"y" * 30).decode()]}, "out arrived damaged"),
        ({"parts": [base64.b64encode(b"x" * 29).decode()]}, "changed while it was fetched"),
        ({"parts": ["?"]}, "A part of a file arrived damaged"),
        ({"parts": [None]}, "A part of a file arrived damaged"),
        ({"parts": []}, "sent other parts"),
        ({}, "of another version"),
    ],
)
def test_contents_that_are_not_what_was_offered_are_refused_and_not_kept(
    line: Line, tmp_path: Path, answer: dict, sentence: str
) -> None:
    (row,) = offered(line, {"out": b"x" * 30})
    fetcher = FileFetcher(lambda *_: lambda: answer, tmp_path / "staging")
    with pytest.raises(EffigyError, match=sentence):
        fetcher.fetch(KEY, [row], "the result", line.report)
    assert not list((tmp_path / "staging" / KEY).iterdir())
    assert FileFetcher(line.ask, tmp_path / "staging").fetch(KEY, [row], "", line.report)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([["out", -1, KEY]], "in a way that is unknown"),
        ([["out", 1, "A" * 64]], "in a way that is unknown"),
        ([["out", 1]], "in a way that is unknown"),
        ([["outer", 1, KEY]], "was not asked for"),
        ([["out", 1, KEY]] * 3, "which is more than a result can have"),
    ],
)
def test_odd_offers_are_refused(rows: list, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_fetcher, "MAX_FILES", 2)
    with pytest.raises(EffigyError, match=sentence):
        FileFetcher(lambda *_: lambda: {"files": rows}, tmp_path).collect(KEY, ["out", "x"])
    fine = FileFetcher(lambda *_: lambda: {"files": [["out/a", 0, KEY], ["x", 1, KEY]]}, tmp_path).collect(
        KEY, ["out", "x"]
    )
    assert fine == [RemoteFile("out/a", 0, KEY), RemoteFile("x", 1, KEY)]


def test_a_hundred_megabytes_stay_free_and_old_parts_go(line: Line, tmp_path: Path, monkeypatch) -> None:
    (row,) = offered(line, {"out": b"x" * 50})
    staging = tmp_path / "staging"
    week = 7 * 24 * 3600
    for name, age in (("b" * 64, week + 60), ("c" * 64, week - 60), ("mine", week + 60)):
        written(staging / name / ("d" * 64), 3)
        then = file_fetcher.time.time() - age
        os.utime(staging / name, (then, then))
    fetcher = FileFetcher(line.ask, staging)
    for free, fits in ((100 * 10**6 + 49, False), (100 * 10**6 + 50, True)):
        monkeypatch.setattr(file_fetcher.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        if fits:
            assert fetcher.fetch(KEY, [row], "", line.report)
        else:
            with pytest.raises(EffigyError, match="no room for 0 MB"):
                fetcher.fetch(KEY, [row], "", line.report)
    assert sorted(path.name for path in staging.iterdir() if path.is_dir()) == sorted([KEY, "c" * 64, "mine"])
    written(staging / KEY / "photo.jpg", 3)
    fetcher.discard(KEY)
    assert [path.name for path in (staging / KEY).iterdir()] == ["photo.jpg"], "what has another name stays"


# --- a job's files


def transfer_of(line: Line, fields: tuple[PathField, ...], tmp_path: Path, rows: tuple = ()) -> Transfer:
    return Transfer(
        FileSender(line.ask), FileFetcher(line.ask, tmp_path / "staging"), PathMap(rows), line.report, fields
    )


def capture_in(here: Path) -> Path:
    for number, name in enumerate(("capture.json", "landmarks.npz", "frames/0.png", "track.npz", "mine.txt")):
        written(here / "x.capture" / name, 20 + number, number)
    return here / "x.capture"


def test_a_training_reads_its_capture_and_leaves_its_avatar_where_it_was_asked_for(
    line: Line, here: Path, tmp_path: Path
) -> None:
    capture = capture_in(here)
    transfer = transfer_of(line, JOBS["train"], tmp_path)
    params = {"capture": str(capture), "avatar": str(here / "me.effigy"), "preset": "draft"}
    there = transfer.prepare("train", params)
    assert there["preset"] == "draft" and "resume" not in there and not transfer.continued and transfer.result is None
    sent = {
        path.relative_to(there["capture"]).as_posix() for path in Path(there["capture"]).rglob("*") if path.is_file()
    }
    assert sent == {"capture.json", "landmarks.npz", "frames/0.png", "track.npz"}
    assert Path(there["avatar"]).name == "me.effigy" and Path(there["avatar"]).parent.name == "avatar"

    put(there["avatar"], b"avatar")
    Path(there["capture"], "track_refined.npz").write_bytes(b"refined")
    Path(there["capture"], "frames", "0.png").unlink()  # what it does not write is not fetched
    message = f"Saved {there['avatar']}. See {there['capture']}/track_refined.npz"
    local = f"Saved {params['avatar']}. See {params['capture']}/track_refined.npz"
    assert transfer.to_local({"a": [message, 3], "b": there["capture"] + "/frames/0.png"}) == {
        "a": [local, 3],
        "b": str(capture / "frames" / "0.png"),
    }
    for outside in ("/../x", "\\..\\x"):
        assert transfer.to_local(there["capture"] + outside) == there["capture"] + outside
    transfer.note_result({"avatar": "x"})
    transfer.fetch()
    assert (here / "me.effigy").read_bytes() == b"avatar" and (capture / "track_refined.npz").read_bytes() == b"refined"
    assert (capture / "frames" / "0.png").is_file() and (capture / "mine.txt").is_file()
    assert not (here / "me.effigy.checkpoint").exists() and not list((tmp_path / "staging").glob("*/*"))
    again = transfer_of(line, JOBS["train"], tmp_path)
    again.prepare("train", params)
    assert again.result is None, "it was fetched"


def test_the_result_of_the_same_job_is_taken_from_the_connection_before(line: Line, here: Path, tmp_path: Path) -> None:
    capture = capture_in(here)
    params = {"capture": str(capture), "avatar": str(here / "me.effigy")}
    first = transfer_of(line, JOBS["train"], tmp_path)
    there = first.prepare("train", params)
    put(there["avatar"], b"avatar")
    first.note_result({"psnr": 30})
    same = transfer_of(line, JOBS["train"], tmp_path)
    same.prepare("train", params | {"resume": True})
    assert same.result == {"psnr": 30} and not same.continued
    for changed in ({"minutes": 3}, {"capture": str(capture)}):
        if "capture" in changed:
            written(capture / "frames" / "0.png", 9, 99)
        other = transfer_of(line, JOBS["train"], tmp_path)
        other.prepare("train", params | changed)
        assert other.result is None, "another job"


def test_a_training_that_lost_its_connection_goes_on_from_its_checkpoint(
    line: Line, here: Path, tmp_path: Path
) -> None:
    params = {"capture": str(capture_in(here)), "avatar": str(here / "me.effigy")}
    first = transfer_of(line, JOBS["train"], tmp_path)
    there = first.prepare("train", params)
    second = transfer_of(line, JOBS["train"], tmp_path)
    assert "resume" not in second.prepare("train", params) and not second.continued, "it has left nothing"
    put(there["avatar"] + ".checkpoint", b"half")
    third = transfer_of(line, JOBS["train"], tmp_path)
    assert third.prepare("train", params)["resume"] is True and third.continued
    third.fetch_unfinished()
    assert (here / "me.effigy.checkpoint").read_bytes() == b"half" and not (here / "me.effigy").exists()
    fourth = transfer_of(line, JOBS["train"], tmp_path)
    fresh = fourth.prepare("train", params | {"resume": True})
    assert Path(fresh["avatar"] + ".checkpoint").read_bytes() == b"half" and not fourth.continued


def test_an_imports_capture_replaces_the_one_that_is_there_as_a_whole(line: Line, here: Path, tmp_path: Path) -> None:
    capture = capture_in(here)
    video = written(here / "v.mp4", 40)
    transfer = transfer_of(line, JOBS["import"], tmp_path)
    there = transfer.prepare("import", {"video": str(video), "capture": str(capture), "head": None})
    assert there["head"] is None and Path(there["video"]).read_bytes() == video.read_bytes()
    assert not Path(there["capture"]).exists()
    for name in ("capture.json", "frames/9.png"):
        written(Path(there["capture"]) / name, 8)
    transfer.fetch()
    assert sorted(path.relative_to(capture).as_posix() for path in capture.rglob("*")) == [
        "capture.json",
        "frames",
        "frames/9.png",
    ]
    other = written(here / "photos" / "p.jpg", 3).parent
    with pytest.raises(EffigyError, match="holds other files"):
        transfer_of(line, JOBS["import"], tmp_path).prepare("import", {"video": str(video), "capture": str(other)})


def test_a_tracks_folders_are_replaced_and_its_files_written_into_the_capture(
    line: Line, here: Path, tmp_path: Path
) -> None:
    capture = capture_in(here)
    written(capture / "head_mattes" / "old.png", 4)
    transfer = transfer_of(line, JOBS["track"], tmp_path)
    there = Path(transfer.prepare("track", {"capture": str(capture)})["capture"])
    assert (there / "frames" / "0.png").is_file() and not (there / "track.npz").exists()
    written(there / "head_mattes" / "0.png", 6)
    written(there / "track.npz", 7)
    transfer.fetch()
    assert [path.name for path in (capture / "head_mattes").iterdir()] == ["0.png"]
    assert (capture / "track.npz").stat().st_size == 7 and (capture / "mine.txt").is_file()


def test_shared_folders_are_translated_and_nothing_is_sent(line: Line, here: Path, tmp_path: Path) -> None:
    capture = capture_in(here)
    transfer = transfer_of(line, JOBS["train"], tmp_path, ((str(here), "/mnt/film"),))
    there = transfer.prepare("train", {"capture": str(capture), "avatar": str(here / "me.effigy")})
    assert there == {"capture": "/mnt/film/x.capture", "avatar": "/mnt/film/me.effigy"} and not line.said
    transfer.fetch()
    transfer.fetch_unfinished()
    transfer.note_result({})
    assert not line.said
    assert transfer.to_local("/mnt/film/me.effigy is there") == f"{here}/me.effigy is there"


def test_only_a_file_that_begins_like_an_avatar_is_sent_as_one(line: Line, here: Path, tmp_path: Path) -> None:
    secret = written(here / "secret", 60)
    with pytest.raises(EffigyError, match="was not sent to the worker"):
        transfer_of(line, METHODS["avatar.open"], tmp_path).prepare("avatar.open", {"path": str(secret)})
    assert not line.said


def test_progress_is_in_megabytes_with_a_rate_and_at_most_ten_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now, seen = [50.0], []
    monkeypatch.setattr(remote.time, "monotonic", lambda: now[0])
    job = SimpleNamespace(state="running", on_event=seen.append)
    report = remote._report_to(job, lambda call: call())
    for seconds, done in ((0.0, 2_000_000), (0.09, 3_000_000), (0.11, 4_000_000), (2.0, 8_000_000), (2.01, 12_000_000)):
        now[0] = 50 + seconds
        report("Sending", done, 12_000_000)
    assert [(event.done, event.total, event.unit) for event in seen] == [
        (2, 12, "MB"),
        (4, 12, "MB"),
        (8, 12, "MB"),
        (12, 12, "MB"),
    ]
    assert seen[0].eta is None and seen[2].eta == pytest.approx(4 / 3) and seen[3].eta == 0
    now[0] = 60.0
    report("Reading", 0, 100)
    assert (seen[-1].stage, seen[-1].total, seen[-1].eta) == ("Reading", 1, None)
    job.state = "stopping"
    with pytest.raises(remote._Stopped):
        report("Reading", 1, 100)
    job.state = "failed"
    with pytest.raises(EffigyError, match="has ended"):
        report("Reading", 1, 100)
    assert remote._report_to(None, lambda call: call())("x", 1, 2) is None
