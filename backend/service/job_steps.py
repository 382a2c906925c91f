"""The steps of a job and how long each takes, for the bar of the whole job (`whole_job`).

The seconds were fitted to imports of four clips of 250 to 587 frames, 480 and 512 pixels wide, on two cores. Only their
proportions matter: the job itself shows how fast its machine is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ..training.presets import PRESETS, WARMUP_SHARE
from .request_fields import Request
from .requests import CaptureRequest, TrackRequest, TrainRequest
from .whole_job import TIMED, Step

MEASURED_SIZE: Final = 512
"""Side of the captures' frames, pixels."""
FOOTAGE: Final = "footage"
SOLVER: Final = "solver"
TRAINING: Final = "training"

_SHAPE: Final = "Shape of the head"
_POSE: Final = "Pose and expression"
_SKIN: Final = "Alignment to the skin"

CAPTURE_STEPS: Final = (
    Step("finding the head", "Finding the head", FOOTAGE, 2.5, 0.003, counts_frames=True),
    Step("cropping", "Cropping the frames", FOOTAGE, 5.0, 0.03, counts_frames=True),
)
LANDMARK_STEP: Final = Step("landmarks", "Landmarks on your FLAME head", SOLVER, 8.0)
TRACKER_STEP: Final = Step("tracker", _SHAPE, SOLVER, 5.0)
PERSON_STEP: Final = Step("person", _SHAPE, SOLVER, 2.5)
SKIN_STEP: Final = Step("skin", "Look of the skin", SOLVER, 26.0)
POSE_STEPS: Final = (
    Step("frames", _POSE, SOLVER, 0.0, 0.0024, counts_frames=True),
    Step("outline", _POSE, SOLVER, 3.3, 0.004),
    Step("irises", _POSE, SOLVER, 0.3, 0.005),
    Step("frames", _POSE, SOLVER, 1.5, 0.0055, counts_frames=True),
)
ALIGNMENT_STEPS: Final = (
    Step("alignment", _SKIN, SOLVER, 0.0, 0.02),
    Step("frames", _SKIN, SOLVER, 0.0, 0.012, counts_frames=True),
    Step("alignment", _SKIN, SOLVER, 0.0, 0.024),
    Step("frames", _SKIN, SOLVER, 0.0, 0.0185, counts_frames=True),
)
MATTE_STEP: Final = Step("head mattes", "Separating the head from the body", SOLVER, 0.0, 0.028, counts_frames=True)


def steps_of(requests: Sequence[Request]) -> list[Step]:
    """The steps of a job, empty where they are not known."""
    steps: list[Step] = []
    size = next((request.size for request in requests if isinstance(request, CaptureRequest)), MEASURED_SIZE)
    for request in requests:
        match request:
            case CaptureRequest():
                steps += CAPTURE_STEPS
            case TrackRequest():
                steps += _tracking(request, size)
            case TrainRequest():
                steps += _training(request)
            case _:
                return []
    return steps


def _tracking(request: TrackRequest, size: int) -> list[Step]:
    own_head = [] if request.head is None else [LANDMARK_STEP]
    mattes = replace(MATTE_STEP, per_frame=MATTE_STEP.per_frame * (size / MEASURED_SIZE) ** 2)
    steps = [TRACKER_STEP, *own_head, PERSON_STEP]
    if request.landmarks_only:
        return [*steps, *POSE_STEPS, mattes]
    return [*steps, SKIN_STEP, *POSE_STEPS, *ALIGNMENT_STEPS, mattes]


def _training(request: TrainRequest) -> list[Step]:
    preset = PRESETS[request.preset]
    kind = TRAINING if request.minutes is None else TIMED
    if request.minutes is None:
        warmup, rest = 0.07 * preset.warmup_steps, 0.24 * preset.steps
    else:
        warmup = WARMUP_SHARE * 60 * request.minutes if preset.warmup_steps else 0.0
        rest = 60 * request.minutes - warmup
    return [
        Step("Reading frames", "Reading the frames", FOOTAGE, 2.0, 0.005, counts_frames=True),
        Step("Warm-up", "Finding the colours", kind, warmup),
        Step("Training", "Training", kind, rest),
    ]
