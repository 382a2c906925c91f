"""Reads an avatar's file (.effigy) and poses it, with numpy alone: the reference for docs/format.md.

    python read_avatar.py avatar.effigy jawOpen=0.5 mouthSmileLeft=1

prints what the file holds and writes the Gaussians of that pose beside it, as an .npz file.
"""

import json
import sys
from pathlib import Path

import numpy as np

Array = np.ndarray
Tensors = dict[str, np.ndarray]
NECK, JAW, EYES, PARENTS = 1, 2, slice(3, 5), (-1, 0, 1, 1, 1)
C0, C1, C2 = 0.28209479177387814, 0.4886025119029199, (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)
DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I16": "<i2", "I32": "<i4", "I64": "<i8", "BOOL": "?"}
NETWORK = "networks.blendshapes."
LIMITS = ("networks.performed", "networks.filmed", f"{NETWORK}weight_limits")  # may be infinite
sigmoid = lambda x: 0.5 * np.tanh(0.5 * x) + 0.5
smooth = lambda x: np.clip(x, 0, 1) ** 2 * (3 - 2 * np.clip(x, 0, 1))
rotated = lambda q, points: multiplied(multiplied(q, np.insert(points, 0, 0, -1)), q * (1, -1, -1, -1))[..., 1:]
unit = lambda vectors: vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def read(path: Path) -> tuple[dict, Tensors]:
    """The file's own header, and its tensors by name; floats as float32. A damaged file is a ValueError or KeyError."""
    length = int.from_bytes((data := path.read_bytes())[:8], "little")
    entries, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header, tensors = json.loads(entries.pop("__metadata__")["effigy"]), {}
    for name, entry in entries.items():
        values = np.frombuffer(body[slice(*entry["data_offsets"])], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = values = values.astype(np.float32) if values.dtype.kind == "f" else values
        if values.dtype.kind == "f" and not (~np.isnan(values) if name in LIMITS else np.abs(values) < 1e6).all():
            raise ValueError(f"{name} holds numbers that no head has")
    if header.get("baked", {}).get("schema") != 1 or "sliders" not in header["baked"]:
        raise ValueError("it has no baked model of its own head, or one of a newer kind")
    starts, moved = tensors["baked.delta_starts"].astype(int), tensors["baked.delta_vertices"]
    below = (moved < 0).any() or (tensors.get("baked.turning", moved) < 0).any()
    if starts[0] or (np.diff(starts) < 0).any() or starts[-1] != len(moved) or below:
        raise ValueError("its deltas or its lips cannot be read")
    return header, tensors


def pose_of_sliders(header: dict, tensors: Tensors, values: dict[str, float]) -> tuple[Array, Array]:
    """{name: value} -> expression (E,) and joint rotations (5, 3), axis-angle."""
    names = header["baked"]["sliders"]
    if unknown := sorted(values.keys() - set(names)):
        sys.exit(f"There is no slider {unknown[0]}. Sliders: {', '.join(names)}.")
    closed = min(values.get("mouthClose", 0.0), max(values.get("jawOpen", 0.0), 0.0))
    weights = np.array([closed if name == "mouthClose" else values.get(name, 0.0) for name in names])
    turned = np.tensordot(weights, tensors["baked.slider_rotations"], 1)
    return weights @ tensors["baked.slider_expression"], np.concatenate((np.zeros((JAW, 3)), turned))


def to_matrix(rotation: Array) -> Array:
    """Axis-angle (3,) -> (3, 3), Rodrigues' formula."""
    angle, skew = np.linalg.norm(rotation), np.cross(np.eye(3), rotation)
    return np.eye(3) + np.sinc(angle / np.pi) * skew + 0.5 * np.sinc(0.5 * angle / np.pi) ** 2 * skew @ skew


def to_quaternion(matrix: Array) -> Array:
    """(3, 3) -> w, x, y, z: the eigenvector to the largest eigenvalue (Bar-Itzhack 2000), from the lower triangle."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    low = (a + e + i, 0, 0, 0), (h - f, a - e - i, 0, 0), (c - g, b + d, e - a - i, 0), (d - b, c + g, f + h, i - a - e)
    return np.linalg.eigh(low)[1][:, -1]


def multiplied(a: Array, b: Array) -> Array:
    """Quaternions (..., 4) and (..., 4): the rotation b followed by a."""
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    return np.concatenate((aw * bw - (av * bv).sum(-1, keepdims=True), aw * bv + bw * av + np.cross(av, bv)), -1)


def skinned(points: Array, weights: Array, motions: Array) -> tuple[Array, Array]:
    """Points (N, 3) and weights (N, J) of joints that move by (J, 4, 4): their places (N, 3) and turns (N, 4)."""
    places = np.einsum("nj,jab,nb->na", weights, motions, np.insert(points, 3, 1, -1), optimize=True)[:, :3]
    quaternions = np.array([to_quaternion(motion[:3, :3]) for motion in motions])
    # A quaternion and its negative are the same rotation: the signs are the neck's.
    return places, unit(weights @ np.where((quaternions @ quaternions[NECK])[:, None] < 0, -quaternions, quaternions))


def posed_head(tensors: Tensors, expression: Array, rotations: Array) -> tuple[Array, Array, Array]:
    """Vertices (N, 3), their turns (N, 4), and the joints' motions from rest (5, 4, 4) of a pose."""
    own, joints, vertices = [to_matrix(turn) for turn in rotations], tensors["baked.joints"], tensors["baked.vertices"]
    values = np.concatenate((expression, np.ravel(own[NECK:] - np.eye(3)))) * tensors["baked.delta_units"]
    steps = np.repeat(values, np.diff(tensors["baked.delta_starts"]))[:, None] * tensors["baked.delta_steps"]
    np.add.at(vertices := vertices.copy(), tensors["baked.delta_vertices"], steps)
    motions = np.tile(np.eye(4), (6, 1, 1))  # the last is that of the root's parent, which there is not
    motions[:5, :3, :3], motions[:5, :3, 3] = own, joints - np.einsum("jab,jb->ja", own, joints)
    for joint, parent in enumerate(PARENTS):
        motions[joint] = motions[parent] @ motions[joint]
    places, turns = skinned(vertices, tensors["baked.skinning"], motions[:5])
    for v, *ring in tensors.get("baked.turning", ()):  # the lips, which turn with the mesh around them
        rest, posed = (mesh[ring] - mesh[v] for mesh in (tensors["baked.vertices"], places))
        nearest = posed.T @ rest / max(np.square(rest).sum(), 1e-12) + 0.1 * rotated(turns[v], np.eye(3)).T
        turns[v] = to_quaternion(nearest) if np.linalg.det(nearest) > 1e-4 else turns[v]
    return places, turns, motions[:5]


def view_of(eyes: Array, turn: Array, eye: Array, ranges: Array) -> tuple[Array, Array]:
    """The view condition (3,), and the matrix (3, 3) from head space to the frame of the directions of view."""
    before = unit(turn.T @ (eyes - eye))
    yaw, pitch = np.clip((np.arctan2(before[0], -before[2]), np.arcsin(np.clip(before[1], -1, 1))), *ranges.T)
    after = np.array((np.sin(yaw) * np.cos(pitch), np.sin(pitch), -np.cos(yaw) * np.cos(pitch)))
    cosine, skew = before @ after, np.cross(np.eye(3), np.cross(before, after))
    nearest = np.eye(3) + skew + skew @ skew / max(1 + cosine, 1e-6)
    return after + (0, 0, 1), (np.diag((-1.0, 1, -1)) if cosine < -1 + 1e-5 else nearest) @ turn.T


def near_faces(tensors: Tensors, face: Array) -> Array:
    """A face (D,) -> the faces (R, D) of the head's regions."""
    faces, emphasis, reach = (tensors[f"{NETWORK}regions.{name}"] for name in ("faces", "emphasis", "reach"))
    distances = np.linalg.norm((face - faces) * emphasis[:, None], axis=2)
    nearest = distances.min(1)
    weights = np.exp((nearest[:, None] - distances) / (0.1 * np.maximum(nearest, 1e-6)[:, None]))
    share = smooth((nearest - reach[:, 0]) / (reach[:, 1] - reach[:, 0]))[:, None]
    return face + share * (weights / weights.sum(1, keepdims=True) @ faces - face)


def attributes_of(tensors: Tensors, degree: int, asked: Array, view: Array) -> Array:
    """The face (E + 9,) that is asked for and the view condition (3,) -> attributes (N, O)."""
    limits = tensors["networks.performed"]
    face, beyond = np.clip(asked, *limits), np.clip((asked - limits[1]) / 0.1 + 1, 0, 1)
    near, shares = [face], np.ones((1, 1))
    if f"{NETWORK}regions.reach" in tensors and tensors[f"{NETWORK}regions.reach"][0, 0] < 1e5:
        near, shares = near_faces(tensors, face), tensors[f"{NETWORK}regions.shares"]
    x, layer = np.concatenate((near, np.tile(view, (len(near), 1))), 1).T, 0
    while f"{NETWORK}mix.{layer}.weight" in tensors:
        x = np.where(x > 0, x, np.expm1(np.minimum(x, 0))) if layer else x
        x = tensors[f"{NETWORK}mix.{layer}.weight"] @ x + tensors[f"{NETWORK}mix.{layer}.bias"][:, None]
        layer += 2
    x = np.clip(x, *tensors[LIMITS[2]][..., None]) if LIMITS[2] in tensors else x
    out = tensors[f"{NETWORK}mean"].astype(np.float64)
    for weights, share in zip(x.T, shares.T, strict=True):
        out += share[:, None] * (tensors["baked.features"] @ np.tensordot(weights, tensors[f"{NETWORK}shapes"], 1))
    if f"{NETWORK}materials" in tensors:  # the mouth of the rig, as far as it was never filmed
        materials, rig = tensors[f"{NETWORK}materials"], np.zeros_like(out)
        rig[:, 6], rig[:, 10], rig[:, 11:14] = 1, 3, (materials[:, :3] - 0.5) / C0
        rig[:, 18 + 3 * (degree + 1) ** 2 :: 11] = 1
        out += smooth((beyond * tensors[f"{NETWORK}reveals"]).max()) * materials[:, 3:] * (rig - out)
    return out


def harmonics(degree: int, directions: Array) -> Array:
    """Unit directions (N, 3) -> (N, (degree + 1)²)."""
    (x, y, z), (xx, yy, zz) = directions.T, np.square(directions.T)
    functions = [np.full_like(x, C0), -C1 * y, C1 * z, -C1 * x]
    functions += [C2[0] * x * y, -C2[0] * y * z, C2[1] * (2 * zz - xx - yy), -C2[0] * x * z, C2[2] * (xx - yy)]
    functions += [-C3[0] * y * (3 * xx - yy), C3[1] * x * y * z, -C3[2] * y * (4 * zz - xx - yy)]
    functions += [C3[3] * z * (2 * zz - 3 * xx - 3 * yy), -C3[2] * x * (4 * zz - xx - yy)]
    functions += [C3[4] * z * (xx - yy), -C3[0] * x * (xx - 3 * yy)]
    return np.stack(functions[: (degree + 1) ** 2], -1)


def splats(header: dict, tensors: Tensors, pose: tuple[Array, Array], eye: Array, torso: Array | None) -> Tensors:
    """The Gaussians of a pose seen from `eye` (3,), those of the bust last. `torso` (4, 4): its motion from rest."""
    degree, k = header["settings"]["sh_degree"], header["settings"]["neural_per_anchor"]
    vertices, quaternions, motions = posed_head(tensors, *pose)
    eyes = np.einsum("jab,jb->ja", motions, np.insert(tensors["baked.joints"], 3, 1, -1))[EYES, :3].mean(0)
    view, to_view = view_of(eyes, motions[NECK, :3, :3], eye, tensors["networks.views"])
    out = attributes_of(tensors, degree, np.append(pose[0], pose[1][JAW:]), view)
    n, h, offsets = len(out), (degree + 1) ** 2, 0.01 * out[:, :3]
    scales = np.minimum(tensors["baked.base_scale"][:, None] * np.exp(out[:, 3:6]), 0.02)
    directions = unit((vertices - eye) @ to_view.T)
    colors = np.einsum("nh,nhc->nc", harmonics(degree, directions), out[:, 11 : 11 + 3 * h].reshape(n, h, 3))
    own, turn = out[:, 11 + 3 * h :].reshape(n, k, 11), quaternions[:, None]
    places = offsets[:, None] + tensors[f"{NETWORK}positions"] * scales[:, None]
    parts = {
        "means": (vertices + rotated(quaternions, offsets), vertices[:, None] + rotated(turn, places)),
        "quaternions": (multiplied(quaternions, unit(out[:, 6:10])), multiplied(turn, unit(own[..., 7:11]))),
        "scales": (scales, scales[:, None] * 2 * sigmoid(own[..., 4:7])),
        "opacities": (sigmoid(out[:, 10]), np.maximum(np.tanh(own[..., 0]), 0)),
        "colors": (np.maximum(colors + 0.5, 0), sigmoid(own[..., 1:4])),
    }
    found = {name: np.concatenate((a, b.reshape(n * k, *a.shape[1:]))) for name, (a, b) in parts.items()}
    if torso is not None and "baked.bust_means" in tensors:
        bust = {name: tensors[f"baked.bust_{name}"] for name in (*found, "weights")}
        bust["means"], turn = skinned(bust["means"], bust["weights"], np.stack((*motions[:2], torso)))
        bust["quaternions"] = multiplied(turn, unit(bust["quaternions"]))
        found = {name: np.concatenate((part, bust[name])) for name, part in found.items()}
    if not all(np.isfinite(part).all() for part in found.values()):
        raise ValueError("its Gaussians are nowhere")
    return found


if __name__ == "__main__":
    path, values = Path(sys.argv[1]), (word.split("=") for word in sys.argv[2:])
    try:
        header, tensors = read(path)
        pose = pose_of_sliders(header, tensors, {name: float(value) for name, value in values})
        found = splats(header, tensors, pose, eye=np.array((0, 0.02, 0.7)), torso=np.eye(4))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        sys.exit(f"{path} cannot be read as an avatar: {error or type(error).__name__}. See docs/format.md.")
    np.savez(path.with_suffix(".npz"), **found)
    sliders, count = len(header["baked"]["sliders"]), len(found["means"])
    print(f"{path.name}: {sliders} sliders, {count} Gaussians on {header['head_name']}")
