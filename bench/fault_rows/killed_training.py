"""A training is killed with SIGKILL again and again, also while it writes, and resumed until it is done."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Final

from bench.fault_rows._commands import Commands, Running, commands, contents, copied_capture, hidden
from bench.fault_rows.outcome import Outcome, Place

TITLE: Final = "SIGKILL at random moments of a training, resumed each time"
ASKED: Final = "all resumed; the avatar always whole; held-out PSNR within 0.3 dB of an undisturbed training"
FULL: Final = 100
SHORT: Final = 2
TOLERANCE: Final = 0.3
"""dB."""


def run(place: Place, seed: int, count: int) -> Outcome:
    outcome = Outcome()
    draw = random.Random(seed)
    capture = copied_capture(place.scratch)
    with commands(place.scratch / "commands") as server:
        disturbed = _Disturbed(server, capture, place.scratch / "avatars" / "person.effigy", draw)
        disturbed.try_kills(outcome, count)
    differences = disturbed.differences
    outcome.figures |= {
        "killed while writing": str(disturbed.while_writing),
        "before the first checkpoint": str(disturbed.before_checkpoint),
        "trainings": str(len(differences)),
        "undisturbed": f"{disturbed.psnr:.2f} dB, {disturbed.seconds:.1f} s",
        "largest difference": f"{max(map(abs, differences), default=float('nan')):.3f} dB",
    }
    return outcome


class _Disturbed:
    def __init__(self, server: Commands, capture: Path, avatar: Path, draw: random.Random) -> None:
        self._server, self._capture, self._avatar, self._draw = server, capture, avatar, draw
        self._checkpoint = avatar.with_name(avatar.name + ".checkpoint")
        self.while_writing = self.before_checkpoint = 0
        self.differences: list[float] = []
        """Held-out PSNR of each finished training less that of the undisturbed one, dB."""
        # The first one compiles what is not compiled yet.
        for _ in range(2):
            started = time.monotonic()
            ended = self._start().wait()
            self.seconds = time.monotonic() - started
            if ended.code:
                raise RuntimeError(f"The undisturbed training failed: {ended.error}")
        self.psnr = self._score()
        self._whole = [contents(avatar)]

    def try_kills(self, outcome: Outcome, count: int) -> None:
        is_disturbed = False
        while outcome.tried < count or is_disturbed:
            running = self._start()
            kills = outcome.tried < count
            moment = self._kill(running) if kills else ""
            ended = running.wait()
            if ended.code == -signal.SIGKILL:
                is_disturbed = True
                failure = self._damage()
                outcome.record(f"killed {moment}", failure)
                print(f"{outcome.tried} kills", file=sys.stderr, flush=True)
                self.before_checkpoint += not self._checkpoint.is_file()
                continue
            failure = self._unfinished(ended.code, ended.error)
            if failure:
                outcome.failures.append(f"kill {outcome.tried}, resumed: {failure}")
                shutil.rmtree(self._avatar.parent)
            if is_disturbed and not failure:
                psnr = self._score()
                self.differences.append(psnr - self.psnr)
                if abs(psnr - self.psnr) > TOLERANCE:
                    outcome.failures.append(f"after kill {outcome.tried}: {psnr:.2f} dB instead of {self.psnr:.2f} dB")
            is_disturbed = False

    def _start(self) -> Running:
        resume = ["--resume"] if self._checkpoint.is_file() else []
        return self._server.start("train", self._capture, self._avatar, "--device", "cpu", *resume)

    def _kill(self, running: Running) -> str:
        """Kill at a random moment or, every second time, at the next writing after it; returns the moment in words."""
        at = self._draw.uniform(0, self.seconds)
        until = time.monotonic() + at
        while time.monotonic() < until and not running.ended():
            time.sleep(0.001)
        if self._draw.random() < 0.5:
            while not running.ended():
                if any(".effigy-" in name for name in hidden(self._avatar.parent)):
                    running.send(signal.SIGKILL)
                    self.while_writing += 1
                    return f"while it wrote, after {at:.2f} s"
        running.send(signal.SIGKILL)
        return f"after {at:.2f} s"

    def _damage(self) -> str | None:
        """What is wrong with the avatar beside which a training was killed."""
        if not self._avatar.is_file():
            return "the avatar that was there before is gone"
        if contents(self._avatar) not in self._whole:
            # Killed between the placing of the new avatar and the end of the process.
            ended = self._server.run("doctor", self._avatar)
            scored = self._server.run("evaluate", self._avatar, self._capture, "--out", self._avatar.parent / "check")
            shutil.rmtree(self._avatar.parent / "check", ignore_errors=True)
            if ended.code or scored.code:
                return f"the avatar is not whole: {ended.error} {scored.error}"
            self._whole.append(contents(self._avatar))
        return None

    def _unfinished(self, code: int, error: str) -> str | None:
        if code:
            return f"exit code {code}: {error[-500:]}"
        if self._checkpoint.exists():
            return "the checkpoint is still there"
        if left := hidden(self._avatar.parent):
            return f"left behind: {', '.join(left)}"
        self._whole.append(contents(self._avatar))
        return None

    def _score(self) -> float:
        out = self._capture.parent / "evaluation"
        ended = self._server.run("evaluate", self._avatar, self._capture, "--out", out)
        if ended.code:
            raise RuntimeError(f"The avatar cannot be evaluated: {ended.error}")
        return float(json.loads((out / "metrics.json").read_text("utf-8"))["psnr"])
