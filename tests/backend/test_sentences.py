"""What a finished command says on the command line, and what a job answers to Blender."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.service import results
from backend.service.job_specs import answer_of
from backend.service.sentences import describe
from backend.service.tables import batch_table

OUT = Path("/films/out")
SURE = results.TrackSummary(Path("/a.capture"), Path("/a.capture/track.npz"), 90, 80, 1.234, 512)
LOST = results.TrackSummary(Path("/b.capture"), Path("/b.capture/track.npz"), 5, 0, None, 256)


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (results.CaptureResult(OUT, 90, 80, 512), "/films/out: 90 frames of 512×512, 80 of them good."),
        (
            results.TrackResult((SURE, LOST)),
            "/a.capture/track.npz: 80 of 90 frames are reliable; typically 1.23 px of 512 from the detector's "
            "landmarks.\n/b.capture/track.npz: 0 of 5 frames are reliable.",
        ),
        (results.TrainResult(OUT, 15000, 3.25), "/films/out: 15000 Gaussians in 3.2 MB."),
        (
            results.TrainResult(OUT, 15000, 3.25, Path("/played")),
            "/films/out: 15000 Gaussians in 3.2 MB. /played plays without the backend.",
        ),
        (results.RenderResult(Path("/a"), OUT, 7, 512), "/films/out: 7 frames of 512×512."),
        (results.OrbitResult(OUT, 150, 256), "/films/out: 150 frames of 256×256."),
        (results.ExtremesResult(OUT, 53), "/films/out: 53 heads."),
        (results.ExportResult(OUT, 15000, 12), "/films/out: 15000 Gaussians of frame 12."),
        (results.OverlayResult(OUT, 90), "/films/out: 90 frames."),
        (results.RetargetResult(OUT, 90, Fraction(30000, 1001)), "/films/out: 90 frames at 29.97 a second."),
        (results.SpeakResult(OUT, 90, Fraction(24)), "/films/out: 90 frames at 24 a second."),
        (results.ReportResult(OUT, "A summary."), "/films/out: A summary."),
        (results.EvaluateResult(OUT, Path("/sheet"), "A table."), "/films/out:\nA table."),
        (
            results.LightResult(OUT, ((0.6, 0, -0.8), (-0.8, -0.6, 0)), ((2, 2, 2), (1, 1, 1)), (), (), 1.0, (1, 1, 1)),
            "/films/out: light from 37° right of the camera and 0° below it; 90° left of the camera and 37° above it, "
            "50 % as strong; and from all around.",
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_finished_command_says_what_it_made(result: results.Result, sentence: str) -> None:
    assert describe(result) == sentence


def test_a_result_without_words_is_a_defect() -> None:
    with pytest.raises(TypeError, match="no words for SimpleNamespace"):
        describe(SimpleNamespace())


@pytest.mark.parametrize(
    ("result", "figures"),
    [
        (
            results.TrackResult((SURE, LOST)),
            {
                "capture": "/a.capture",
                "track": "/a.capture/track.npz",
                "frames": 90,
                "sure": 80,
                "residual": 1.234,
                "size": 512,
            },
        ),
        (results.TrainResult(OUT, 15000, 3.25), {"avatar": "/films/out"}),
        (results.BakeResult(OUT, 2.3, 38.5), {"avatar": "/films/out"}),
        (results.EvaluateResult(OUT, Path("/sheet"), "A table."), {"metrics": "/films/out", "sheet": "/sheet"}),
        (results.RenderResult(Path("/a"), OUT, 7, 512), {"avatar": "/a", "out": "/films/out"}),
        (results.RetargetResult(OUT, 90, Fraction(25)), {"out": "/films/out"}),
        (results.SpeakResult(OUT, 90, Fraction(25)), {"out": "/films/out"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_job_answers_with_all_sentences_and_the_last_results_figures(
    result: results.Result, figures: dict[str, object]
) -> None:
    first = results.CaptureResult(OUT, 90, 80, 512, 0.6)
    answer = answer_of([first, result])
    assert answer == {"said": [describe(first), describe(result)], "sound_start": 0.6} | figures


def test_a_result_that_no_job_has_is_a_defect() -> None:
    with pytest.raises(TypeError, match="not the result of a job"):
        answer_of([results.ExtremesResult(OUT, 53)])


def test_a_batch_counts_what_is_not_done_and_shows_figures_or_dashes() -> None:
    rows = (
        results.BatchRow("anna.mp4", "done", 90, 80, 12.34, 25.678, 22.1, 3.25),
        results.BatchRow("[ben].mp4", "failed", reason="No face."),
        results.BatchRow("cleo.mp4", "waiting"),
    )
    assert describe(results.BatchResult(OUT, Path("/table.csv"), rows)).endswith(
        "/table.csv: 3 clips, 2 of them not done."
    )
    lines = [line.split() for line in batch_table(rows).splitlines()]
    assert lines[0][:4] == ["Clip", "frames", "reliable", "minutes"]
    assert lines[1] == ["anna.mp4", "90", "80", "12.3", "25.68", "22.10", "3.2", "done"]
    assert lines[2] == ["[ben].mp4", *["–"] * 6, "failed:", "No", "face."]
    assert lines[3] == ["cleo.mp4", *["–"] * 6, "waiting"]
