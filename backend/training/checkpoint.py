"""Checkpoints of an unfinished training: a safetensors file beside the avatar, replaced atomically by renaming."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from ..errors import EffigyError
from ..formats.safetensors_file import read_tensors, write_tensors
from ..storage import check_schema, write_beside

SCHEMA = 1
EVERY_SECONDS = 30.0


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


def checkpoint_path(avatar_path: Path) -> Path:
    return avatar_path.with_name(avatar_path.name + ".checkpoint")


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


def load_checkpoint(path: Path, job: dict[str, object]) -> Checkpoint:
    """The checkpoint at `path`; raises an `EffigyError` if it is missing, damaged or of another `job`."""
    if not path.is_file():
        raise EffigyError(f"There is nothing to resume: {path} does not exist. Train without --resume.")
    try:
        metadata, tensors = read_tensors(path)
        header = json.loads(metadata["effigy"])
        check_schema(int(header["schema"]), SCHEMA, f"The checkpoint {path.name}")
    except (SafetensorError, KeyError, ValueError) as error:
        raise EffigyError(f"The checkpoint {path} is damaged: delete it and train again.") from error
    if header["job"] != job:
        changed = sorted(key for key in job if header["job"].get(key) != job[key])
        raise EffigyError(
            f"The checkpoint {path.name} is of another training ({', '.join(changed)} differ): "
            "give the same settings, or train without --resume."
        )
    return Checkpoint(job, header["stage"], header["step"], header["seconds"], header["total_seconds"], tensors)
