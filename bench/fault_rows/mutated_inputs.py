"""Damaged and hostile files through the real command line.

The packages of the backend are imported once; each try is a fork of this process that runs one command on one changed
file, with a bound on its memory. The two seconds in which Python starts are saved, and nothing of one try reaches the
next.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.fault_rows._loaders import make_samples
from bench.fault_rows._mutations import damaged
from bench.fault_rows.outcome import Outcome, Place

TITLE: Final = "mutated inputs: videos, photographs, avatars, heads (.npz, .pkl), tracks, captures, CSV, sheets"
ASKED: Final = (
    "0 crashes, 0 tracebacks, 0 hangs over 30 s, 0 files left; each a sentence with exit code 2 or a right result"
)
FULL: Final = 300
SHORT: Final = 8

LONGEST: Final = 30.0
"""Seconds after which a command hangs."""
MOST_MEMORY: Final = 4 << 30
"""Bytes that a command may occupy. The bounds of the loaders add up to less."""
_ADDRESSES: Final = 24 << 30
"""Bytes of addresses, so that what takes memory without end cannot take the machine's. PyTorch and MediaPipe map some
gigabytes that they never use."""


@dataclass(frozen=True)
class Case:
    """A command, and which of its files is changed."""

    kind: str
    file: str
    command: tuple[str, ...]
    output: str


_TRACK: Final = ("track", "person.capture", "--head", "head.npz", "--landmarks-only")
_EVALUATE: Final = ("evaluate", "person.effigy", "person.capture", "--out", "out")
CASES: Final = (
    # One of each kind first, for the short form.
    Case("video", "clip.mp4", ("capture", "clip.mp4", "out.capture", "--size", "64"), "out.capture"),
    Case("avatar", "person.effigy", ("export", "person.effigy", "track.npz", "out.ply"), "out.ply"),
    Case("head .npz", "head.npz", ("export", "person.effigy", "track.npz", "out.ply"), "out.ply"),
    Case("head .pkl", "flame.pkl", ("retarget", "flame_track.npz", "flame_track.npz", "out.npz"), "out.npz"),
    Case("track", "track.npz", ("retarget", "track.npz", "person.effigy", "out.npz", "--smoothing", "0.1"), "out.npz"),
    Case("capture", "person.capture/landmarks.npz", ("overlay", "person.capture", "out.mp4"), "out.mp4"),
    Case("CSV", "performance.csv", ("retarget", "performance.csv", "person.effigy", "out.npz"), "out.npz"),
    Case("sheet", "sheet.csv", ("batch", "sheet.csv", "--out", "out"), "out"),
    Case("photograph", "person.jpg", ("capture", "person.jpg", "out.capture", "--size", "64"), "out.capture"),
    Case("avatar", "person.effigy", ("render", "person.effigy", "track.npz", "out", "--size", "64"), "out"),
    Case("head .npz", "head.npz", _TRACK, ""),
    Case("track", "track.npz", ("render", "person.effigy", "track.npz", "out", "--size", "48"), "out"),
    Case("capture", "person.capture/capture.json", ("report", "person.capture", "out.png"), "out.png"),
    Case("photograph", "person.png", ("capture", "person.png", "out.capture", "--size", "64"), "out.capture"),
    Case("avatar", "person.effigy", ("doctor", "person.effigy"), ""),
    Case("track", "person.capture/track.npz", ("report", "person.capture", "out.png"), "out.png"),
    Case("capture", "person.capture/landmarks.npz", _TRACK, ""),
    Case("track", "person.capture/track.npz", _EVALUATE, "out"),
    Case("capture", "person.capture/frames/000008.jpg", ("overlay", "person.capture", "out.mp4"), "out.mp4"),
    Case("capture", "person.capture/head_mattes/000008.png", _EVALUATE, "out"),
    Case("checkpoint", "stopped.effigy.checkpoint", ("train", "person.capture", "stopped.effigy", "--resume"), ""),
)


def run(place: Place, seed: int, count: int) -> Outcome:
    outcome, draw = Outcome(), random.Random(seed)
    samples = place.scratch / "samples"
    _prepare(samples, place.home)
    largest, longest, answers = 0, 0.0, Counter[str]()
    for number in range(count):
        case = CASES[number % len(CASES)]
        folder = place.scratch / f"try-{number}"
        shutil.copytree(samples, folder)
        said = _damage(folder, case.file, draw)
        tried = _run_command(case, folder)
        _import_what_was_imported(folder / "tmp" / "modules")
        failure = _failure(case, folder, tried)
        outcome.record(f"{number}: {' '.join(case.command)}: {case.file}: {said}", failure)
        answers["a result" if tried.code == 0 else "a sentence"] += failure is None
        largest, longest = max(largest, tried.memory), max(longest, tried.seconds)
        print(f"{number} {case.kind}: {said} -> {failure or tried.code}, {tried.seconds:.1f} s", file=sys.stderr)
        shutil.rmtree(folder)
    outcome.figures = {name: str(times) for name, times in sorted(answers.items())} | {
        "most memory": f"{largest / 1e6:.0f} MB",
        "longest": f"{longest:.1f} s",
    }
    return outcome


def _prepare(samples: Path, home: Path) -> None:
    """The samples, and a user who knows their head models; imports what the commands import."""
    # A process that has used several threads cannot be forked.
    os.environ |= {"OMP_NUM_THREADS": "1", "EFFIGY_CACHE": str(home / "cache")}
    import torch

    torch.set_num_threads(1)
    from backend.formats.track import load_track, save_track
    from backend.head.formats import load_head
    from backend.service.cli import main  # noqa: F401

    make_samples(samples)
    track, flame = load_track(samples / "track.npz"), load_head(samples / "flame.pkl")
    import numpy as np

    flame_track = track.posed(
        head_name=flame.name,
        head_fingerprint=flame.fingerprint,
        identity=np.zeros(flame.shape_basis.shape[2], np.float32),
        expression=np.zeros((track.frame_count, flame.expression_basis.shape[2]), np.float32),
    )
    save_track(flame_track, samples / "flame_track.npz")
    heads = {load_head(samples / "head.npz").fingerprint: "head.npz", flame.fingerprint: "flame.pkl"}
    # A sheet that is right makes work for minutes with a real clip.
    (samples / "broken.mp4").write_bytes(bytes(100))
    sheet = samples / "sheet.csv"
    sheet.write_text(sheet.read_text("utf-8").replace("clip.mp4", "broken.mp4"), "utf-8")
    (samples / "user").mkdir()
    (samples / "user" / "heads.json").write_text(json.dumps(heads), "utf-8")


def _damage(folder: Path, name: str, draw: random.Random) -> str:
    path = folder / name
    way = draw.random()
    if way > 0.06:
        said, content = damaged(path.name, path.read_bytes(), draw)
        path.write_bytes(content)
        return said
    if way < 0.01:
        path.chmod(0)
        return "no permission to read it"
    path.unlink()
    if way < 0.02:
        path.mkdir()
        return "a folder in its place"
    if way < 0.03:
        os.mkfifo(path)
        return "a pipe in its place"
    if way < 0.04:
        path.symlink_to("/dev/zero")
        return "a link to a device in its place"
    if way < 0.05:
        path.symlink_to(path.name)
        return "a link to itself in its place"
    return "it is missing"


def _import_what_was_imported(names: Path) -> None:
    """Import what a command imported late, so that the next one finds it here."""
    with contextlib.suppress(FileNotFoundError):
        for name in names.read_text("utf-8").split():
            if name not in sys.modules and name.partition(".")[0] in ("backend", "matplotlib", "scipy", "numba", "av"):
                with contextlib.suppress(Exception):
                    importlib.import_module(name)


@dataclass(frozen=True)
class _Tried:
    code: int
    """The exit code; negative for the number of a signal."""
    seconds: float
    memory: int
    """Largest bytes in memory."""
    printed: str
    before: frozenset[str]
    """The files before the command."""


def _run_command(case: Case, folder: Path) -> _Tried:
    (folder / "tmp").mkdir()
    before = _names(folder)
    started = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _in_child(case, folder)
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - started > LONGEST:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        # What a command started must have ended with it; in the sandbox nothing outlives the row.
        os.killpg(child, signal.SIGKILL)
    printed = (folder / "tmp" / "stderr").read_text("utf-8", "replace")
    return _Tried(
        os.waitstatus_to_exitcode(status), time.monotonic() - started, usage.ru_maxrss * 1024, printed, before
    )


def _in_child(case: Case, folder: Path) -> None:
    """Run the command as `python -m backend` does, and end the process."""
    code = 70
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
        # A crash is reported by its signal; no core is written.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(folder)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder / "tmp" / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.environ |= {"EFFIGY_USER": str(folder / "user"), "TMPDIR": str(folder / "tmp")}
        import tempfile

        tempfile.tempdir = None
        from backend.service.cli import main

        code = main(case.command)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # As the interpreter ends a program.
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(Exception):
            Path(folder, "tmp", "modules").write_text("\n".join(sys.modules), "utf-8")
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _failure(case: Case, folder: Path, tried: _Tried) -> str | None:
    """What went wrong with a try, or None."""
    lines = tried.printed.strip().splitlines()
    if tried.seconds > LONGEST:
        return f"it hangs after {tried.seconds:.0f} s"
    if tried.code < 0:
        return f"it crashed with {signal.Signals(-tried.code).name}"
    if "Traceback" in tried.printed:
        return f"a traceback: {' / '.join(lines[-3:])}"
    if tried.code not in (0, 2):
        return f"exit code {tried.code}: {' / '.join(lines[-2:])}"
    if tried.code == 2 and not (lines and lines[-1].endswith(".") and len(lines[-1]) < 1500):
        return f"exit code 2 without a sentence: {lines[-1:]}"
    if tried.memory > MOST_MEMORY:
        return f"it took {tried.memory / 1e6:.0f} MB"
    new = {name for name in _names(folder) - tried.before if not name.startswith(("tmp/std", "tmp/modules", "user/"))}
    results = (case.output, "person.capture", "out.effigy", "stopped.effigy") if tried.code == 0 else ()
    # A batch notes in its table and its stamps why a clip failed.
    results += ("out",) if case.kind == "sheet" else ()
    left = sorted(name for name in new if not name.startswith(tuple(filter(None, results))) or "/." in f"/{name}")
    return f"files are left: {', '.join(left[:4])}" if left else None


def _names(folder: Path) -> frozenset[str]:
    return frozenset(str(path.relative_to(folder)) for path in folder.rglob("*"))
