"""The commands: each takes (arguments, progress), calls one function of the backend and returns what to say at the end.

Whatever takes long to import is imported inside the command that needs it.
"""

from __future__ import annotations

import argparse
import errno
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..progress import Progress
from ..storage import as_effigy_error

if TYPE_CHECKING:
    from ..formats.capture import Capture
    from ..formats.track import Track
    from ..head.model import HeadModel


def run_capture(chosen: argparse.Namespace, progress: Progress) -> str:
    from ..footage.build import make_capture

    check_writable(chosen.capture)
    made = make_capture(
        chosen.video,
        chosen.capture,
        size=chosen.size,
        start=chosen.start,
        end=chosen.end,
        max_frames=chosen.max_frames,
        progress=progress,
    )
    good = int((made.flags == 0).sum())
    return f"{chosen.capture}: {made.frame_count} frames of {made.size}×{made.size}, {good} of them good."


def run_track(chosen: argparse.Namespace, progress: Progress) -> str:
    from ..correspondence.landmark_embedding import embed_landmarks
    from ..formats.capture import load_capture
    from ..formats.track import save_track
    from ..head.formats import load_head
    from ..head.registry import remember_head
    from ..tracking.after.head_matte import make_head_mattes
    from ..tracking.pipeline import track_captures

    captures = [load_capture(folder) for folder in chosen.captures]
    model = load_head(chosen.head)
    if (model.landmark_faces < 0).all():
        # A user's FLAME file does not say where the detector's points lie on it.
        faces, barycentric = embed_landmarks(model, progress=progress)
        model = replace(model, landmark_faces=faces, landmark_barycentric=barycentric)
    for folder in chosen.captures:
        check_writable(folder / "track.npz")
    tracks = track_captures(
        [_in_takes(capture, progress) for capture in captures],
        model,
        photometric=not chosen.landmarks_only,
        progress=progress,
    )
    said = []
    for capture, track in zip(captures, tracks, strict=True):
        make_head_mattes(capture, track, model, progress=progress)
        # The track comes last: where there is one, everything that tracking makes is there.
        save_track(track, capture.folder / "track.npz")
        said.append(_how_sure(capture.folder / "track.npz", track))
    if chosen.head:
        remember_head(model, chosen.head)
    return "\n".join(said)


def _in_takes(capture: Capture, progress: Progress) -> Capture:
    from ..tracking.observe.shot_cuts import find_cuts, separated

    cuts = find_cuts(capture)
    if len(cuts):
        progress.message(
            f"{capture.source_name} is cut before frame {', '.join(map(str, cuts[:12]))}"
            f"{' …' if len(cuts) > 12 else ''}: its takes are tracked apart."
        )
    return separated(capture, cuts)


def _how_sure(path: Path, track: Track) -> str:
    tracked = track.flags == 0
    residual = sorted(track.residual[tracked].tolist())
    typical = (
        f"; typically {residual[len(residual) // 2]:.2f} px of {track.size} from the detector's landmarks"
        if residual
        else ""
    )
    return f"{path}: {tracked.sum()} of {len(tracked)} frames are sure{typical}."


def run_train(chosen: argparse.Namespace, progress: Progress) -> str:
    from ..training.trainer import train

    check_writable(chosen.avatar)
    avatar = train(
        chosen.capture,
        chosen.avatar,
        preset=chosen.preset,
        size=chosen.size,
        device=chosen.device,
        minutes=chosen.minutes,
        resume=chosen.resume,
        progress=progress,
    )
    return f"{chosen.avatar}: {avatar.gaussian_count} Gaussians in {avatar.megabytes:.1f} MB."


def run_evaluate(chosen: argparse.Namespace, progress: Progress) -> str:
    from ..avatar.avatar import load_avatar
    from ..formats.capture import load_capture
    from ..training.evaluation import evaluate
    from ..training.trainer import choose_device

    avatar, capture = load_avatar(chosen.avatar, device=choose_device("auto")), load_capture(chosen.capture)
    check_writable(chosen.out / "metrics.json")
    metrics = evaluate(
        avatar, capture, chosen.out, baselines=chosen.baselines, refitted=chosen.refitted, progress=progress
    )
    return f"{chosen.out / 'metrics.json'}:\n{metrics}"


def run_render(chosen: argparse.Namespace, progress: Progress) -> str:
    from ..avatar.avatar import load_avatar
    from ..avatar.render import render_track
    from ..formats.track import load_track
    from ..training.trainer import choose_device

    avatar = load_avatar(chosen.avatar, device=choose_device("auto"))
    track = load_track(chosen.track, avatar.head_model)
    check_writable(chosen.out)
    size = track.size if chosen.size is None else chosen.size
    count = render_track(
        avatar,
        track,
        chosen.out,
        size=size,
        fmt=chosen.format,
        background=chosen.background,
        enhanced=not chosen.plain,
        progress=progress,
    )
    return f"{chosen.out}: {count} frames of {size}×{size}."


def run_orbit(chosen: argparse.Namespace, progress: Progress) -> str:
    from ..avatar.avatar import load_avatar
    from ..training.trainer import choose_device
    from ..training.turntable import render_orbit

    check_writable(chosen.out)
    avatar = load_avatar(chosen.avatar, device=choose_device("auto"))
    count = render_orbit(avatar, chosen.out, size=chosen.size, degrees=chosen.degrees, progress=progress)
    return f"{chosen.out}: {count} frames of {chosen.size}×{chosen.size}."


def run_extremes(chosen: argparse.Namespace, progress: Progress) -> str:
    from ..avatar.avatar import load_avatar
    from ..training.trainer import choose_device
    from ..training.turntable import render_extremes

    check_writable(chosen.out)
    avatar = load_avatar(chosen.avatar, device=choose_device("auto"))
    return f"{chosen.out}: {render_extremes(avatar, chosen.out, size=chosen.size, progress=progress)} heads."


def run_export(chosen: argparse.Namespace, progress: Progress) -> str:
    from ..avatar.avatar import load_avatar
    from ..avatar.export import export_frame
    from ..formats.track import load_track

    check_writable(chosen.out)
    avatar = load_avatar(chosen.avatar)
    count = export_frame(avatar, load_track(chosen.track, avatar.head_model), chosen.frame, chosen.out)
    return f"{chosen.out}: {count} Gaussians of frame {chosen.frame}."


def run_report(chosen: argparse.Namespace, progress: Progress) -> str:
    from ..tracking.after.report import write_report

    check_writable(chosen.out)
    return f"{chosen.out}: {write_report(*_tracked(chosen.capture), chosen.out, progress=progress)}"


def run_overlay(chosen: argparse.Namespace, progress: Progress) -> str:
    from ..tracking.after.overlay import write_overlay

    check_writable(chosen.out)
    return f"{chosen.out}: {write_overlay(*_tracked(chosen.capture), chosen.out, progress=progress)} frames."


def _tracked(folder: Path) -> tuple[Capture, Track, HeadModel]:
    """A capture, its track and the head model of that."""
    from ..formats.capture import load_capture
    from ..formats.track import load_track
    from ..head.registry import find_head

    capture = load_capture(folder)
    track = load_track(folder / "track.npz")
    return capture, track, find_head(track.head_name, track.head_fingerprint, "The track")


def run_retarget(chosen: argparse.Namespace, progress: Progress) -> str:
    from .transferring import transfer

    check_writable(chosen.out)
    made = transfer(
        chosen.performance,
        chosen.target,
        chosen.out,
        intensity=chosen.intensity,
        smoothing=chosen.smoothing,
        motion=chosen.motion,
        fps=chosen.fps,
        progress=progress,
    )
    return f"{chosen.out}: {made.frame_count} frames at {float(made.fps):g} a second."


def run_doctor(chosen: argparse.Namespace, progress: Progress) -> str:
    from .doctor import examine, examine_avatar, show

    if chosen.avatar:
        return examine_avatar(chosen.avatar)
    return show(examine())


def run_serve(chosen: argparse.Namespace, progress: Progress) -> str:
    from .worker import serve

    serve()
    return ""


def check_writable(target: Path) -> None:
    """Refuse, before any long work, a place where nothing can be written. Nothing is left behind."""
    folder = target.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        if error.errno == errno.ENOENT:
            # Kernel folders such as /proc answer so.
            error = OSError(errno.EACCES, "read-only")
        raise as_effigy_error(error, target) from error
