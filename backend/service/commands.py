"""The commands: each function takes a request and a progress reporter, calls the backend and returns a result.

Modules that take long to import are imported inside the function that needs them.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import Cancelled, EffigyError, missing_library
from ..file_names import numbered
from ..progress import Progress
from ..storage import as_effigy_error, held
from . import requests, results
from .request_fields import Request

if TYPE_CHECKING:
    from ..avatar.avatar import Avatar
    from ..formats.capture import Capture
    from ..formats.track import Track
    from ..head.model import HeadModel


def run(request: Request, progress: Progress, program: str = "python -m backend", wait: float = 0.0) -> results.Result:
    """Carry out a request while holding the locks of what it writes. Another writer, errors of the operating system
    and lack of memory are raised as `EffigyError`.

    `program`: who does it, for the user of another program that wants to write the same. `wait`: seconds to wait for
    another writer.
    """
    try:
        with ExitStack() as locks:
            for output in sorted(set(request.locked)):
                # A link to a folder is the user's own shortcut here, because the user names the output.
                place = Path(os.path.realpath(output)) if output.is_dir() else output
                if ended := locks.enter_context(held(place, f"{program} {request.command}", wait)):
                    progress.message(
                        f"An earlier writer of {output} ended without finishing ({ended.in_words()}); what it left "
                        "half-made was removed."
                    )
            return _run_on_a_device(request, progress)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise EffigyError(_sentence_for(error, request.output)) from error
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise EffigyError("There is not enough memory: choose a smaller size, or close other programs.") from error


def _run_on_a_device(request: Request, progress: Progress) -> results.Result:
    """Carry out a request, and once more on the CPU if the GPU fails; a training goes on by itself."""
    from ..devices import give_up_cuda

    try:
        return _FUNCTIONS[type(request)](request, progress)
    except RuntimeError as error:
        reason = give_up_cuda(error)
        if reason is None:
            raise
    progress.message(f"{reason} Starting again on the CPU.")
    return _FUNCTIONS[type(request)](request, progress)


def capture(request: requests.CaptureRequest, progress: Progress) -> results.CaptureResult:
    from ..footage.build import make_capture
    from ..footage.container import sound_start
    from ..formats.capture import findings_in
    from .previews import send_capture_preview

    check_writable(request.capture)
    made = make_capture(
        request.video,
        request.capture,
        size=request.size,
        start=request.start,
        end=request.end,
        first_frame=request.first_frame,
        last_frame=request.last_frame,
        max_frames=request.max_frames,
        rotate=request.rotate,
        rate=request.rate,
        progress=progress,
    )
    send_capture_preview(made, progress)
    good = int((made.flags == 0).sum())
    findings = findings_in(made.folder)
    return results.CaptureResult(
        request.capture, made.frame_count, good, made.size, sound_start(request.video), findings
    )


def track(request: requests.TrackRequest, progress: Progress) -> results.TrackResult:
    # The imports take seconds.
    progress.update("tracker", 0, 1)
    progress.raise_if_cancelled()
    from ..correspondence.landmark_embedding import embed_landmarks
    from ..formats.calibration import camera_of, load_cameras
    from ..formats.capture import load_capture
    from ..formats.track import save_track
    from ..head.registry import load_users_head, remember_head
    from ..tracking.after.head_matte import make_head_mattes
    from ..tracking.after.torso import with_torso
    from ..tracking.pipeline import track_captures
    from .previews import send_track_preview

    captures = [load_capture(folder) for folder in request.captures]
    cameras = None
    if request.cameras:
        if len(captures) < 2:
            raise EffigyError("One camera needs no file of cameras: give the captures of all cameras, or no --cameras.")
        calibrated = load_cameras(request.cameras)
        cameras = [camera_of(calibrated, capture, request.cameras) for capture in captures]
    model, expression_count = load_users_head(request.head, progress, request.expression_count)
    if (model.landmark_faces < 0).all():
        # A user's FLAME file does not say where the detector's landmarks are on its surface.
        faces, barycentric = embed_landmarks(model, progress=progress)
        model = replace(model, landmark_faces=faces, landmark_barycentric=barycentric)
    for folder in request.captures:
        check_writable(folder / "track.npz")
    tracks = track_captures(captures, model, photometric=not request.landmarks_only, cameras=cameras, progress=progress)
    summaries = []
    for tracked, made in zip(captures, tracks, strict=True):
        make_head_mattes(tracked, made, model, progress=progress)
        made = with_torso(tracked, made, model, progress)
        # The track is written last, so that where it exists, everything that tracking makes exists.
        save_track(made, tracked.folder / "track.npz")
        send_track_preview(tracked, made, model, progress)
        summaries.append(_summarise(tracked.folder, made))
    if request.head:
        remember_head(model, request.head, expression_count)
    return results.TrackResult(tuple(summaries))


def _summarise(folder: Path, track: Track) -> results.TrackSummary:
    import numpy as np

    residual = track.residual[track.flags == 0]
    return results.TrackSummary(
        capture=folder,
        track=folder / "track.npz",
        frames=track.frame_count,
        reliable_frames=len(residual),
        residual=float(np.median(residual)) if len(residual) else None,
        size=track.size,
    )


def train(request: requests.TrainRequest, progress: Progress) -> results.TrainResult:
    from ..training.trainer import train as train_avatar

    check_writable(request.avatar)
    avatar = train_avatar(
        request.captures,
        request.avatar,
        preset=request.preset,
        generator=request.generator,
        refined=request.refined,
        fit_poses=request.fit_poses,
        head_only=request.head_only,
        size=request.size,
        device=request.device,
        minutes=request.minutes,
        resume=request.resume,
        progress=progress,
    )
    trained = results.TrainResult(request.avatar, avatar.gaussian_count, avatar.megabytes)
    if avatar.networks.blendshapes is not None:
        return trained
    playable = playable_of(request.avatar)
    try:
        check_writable(playable)
        _bake(avatar, request.captures, playable, progress)
    except EffigyError as error:
        # The training itself is complete.
        reason = "it was stopped" if isinstance(error, Cancelled) else str(error).rstrip(".")
        progress.message(f"The avatar was not baked for playing without the backend: {reason}. Run `bake` for that.")
        return trained
    return replace(trained, playable=playable)


def refine(request: requests.RefineRequest, progress: Progress) -> results.RefineResult:
    from ..formats.capture import load_capture, unchanged
    from ..formats.track import load_track, save_track
    from ..training.pose_refinement import REFINED_TRACK
    from ..training.track_by_avatar import track_by_avatar

    avatar, capture = _load_avatar(request.avatar), load_capture(request.capture)
    target = capture.folder / REFINED_TRACK
    check_writable(target)
    refined = track_by_avatar(avatar, capture, load_track(capture.folder / "track.npz"), progress=progress)
    with unchanged(capture):
        save_track(refined.track, target)
    return results.RefineResult(request.capture, target, refined.frames, refined.difference_before, refined.difference)


def bake(request: requests.BakeRequest, progress: Progress) -> results.BakeResult:
    avatar = _load_avatar(request.avatar)
    check_writable(request.out)
    return _bake(avatar, () if request.capture is None else (request.capture,), request.out, progress)


def _bake(avatar: Avatar, captures: Sequence[Path], out: Path, progress: Progress) -> results.BakeResult:
    from ..avatar.avatar import save_avatar
    from ..formats.track import load_track
    from ..training.baking import bake as bake_avatar

    tracks = [load_track(folder / "track.npz") for folder in captures]
    baked = bake_avatar(avatar, tracks, progress=progress)
    return results.BakeResult(out, save_avatar(baked.avatar, out), baked.decibels)


def playable_of(avatar: Path) -> Path:
    """Where training puts what it bakes of an avatar of graph U-Nets: `anna.effigy` -> `anna_playable.effigy`, or with
    a number where there is such a file.
    """
    number, chosen = 1, numbered(avatar, "_playable")
    while os.path.lexists(chosen):
        number += 1
        chosen = numbered(avatar, f"_playable-{number}")
    return chosen


def evaluate(
    request: requests.EvaluateRequest, progress: Progress
) -> results.EvaluateResult | results.EvaluateSeveralResult:
    from ..formats.capture import load_capture
    from ..training.evaluation import evaluate as evaluate_avatar
    from ..training.evaluation_of_several import folders_for, write_summary

    avatar = _load_avatar(request.avatar)
    captures = [load_capture(folder) for folder in request.captures]
    check_writable(request.out / "metrics.json")
    several = len(captures) > 1
    measured = []
    for capture, out in zip(captures, folders_for(captures, request.out), strict=True):
        metrics = evaluate_avatar(
            avatar,
            capture,
            out,
            baselines=request.baselines,
            retrack=request.refitted,
            own_light=several,
            progress=progress,
        )
        measured.append(results.EvaluateResult(out / "metrics.json", out / "sheet.png", metrics))
    if not several:
        return measured[0]
    summary = write_summary({each.sheet.parent.name: each.metrics for each in measured}, request.out)
    return results.EvaluateSeveralResult(summary, tuple(measured))


def render(request: requests.RenderRequest, progress: Progress) -> results.RenderResult:
    from ..avatar.render import render_track
    from ..formats.track import load_track

    avatar = _shown(_load_avatar(request.avatar), request.head_only)
    track = load_track(request.track, avatar.head_model)
    check_writable(request.out)
    size = track.size if request.size is None else request.size
    frames = render_track(
        avatar,
        track,
        request.out,
        size=size,
        fmt=request.format,
        background=request.background,
        enhanced=not request.plain,
        progress=progress,
    )
    return results.RenderResult(request.avatar, request.out, frames, size)


def orbit(request: requests.OrbitRequest, progress: Progress) -> results.OrbitResult:
    from ..training.turntable import render_orbit

    check_writable(request.out)
    avatar = _load_avatar(request.avatar)
    frames = render_orbit(avatar, request.out, size=request.size, degrees=request.degrees, progress=progress)
    return results.OrbitResult(request.out, frames, request.size)


def extremes(request: requests.ExtremesRequest, progress: Progress) -> results.ExtremesResult:
    from ..training.turntable import render_extremes

    check_writable(request.out)
    avatar = _load_avatar(request.avatar)
    if request.scores:
        return _scored_extremes(avatar, request, progress)
    heads = render_extremes(avatar, request.out, size=request.size, progress=progress)
    return results.ExtremesResult(request.out, heads)


def _scored_extremes(avatar: Avatar, request: requests.ExtremesRequest, progress: Progress) -> results.ExtremesResult:
    from ..footage.detector import FaceDetector
    from ..training.slider_sheet import render_scored_sliders

    with closing(FaceDetector()) as detector:
        scores = render_scored_sliders(avatar, detector, request.out, size=request.size, progress=progress)
    return results.ExtremesResult(request.out, scores.pictures, scores)


def export(request: requests.ExportRequest, progress: Progress) -> results.ExportResult:
    from ..avatar.avatar import load_avatar
    from ..avatar.export import export_frame, export_frames, frames_of
    from ..formats.track import load_track
    from ..splatting.ply import check_splat_name

    check_splat_name(request.out)
    frames = frames_of(request.frames) if request.frames else None
    check_writable(request.out)
    avatar = _shown(load_avatar(request.avatar), request.head_only)
    track = load_track(request.track, avatar.head_model)
    if frames is None:
        gaussians = export_frame(avatar, track, request.frame, request.out)
        return results.ExportResult(request.out, gaussians, request.frame)
    first, gaussians = export_frames(avatar, track, frames, request.out, progress)
    return results.ExportResult(first, gaussians, frames[0], len(frames))


def page(request: requests.PageRequest, progress: Progress) -> results.PageResult:
    from .web_pages import check_page_name, write_page

    check_page_name(request.out)
    check_writable(request.out)
    size = write_page(_load_avatar(request.avatar), request.avatar, request.out, progress)
    return results.PageResult(request.out, size / 1e6)


def report(request: requests.ReportRequest, progress: Progress) -> results.ReportResult:
    from ..tracking.after.report import write_report

    check_writable(request.out)
    summary = write_report(*_load_tracked_capture(request.capture), request.out, progress=progress)
    return results.ReportResult(request.out, summary)


def overlay(request: requests.OverlayRequest, progress: Progress) -> results.OverlayResult:
    from ..tracking.after.overlay import write_overlay

    check_writable(request.out)
    frames = write_overlay(*_load_tracked_capture(request.capture), request.out, progress=progress)
    return results.OverlayResult(request.out, frames)


def retarget(request: requests.RetargetRequest, progress: Progress) -> results.RetargetResult:
    from .retarget_files import retarget_files

    check_writable(request.out)
    made = retarget_files(request, progress)
    return results.RetargetResult(request.out, made.frame_count, made.fps)


def speak(request: requests.SpeakRequest, progress: Progress) -> results.SpeakResult:
    from .speak_files import speak_files

    check_writable(request.out)
    made = speak_files(request, progress)
    return results.SpeakResult(request.out, made.frame_count, made.fps)


def live(request: requests.LiveRequest, progress: Progress) -> results.LiveResult:
    progress.update("live", 0, 1)
    from ..live.watch import LiveFace, Watched, watch

    def report(face: LiveFace) -> None:
        progress.face(face.time, face.age, face.channels, face.head)

    def go_on(watched: Watched) -> bool:
        progress.raise_if_cancelled()
        return request.seconds is None or watched.seconds < request.seconds

    watched = watch(request.camera, report, go_on)
    spent = watched.durations
    return results.LiveResult(
        watched.frames,
        watched.faces,
        watched.passed_over,
        watched.seconds,
        {name: tuple(getattr(spent, name)) for name in ("capture", "detector", "smoothing", "whole")},
    )


def light(request: requests.LightRequest, progress: Progress) -> results.LightResult:
    progress.update("head light", 0, 1)
    from ..tracking.after.head_light import estimate_light
    from ..tracking.observe.light_fit import AXES, HALF_ANGLE, facing_average

    found = estimate_light(*_load_tracked_capture(request.capture), progress)

    def rows(values: Any) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(float(number) for number in row) for row in values)

    return results.LightResult(
        request.capture,
        rows(found.lamps),
        rows(found.lamp_colors),
        rows(found.ambient),
        rows(AXES),
        float(HALF_ANGLE),
        rows([facing_average(found)])[0],
    )


def batch(request: requests.BatchRequest, progress: Progress) -> results.BatchResult:
    from .batch.addresses import read_address
    from .batch.run import run_clips
    from .batch.sheet import read_sheet

    clips = read_sheet(request.sheet)
    address = read_address(request.cluster) if request.cluster else None
    # Machines of a cluster work in other folders than this one.
    out = request.output.absolute()
    check_writable(out / "batch.csv")
    return run_clips(clips, out, address, request.at_once, progress)


def doctor(request: requests.DoctorRequest, progress: Progress) -> results.DoctorResult | results.AvatarContents:
    from .doctor import examine, examine_avatar

    if request.avatar:
        return examine_avatar(request.avatar)
    findings = tuple(examine(request.device if request.check else None))
    broken = [finding for finding in findings if finding.state == results.BROKEN]
    if request.check and broken:
        raise EffigyError(" ".join(f"{finding.subject}: {finding.explanation}" for finding in broken))
    return results.DoctorResult(findings)


_FUNCTIONS: Final[dict[type[Request], Callable[[Any, Progress], results.Result]]] = {
    requests.CaptureRequest: capture,
    requests.TrackRequest: track,
    requests.TrainRequest: train,
    requests.RefineRequest: refine,
    requests.BakeRequest: bake,
    requests.EvaluateRequest: evaluate,
    requests.RenderRequest: render,
    requests.OrbitRequest: orbit,
    requests.ExtremesRequest: extremes,
    requests.ExportRequest: export,
    requests.PageRequest: page,
    requests.ReportRequest: report,
    requests.OverlayRequest: overlay,
    requests.RetargetRequest: retarget,
    requests.SpeakRequest: speak,
    requests.LiveRequest: live,
    requests.LightRequest: light,
    requests.BatchRequest: batch,
    requests.DoctorRequest: doctor,
}


def _load_avatar(path: Path) -> Avatar:
    from ..avatar.avatar import load_avatar
    from ..devices import choose_device

    return load_avatar(path, device=choose_device("auto"))


def _shown(avatar: Avatar, head_only: bool) -> Avatar:
    return avatar.without_bust() if head_only else avatar


def _load_tracked_capture(folder: Path) -> tuple[Capture, Track, HeadModel]:
    """A capture, its track and the head model that the track was made on."""
    from ..formats.capture import load_capture
    from ..formats.track import load_track
    from ..head.registry import find_head

    capture = load_capture(folder)
    track = load_track(folder / "track.npz")
    return capture, track, find_head(track.head_name, track.head_fingerprint, "The track")


def check_writable(target: Path) -> None:
    """Refuse a path that cannot be written, before any long work begins. Leaves nothing behind."""
    folder = target.parent
    try:
        # A name that the disk refuses is refused by any question about it.
        target.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
            raise as_effigy_error(error, target) from error
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        if error.errno == errno.ENOENT:
            # Folders of the kernel such as /proc answer so.
            error = OSError(errno.EACCES, "read-only")
        raise as_effigy_error(error, target) from error


def _sentence_for(error: OSError, output: Path | None) -> str:
    if missing := missing_library(error):
        return missing
    if error.errno == errno.ENOENT and error.filename:
        return f"There is no file {error.filename}."
    return str(as_effigy_error(error, Path(error.filename or output or "the output")))


def _is_out_of_memory(error: Exception) -> bool:
    # torch.OutOfMemoryError is recognised by its name: importing torch here would make every command slow.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "not enough memory" in str(error)
    )
