"""The rig: positions of FLAME's five joints, skinning weights, and corrective shapes of the jaw.

MakeHuman's rig has 50 bones in the face; a FLAME head has one jaw. The skin that the jaw moves and the jaw's
axis are derived from the shape `jawOpen`, so that rotating the jaw bone and setting jawOpen open the mouth alike.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from scipy.sparse import coo_matrix, csr_matrix

from backend.head.model import EYE_L, EYE_R, JAW, NECK, ROOT

from .cut import Cut
from .mpfb import MakeHuman

NECK_SHARES = {"neck01": 0.2, "neck02": 0.6, "neck03": 0.9}
"""Weights of the neck joint for the skin of MakeHuman's three neck bones; spine and shoulders belong to the root. The
skin above moves with the head, so the rotation is distributed over the length of the neck as with the three bones."""

TORSO_BONES = ("spine", "clavicle", "shoulder", "breast", "upperarm")
HINGE_SOFTNESS = 0.004
"""Metres. Skin that a jaw rotation moves by less than this is assigned to the head, because its share is uncertain."""


def find_hinge(vertices: np.ndarray, opening: np.ndarray, teeth: np.ndarray) -> np.ndarray:
    """(3,) the point in the plane x = 0 about which the lower teeth, which are rigid, rotate in the shape jawOpen.

    `vertices` are the base mesh's, for whose teeth the shape was made.
    """
    before, after = vertices[teeth, 1:], (vertices + opening)[teeth, 1:]
    angle = _angle(before - before.mean(0), after - after.mean(0))
    turn = rotation(0, angle)[1:, 1:]
    return np.array([0.0, *np.linalg.solve(np.eye(2) - turn, after.mean(0) - turn @ before.mean(0))])


def opening_angle(vertices: np.ndarray, opening: np.ndarray, teeth: np.ndarray, joint: np.ndarray) -> float:
    """Radians: the rotation about X through `joint` that takes the lower teeth nearest to their positions in
    jawOpen.
    """
    return _angle((vertices[teeth] - joint)[:, 1:], (vertices[teeth] + opening[teeth] - joint)[:, 1:])


def _angle(start: np.ndarray, end: np.ndarray) -> float:
    """The rotation in the plane that takes points `start` (P, 2) nearest to `end`, both about the origin."""
    return float(np.arctan2((start[:, 0] * end[:, 1] - start[:, 1] * end[:, 0]).sum(), (start * end).sum()))


def rotation(axis: int, angle: float) -> np.ndarray:
    """(3, 3) right-handed rotation about a coordinate axis."""
    sine, cosine = np.sin(angle), np.cos(angle)
    one, two = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[one, one] = matrix[two, two] = cosine
    matrix[one, two], matrix[two, one] = -sine, sine
    return matrix


def skinning_weights(
    human: MakeHuman, cut: Cut, vertices: np.ndarray, opening: np.ndarray, joint: np.ndarray, angle: float
) -> np.ndarray:
    """(N, 5) symmetric skinning weights whose rows sum to one.

    A vertex's jaw weight is the share of the jaw's rotation by `angle` about `joint` that it follows in the shape
    jawOpen, `opening`.
    """
    bones = {name: cut.kept(weight) for name, weight in human.bone_weights.items()}
    total = np.maximum(sum(bones.values()), 1e-9)
    below = sum(weight for name, weight in bones.items() if name.startswith(TORSO_BONES))
    below = below + sum(bones[name] * (1 - share) for name, share in NECK_SHARES.items())
    root = np.clip(_symmetric(below / total, cut), 0, 1)

    displacement = (vertices - joint) @ rotation(0, angle).T + joint - vertices
    length = (displacement**2).sum(1)
    jaw = (displacement * opening).sum(1) / (length + HINGE_SOFTNESS**2) * (1 + HINGE_SOFTNESS**2 / length.max())
    jaw = _symmetric(np.clip(jaw, 0, 1), cut)
    skin = cut.parts["body"]
    jaw[skin] = np.minimum(_neighbour_mean(cut) @ jaw, 1)[skin]
    jaw[np.concatenate([cut.parts["helper-lower-teeth"], cut.parts["helper-tongue"]])] = 1
    jaw[cut.parts["helper-upper-teeth"]] = 0

    weights = np.zeros((len(vertices), 5))
    for part in ("helper-upper-teeth", "helper-lower-teeth", "helper-tongue"):
        root[cut.parts[part]] = 0
    weights[:, ROOT] = root
    weights[:, JAW] = (1 - root) * jaw
    weights[:, NECK] = (1 - root) * (1 - jaw)
    weights[cut.parts["helper-l-eye"]] = np.eye(5)[EYE_L]
    weights[cut.parts["helper-r-eye"]] = np.eye(5)[EYE_R]
    return weights


def _symmetric(values: np.ndarray, cut: Cut) -> np.ndarray:
    return (values + values[cut.mirror]) / 2


def _neighbour_mean(cut: Cut) -> csr_matrix:
    """(N, N) each vertex's mean of itself and of its neighbours: smooths the quantisation of the file format (0.1 mm)
    out of the weights.
    """
    one, two = cut.faces.ravel(), np.roll(cut.faces, -1, 1).ravel()
    count = cut.count
    matrix = coo_matrix((np.ones(len(one)), (one, two)), (count, count)).tocsr()
    matrix = ((matrix + matrix.T + coo_matrix((np.ones(count), (range(count), range(count))))) > 0).astype(float)
    return matrix.multiply(1 / matrix.sum(1)).tocsr()


def jaw_correctives(
    vertices: np.ndarray,
    skinning: np.ndarray,
    joint: np.ndarray,
    cut: Cut,
    opening: np.ndarray,
    opening_angle: float,
    sideways: np.ndarray,
    sideways_angle: float,
) -> np.ndarray:
    """(N, 3, 36) FLAME pose basis: with the jaw alone rotated by `opening_angle` about X, skinning gives the shape
    jawOpen exactly; rotated by `sideways_angle` about Y, it gives the part of jawLeft that jawRight mirrors.

    FLAME multiplies the basis with the entries of R - I of each joint. For a rotation about one axis, two of them are
    plus and minus the sine. The cosine's entries are left at zero, because skinning already moves the teeth along their
    arc.
    """
    basis = np.zeros((*vertices.shape, 36))
    for axis, angle, shape in ((0, opening_angle, opening), (1, sideways_angle, sideways)):
        jaw, turn = skinning[:, JAW], rotation(axis, angle)
        blended = np.eye(3) + jaw[:, None, None] * (turn - np.eye(3))
        shift = jaw[:, None] * (joint - turn @ joint)
        needed = np.linalg.solve(blended, (vertices + shape - shift)[..., None])[..., 0] - vertices
        if axis == 1:
            needed = (needed - needed[cut.mirror] * (-1, 1, 1)) / 2
        one, two = (axis + 1) % 3, (axis + 2) % 3
        first = 9 * (JAW - 1)
        basis[:, :, first + 3 * two + one] = needed / (2 * np.sin(angle))
        basis[:, :, first + 3 * one + two] = -needed / (2 * np.sin(angle))
    basis[np.abs(basis) < 1e-6] = 0
    return basis


def regress(heads: np.ndarray, joints: np.ndarray, candidates: np.ndarray, cut: Cut) -> np.ndarray:
    """(N,) non-negative weights, summing to one, that give `joints` (M, 3) from `heads` (M, N, 3); the solution is
    sparse.

    Non-negative least squares keeps a joint inside the hull of the vertices it follows, whatever the identity.
    """
    system = heads[:, candidates].transpose(0, 2, 1).reshape(-1, len(candidates))
    heavy = np.full((1, len(candidates)), 10.0)
    solution, _ = nnls(np.concatenate([system, heavy]), np.concatenate([joints.ravel(), [10.0]]))
    weights = np.zeros(cut.count)
    weights[candidates] = solution / solution.sum()
    return weights


def eyeball_centres(heads: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """(M, 3) centres of the spheres through the backs of eyeballs (their fronts bulge with the cornea)."""
    centres = []
    for points in heads[:, eye]:
        back = points[points[:, 2] < points[:, 2].mean() + 0.35 * np.ptp(points[:, 2])]
        solution = np.linalg.lstsq(np.c_[2 * back, np.ones(len(back))], (back**2).sum(1), rcond=None)[0]
        centres.append(solution[:3])
    return np.array(centres)
