"""The command line: it reads arguments, runs one of `commands`, and says what came of it.

Errors are one line on stderr and exit code 2, the parser's own included; Ctrl-C ends with a sentence and 130.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

from ..errors import Cancelled, EffigyError
from ..progress import Progress
from ..storage import as_effigy_error
from ..training.presets import PRESETS
from . import commands

FAILED = 2
STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    chosen = _parser().parse_args(arguments)
    from .terminal import terminal_progress

    progress = terminal_progress()
    try:
        said = _run(chosen, progress)
        progress.close()
        print(said, flush=True)
        return 0
    except (Cancelled, KeyboardInterrupt) as stop:
        return _end(progress, str(stop) or "Stopped by the user; what was finished is kept.", STOPPED)
    except EffigyError as error:
        return _end(progress, str(error), FAILED)
    except BrokenPipeError:
        # Who read our output went away (`| head`); the interpreter must not fail once more on its final flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def perform(arguments: Sequence[str], progress: Progress) -> str:
    """Run one command for another front than the terminal, and return what is to be said of it; errors are raised."""
    return _run(_parser().parse_args(arguments), progress)


def _run(chosen: argparse.Namespace, progress: Progress) -> str:
    """The command's function, with what the operating system says against it made a sentence."""
    try:
        return chosen.run(chosen, progress)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise EffigyError(_sentence_for(error, getattr(chosen, "writes", None))) from error
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise EffigyError("There is not enough memory: choose a smaller size, or close other programs.") from error


def _end(progress: Progress, sentence: str, code: int) -> int:
    progress.close()
    print(" ".join(sentence.split()), file=sys.stderr, flush=True)
    return code


def _sentence_for(error: OSError, target: Path | None) -> str:
    if error.errno == errno.ENOENT and error.filename:
        return f"There is no file {error.filename}."
    return str(as_effigy_error(error, Path(error.filename or target or "the output")))


def _is_out_of_memory(error: Exception) -> bool:
    # torch.OutOfMemoryError by its name: importing torch here would make every command slow.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "not enough memory" in str(error)
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, where argparse would print its usage as well."""
        self.exit(FAILED, f"{message[:1].upper()}{message[1:]} (see `{self.prog} --help`).\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m backend", description="From a video of a person to a head avatar and its pictures."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    capture = subparsers.add_parser(
        "capture", help="crop the head out of a video or a photograph, with mattes and landmarks"
    )
    capture.add_argument("video", metavar="VIDEO", type=Path)
    capture.add_argument("capture", metavar="CAPTURE", type=Path, help="the folder to make, *.capture")
    capture.add_argument("--size", type=int, default=512, metavar="N", help="side of the frames, pixels (default: 512)")
    capture.add_argument("--start", type=float, metavar="S", help="seconds from the start of the clip")
    capture.add_argument("--end", type=float, metavar="S", help="seconds from the start of the clip")
    capture.add_argument("--max-frames", type=int, metavar="N")
    capture.set_defaults(run=commands.run_capture)

    track = subparsers.add_parser("track", help="fit a head model to a capture; writes CAPTURE/track.npz")
    track.add_argument(
        "captures", metavar="CAPTURE", type=Path, nargs="+", help="several, clips or photographs, of one person"
    )
    track.add_argument("--head", type=Path, metavar="FILE", help="a FLAME file (.pkl, .npz) instead of the open head")
    track.add_argument(
        "--landmarks-only",
        action="store_true",
        help="do not align frames to the person's own skin: three times as fast, less true and less steady",
    )
    track.set_defaults(run=commands.run_track)

    train = subparsers.add_parser("train", help="train an avatar on a tracked capture")
    train.add_argument("capture", metavar="CAPTURE", type=Path)
    train.add_argument("avatar", metavar="AVATAR", type=Path, help="the file to write, *.effigy")
    train.add_argument("--preset", choices=tuple(PRESETS), default="draft", help="how carefully (default: draft)")
    train.add_argument("--size", type=int, metavar="N", help="side of the training pictures (default: the preset's)")
    train.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    train.add_argument(
        "--minutes", type=minutes, metavar="M", help="let the clock end it instead of the preset's steps"
    )
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint that a stopped training left")
    train.set_defaults(run=commands.run_train)

    evaluate = subparsers.add_parser("evaluate", help="measure an avatar on the frames that training never saw")
    evaluate.add_argument("avatar", metavar="AVATAR", type=Path)
    evaluate.add_argument("capture", metavar="CAPTURE", type=Path)
    evaluate.add_argument("--out", type=Path, required=True, metavar="DIR")
    evaluate.add_argument(
        "--baselines", action="store_true", help="measure the nearest training frame and mesh-bound Gaussians as well"
    )
    evaluate.add_argument(
        "--refitted",
        action="store_true",
        help="score some frames with the pose fitted again as well: how much of the error is the track's",
    )
    evaluate.set_defaults(run=commands.run_evaluate)

    render = subparsers.add_parser("render", help="render a track with an avatar")
    render.add_argument("avatar", metavar="AVATAR", type=Path)
    render.add_argument("track", metavar="TRACK", type=Path, help="a track.npz, of the same person or another")
    render.add_argument("out", metavar="OUT", type=Path, help="a folder, or a file for mp4")
    render.add_argument("--size", type=int, metavar="N", help="side of the pictures (default: the track's)")
    render.add_argument("--format", choices=("png", "exr", "mp4"), default="png")
    render.add_argument("--background", default="transparent", metavar="transparent|#rrggbb")
    render.add_argument("--plain", action="store_true", help="as the Gaussians draw it, without the avatar's enhancer")
    render.set_defaults(run=commands.run_render)

    orbit = subparsers.add_parser("orbit", help="a video of the avatar at rest from all sides")
    orbit.add_argument("avatar", metavar="AVATAR", type=Path)
    orbit.add_argument("out", metavar="OUT.mp4", type=Path)
    orbit.add_argument("--size", type=int, default=512, metavar="N", help="side of the pictures (default: 512)")
    orbit.add_argument("--degrees", type=float, default=45.0, metavar="D", help="how far to each side (default: 45)")
    orbit.set_defaults(run=commands.run_orbit)

    extremes = subparsers.add_parser("extremes", help="a picture of the avatar with each expression at its end")
    extremes.add_argument("avatar", metavar="AVATAR", type=Path)
    extremes.add_argument("out", metavar="OUT.png", type=Path)
    extremes.add_argument("--size", type=int, default=192, metavar="N", help="side of each head (default: 192)")
    extremes.set_defaults(run=commands.run_extremes)

    export = subparsers.add_parser("export", help="write one frame's Gaussians as a .ply that 3DGS programs read")
    export.add_argument("avatar", metavar="AVATAR", type=Path)
    export.add_argument("track", metavar="TRACK", type=Path)
    export.add_argument("out", metavar="OUT.ply", type=Path)
    export.add_argument("--frame", type=int, default=0, metavar="N", help="index into the track (default: 0)")
    export.set_defaults(run=commands.run_export)

    report = subparsers.add_parser("report", help="a picture of how far a track can be trusted")
    report.add_argument("capture", metavar="CAPTURE", type=Path)
    report.add_argument("out", metavar="OUT.png", type=Path)
    report.set_defaults(run=commands.run_report)

    overlay = subparsers.add_parser(
        "overlay", help="a video of the footage with the tracked head and its landmarks over it"
    )
    overlay.add_argument("capture", metavar="CAPTURE", type=Path)
    overlay.add_argument("out", metavar="OUT.mp4", type=Path)
    overlay.set_defaults(run=commands.run_overlay)

    retarget = subparsers.add_parser("retarget", help="put one person's performance on another's head; writes a track")
    retarget.add_argument(
        "performance",
        metavar="PERFORMANCE",
        type=Path,
        help="a capture, a track.npz, or a CSV of the 52 ARKit channels (Live Link Face)",
    )
    retarget.add_argument("target", metavar="TARGET", type=Path, help="whose head: a capture, a track.npz or an avatar")
    retarget.add_argument("out", metavar="OUT.npz", type=Path)
    retarget.add_argument("--intensity", type=float, default=1.0, metavar="X", help="of the expression (default: 1)")
    retarget.add_argument(
        "--smoothing", type=float, default=0.0, metavar="S", help="seconds over which it is smoothed (default: 0)"
    )
    retarget.add_argument(
        "--motion", type=float, default=1.0, metavar="X", help="of the head; 0 holds it still (default: 1)"
    )
    retarget.add_argument(
        "--fps", type=frame_rate, metavar="N", help="frames a second (default: the performance's own)"
    )
    retarget.set_defaults(run=commands.run_retarget)

    doctor = subparsers.add_parser(
        "doctor", help="what this machine can do, and what is missing; or what fills an avatar's file"
    )
    doctor.add_argument("avatar", metavar="AVATAR", type=Path, nargs="?", help="an avatar to look into instead")
    doctor.set_defaults(run=commands.run_doctor)

    worker = subparsers.add_parser("serve", help="answer requests on stdin and stdout, as Blender does")
    worker.set_defaults(run=commands.run_serve)
    return parser


def minutes(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above zero")
    return value


def frame_rate(text: str) -> Fraction:
    """`25`, `23.976` or `30000/1001`."""
    try:
        return Fraction(text).limit_denominator(1001)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(f"{text} is not a frame rate") from error
