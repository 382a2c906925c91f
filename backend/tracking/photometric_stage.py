"""The photometric stage: person, lens and frames once more, now by the pictures themselves.

In rounds, coarse to fine: what the person looks like is learned under the track as it is (`appearance`), each frame is laid upon
that (`patches`), and identity, lenses, frames and the patches' places are solved anew. Then every frame of a clip is aligned to
what the last round saw. Nothing of it is learned from held-out frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..formats.capture import Capture
from ..head.model import HeadModel
from ..progress import Progress
from .detector.pose_bias import own_habits
from .model.frame_state import FrameState, predict
from .model.landmark_surface import LandmarkSurface
from .observe.albedo_and_light import Appearance, Lit, learn_appearance
from .observe.skin_samples import Skin, make_skin
from .solve.fit_frames import HALVINGS
from .solve.fit_person import ClipFrames, Person, fit_person
from .terms.landmarks import Evidence, as_seen
from .terms.skin_patches import Patches, find_patches

PERSON_BLURS = 3.0, 2.0, 2.0, 2.0
"""Pixels at 512: how finely the skin is looked at in each round. With true poses a blur of 2 tells a turn that is 7 % too small
from the true one best, 1 and 4 less well."""
PERSON_ITERATIONS = 4
ALIGNMENTS = 2
"""Times that every frame is laid upon the person: a patch's step goes two thirds of the way."""
LANDMARK_SHARE = 0.5
"""What landmarks weigh beside the skin, once it is known where the detector puts this person's. On rendered people 0.1, 0.5
and 1 give 1.46, 1.45 and 1.45 degrees, but they tremble by 0.24, 0.34 and 0.45 pixels; faces that move a lot need them: skin
that furrows does not look like skin that was learned."""


@dataclass(frozen=True)
class Likeness:
    """What a person looks like, and where each patch of skin lies on the head."""

    skin: Skin
    appearance: Appearance
    person: Person
    habits: torch.Tensor
    """(FEATURES, L, 2) metres: what the detector does to this person's points beside what it does to everybody's (`bias`)."""

    def align(self, clip: int, capture: Capture, state: FrameState, evidence: Evidence, progress: Progress) -> Patches:
        """The skin in all frames of clip number `clip`, looked for around where `state` has it."""
        lit = Lit(capture, state, np.arange(capture.frame_count), evidence)
        found = find_patches(self.skin, self.appearance, clip, lit, self.person.identity, progress)
        return found.of_person(self.person.identity, self.person.places)


def learn_likeness(
    model: HeadModel,
    surface: LandmarkSurface,
    directions: torch.Tensor,
    clips: Sequence[ClipFrames],
    captures: Sequence[Capture],
    which: Sequence[np.ndarray],
    person: Person,
    states: Sequence[FrameState],
    progress: Progress,
) -> Likeness:
    """From frames `which` of each capture, whose person landmarks told: `person`, and `states` of these frames."""
    skin = make_skin(model, states[0].face.device)
    total = len(PERSON_BLURS) * PERSON_ITERATIONS

    def lit() -> list[Lit]:
        return [
            Lit(capture, state, frames, replace(clip.evidence, focal=focal))
            for capture, state, frames, clip, focal in zip(captures, states, which, clips, person.focals, strict=True)
        ]

    for turn, blur in enumerate(PERSON_BLURS):

        def tell(done: int, energy: float, turn: int = turn) -> None:
            progress.update("skin", turn * PERSON_ITERATIONS + done, total, energy=energy)
            progress.raise_if_cancelled()

        seen = lit()
        appearance = learn_appearance(skin, person.identity, seen, blur)
        frames = [
            replace(clip, state=one.state, skin=find_patches(skin, appearance, index, one, person.identity))
            for index, (clip, one) in enumerate(zip(clips, seen, strict=True))
        ]
        person, states = fit_person(surface, directions, frames, PERSON_ITERATIONS, tell, person)
    appearance = learn_appearance(skin, person.identity, lit(), PERSON_BLURS[-1])
    return Likeness(skin, appearance, person, _own_habits(surface.of_person(person.identity), directions, lit()))


def _own_habits(surface: LandmarkSurface, directions: torch.Tensor, clips: Sequence[Lit]) -> torch.Tensor:
    """Frames whose poses the skin told say where the detector puts this person's points: so far beside their places, whatever
    the face does. Without that, landmarks are right only in what changes, and they must not weigh much."""
    parts = []
    for clip in clips:
        evidence, state = as_seen(clip.evidence, directions, clip.state, HALVINGS[-1]), clip.state
        error = evidence.seen - predict(surface, state, evidence.focal, evidence.centre, evidence.pivot).pixels
        origin = state.translation - state.rotation @ evidence.pivot
        parts.append((error, evidence.weights, state.rotation, origin, evidence.focal.expand(len(state))))
    return own_habits(*(torch.cat(part) for part in zip(*parts, strict=True)))
