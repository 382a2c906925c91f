"""Checkpoints of an unfinished training: a safetensors file beside the avatar, replaced atomically by renaming."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from ..avatar.settings import GENERATORS, AvatarSettings
from ..errors import EffigyError
from ..file_names import beside
from ..formats.safetensors_file import read_tensors, write_tensors
from ..reading import Damaged, reading, shown
from ..storage import check_schema, write_beside

SCHEMA = 1
EVERY_SECONDS = 30.0
MOST_BYTES = 2 * 2**30
"""Of a checkpoint's file: an avatar's parameters at single precision, their averages and Adam's two moments."""
REMEDY = "delete it and train again"
CAPTURES = "captures"
"""Key of a training's list of captures in `Checkpoint.job`, where there are several."""


@dataclass(frozen=True)
class Checkpoint:
    job: dict[str, object]
    """Identifies the capture, the head model and the settings of the training; a checkpoint of another job is
    refused."""
    stage: str
    step: int
    seconds: float
    total_seconds: float
    tensors: dict[str, torch.Tensor]

    @property
    def generator(self) -> dict[str, int]:
        """What the training makes the Gaussians with: the values of its settings that GENERATORS name."""
        values = self.job.get("settings")
        names = {name for sizes in GENERATORS.values() for name in sizes}
        return {name: values[name] for name in names} if isinstance(values, dict) else {}

    @property
    def lips_turn(self) -> int:
        """`AvatarSettings.lips_turn`; 0 in trainings that an earlier version has begun."""
        values = self.job.get("settings")
        return values.get("lips_turn", 0) if isinstance(values, dict) else 0

    @property
    def has_enhancer(self) -> bool:
        """Whether the training has an enhancer."""
        values = self.job.get("settings")
        return isinstance(values, dict) and values.get("enhancer_width", 0) != 0


def checkpoint_path(avatar_path: Path) -> Path:
    return beside(avatar_path, ".checkpoint")


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    header = {
        "schema": SCHEMA,
        "job": checkpoint.job,
        "stage": checkpoint.stage,
        "step": checkpoint.step,
        "seconds": checkpoint.seconds,
        "total_seconds": checkpoint.total_seconds,
    }
    with write_beside(path) as temporary:
        write_tensors(temporary, checkpoint.tensors, {"effigy": json.dumps(header)})


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`; raises an `EffigyError` if it is missing or damaged."""
    with reading(path, "checkpoint", REMEDY, missing="there is nothing to resume; train without --resume"):
        header, tensors = read_tensors(path, "checkpoint", REMEDY, MOST_BYTES)
        check_schema(int(header["schema"]), SCHEMA, f"The checkpoint {path.name}")
        job = dict(header["job"])
        if "settings" in job:
            # Completed by settings that are newer than the checkpoint.
            job["settings"] = AvatarSettings.from_dict(job["settings"]).to_dict()
        stage, step = str(header["stage"]), int(header["step"])
        seconds, total_seconds = float(header["seconds"]), float(header["total_seconds"])
        if step < 0 or not (math.isfinite(seconds) and math.isfinite(total_seconds)):
            raise Damaged("its settings cannot be read")
        for name, tensor in tensors.items():
            if not tensor.isfinite().all() and not name.endswith(".performed"):
                raise Damaged(f"{shown(name)} holds numbers that are not finite")
    return Checkpoint(job, stage, step, seconds, total_seconds, tensors)


def check_job(path: Path, checkpoint: Checkpoint, job: dict[str, object]) -> None:
    """Raise an `EffigyError` where the checkpoint at `path` is of another `job`."""
    if checkpoint.job != job:
        if checkpoint.job.get(CAPTURES) != job.get(CAPTURES):
            raise EffigyError(
                f"The checkpoint {path.name} is of a training on other captures, or in another order: give the same "
                "captures in the same order, or train without --resume."
            )
        changed = sorted(key for key in job | checkpoint.job if checkpoint.job.get(key) != job.get(key))
        raise EffigyError(
            f"The checkpoint {path.name} is of another training ({', '.join(changed)} differ): "
            "give the same settings, or train without --resume."
        )
