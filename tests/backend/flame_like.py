"""Heads in FLAME's file format that can open their mouths, and have nothing in them.

One is the open head without teeth, tongue and the mouth's wall. The other has FLAME's real topology; as FLAME's own
weights are not to be had here, the open head's stand in, by the nearest vertices.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from scipy.spatial import KDTree

from backend.head.added_mouth import mouth_contour
from backend.head.formats import load_head
from backend.head.model import JAW, NECK
from backend.head.mouth import mouth_parts
from backend.head.regions import align_heads
from backend.head.topology import mesh_edges, smooth_values

KINEMATIC_TREE: Final = np.array(((-1, 0, 1, 1, 1), (0, 1, 2, 3, 4)))
LIPS: Final = 0.035
"""Metres from the centre of the opening behind the lips within which vertices belong to them."""


def write_without_mouth(out: Path) -> None:
    """Write the open head without its mouth inside as a FLAME `.npz`, with ten of its identity components."""
    model = load_head()
    parts = np.concatenate(list(mouth_parts(model).values()))
    faces = model.faces[~np.isin(model.faces, parts).all(1)]
    kept, faces = np.unique(faces, return_inverse=True)
    regressor = model.joint_regressor[:, kept]
    np.savez(
        out,
        v_template=model.template[kept],
        shapedirs=model.shape_basis[kept][..., :10],
        exprdirs=model.expression_basis[kept],
        posedirs=model.pose_basis[kept],
        weights=model.skinning[kept],
        J_regressor=regressor / regressor.sum(1, keepdims=True),
        f=faces.reshape(-1, 3),
        kintree_table=KINEMATIC_TREE,
    )


def write_flame_like(topology: Path, out: Path) -> None:
    """Write a FLAME `.npz` with all arrays of one, and without motion in its expression."""
    source, model = load_head(), load_head(topology)
    scale, rotation, shift = align_heads(source, model)
    vertices = scale * source.template @ rotation.T + shift
    skin = np.setdiff1d(np.arange(len(vertices)), source.regions["mouth_inside"])
    weights = source.skinning[skin][KDTree(vertices[skin]).query(model.template)[1]].copy()
    # On closed lips the nearest vertex may be of the other lip: there, weights are smooth between the two halves of the
    # opening behind the lips, and the skin around them.
    loop = mouth_contour(model)
    start = np.roll(loop, -int(np.argmin(model.template[loop, 0])))
    corner = int(np.argmax(model.template[start, 0]))
    upper, lower = sorted((start[1:corner], start[corner + 1 :]), key=lambda half: -model.template[half, 1].mean())
    known = (np.linalg.norm(model.template - model.template[loop].mean(0), axis=1) > LIPS).astype(np.float64)
    known[loop] = 1
    weights[loop] = 0
    weights[loop, JAW] = 0.5
    weights[upper, JAW], weights[lower, JAW] = 0, 1
    weights[loop, NECK] = 1 - weights[loop, JAW]
    edges = mesh_edges(model.faces)[0]
    weights = smooth_values(edges, np.ones(len(edges)), 1e3 * known + 1e-6, 1e3 * known[:, None] * weights)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    # Each lip follows its own bone, almost to the corners.
    lips = known == 0
    jaw = np.clip((weights[lips, JAW] - 0.3) / 0.4, 0, 1)
    weights[lips] = 0
    weights[lips, JAW] = jaw
    weights[lips, NECK] = 1 - weights[lips, JAW]
    regressor = np.zeros((5, len(model.template)), np.float32)
    joints = scale * (source.joint_regressor @ source.template) @ rotation.T + shift
    for joint, nearest in enumerate(KDTree(model.template).query(joints, 40)[1]):
        # The smallest weights whose sum is one, and whose mean of the vertices is the joint.
        system = np.c_[model.template[nearest], np.ones(len(nearest))].T
        regressor[joint, nearest] = np.linalg.lstsq(system, np.r_[joints[joint], 1], rcond=None)[0]
    with np.load(topology) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(
        out,
        **arrays,
        exprdirs=np.zeros((len(model.template), 3, 1), np.float32),
        weights=weights,
        J_regressor=regressor,
        posedirs=np.zeros((len(model.template), 3, 36), np.float32),
        kintree_table=KINEMATIC_TREE,
    )
