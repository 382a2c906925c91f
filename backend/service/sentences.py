"""The results of commands in words: what the command line prints at the end, and what a job reports to Blender."""

from __future__ import annotations

import math
from functools import singledispatch
from statistics import median

from . import results


@singledispatch
def describe(result: results.Result) -> str:
    """One or more lines about a finished command."""
    raise TypeError(f"There are no words for {type(result).__name__}.")


@describe.register
def _(result: results.CaptureResult) -> str:
    return (
        f"{result.capture}: {result.frames} frames of {result.size}×{result.size}, {result.good_frames} of them good."
        + (f"\n{result.findings}" if result.findings else "")
    )


@describe.register
def _(result: results.TrackResult) -> str:
    return "\n".join(_describe_track(track) for track in result.tracks)


def _describe_track(track: results.TrackSummary) -> str:
    typically = (
        f"; typically {track.residual:.2f} px of {track.size} from the detector's landmarks"
        if track.residual is not None
        else ""
    )
    return f"{track.track}: {track.reliable_frames} of {track.frames} frames are reliable{typically}."


@describe.register
def _(result: results.TrainResult) -> str:
    trained = f"{result.avatar}: {result.gaussians} Gaussians in {result.megabytes:.1f} MB."
    return trained if result.playable is None else f"{trained} {result.playable} plays without the backend."


@describe.register
def _(result: results.RefineResult) -> str:
    return (
        f"{result.track}: {result.frames} frames fitted. The avatar's images differ from the footage by "
        f"{100 * result.difference:.2f} % of the brightness, before by {100 * result.difference_before:.2f} %."
    )


@describe.register
def _(result: results.BakeResult) -> str:
    return (
        f"{result.avatar}: {result.megabytes:.1f} MB. In random poses its images differ from those of the networks by "
        f"a PSNR of {result.decibels:.1f} dB."
    )


@describe.register
def _(result: results.EvaluateResult) -> str:
    return f"{result.metrics_file}:\n{result.metrics}"


@describe.register
def _(result: results.EvaluateSeveralResult) -> str:
    last = f"{result.metrics_file}: the figures of all {len(result.captures)} captures."
    return "\n\n".join([*map(describe, result.captures), last])


@describe.register(results.RenderResult)
@describe.register(results.OrbitResult)
def _(result: results.RenderResult | results.OrbitResult) -> str:
    return f"{result.out}: {result.frames} frames of {result.size}×{result.size}."


@describe.register
def _(result: results.ExtremesResult) -> str:
    return f"{result.out}: {result.heads} heads." if result.scores is None else f"{result.out}: {result.scores}"


@describe.register
def _(result: results.ExportResult) -> str:
    if result.files > 1:
        return (
            f"{result.out} and {result.files - 1} more: up to {result.gaussians} Gaussians in each, frames "
            f"{result.frame} to {result.frame + result.files - 1}."
        )
    return f"{result.out}: {result.gaussians} Gaussians of frame {result.frame}."


@describe.register
def _(result: results.PageResult) -> str:
    return f"{result.out}: {result.megabytes:.1f} MB, to open in a browser."


@describe.register
def _(result: results.ReportResult) -> str:
    return f"{result.out}: {result.summary}"


@describe.register
def _(result: results.OverlayResult) -> str:
    return f"{result.out}: {result.frames} frames."


@describe.register
def _(result: results.LiveResult) -> str:
    spent = ", ".join(f"{name} {median(times):.1f}" for name, times in result.milliseconds.items() if times)
    return (
        f"{result.frames} frames in {result.seconds:.1f} s, {result.faces} of them with a face; {result.passed_over} "
        f"were passed over. Milliseconds (median): {spent or 'none'}."
    )


@describe.register
def _(result: results.LightResult) -> str:
    if not result.lamps:
        return f"{result.capture}: even light from all around."
    strongest = sum(result.lamp_colors[0])
    others = [
        f"; {_place_of(lamp)}, {100 * sum(color) / strongest:.0f} % as strong"
        for lamp, color in zip(result.lamps[1:], result.lamp_colors[1:], strict=True)
    ]
    return f"{result.capture}: light from {_place_of(result.lamps[0])}{''.join(others)}; and from all around."


def _place_of(lamp: tuple[float, ...]) -> str:
    """How many degrees a direction in OpenCV's axes lies beside and above the line from the face to the camera."""
    right, down, away = lamp
    side, up = math.degrees(math.atan2(right, -away)), math.degrees(math.asin(max(-1.0, min(1.0, -down))))
    beside, above = "right" if side > 0 else "left", "above" if up > 0 else "below"
    return f"{abs(side):.0f}° {beside} of the camera and {abs(up):.0f}° {above} it"


@describe.register
def _(result: results.RetargetResult | results.SpeakResult) -> str:
    return f"{result.out}: {result.frames} frames at {float(result.fps):g} a second."


@describe.register
def _(result: results.BatchResult) -> str:
    from .tables import batch_table

    return f"{batch_table(result.rows)}\n{result.table}: {len(result.rows)} clips, {result.failed} of them not done."


@describe.register
def _(result: results.DoctorResult) -> str:
    from .tables import findings_table

    return findings_table(result.findings)


@describe.register
def _(result: results.AvatarContents) -> str:
    from .tables import contents_table

    training = ", ".join(f"{name} {value}" for name, value in result.metrics.items())
    return (
        f"{result.avatar}: {result.gaussians} Gaussians on the head model “{result.head_name}”"
        + (f"; {training}" if training else "")
        + f".\n{contents_table(result)}"
    )
