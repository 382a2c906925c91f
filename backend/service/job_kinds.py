"""The kinds of jobs: each is one or more commands of the command line, built from checked parameters.

The parameters are the commands' own, by name, with `capture`, `avatar`, `out` as full paths. What a job gives back is
read from the files that it made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..training.presets import PRESETS
from .parameters import Parameters

Commands = list[list[str]]
DEVICES: Final = ("auto", "cpu", "cuda")
FORMATS: Final = ("png", "exr", "mp4")


@dataclass(frozen=True)
class Order:
    """What a job is to do."""

    commands: Commands
    """Arguments of `python -m backend`, one list a command."""
    writes: Path
    """What it makes: no two jobs may write the same."""


def _options(**options: object) -> list[str]:
    """`--name value` for what is given; a flag stands alone, and only where it is true."""
    words: list[str] = []
    for name, value in options.items():
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
        elif value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def _import(given: Parameters) -> Order:
    given.known("video", "capture", "size", "start", "end", "max_frames", "head", "landmarks_only")
    capture = given.path("capture")
    cropping = _options(
        size=given.integer("size", None),
        start=given.number("start", None, least=0),
        end=given.number("end", None, least=0),
        max_frames=given.integer("max_frames", None, least=1),
    )
    return Order([["capture", *cropping, "--", str(given.path("video")), str(capture)], _tracking(given)], capture)


def _track(given: Parameters) -> Order:
    given.known("capture", "head", "landmarks_only")
    return Order([_tracking(given)], given.path("capture"))


def _tracking(given: Parameters) -> list[str]:
    options = _options(head=given.path("head", None), landmarks_only=given.flag("landmarks_only"))
    return ["track", *options, "--", str(given.path("capture"))]


def _train(given: Parameters) -> Order:
    given.known("capture", "avatar", "preset", "size", "device", "minutes", "resume")
    avatar = given.path("avatar")
    options = _options(
        preset=given.text("preset", None, choices=tuple(PRESETS)),
        size=given.integer("size", None),
        device=given.text("device", None, choices=DEVICES),
        minutes=given.number("minutes", None, least=1e-3),
        resume=given.flag("resume"),
    )
    return Order([["train", *options, "--", str(given.path("capture")), str(avatar)]], avatar)


def _evaluate(given: Parameters) -> Order:
    given.known("avatar", "capture", "out", "baselines")
    out = given.path("out")
    options = _options(out=out, baselines=given.flag("baselines"))
    return Order([["evaluate", *options, "--", str(given.path("avatar")), str(given.path("capture"))]], out)


def _render(given: Parameters) -> Order:
    given.known("avatar", "track", "out", "size", "format", "background", "plain")
    out = given.path("out")
    options = _options(
        size=given.integer("size", None),
        format=given.text("format", None, choices=FORMATS),
        background=given.text("background", None),
        plain=given.flag("plain"),
    )
    return Order([["render", *options, "--", str(given.path("avatar")), str(given.path("track")), str(out)]], out)


def _retarget(given: Parameters) -> Order:
    given.known("performance", "target", "out", "intensity", "smoothing", "motion", "fps")
    out = given.path("out")
    options = _options(
        intensity=given.number("intensity", None, least=0),
        smoothing=given.number("smoothing", None, least=0),
        motion=given.number("motion", None, least=0),
        fps=given.text("fps", None),
    )
    return Order(
        [["retarget", *options, "--", str(given.path("performance")), str(given.path("target")), str(out)]], out
    )


KINDS: dict[str, Callable[[Parameters], Order]] = {
    "import": _import,
    "track": _track,
    "train": _train,
    "evaluate": _evaluate,
    "render": _render,
    "retarget": _retarget,
}


def result_of(kind: str, params: dict[str, Any], said: list[str]) -> dict[str, Any]:
    """What `job.done` tells: the paths that were made, some figures of them, and what the commands said at their
    end."""
    result: dict[str, Any] = {"said": said}
    if kind in ("import", "track"):
        import numpy as np

        from ..formats.track import load_track

        path = Path(params["capture"]) / "track.npz"
        track = load_track(path)
        sure = track.residual[track.flags == 0]
        return result | {
            "capture": params["capture"],
            "track": str(path),
            "frames": track.frame_count,
            "sure": len(sure),
            "residual": float(np.median(sure)) if len(sure) else None,
            "size": track.size,
        }
    if kind == "evaluate":
        return result | {name.split(".")[0]: str(Path(params["out"]) / name) for name in ("metrics.json", "sheet.png")}
    return result | {name: params[name] for name in ("avatar", "out") if name in params}
