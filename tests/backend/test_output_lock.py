"""Two processes never write one output, and a writer that was killed keeps nobody out."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from backend import output_lock
from backend.errors import EffigyError
from backend.output_lock import OutputInUseError, hold, lock_of
from backend.progress import SILENT, STOPPED_SENTENCE
from backend.service.commands import run
from backend.service.requests import REQUESTS, BatchRequest, ExportRequest
from backend.service.stop_signals import stopped_like_ctrl_c
from backend.storage import held, write_beside

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pathlib import Path
from backend.output_lock import hold
from backend.output_files import temporary_beside
target = Path(sys.argv[1])
with hold(target, "python -m backend train"):
    temporary_beside(target).write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def another_writer(tmp_path):
    """A process that holds the lock of `ann.effigy` and has made half of it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "ann.effigy")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_writer_is_told_who_works_and_harms_nothing(tmp_path, another_writer):
    target = tmp_path / "ann.effigy"
    target.write_text("old")
    before = sorted(path.name for path in tmp_path.iterdir())
    told = (
        rf"ann\.effigy is being written by another program of Effigy \(“python -m backend train”, process "
        rf"{another_writer.pid} on {socket.gethostname()}, since \d{{4}}-\d\d-\d\d \d\d:\d\d\): wait until"
    )
    with pytest.raises(EffigyError, match=told), held(target):
        pytest.fail("both write")
    assert target.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_a_killed_writer_left_is_removed_by_the_next_one_and_nothing_else_is(tmp_path, another_writer):
    target = tmp_path / "ann.effigy"
    mine = {".ann.20261129.effigy", ".ann.effigy-12345678.txt", ".ben.effigy-12345678.effigy", "ann.effigy.bak"}
    for name in mine:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".ann.effigy-aaaaaaaa.effigy").symlink_to(tmp_path / "ann.effigy.bak")
    another_writer.kill()
    another_writer.wait()
    with held(target) as ended:
        assert ended.process == another_writer.pid and ended.work == "python -m backend train"
        with held(target) as again:
            assert again is None
    assert {path.name for path in tmp_path.iterdir()} == mine | {".ann.effigy-aaaaaaaa.effigy"}


def test_a_lock_leaves_nothing_behind(tmp_path):
    with hold(tmp_path / "new" / "folder" / "a.png"):
        assert lock_of(tmp_path / "new" / "folder" / "a.png").is_file()
    with pytest.raises(KeyboardInterrupt), hold(tmp_path / "b.png"):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_one_process_holds_a_lock_several_times(tmp_path):
    target = tmp_path / "a.png"
    with hold(target), hold(tmp_path / "." / "a.png"):
        assert lock_of(target).exists()
        with write_beside(target) as temporary:
            temporary.touch()
        assert lock_of(target).exists()
    assert list(tmp_path.iterdir()) == [target]


def test_a_writer_of_a_moment_is_waited_for(tmp_path):
    target = tmp_path / "heads.json"
    code = HOLD.replace("time.sleep(60)", "time.sleep(1)")
    other = subprocess.Popen([sys.executable, "-c", code, str(target)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with write_beside(target) as temporary:
        temporary.write_text("{}")
    other.communicate()
    assert target.read_text() == "{}"


def test_a_lock_that_is_a_link_or_no_file_is_refused(tmp_path):
    (tmp_path / "diary").write_text("mine")
    lock_of(tmp_path / "a.png").symlink_to(tmp_path / "diary")
    lock_of(tmp_path / "b.png").mkdir()
    os.mkfifo(lock_of(tmp_path / "c.png"))
    for name in ("a.png", "b.png", "c.png"):
        with pytest.raises(EffigyError, match="cannot be written"), write_beside(tmp_path / name):
            pass
    assert (tmp_path / "diary").read_text() == "mine"


@pytest.mark.parametrize("text", ["", "[" * 1990, '{"work": 1}', "\x1b[31m"])
def test_a_lock_with_any_text_in_it_can_be_taken_over(tmp_path, text):
    lock_of(tmp_path / "a.png").write_text(text)
    with hold(tmp_path / "a.png") as ended:
        assert ended is None
    assert not list(tmp_path.iterdir())


def test_others_can_open_a_lock_whatever_the_umask_of_its_owner_is(tmp_path):
    """Otherwise the lock of a killed writer keeps everybody else out of a shared folder."""
    before = os.umask(0o077)
    try:
        with hold(tmp_path / "a.png"):
            assert lock_of(tmp_path / "a.png").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_the_heart_renews_no_file_that_a_link_leads_to(tmp_path):
    diary = tmp_path / "diary"
    diary.write_text("mine")
    os.utime(diary, (0, 0))
    lock_of(tmp_path / "a.png").symlink_to(diary)
    output_lock._renew([lock_of(tmp_path / "a.png")])
    assert diary.stat().st_mtime == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which start of the machine a process belongs to")
def test_an_owner_on_a_machine_of_the_same_name_lives_as_long_as_its_heart_beats(tmp_path, monkeypatch):
    """Machines that are copied from one image share their name, and some drives lock files for one machine alone."""
    monkeypatch.setattr(output_lock, "WATCH_SECONDS", 0.6)
    lock = lock_of(tmp_path / "a.png")
    owner = {"work": "train", "process": 1, "began": "another-start 5", "host": socket.gethostname(), "since": "now"}
    lock.write_text(json.dumps(owner))
    beat = f"import os, time\nfor _ in range(40): os.utime({str(lock)!r}); time.sleep(0.1)"
    heart = subprocess.Popen([sys.executable, "-c", beat])
    with pytest.raises(OutputInUseError, match="process 1 on"), hold(tmp_path / "a.png"):
        pass
    heart.kill()
    heart.wait()
    with hold(tmp_path / "a.png") as ended:
        assert ended.process == 1


class TestWithoutLocksOfTheSystem:
    """As on some network drives: the owner's process decides on its own host, and a heartbeat elsewhere."""

    @pytest.fixture(autouse=True)
    def no_locks(self, monkeypatch):
        def refuse(file, operation):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr("fcntl.flock", refuse)
        monkeypatch.setattr(output_lock, "WATCH_SECONDS", 0.6)

    def owner(self, tmp_path: Path, **fields: object) -> Path:
        known = {"work": "train", "process": 1, "began": "x", "host": socket.gethostname(), "since": "2026-11-29"}
        lock = lock_of(tmp_path / "a.png")
        lock.write_text(json.dumps(known | fields))
        return lock

    def test_an_owner_that_runs_here_is_believed(self, tmp_path, another_writer):
        began = output_lock.beginning_of(another_writer.pid)
        self.owner(tmp_path, process=another_writer.pid, began=began)
        with pytest.raises(OutputInUseError, match=f"process {another_writer.pid} on"), hold(tmp_path / "a.png"):
            pass

    @pytest.mark.parametrize("fields", [{"process": 2**22 + 1}, {"process": os.getpid(), "began": "at another time"}])
    def test_an_owner_that_has_ended_is_not(self, tmp_path, fields):
        self.owner(tmp_path, **fields)
        with hold(tmp_path / "a.png") as ended:
            assert ended.process == fields["process"]
        assert not list(tmp_path.iterdir())

    def test_of_two_that_find_a_dead_owner_one_gets_the_lock(self, tmp_path, monkeypatch):
        lock = self.owner(tmp_path, process=2**22 + 1)
        remove = output_lock._remove_abandoned

        def remove_late(*found) -> None:
            self.owner(tmp_path, process=os.getpid(), began=output_lock.beginning_of(os.getpid()))
            remove(*found)

        monkeypatch.setattr(output_lock, "_remove_abandoned", remove_late)
        with pytest.raises(OutputInUseError, match=f"process {os.getpid()} on"), hold(tmp_path / "a.png"):
            pass
        assert [path.name for path in tmp_path.iterdir()] == [lock.name]

    def test_an_owner_on_another_host_lives_as_long_as_its_heart_beats(self, tmp_path):
        lock = self.owner(tmp_path, host="studio-7")
        beat = f"import os, time\nfor _ in range(40): os.utime({str(lock)!r}); time.sleep(0.1)"
        heart = subprocess.Popen([sys.executable, "-c", beat])
        with pytest.raises(OutputInUseError, match="on studio-7"), hold(tmp_path / "a.png"):
            pass
        heart.kill()
        heart.wait()
        with hold(tmp_path / "a.png") as ended:
            assert ended.host == "studio-7"

    def test_the_heart_beats_while_a_lock_is_held(self, tmp_path, monkeypatch):
        monkeypatch.setattr(output_lock, "HEARTBEAT_SECONDS", 0.1)
        monkeypatch.setattr(output_lock, "_heart", [])
        with hold(tmp_path / "a.png"):
            lock = lock_of(tmp_path / "a.png")
            os.utime(lock, (0, 0))
            until = time.monotonic() + 5
            while lock.stat().st_mtime == 0 and time.monotonic() < until:
                time.sleep(0.05)
            assert lock.stat().st_mtime > 0


def test_whatever_a_command_writes_is_locked_while_it_runs(tmp_path):
    for request_class in REQUESTS:
        names = {each.name: tmp_path / each.name for each in fields(request_class) if each.default is MISSING}
        values = {name: (path,) if name == "captures" else path for name, path in names.items()}
        request = request_class(**values)
        # A batch locks its table itself, and its stages lock what they write.
        assert bool(request.locked) == (request.output is not None and request_class is not BatchRequest)


def test_a_command_whose_output_somebody_writes_is_refused_before_it_begins(tmp_path, another_writer):
    request = ExportRequest(tmp_path / "no.effigy", tmp_path / "no.npz", tmp_path / "ann.effigy")
    with pytest.raises(EffigyError, match=f"process {another_writer.pid} on"):
        run(request, SILENT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_ends_a_command_like_ctrl_c(tmp_path, number):
    code = (
        "import sys, time; from backend.service import cli, commands\n"
        "def export(request, progress):\n"
        "    try: print('began', flush=True); time.sleep(60)\n"
        "    finally: time.sleep(0.5); print('saved')\n"
        "commands._FUNCTIONS[commands.requests.ExportRequest] = export\n"
        f"sys.exit(cli.main(['export', 'a', 'b', {str(tmp_path / 'c.ply')!r}]))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, **pipes)
    assert command.stdout.readline() == "began\n" and lock_of(tmp_path / "c.ply").exists()
    command.send_signal(number)
    time.sleep(0.1)
    # Impatience does not cut short what is being saved.
    command.send_signal(number)
    said, errors = command.communicate()
    assert (command.returncode, said) == (130, "saved\n") and errors == f"{STOPPED_SENTENCE}\n"
    assert not list(tmp_path.iterdir())


def test_a_signal_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # The runner of the tests, or a measurement of their coverage, may have a handler of its own.
    ended_before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with stopped_like_ctrl_c():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with stopped_like_ctrl_c():
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, ended_before)
        signal.signal(signal.SIGHUP, before)


def test_the_extension_has_the_same_locks_and_places_files_in_the_same_way():
    for name in ("output_lock.py", "output_files.py"):
        assert (ROOT / "backend" / name).read_bytes() == (ROOT / "blender_addon" / name).read_bytes()
