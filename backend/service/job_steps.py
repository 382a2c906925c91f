"""The steps of a job and how long each takes, for the bar of the whole job (`whole_job`).

The seconds were fitted to the imports in bench/results/import_progress, of clips of 24 to 587 frames and of up to 3840
pixels, on two cores. Only their proportions matter: the job itself shows how fast its machine is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from ..avatar.settings import DEFAULT_GENERATOR
from ..errors import EffigyError
from ..training.presets import BUST_SHARE, FIT_AT, MOST_FITTED, PRESETS, WARMUP_SHARE
from .request_fields import Request
from .requests import BakeRequest, CaptureRequest, TrackRequest, TrainRequest
from .whole_job import TIMED, Step

MEASURED_SIZE: Final = 512
"""Side of the captures' frames, pixels."""
MEASURED_MEGAPIXELS: Final = 0.25
"""Of most of the clips' frames."""
PERSON_FRAMES: Final = 48
"""As in `tracking.pipeline`, which takes seconds to import."""
FOOTAGE: Final = "footage"
SOLVER: Final = "solver"
TRAINING: Final = "training"
SECONDS_PER_STEP: Final = {"unet": 0.24, "blendshapes": 0.15}
"""Of a training, by its generator; their ratio is that of bench/results/generators.md."""

_SHAPE: Final = "Shape of the head"
_POSE: Final = "Pose and expression"
_SKIN: Final = "Alignment to the skin"

CAPTURE_STEPS: Final = (
    Step("finding the head", "Finding the head", FOOTAGE, 0.2, 0.002, lead=2.0, counts_frames=True),
    Step("cropping", "Cropping the frames", FOOTAGE, 0.2, 0.016, lead=0.5, counts_frames=True),
)
PER_MEGAPIXEL: Final = {"finding the head": 0.009, "cropping": 0.025}
"""Seconds that a frame of the footage adds for each megapixel, by the stage."""
LANDMARK_STEP: Final = Step("landmarks", "Landmarks on your FLAME head", SOLVER, 8.0)
TRACKER_STEP: Final = Step("tracker", _SHAPE, SOLVER, 6.0)
PERSON_STEP: Final = Step("person", _SHAPE, SOLVER, 0.0, 0.04, most_frames=PERSON_FRAMES)
SKIN_STEP: Final = Step("skin", "Look of the skin", SOLVER, 8.5, 0.25, lead=3.5, most_frames=PERSON_FRAMES)
POSE_STEPS: Final = (
    Step("frames", _POSE, SOLVER, 0.0, 0.001, counts_frames=True),
    Step("outline", _POSE, SOLVER, 1.2, 0.001),
    Step("irises", _POSE, SOLVER, 0.0, 0.008),
    Step("frames", _POSE, SOLVER, 0.1, 0.003, counts_frames=True),
)
ALIGNMENT_STEPS: Final = (
    Step("alignment", _SKIN, SOLVER, 0.2, 0.016),
    Step("frames", _SKIN, SOLVER, 0.3, 0.008, counts_frames=True),
    Step("alignment", _SKIN, SOLVER, 0.0, 0.018),
    Step("frames", _SKIN, SOLVER, 0.5, 0.006, counts_frames=True),
)
MATTE_STEP: Final = Step("head mattes", "Separating the head from the body", SOLVER, 0.2, 0.022, counts_frames=True)

SECONDS_PER_BUST_STEP: Final = 0.09
SECONDS_PER_FIT: Final = 0.25
"""In which a frame's pose is fitted, beside training's own seconds."""
FIT_SHARE: Final = 0.15
"""Of a training by the clock: about what fitting the poses takes."""
BAKING: Final = "baking"
BAKE_STEPS: Final = (
    Step("baking", "Trying poses", BAKING, 90.0),
    Step("weights", "Learning shapes", BAKING, 5.0),
)


def steps_of(requests: Sequence[Request], megapixels: float | None = None) -> list[Step]:
    """The steps of a job, empty where they are not known. `megapixels`: of a frame of the footage, which is opened
    where they are not given.
    """
    steps: list[Step] = []
    size = next((request.size for request in requests if isinstance(request, CaptureRequest)), MEASURED_SIZE)
    for request in requests:
        match request:
            case CaptureRequest():
                steps += _capturing(request, megapixels)
            case TrackRequest():
                steps += _tracking(request, size)
            case TrainRequest():
                steps += _training(request)
            case BakeRequest():
                steps += BAKE_STEPS
            case _:
                return []
    return steps


def _capturing(request: CaptureRequest, megapixels: float | None) -> list[Step]:
    if megapixels is None:
        from ..footage.decode import probe

        megapixels = MEASURED_MEGAPIXELS
        # A film that cannot be opened is refused, with a sentence, when it is captured.
        with suppress(EffigyError, OSError):
            info = probe(request.video, turn=request.rotate, rate=request.rate)
            megapixels = info.width * info.height / 1e6
    return [replace(step, per_frame=step.per_frame + PER_MEGAPIXEL[step.stage] * megapixels) for step in CAPTURE_STEPS]


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
        # A checkpoint's generator is not known before it is read.
        step = SECONDS_PER_STEP[request.generator or DEFAULT_GENERATOR]
        warmup, rest = 0.07 * preset.warmup_steps, step * preset.steps
    else:
        warmup = WARMUP_SHARE * 60 * request.minutes if preset.warmup_steps else 0.0
        rest = 60 * request.minutes - warmup
    bust = 0.0 if request.head_only else SECONDS_PER_BUST_STEP * preset.bust_steps
    if request.minutes is not None:
        bust = min(bust, BUST_SHARE * 60 * request.minutes)
    baked = BAKE_STEPS if request.generator == "unet" else ()
    return [
        Step("Reading frames", "Reading the frames", FOOTAGE, 2.0, 0.005, counts_frames=True),
        Step("Warm-up", "Finding the colours", kind, warmup),
        *_training_proper(request.fit_poses and not request.refined, kind, rest),
        *([Step("Bust", "Adding the shoulders", kind, bust)] if bust else ()),
        *baked,
    ]


def _training_proper(fits_poses: bool, kind: str, seconds: float) -> list[Step]:
    if not fits_poses:
        return [Step("Training", "Training", kind, seconds)]
    first, second = FIT_AT * seconds, (1 - FIT_AT) * seconds
    fit = Step("Fitting poses again", "Fitting the poses", kind, 0.0, SECONDS_PER_FIT, most_frames=MOST_FITTED)
    if kind == TIMED:
        fit, second = replace(fit, seconds=FIT_SHARE * seconds, per_frame=0.0), second - FIT_SHARE * seconds
    return [Step("Training", "Training", kind, first), fit, Step("Training on", "Training", kind, second)]
