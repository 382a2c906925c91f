"""The kinds of jobs: which requests each consists of, and what it answers to Blender at its end.

A job's parameters are those of its requests, by name, with full paths. `import` makes a capture and tracks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import EffigyError
from .parameters import Parameters
from .request_fields import Request, parameter_names, read_request
from .requests import (
    BakeRequest,
    CaptureRequest,
    EvaluateRequest,
    LightRequest,
    LiveRequest,
    RefineRequest,
    RenderRequest,
    RetargetRequest,
    SpeakRequest,
    TrackRequest,
    TrainRequest,
)
from .results import (
    BakeResult,
    CaptureResult,
    EvaluateResult,
    LightResult,
    LiveResult,
    RefineResult,
    RenderResult,
    Result,
    RetargetResult,
    SpeakResult,
    TrackResult,
    TrainResult,
)
from .sentences import describe

JOB_REQUESTS: Final[dict[str, tuple[type[Request], ...]]] = {
    "import": (CaptureRequest, TrackRequest),
    "track": (TrackRequest,),
    "train": (TrainRequest,),
    "refine": (RefineRequest,),
    "bake": (BakeRequest,),
    "evaluate": (EvaluateRequest,),
    "render": (RenderRequest,),
    "retarget": (RetargetRequest,),
    "speak": (SpeakRequest,),
    "capture": (CaptureRequest,),
    "live": (LiveRequest,),
    "light": (LightRequest,),
}
"""Kind of a job -> its requests, in the order in which they are carried out."""


@dataclass(frozen=True)
class JobSpec:
    """What a job is to do."""

    requests: tuple[Request, ...]
    output: Path | None
    """The file or folder that the job writes, if it writes one; no two running jobs may have the same."""


def read_job(kind: str, params: Any) -> JobSpec:
    """Check the parameters of a job, as `job.start` carries them."""
    parameters = Parameters(params, kind)
    request_classes = JOB_REQUESTS[kind]
    names = [name for request_class in request_classes for name in parameter_names(request_class)]
    # Requests of one job share parameters: the capture that is made is the one that is tracked.
    parameters.allow_only(*dict.fromkeys(names))
    requests = tuple(read_request(request_class, parameters) for request_class in request_classes)
    output = requests[0].output
    if isinstance(requests[-1], EvaluateRequest) and len(requests[-1].captures) > 1:
        raise EffigyError(f"{kind}: capture must be one full path, but is a list.")
    return JobSpec(requests, output)


def answer_of(results: Sequence[Result]) -> dict[str, Any]:
    """The fields of `job.done`'s result: a sentence about each result, the last one's paths and figures, and when the
    sound of captured footage begins.
    """
    answer = {"said": [describe(result) for result in results]} | _figures_of(results[-1])
    if isinstance(results[0], CaptureResult):
        answer["sound_start"] = results[0].sound_start
    return answer


def _figures_of(result: Result) -> dict[str, Any]:
    match result:
        case CaptureResult():
            return {"capture": str(result.capture), "frames": result.frames}
        case TrackResult(tracks=(track, *_)):
            return {
                "capture": str(track.capture),
                "track": str(track.track),
                "frames": track.frames,
                "sure": track.reliable_frames,
                "residual": track.residual,
                "size": track.size,
            }
        case TrainResult():
            return {"avatar": str(result.avatar)}
        case LiveResult():
            return {"frames": result.frames, "faces": result.faces}
        case LightResult():
            return {name: value for name, value in vars(result).items() if name != "capture"}
        case RefineResult():
            return {"capture": str(result.capture), "track": str(result.track), "frames": result.frames}
        case BakeResult():
            return {"avatar": str(result.avatar)}
        case EvaluateResult():
            return {"metrics": str(result.metrics_file), "sheet": str(result.sheet)}
        case RenderResult():
            return {"avatar": str(result.avatar), "out": str(result.out)}
        case RetargetResult() | SpeakResult():
            return {"out": str(result.out)}
    raise TypeError(f"{type(result).__name__} is not the result of a job.")
