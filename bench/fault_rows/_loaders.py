"""Every loader of the backend with a small real file for it, as rows and tests try them.

Samples are the files of Effigy 0.1 that the tests keep, and files that are made from them. Each loader is given the
folder that `make_samples` has filled, in which one file may have been changed.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import wave
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

FILES: Final = Path(__file__).resolve().parents[2] / "tests" / "files_of_0_1"
FRAMES: Final = 8
"""Of the video and of the table."""


@dataclass(frozen=True)
class Loader:
    """A way by which the backend reads a file."""

    name: str
    file: str
    """Path of the file in the folder of samples."""
    read: Callable[[Path], object]
    """Reads the file in a folder of samples."""


def loaders() -> tuple[Loader, ...]:
    """All of them. The packages that they need are imported here."""
    from backend.avatar.avatar import file_parts, load_avatar
    from backend.footage.decode import probe, read_frames
    from backend.formats.calibration import load_cameras
    from backend.formats.capture import load_capture, read_frame, read_matte
    from backend.formats.track import load_track
    from backend.head.formats import load_head
    from backend.head.registry import known_files
    from backend.head.restricted_pickle import load_restricted_pickle
    from backend.retargeting.curves import read_performance
    from backend.service.batch.addresses import read_address
    from backend.service.batch.attempt import Attempt
    from backend.service.batch.sheet import read_sheet
    from backend.service.batch.stamps import find_stamp
    from backend.speech.phone_tables import read_phone_table
    from backend.speech.sound import read_sound
    from backend.splatting.ply import read_ply
    from backend.training.checkpoint import load_checkpoint

    small, open_head = load_head(FILES / "small_head.npz"), load_head()

    def footage(path: Path) -> None:
        probe(path)
        for _ in read_frames(path, max_frames=FRAMES):
            pass

    def registry(folder: Path) -> None:
        os.environ["EFFIGY_USER"] = str(folder)
        known_files()

    def avatar(folder: Path) -> None:
        load_avatar(folder / "person.effigy", small)
        file_parts(folder / "person.effigy")

    return (
        Loader("video", "clip.mp4", lambda folder: footage(folder / "clip.mp4")),
        Loader("photograph .jpg", "person.jpg", lambda folder: footage(folder / "person.jpg")),
        Loader("photograph .png", "person.png", lambda folder: footage(folder / "person.png")),
        Loader("photograph .tif", "person.tif", lambda folder: footage(folder / "person.tif")),
        Loader("image .exr", "person.exr", lambda folder: footage(folder / "person.exr")),
        Loader("capture.json", "person.capture/capture.json", lambda folder: load_capture(folder / "person.capture")),
        Loader("landmarks", "person.capture/landmarks.npz", lambda folder: load_capture(folder / "person.capture")),
        Loader(
            "frame",
            "person.capture/frames/000000.jpg",
            lambda folder: read_frame(load_capture(folder / "person.capture"), 0),
        ),
        Loader(
            "matte",
            "person.capture/mattes/000000.png",
            lambda folder: read_matte(load_capture(folder / "person.capture"), 0),
        ),
        Loader("cameras", "transforms.json", lambda folder: load_cameras(folder / "transforms.json")),
        Loader("track", "track.npz", lambda folder: load_track(folder / "track.npz")),
        Loader("head .npz", "head.npz", lambda folder: load_head(folder / "head.npz")),
        Loader("head .pkl", "flame.pkl", lambda folder: load_head(folder / "flame.pkl")),
        Loader("pickle", "flame.pkl", lambda folder: load_restricted_pickle(folder / "flame.pkl")),
        Loader("avatar", "person.effigy", avatar),
        Loader(
            "checkpoint",
            "stopped.effigy.checkpoint",
            lambda folder: load_checkpoint(folder / "stopped.effigy.checkpoint"),
        ),
        Loader(
            "performance", "performance.csv", lambda folder: read_performance(folder / "performance.csv", open_head)
        ),
        Loader(
            "performance .json",
            "performance.json",
            lambda folder: read_performance(folder / "performance.json", open_head),
        ),
        Loader(
            "performance .txt",
            "performance.txt",
            lambda folder: read_performance(folder / "performance.txt", open_head),
        ),
        Loader("sound", "line.wav", lambda folder: read_sound(folder / "line.wav")),
        Loader("phone table", "line.TextGrid", lambda folder: read_phone_table(folder / "line.TextGrid")),
        Loader("phone table .json", "line.json", lambda folder: read_phone_table(folder / "line.json")),
        Loader("phone table .pgo", "line.pgo", lambda folder: read_phone_table(folder / "line.pgo")),
        Loader("phone table .dat", "line.dat", lambda folder: read_phone_table(folder / "line.dat", rate=24.0)),
        Loader("sheet", "sheet.csv", lambda folder: read_sheet(folder / "sheet.csv")),
        Loader("Gaussians", "splats.ply", lambda folder: read_ply(folder / "splats.ply")),
        Loader("list of head models", "heads.json", registry),
        Loader("stamp", "stage.stamp", lambda folder: find_stamp(folder / "stage.stamp", "key", ())),
        Loader("note of an attempt", "stage.attempt", lambda folder: Attempt(folder / "stage.attempt", "key")),
        Loader("list of machines", "hosts.txt", lambda folder: read_address(f"ssh:{folder / 'hosts.txt'}")),
        Loader("Slurm's options", "slurm.yaml", lambda folder: read_address(f"slurm:{folder / 'slurm.yaml'}")),
    )


def make_samples(folder: Path) -> None:
    """Fill `folder` with the files that `loaders()` name."""
    import av
    import cv2
    import numpy as np
    import OpenEXR

    from backend.assets import asset_path
    from backend.avatar.avatar import load_avatar
    from backend.avatar.export import export_frame
    from backend.footage.detector import SCORE_NAMES
    from backend.formats.track import load_track
    from backend.head.formats import load_head

    folder.mkdir(parents=True, exist_ok=True)
    for name, source in (("head.npz", "small_head.npz"), ("track.npz", "person.capture/track.npz")):
        shutil.copyfile(FILES / source, folder / name)
    for name in ("person.effigy", "stopped.effigy.checkpoint"):
        shutil.copyfile(FILES / name, folder / name)
    shutil.copytree(FILES / "person.capture", folder / "person.capture", copy_function=shutil.copyfile)
    images = []
    with av.open(str(asset_path("demo.mp4"))) as film:
        for frame in film.decode(video=0):
            images.append(cv2.resize(frame.to_ndarray(format="bgr24"), (256, 256), interpolation=cv2.INTER_AREA))
            if len(images) == FRAMES:
                break
    for suffix in ("jpg", "png", "tif"):
        (folder / f"person.{suffix}").write_bytes(cv2.imencode(f".{suffix}", images[0][::2, ::2])[1].tobytes())
    light = (images[0][::2, ::2, ::-1] / 255).astype(np.float16)
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, {"RGB": light}).write(
        str(folder / "person.exr")
    )
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "28"})
        stream.width = stream.height = 256
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    small = load_head(FILES / "small_head.npz")
    (folder / "flame.pkl").write_bytes(pickle.dumps(flame_arrays(small), 2))
    rows = [["Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in SCORE_NAMES), "HeadYaw"]]
    for row in range(FRAMES):
        numbers = [f"{0.1 * abs(np.sin(row + column)):.6f}" for column in range(len(SCORE_NAMES) + 1)]
        rows.append([f"10:00:00:{row:02d}.000", "61", *numbers])
    (folder / "performance.csv").write_text("".join(",".join(row) + "\n" for row in rows), "utf-8")
    weights = [[float(number) for number in row[2:-1]] for row in rows[1:]]
    audio2face = {"exportFps": 60.0, "numFrames": FRAMES, "facsNames": list(SCORE_NAMES), "weightMat": weights}
    (folder / "performance.json").write_text(json.dumps(audio2face), "utf-8")
    face_cap = [
        "info,1.2,iPhone10;3,52",
        ",".join(("bs", *SCORE_NAMES)),
        *(",".join(("k", str(17 * row), *["0.1"] * 10, *map(str, numbers))) for row, numbers in enumerate(weights)),
    ]
    (folder / "performance.txt").write_text("\n".join(face_cap), "utf-8")
    with wave.open(str(folder / "line.wav"), "wb") as line:
        line.setparams((1, 2, 16_000, 0, "NONE", ""))
        line.writeframes((8000 * np.sin(np.arange(8000) / 10)).astype(np.int16).tobytes())
    cues = [{"start": 0.1, "end": 0.3, "value": "A"}, {"start": 0.3, "end": 0.5, "value": "D"}]
    (folder / "line.json").write_text(json.dumps({"metadata": {"duration": 0.5}, "mouthCues": cues}), "utf-8")
    (folder / "line.pgo").write_text(
        "lipsync version 1\nline.wav\n24\n12\n1\n\tVoice 1\n\tMow.\n\t1\n\t\tMow.\n\t\t2\n\t\t11\n\t\t1\n"
        "\t\t\tMow. 2 11 2\n\t\t\t\t2 MBP\n\t\t\t\t7 O\n",
        "utf-8",
    )
    (folder / "line.dat").write_text("MohoSwitch1\n1 rest\n3 MBP\n8 O\n13 rest\n", "utf-8")
    (folder / "line.TextGrid").write_text(
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
        '0\n0.5\n<exists>\n1\n"IntervalTier"\n"phones"\n0\n0.5\n3\n'
        '0\n0.1\n""\n0.1\n0.3\n"m"\n0.3\n0.5\n"au"\n',
        "utf-8",
    )
    (folder / "sheet.csv").write_text("name,footage,size,start,evaluate\nann,clip.mp4,64,0,yes\n", "utf-8")
    export_frame(
        load_avatar(folder / "person.effigy", small), load_track(folder / "track.npz"), 0, folder / "splats.ply"
    )
    camera = {"file_path": "a.png", "transform_matrix": np.eye(4).tolist(), "k1": 0.01}
    cameras = {"camera_model": "OPENCV", "fl_x": 900, "cx": 400, "cy": 300, "w": 800, "h": 600, "frames": [camera]}
    (folder / "transforms.json").write_text(json.dumps(cameras), "utf-8")
    (folder / "heads.json").write_text(json.dumps({small.fingerprint: str(FILES / "small_head.npz")}), "utf-8")
    stamp = {"schema": 1, "key": "key", "run": "1", "seconds": 1.5, "figures": {"frames": 8}, "outputs": {}}
    (folder / "stage.stamp").write_text(json.dumps(stamp), "utf-8")
    (folder / "stage.attempt").write_text(json.dumps({"key": "key", "seconds": 2.5}), "utf-8")
    (folder / "hosts.txt").write_text("ann@one:22 gpu\ntwo python=/usr/bin/python3  # mine\n", "utf-8")
    (folder / "slurm.yaml").write_text("cores: 4\nmemory: 8GB\nqueue: render\n", "utf-8")


def flame_arrays(model: Any) -> dict[str, Any]:
    """A head model under FLAME's names, with as many identity and expression components as FLAME has."""
    import numpy as np
    import scipy.sparse

    random = np.random.default_rng(0)
    return {
        "v_template": model.template.astype(np.float64),
        "f": model.faces.astype(np.uint32),
        "shapedirs": random.normal(0, 0.001, (len(model.template), 3, 400)).astype(np.float32),
        "posedirs": np.zeros((len(model.template), 3, 36), np.float32),
        "J_regressor": scipy.sparse.csc_matrix(model.joint_regressor.astype(np.float64)),
        "weights": model.skinning.astype(np.float64),
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        "bs_style": "lbs",
        "fps": Fraction(25).numerator,
    }
