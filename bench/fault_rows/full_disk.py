"""The disk becomes full before or while a command writes: a sentence, nothing half-written, old files whole."""

from __future__ import annotations

import random
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.fault_rows._commands import CLIP, FILES, Commands, Ended, commands, contents, copied_capture, hidden
from bench.fault_rows.outcome import Outcome, Place

TITLE: Final = "disk full at random moments of capture, track, train, render, export and evaluate"
ASKED: Final = "nothing half-written, a sentence, old files whole"
FULL: Final = 50
SHORT: Final = 2
_BLOCK: Final = 1 << 16
_CHEAP: Final = ("export", "render", "evaluate", "train")
"""In the order in which a short form of the row tries them; the others load models for seconds."""


@dataclass
class _Command:
    arguments: list[object]
    output: Path
    seconds: float = 0.0
    """Without a full disk."""
    size: int = 0
    """Bytes of its output."""


def run(place: Place, seed: int, count: int) -> Outcome:
    outcome, draw, full = Outcome(), random.Random(seed), 0
    disk = place.small_disk
    with commands(place.scratch / "commands") as server:
        known = _commands(disk)
        names = [*_CHEAP, *(name for name in known if name not in _CHEAP)]
        names = names[: max(1, min(count, len(names)))]
        for name in names:
            _measure(server, known[name])
        for index in range(count):
            name = names[index % len(names)]
            command = known[name]
            before = contents(disk)
            # Half of the disks are nearly full at the start, the others are filled while the command works.
            at = 0.0 if draw.random() < 0.5 else draw.uniform(0, command.seconds)
            left = draw.randrange(max(_BLOCK, command.size))
            ended = _on_full_disk(server, command, disk, at, left)
            failure = _failure(ended, before, disk, command)
            full += ended.code == 2
            outcome.record(f"{name}, {left >> 10} KB left after {at:.1f} s", failure)
            print(f"{name}, {left >> 10} KB left after {at:.1f} s: {ended.error.strip() or 'done'}", file=sys.stderr)
    outcome.figures |= {"ended for lack of space": str(full), "found enough space": str(count - full)}
    return outcome


def _commands(disk: Path) -> dict[str, _Command]:
    """What is read lies on the small disk as well, so that a damage of it would be noticed."""
    capture, avatar = copied_capture(disk), Path(shutil.copy(FILES / "person.effigy", disk))
    track, out = capture / "track.npz", disk / "out"
    head = FILES / "small_head.npz"
    return {
        "capture": _Command(
            ["capture", CLIP, disk / "new.capture", "--size", 128, "--max-frames", 6], disk / "new.capture"
        ),
        "track": _Command(["track", capture, "--head", head, "--landmarks-only"], capture / "head_mattes"),
        "train": _Command(["train", capture, out / "new.effigy", "--device", "cpu"], out / "new.effigy"),
        "render": _Command(["render", avatar, track, out / "frames", "--size", 96], out / "frames"),
        "export": _Command(["export", avatar, track, out / "splats.ply"], out / "splats.ply"),
        "evaluate": _Command(["evaluate", avatar, capture, "--out", out / "evaluation"], out / "evaluation"),
    }


def _measure(server: Commands, command: _Command) -> None:
    for _ in range(2):
        # The first time compiles what is not compiled yet.
        started = time.monotonic()
        ended = server.run(*command.arguments)
        if ended.code:
            raise RuntimeError(f"{command.arguments[0]} failed on an empty disk: {ended.error}")
        command.seconds = time.monotonic() - started
    files = [command.output] if command.output.is_file() else command.output.rglob("*")
    command.size = sum(file.stat().st_size for file in files if file.is_file())


def _on_full_disk(server: Commands, command: _Command, disk: Path, at: float, left: int) -> Ended:
    ballast = disk / "ballast"
    try:
        if not at:
            _fill(ballast, left)
        running = server.start(*command.arguments)
        if at:
            until = time.monotonic() + at
            while time.monotonic() < until and not running.ended():
                time.sleep(0.005)
            _fill(ballast, left)
        return running.wait()
    finally:
        ballast.unlink(missing_ok=True)


def _fill(ballast: Path, left: int) -> None:
    """Write a file until the disk has `left` bytes of free space, to a block."""
    with open(ballast, "wb", buffering=0) as file:
        try:
            while (free := shutil.disk_usage(ballast).free - left) > 0:
                file.write(b"\0" * min(free, 1 << 20))
        except OSError:
            # What the command writes at this moment has taken the last block.
            pass


def _failure(ended: Ended, before: dict[str, str], disk: Path, command: _Command) -> str | None:
    if left := [name for name in hidden(disk) if not name.endswith(".lock")]:
        return f"left behind: {', '.join(left)} ({ended.error})"
    if locks := hidden(disk):
        return f"locks left behind: {', '.join(locks)}"
    after = contents(disk)
    if ended.code == 0:
        return None
    if sentence := ended.no_sentence():
        return sentence
    if "full" not in ended.error:
        return f"the sentence does not say that the disk is full: {ended.error}"
    # A training that was stopped by the full disk keeps its last checkpoint, if there was room for one.
    allowed = {name for name in after if name.endswith(".checkpoint")}
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} - allowed
    if changed:
        return f"changed: {', '.join(sorted(changed))} ({ended.error})"
    for name in allowed:
        (disk.parent / name).unlink()
    return None
