"""Derives the open head from MakeHuman's data and writes the file `assets/open_head.npz`, in FLAME's format and FLAME's
head space.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from backend.head.formats import save_head
from backend.head.model import EYE_L, EYE_R, JAW, LANDMARK_COUNT, NECK, ROOT, HeadModel

from .cut import Cut, cut_head
from .identity import align, make_sampler, principal_components
from .mpfb import MakeHuman
from .regions import find_regions
from .rig import eyeball_centres, find_hinge, jaw_correctives, opening_angle, regress, skinning_weights

HEADS = 1500
COMPONENTS = 150
HEADS_FOR_JOINTS = 80

MIDDLE_OF_NECK = (659, 18889)
"""Vertices of the base mesh half-way between which MakeHuman's second neck bone begins."""
SEED = 1

EYES_APART = 0.063
"""Metres between the eyeballs' centres of the template: an adult's mean, and FLAME's."""
EYES_AT = (0.0, 0.0229, 0.0249)
"""Metres: the point between the eyeballs' centres in FLAME's template, which fixes the origin of head space."""

ARKIT_NAMES = (
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
)
"""The order of the face detector's scores, less its neutral face, with `tongueOut` (which it does not score) last."""

log = logging.getLogger(__name__)


def derive_open_head(human: MakeHuman, heads: int = HEADS, components: int = COMPONENTS) -> HeadModel:
    cut = cut_head(human)
    skull = cut.parts["body"][cut.kept(human.bone_weights["head"])[cut.parts["body"]] > 0.9]

    # The points of each sampled head: vertices of the base mesh, then MakeHuman's joint markers.
    marker_groups = [human.group("joint-mouth"), np.array(MIDDLE_OF_NECK)]
    sampler = make_sampler(human, np.concatenate([cut.source, *marker_groups]))
    log.info("Sampling %d heads", heads)
    base = refined_heads(sampler.base[None], cut)[0]
    points = align(refined_heads(sampler.draw(heads, SEED), cut), base, skull)
    sampled = points[:, : cut.count]
    mean = _symmetric(sampled.mean(0), cut)
    log.info("Finding %d identity components", components)
    shape_basis = principal_components(sampled, mean, cut.mirror, components)

    expressions = expression_shapes(human, cut)
    opening = expressions[:, :, ARKIT_NAMES.index("jawOpen")]
    sideways = expressions[:, :, ARKIT_NAMES.index("jawLeft")]
    teeth = cut.parts["helper-lower-teeth"]
    hinge = find_hinge(base[: cut.count], opening, teeth)

    log.info("Placing joints")
    some = points[:HEADS_FOR_JOINTS]
    markers = np.split(some[:, cut.count :], np.cumsum([len(group) for group in marker_groups])[:-1], 1)
    jaw_markers, neck_markers = (points_of.mean(1) for points_of in markers)
    regressor = _joint_regressor(some[:, : cut.count], jaw_markers, neck_markers, hinge, base, cut)

    scale = EYES_APART / np.abs((regressor[EYE_L] - regressor[EYE_R]) @ mean)[0]
    between = (regressor[EYE_L] + regressor[EYE_R]) @ mean / 2
    template = (mean - between) * scale + EYES_AT
    opening, sideways = opening * scale, sideways * scale
    jaw_joint = regressor[JAW] @ template
    angle = opening_angle(template, opening, teeth, jaw_joint)
    skinning = skinning_weights(human, cut, template, opening, jaw_joint, angle)
    reach = template[teeth, 2].mean() - jaw_joint[2]
    pose_basis = jaw_correctives(
        template,
        skinning,
        jaw_joint,
        cut,
        opening,
        angle,
        sideways,
        float(np.arcsin(sideways[teeth, 0].mean() / reach)),
    )
    return HeadModel(
        name="Effigy open head",
        template=template.astype(np.float32),
        shape_basis=(shape_basis * scale).astype(np.float32),
        expression_basis=(expressions * scale).astype(np.float32),
        pose_basis=pose_basis.astype(np.float32),
        joint_regressor=regressor.astype(np.float32),
        skinning=skinning.astype(np.float32),
        faces=cut.faces,
        uv=cut.uv.astype(np.float32),
        uv_faces=cut.uv_faces,
        expression_names=ARKIT_NAMES,
        expression_range=(0.0, 1.0),
        regions=find_regions(human, cut),
        landmark_faces=np.full(LANDMARK_COUNT, -1, np.int32),
        landmark_barycentric=np.zeros((LANDMARK_COUNT, 3), np.float32),
    )


def expression_shapes(human: MakeHuman, cut: Cut) -> np.ndarray:
    """(N, 3, 52) metres, of MakeHuman's base mesh: left and right shapes made each other's exact mirror.

    The eyeballs are removed from the eyeLook shapes: the eye joints rotate them, and the shapes move only the lids.
    """
    raw = {name: cut.kept(human.expression(name)) for name in ARKIT_NAMES}
    eyes = np.concatenate([cut.parts["helper-l-eye"], cut.parts["helper-r-eye"]])
    shapes = []
    for name in ARKIT_NAMES:
        other = name.replace("Left", "Right") if "Left" in name else name.replace("Right", "Left")
        shape = (raw[name] + raw[other][cut.mirror] * (-1, 1, 1)) / 2
        shape[eyes] = 0
        shapes.append(shape)
    return np.stack(shapes, 2)


def _symmetric(vertices: np.ndarray, cut: Cut) -> np.ndarray:
    return (vertices + vertices[cut.mirror] * (-1, 1, 1)) / 2


def refined_heads(points: np.ndarray, cut: Cut) -> np.ndarray:
    """(H, M + K, 3) -> (H, N + K, 3): the cut's refined vertices in place of those of the base mesh; K markers stay."""
    taken = len(cut.source)
    return np.stack([np.concatenate([cut.refined @ head[:taken], head[taken:]]) for head in points])


def _joint_regressor(
    heads: np.ndarray, jaw_markers: np.ndarray, neck_markers: np.ndarray, hinge: np.ndarray, base: np.ndarray, cut: Cut
) -> np.ndarray:
    """(5, N). `base` holds the cut's vertices and then the jaw marker's eight; jawOpen rotates the jaw about
    `hinge`.
    """
    skin = np.setdiff1d(cut.parts["body"], np.concatenate(list(cut.islands.values())))
    regressor = np.zeros((5, cut.count))
    regressor[ROOT, cut.ring] = 1 / len(cut.ring)

    neck = neck_markers.mean(0)
    around = skin[np.abs(heads[:, skin, 1].mean(0) - neck[1]) < 0.012]
    around = around[heads[:, around, 2].mean(0) < neck[2] + 0.07]
    regressor[NECK] = regress(heads, neck_markers, around, cut)

    # MakeHuman's marker follows the sliders; the hinge of jawOpen keeps its distance from it.
    joints = jaw_markers + (hinge - base[cut.count : cut.count + 8].mean(0))
    level = np.abs(heads[:, skin, 1].mean(0) - joints[:, 1].mean()) < 0.04
    regressor[JAW] = regress(heads, joints, skin[level][::3], cut)
    regressor[JAW] = (regressor[JAW] + regressor[JAW][cut.mirror]) / 2
    regressor[NECK] = (regressor[NECK] + regressor[NECK][cut.mirror]) / 2

    eye = cut.parts["helper-l-eye"]
    regressor[EYE_L] = regress(heads, eyeball_centres(heads, eye), eye, cut)
    regressor[EYE_R] = regressor[EYE_L][cut.mirror]
    return regressor


def save_open_head(model: HeadModel, path: Path) -> None:
    """Bases in half precision: their steps are below 0.02 mm, and the file halves."""
    bases = ("shape_basis", "expression_basis", "pose_basis")
    halves = {name: getattr(model, name).astype(np.float16) for name in bases}
    save_head(replace(model, **halves), path)
