"""How well the bar of an import knows the time that is left, on recorded imports.

    python3 build.py bench import_progress [--json FILE]
    python3 build.py bench import_progress --record NAME VIDEO [--frames N] [--width PIXELS]

Without `--record` the reports of every recording in bench/results/import_progress are played to `WholeJob` at the
times at which they came, and the table says how many seconds the panel shows as left at 25, 50 and 75 % of the time,
and how many there were. With `--record` a film is imported (its first `--frames` frames, scaled to a width of
`--width`) and the reports are stored under that name. Record on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av

from backend.footage.decode import probe
from backend.progress import Progress
from backend.service.job_steps import steps_of
from backend.service.requests import CaptureRequest, TrackRequest
from backend.service.whole_job import WholeJob
from blender_addon.worker.messages import WholeJob as Shown

RECORDINGS: Final = Path(__file__).parent / "results" / "import_progress"
SHARES: Final = (0.25, 0.5, 0.75)
LARGEST_ERROR: Final = 1.5
"""Factor between the seconds left as said and as they were."""
SECONDS_BETWEEN_REPORTS: Final = 0.3


@dataclass(frozen=True)
class Recording:
    """The reports of one import."""

    name: str
    reports: list[tuple[str, int, int, float]]
    """(stage, done, total, seconds since the start)"""
    seconds: float
    """Of the whole import."""
    megapixels: float
    """Of a frame of the film."""


@dataclass(frozen=True)
class Said:
    """The time left at one share of an import's time."""

    share: float
    said: float
    """Seconds"""
    true: float
    """Seconds"""

    @property
    def factor(self) -> float:
        """By how much the one is larger than the other, whichever it is."""
        return max(self.said, self.true) / max(min(self.said, self.true), 0.1)


class _Recorder(Progress):
    def __init__(self) -> None:
        self.started = time.monotonic()
        self.reports: list[tuple[str, int, int, float]] = []

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        now = round(time.monotonic() - self.started, 2)
        last = self.reports[-1] if self.reports else None
        is_new = last is None or last[0] != stage or done < last[1]
        if is_new or done == total or last is None or now - last[3] > SECONDS_BETWEEN_REPORTS:
            self.reports.append((stage, done, total, now))


def requests_of(video: Path, capture: Path) -> tuple[CaptureRequest, TrackRequest]:
    return CaptureRequest(video=video, capture=capture), TrackRequest(captures=(capture,))


def record(name: str, video: Path) -> Recording:
    """Import a film as *Import Video* does."""
    from backend.service.commands import run

    with tempfile.TemporaryDirectory() as folder:
        recorder = _Recorder()
        for request in requests_of(video, Path(folder) / "film.capture"):
            run(request, recorder)
        seconds = round(time.monotonic() - recorder.started, 2)
    info = probe(video)
    return Recording(name, recorder.reports, seconds, round(info.width * info.height / 1e6, 3))


def replay(recording: Recording) -> list[Said]:
    """What the bar says during a recorded import."""
    requests = requests_of(Path("film.mp4"), Path("film.capture"))
    job = WholeJob(steps_of(requests, recording.megapixels), 0.0)
    shown = [(0.0, Shown(0.0, 1.0, 0.0, 1, 1, ""))]
    for stage, done, total, now in recording.reports:
        if standing := job.update(stage, done, total, now):
            shown.append((now, Shown(**standing.message())))
    said = []
    for share in SHARES:
        when = share * recording.seconds
        at, whole = next(pair for pair in reversed(shown) if pair[0] <= when)
        said.append(Said(share, whole.left_after(when - at), recording.seconds - when))
    return said


def load(path: Path) -> Recording:
    stored = json.loads(path.read_text("utf-8"))
    return Recording(
        path.stem, [tuple(report) for report in stored["reports"]], stored["seconds"], stored["megapixels"]
    )


def recordings() -> list[Recording]:
    return [load(path) for path in sorted(RECORDINGS.glob("*.json"))]


def _part(video: Path, out: Path, frames: int | None, width: int | None) -> Path:
    """The first frames of a film, scaled."""
    with av.open(str(video)) as source, av.open(str(out), "w") as target:
        stream = source.streams.video[0]
        factor = (width or stream.width) / stream.width
        size = round(stream.width * factor / 2) * 2, round(stream.height * factor / 2) * 2
        made = target.add_stream("libx264", rate=Fraction(stream.average_rate or 30), options={"crf": "16"})
        made.width, made.height, made.pix_fmt = *size, "yuv420p"
        for index, frame in enumerate(source.decode(stream)):
            if index == frames:
                break
            target.mux(made.encode(av.VideoFrame.from_ndarray(frame.reformat(*size).to_ndarray(format="rgb24"))))
        target.mux(made.encode())
    return out


def main() -> int:
    parser = argparse.ArgumentParser(prog="build.py bench import_progress", description=__doc__.split("\n")[0])
    parser.add_argument("--record", nargs=2, metavar=("NAME", "VIDEO"))
    parser.add_argument("--frames", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.record:
        name, video = arguments.record
        with tempfile.TemporaryDirectory() as folder:
            film = Path(video)
            if arguments.frames or arguments.width:
                film = _part(film, Path(folder) / "film.mp4", arguments.frames, arguments.width)
            made = record(name, film)
        RECORDINGS.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(report) for report in made.reports)
        head = f'"seconds": {made.seconds}, "megapixels": {made.megapixels}'
        (RECORDINGS / f"{name}.json").write_text(f'{{{head}, "reports": [\n{lines}\n]}}\n', "utf-8")
    rows = {recording.name: replay(recording) for recording in recordings()}
    print("| import | " + " | ".join(f"at {share:.0%}: said / true" for share in SHARES) + " | largest factor |")
    print("|---|" + "---|" * (len(SHARES) + 1))
    for name, said in rows.items():
        cells = " | ".join(f"{moment.said:.0f} s / {moment.true:.0f} s" for moment in said)
        print(f"| {name} | {cells} | {max(moment.factor for moment in said):.2f} |")
    if arguments.json:
        table = {name: [[moment.share, moment.said, moment.true] for moment in said] for name, said in rows.items()}
        arguments.json.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    return int(any(moment.factor > LARGEST_ERROR for said in rows.values() for moment in said))


if __name__ == "__main__":
    raise SystemExit(main())
