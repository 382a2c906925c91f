"""The photometric stage: person, focal lengths and frames are fitted again, with the brightness of the skin.

It runs in rounds, coarse to fine. Each round learns the person's appearance under the current track
(`observe.albedo_and_light`), registers skin patches in every chosen frame (`terms.skin_patches`), and fits identity,
focal lengths, frames and the patches' offsets. Afterwards all frames of a clip are aligned to the last round's
appearance. Held-out frames do not contribute to the person or the appearance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..formats.capture import Capture
from ..head.model import HeadModel
from ..progress import Progress
from .detector.pose_bias import fit_person_bias
from .model.camera import Camera
from .model.frame_state import FrameState
from .model.prediction import predict
from .observe.albedo_and_light import PersonAppearance, learn_appearance
from .observe.skin_samples import PosedClip, Skin, make_skin
from .solve.fit_frames import ROBUST_SCALES
from .solve.fit_person import ClipFrames, Person, fit_person
from .terms.landmarks import LandmarkTerm
from .terms.skin_patches import SkinPatchTerm, register_patches

PERSON_BLURS = 3.0, 2.0, 2.0, 2.0
"""Pixels at 512: the blur of the images in each round. With the true poses of rendered people a blur of 2 distinguishes
a rotation that is 7 % too small from the true one best; 1 and 4 do less well."""
PERSON_ITERATIONS = 4
"""The largest number of iterations of fitting the person in each round."""
PREPARATION_UNITS = 4
"""Learning the skin's look and finding it in the frames takes, in each round, as long as so many iterations."""
ALIGNMENTS = 2
"""Times that every frame is registered and fitted again: one registration removes about two thirds of a pose error."""
LANDMARK_WEIGHT = 0.5
"""The landmarks' weight beside the skin patches, once the detector's bias for this person is known. On rendered people
0.1, 0.5 and 1 give 1.46, 1.45 and 1.45 degrees, but a jitter of 0.24, 0.34 and 0.45 pixels. Faces with much
expression need the landmarks, because furrowed skin differs from the learned appearance."""


@dataclass(frozen=True)
class PhotometricModel:
    """A person with their skin's appearance, to which the frames of a clip can be aligned."""

    skin: Skin
    appearance: PersonAppearance
    person: Person
    landmark_bias: Tensor
    """(FEATURES, L, 2) metres: the detector's bias for this person, beyond that for everybody
    (`detector.pose_bias`)."""

    def align(
        self,
        clip: int,
        capture: Capture,
        state: FrameState,
        camera: Camera,
        face_found: Tensor,
        progress: Progress,
    ) -> SkinPatchTerm:
        """Register the skin patches in all frames of clip number `clip`, starting from the poses in `state`."""
        posed = PosedClip(capture, state, np.arange(capture.frame_count), camera, face_found.cpu().numpy())

        def on_frame(done: int) -> None:
            progress.update("alignment", done, len(state))
            progress.raise_if_cancelled()

        registered = register_patches(self.skin, self.appearance, clip, posed, self.person.identity, on_frame)
        return registered.of_person(self.person.identity, self.person.patch_offsets)


def fit_photometric_model(
    model: HeadModel,
    clips: Sequence[ClipFrames],
    captures: Sequence[Capture],
    frames: Sequence[np.ndarray],
    person: Person,
    states: Sequence[FrameState],
    progress: Progress,
) -> PhotometricModel:
    """Run the rounds of the photometric stage.

    Args:
        model: The head model.
        clips: The frames of each clip that the person was fitted to.
        captures: The capture of each clip.
        frames: The indices (F,) of each clip's frames in its capture.
        person: The person as fitted to landmarks.
        states: The parameters of each clip's frames as fitted to landmarks.
        progress: Reports every iteration, and cancels.

    """
    units = PREPARATION_UNITS + PERSON_ITERATIONS
    total = len(PERSON_BLURS) * units
    progress.update("skin", 0, total)
    progress.raise_if_cancelled()
    skin = make_skin(model, states[0].face.device)

    def posed_clips() -> list[PosedClip]:
        return [
            PosedClip(capture, state, chosen, clip.camera.with_focal(focal), clip.landmarks.face_found.cpu().numpy())
            for capture, state, chosen, clip, focal in zip(captures, states, frames, clips, person.focals, strict=True)
        ]

    for round_number, blur in enumerate(PERSON_BLURS):

        def on_iteration(iteration: int, round_number: int = round_number) -> None:
            progress.update("skin", round_number * units + PREPARATION_UNITS + iteration, total)
            progress.raise_if_cancelled()

        posed = posed_clips()
        appearance = learn_appearance(skin, person.identity, posed, blur)
        with_skin = [
            replace(clip, state=one.state, skin=register_patches(skin, appearance, index, one, person.identity))
            for index, (clip, one) in enumerate(zip(clips, posed, strict=True))
        ]
        person, states = fit_person(with_skin, PERSON_ITERATIONS, on_iteration, person)
    posed = posed_clips()
    appearance = learn_appearance(skin, person.identity, posed, PERSON_BLURS[-1])
    return PhotometricModel(skin, appearance, person, _landmark_bias([clip.landmarks for clip in clips], posed, person))


def _landmark_bias(landmarks: Sequence[LandmarkTerm], clips: Sequence[PosedClip], person: Person) -> Tensor:
    """The detector's bias for this person (FEATURES, L, 2) metres, from frames whose poses the skin patches determined.
    Without it the landmarks would have constant errors and show only changes reliably, so they could get little weight.
    """
    parts = []
    for term, clip in zip(landmarks, clips, strict=True):
        state, camera = clip.state, clip.camera
        current = term.reweighted(state, camera, ROBUST_SCALES[-1])
        surface = term.generic_surface.of_person(person.identity)
        error = current.unbiased - predict(surface, state, camera)
        origin = state.translation - state.rotation @ camera.pivot
        parts.append((error, current.weights, state.rotation, origin, camera.focal.expand(len(state))))
    return fit_person_bias(*(torch.cat(part) for part in zip(*parts, strict=True)))
