"""Two programs write one output, or one reads what the other writes: the second is told, and nothing is lost."""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.fault_rows._commands import CLIP, FILES, Commands, Ended, Running, commands, contents, copied_capture, hidden
from bench.fault_rows.outcome import Outcome, Place

TITLE: Final = "two trainings on one avatar, two captures, two batches; track or train while a capture is written"
ASKED: Final = "the second is told who writes; nothing lost; a killed writer keeps nobody out"
FULL: Final = 30
SHORT: Final = 2


def run(place: Place, seed: int, count: int) -> Outcome:
    outcome = Outcome()
    with commands(place.scratch / "commands") as server:
        pair = _Pair(server, place.scratch / "work", random.Random(seed))
        tries: dict[str, Callable[[], str | None]] = {
            "train and train": pair.two_trainings,
            "a killed training and train": pair.killed_training,
            "capture and track": pair.track_during_capture,
            "capture and capture": pair.two_captures,
            "capture and train": pair.train_during_capture,
            "batch and batch, the first ended by SIGTERM": pair.two_batches,
        }
        for index in range(count):
            name, attempt = list(tries.items())[index % len(tries)]
            try:
                failure = attempt()
            except TimeoutError as error:
                failure = str(error)
            outcome.record(name, failure)
            print(f"{name}: {failure or 'as asked'}", file=sys.stderr, flush=True)
            if pair.told:
                outcome.figures.setdefault(f"{name}:", pair.told.replace(f"{place.scratch}/work/", ""))
    return outcome


class _Pair:
    """Two commands at once on a fresh copy of the files."""

    def __init__(self, server: Commands, folder: Path, draw: random.Random) -> None:
        self._server, self._folder, self._draw = server, folder, draw
        self.told = ""
        """What the last second command said."""

    def two_trainings(self) -> str | None:
        self._renew()
        first = self._start_and_wait_for_lock(self._training(), self._avatar)
        self._pause(2.0)
        if first.ended():
            return f"the first ended too early: {first.wait().error}"
        second = self._server.run(*self._training())
        return self._refused(second, first) or self._finished(first)

    def killed_training(self) -> str | None:
        self._renew()
        first = self._start_and_wait_for_lock(self._training(), self._avatar)
        self._pause(3.0)
        first.send(signal.SIGKILL)
        was_killed = first.wait().code == -signal.SIGKILL
        second = self._server.start(*self._training())
        failure = self._finished(second)
        self.told = next((line for line in second.wait().said.splitlines() if "ended without finishing" in line), "")
        if was_killed and f"process {first.pid} " not in self.told:
            return f"the second is not told that the first was killed: {second.wait().said}"
        return failure

    def track_during_capture(self) -> str | None:
        self._renew()
        first = self._start_and_wait_for_lock(self._capturing(), self._capture)
        second = self._server.run("track", self._capture, "--head", FILES / "small_head.npz", "--landmarks-only")
        return self._refused(second, first) or self._finished(first)

    def two_captures(self) -> str | None:
        self._renew()
        first = self._start_and_wait_for_lock(self._capturing(), self._capture)
        self._pause(1.0)
        second = self._server.run(*self._capturing())
        return self._refused(second, first) or self._finished(first)

    def train_during_capture(self) -> str | None:
        """A training reads the old capture, whole, or is told that it was made anew."""
        self._renew()
        first = self._start_and_wait_for_lock(self._capturing(), self._capture)
        codes: list[int] = []
        while not first.ended() and len(codes) < 20:
            trained = self._server.run(*self._training())
            codes.append(trained.code)
            if trained.code == 0:
                continue
            # The new capture has no track yet.
            expected = ("while it was being read", "There is no track", "is missing: track the capture first")
            if failure := trained.no_sentence():
                return failure
            if not any(sentence in trained.error for sentence in expected):
                return f"training says: {trained.error}"
            self.told = trained.error.strip()
        return self._finished(first)

    def two_batches(self) -> str | None:
        self._renew()
        sheet, out = self._folder / "shots.csv", self._folder / "shots"
        sheet.write_text(f"name,capture,device\nanna,{self._capture},cpu\n", "utf-8")
        first = self._start_and_wait_for_lock(["batch", sheet], out / "batch.csv")
        second = self._server.run("batch", sheet)
        self.told = second.error.strip()
        if failure := second.no_sentence():
            return failure
        if f"process {first.pid} " not in second.error:
            return f"the second is not told who works: {second.error}"
        self._pause(3.0)
        first.send(signal.SIGTERM)
        stopped = first.wait()
        if stopped.code not in (0, 130):
            return f"SIGTERM ends the batch with exit code {stopped.code}: {stopped.error}"
        return f"left behind: {', '.join(left)}" if (left := _unfinished(out)) else None

    def _renew(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self._capture, self._avatar, self.told = copied_capture(self._folder), self._folder / "new.effigy", ""

    def _training(self) -> list[object]:
        return ["train", self._capture, self._avatar, "--device", "cpu"]

    def _capturing(self) -> list[object]:
        return ["capture", CLIP, self._capture, "--size", 128, "--max-frames", 10]

    def _start_and_wait_for_lock(self, arguments: list[object], output: Path) -> Running:
        running = self._server.start(*arguments)
        lock = output.with_name(f".{output.name}.lock")
        until = time.monotonic() + 60
        while not (lock.is_file() and lock.stat().st_size) and not running.ended():
            if time.monotonic() > until:
                raise TimeoutError("a command takes no lock")
            time.sleep(0.002)
        return running

    def _pause(self, longest: float) -> None:
        time.sleep(self._draw.uniform(0, longest))

    def _refused(self, second: Ended, first: Running) -> str | None:
        self.told = second.error.strip()
        if failure := second.no_sentence():
            return failure
        if f"process {first.pid} " not in second.error:
            return f"the second is not told who writes: {second.error}"
        return None

    def _finished(self, running: Running) -> str | None:
        ended = running.wait()
        if ended.code:
            return f"the writer itself ended with exit code {ended.code}: {ended.error}"
        if left := hidden(self._folder):
            return f"left behind: {', '.join(left)}"
        if self._avatar.exists():
            checked = self._server.run("doctor", self._avatar)
            if checked.code:
                return f"the avatar is not whole: {checked.error}"
        return None if contents(self._capture) else "the capture is gone"


def _unfinished(out: Path) -> list[str]:
    """Temporaries and locks below a batch's folder; its stamps are hidden too."""
    return [name for name in hidden(out) if name.endswith(".lock") or ".effigy-" in name or ".batch-" in name]
