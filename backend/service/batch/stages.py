"""What is done with each clip of a batch, in order, and the files that come of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .sheet import Clip

CAPTURE: Final = "capture"
TRACK: Final = "track"
TRAIN: Final = "train"
EVALUATE: Final = "evaluate"
STAGES: Final = (CAPTURE, TRACK, TRAIN, EVALUATE)
"""Each is a kind of job (`backend.service.job_specs`), and needs the files of the stages before it."""
DEFAULT_SIZE: Final = 512


def stages_of(clip: Clip) -> tuple[str, ...]:
    return STAGES if clip.evaluate else STAGES[:-1]


@dataclass(frozen=True)
class ClipFiles:
    """The files of one clip, all of them below `folder`."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def capture(self) -> Path:
        return self.folder / f"{self.name}.capture"

    @property
    def track(self) -> Path:
        return self.capture / "track.npz"

    @property
    def avatar(self) -> Path:
        return self.folder / f"{self.name}.effigy"

    @property
    def checkpoint(self) -> Path:
        """What a stopped training leaves (`backend.training.checkpoint`)."""
        return self.folder / f"{self.name}.effigy.checkpoint"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation"

    def stamp(self, stage: str) -> Path:
        return self.folder / "stages" / f"{stage}.json"

    def outputs(self, stage: str) -> tuple[Path, ...]:
        """The files and folders by which a finished stage is recognised as complete."""
        match stage:
            case "capture":
                return tuple(self.capture / name for name in ("capture.json", "landmarks.npz", "frames", "mattes"))
            case "track":
                return self.track, self.capture / "head_mattes"
            case "train":
                return (self.avatar,)
            case "evaluate":
                return tuple(self.evaluation / name for name in ("metrics.json", "sheet.png", "frames"))
        raise ValueError(stage)


def settings_of(clip: Clip, stage: str) -> dict[str, Any]:
    """The sheet's settings that decide the result of a stage. A stage is done again when they change."""
    match stage:
        case "capture":
            return {"size": clip.size or DEFAULT_SIZE, "start": clip.start, "end": clip.end}
        case "track":
            counted = {} if clip.expression_count is None else {"expression_count": clip.expression_count}
            return {"head": clip.head is not None} | counted
        case "train":
            # The device is left out: an avatar that was trained on another one is as good.
            return {"preset": clip.preset, "minutes": clip.minutes}
        case "evaluate":
            return {}
    raise ValueError(stage)


def parameters_of(clip: Clip, files: ClipFiles, stage: str) -> dict[str, Any]:
    """The parameters of the job that carries a stage out; None values count as not given."""
    capture, avatar = str(files.capture), str(files.avatar)
    match stage:
        case "capture":
            return {"video": str(clip.footage), "capture": capture} | settings_of(clip, stage)
        case "track":
            return {"capture": capture, "head": str(clip.head) if clip.head else None} | (
                {} if clip.expression_count is None else {"expression_count": clip.expression_count}
            )
        case "train":
            return {"capture": capture, "avatar": avatar, "device": clip.device} | settings_of(clip, stage)
        case "evaluate":
            return {"avatar": avatar, "capture": capture, "out": str(files.evaluation)}
    raise ValueError(stage)
