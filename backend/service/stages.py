"""How long work is shown to a user: the stages of the pipeline in words, which figures are shown, and the time left.

The pipeline reports each stage under a short name. The terminal and the worker both show the words from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STAGES: Final[dict[str, str]] = {
    # Capture
    "finding the head": "Finding the head",
    "cropping": "Cropping the frames to the head",
    # Tracking
    "tracker": "Preparing the tracker",
    "landmarks": "Placing the landmarks on the head model",
    "person": "Fitting the shape of the head",
    "frames": "Fitting pose and expression",
    "outline": "Finding the outline of the head",
    "irises": "Finding where the eyes look",
    "skin": "Aligning frames to the skin",
    "alignment": "Comparing the skin between frames",
    "head mattes": "Separating the head from the body",
    "torso": "Following the shoulders",
    # Reports on a track
    "head light": "Finding the light on the face",
    "report": "Drawing the report",
    "overlay": "Drawing the tracked head over the footage",
    # Lip sync
    "speech": "Listening to the speech",
    "curves": "Reading the curves of the mouth",
    # Live
    "live": "Watching the camera",
    # Training, evaluation and rendering
    "Reading frames": "Reading the frames",
    "Warm-up": "Warming up",
    "Training": "Training",
    "Training on": "Training in the fitted poses too",
    "Bust": "Adding the shoulders",
    "Evaluating": "Comparing the avatar with unseen frames",
    "Fitting poses again": "Fitting the avatar to the footage",
    "Scoring training frames": "Comparing the avatar with training frames",
    "Scoring the bust": "Comparing head and shoulders with unseen frames",
    "Finding the light": "Comparing the light with that of the first capture",
    "Looking for flicker": "Measuring flicker",
    "Rendering": "Rendering",
    "exporting": "Writing the Gaussians",
    "Expressions": "Rendering expressions",
    "Sliders": "Rendering and scoring sliders",
    "baking": "Trying the avatar in many poses",
    "weights": "Learning how poses blend its shapes",
}
"""Name of a stage -> what is being done."""

SOLVER_METRICS: Final = frozenset({"energy"})
"""Figures that mean something to the tracker's solver only and are not shown."""


def describe_stage(stage: str) -> str:
    """What is being done in a stage. A stage that is missing from the table is shown by its name."""
    return STAGES.get(stage, stage[:1].upper() + stage[1:])


def shown_metrics(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in SOLVER_METRICS}


@dataclass
class StageClock:
    """Speed and time left of one stage. Resumed work starts above zero, so only work done since then counts."""

    stage: str
    first: int
    """Units that were done when the stage was first reported."""
    started: float
    """Seconds, of the same clock as `now`."""

    def rate(self, done: int, now: float) -> float | None:
        """Units a second; None for the first half second of the stage and until a unit is done."""
        elapsed = now - self.started
        return (done - self.first) / elapsed if elapsed > 0.5 and done > self.first else None

    def seconds_left(self, done: int, total: int, now: float) -> float | None:
        rate = self.rate(done, now)
        return max(total - done, 0) / rate if rate else None
