"""A file that claims or expands to far more than its kind ever holds is refused soon, before memory is taken for it."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import psutil
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from backend.array_files import MOST_MEMBERS, read_arrays
from backend.avatar.avatar import load_avatar
from backend.avatar.settings import LARGEST
from backend.errors import EffigyError
from backend.footage.container import frame_rate
from backend.footage.decode import probe, read_frames
from backend.formats.capture import load_capture, read_frame
from backend.formats.track import load_track
from backend.head.formats import MOST_VERTICES, load_head
from backend.head.restricted_pickle import MOST_STEPS, load_restricted_pickle
from backend.reading import MOST_TEXT, Damaged, frame_rate_of, parse_json, read_json, reading
from backend.retargeting.livelink import MOST_LINE, read_livelink
from bench.fault_rows._loaders import FILES

MOST_SECONDS = 60.0
"""A machine under load takes several times as long as an idle one, on which no test here takes three seconds."""
MOST_MEMORY = 600 << 20
"""Bytes by which a bomb may make the process larger. The bombs here ask for gigabytes to terabytes."""


@pytest.fixture(autouse=True)
def bounds() -> Iterator[None]:
    """Fails where a test makes the process much larger, even for a moment, or takes long."""
    process, ended, most = psutil.Process(), threading.Event(), [0]
    before, started = process.memory_info().rss, time.monotonic()

    def watch() -> None:
        while not ended.wait(0.003):
            most[0] = max(most[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield
    ended.set()
    watcher.join()
    assert most[0] < MOST_MEMORY
    assert time.monotonic() - started < MOST_SECONDS


def npy(shape: tuple[int, ...], kind: str = "<f8", data: bytes = b"", version: int = 1) -> bytes:
    """An array's file that claims a shape, whatever its data."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes((version, 0)) + length + header + data


def archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def arrays_of(path: Path, most: int = 30 << 20) -> dict[str, np.ndarray]:
    with reading(path, "track", "track again"):
        return read_arrays(path, "track", "track again", most)


class TestArchives:
    def test_a_shape_beyond_the_data_is_damage(self, tmp_path: Path) -> None:
        for shape in ((10**9, 3), (2**62, 2**62), (-1, 3)):
            with pytest.raises(EffigyError, match="damaged"):
                arrays_of(archive(tmp_path / "a.npz", {"a": npy(shape, data=bytes(800))}))

    def test_members_that_expand_beyond_the_bound_are_not_expanded(self, tmp_path: Path) -> None:
        path = archive(
            tmp_path / "a.npz", {"a": npy((10_000_000,), data=bytes(80_000_000))}, method=zipfile.ZIP_DEFLATED
        )
        assert path.stat().st_size < 300_000
        with pytest.raises(EffigyError, match="claim more than 31 MB"):
            arrays_of(path)
        assert arrays_of(path, 100 << 20)["a"].shape == (10_000_000,)

    def test_several_members_count_together(self, tmp_path: Path) -> None:
        part = npy((1_000_000,), data=bytes(8_000_000))
        path = archive(tmp_path / "a.npz", dict.fromkeys("abcdefghijklmno", part), method=zipfile.ZIP_DEFLATED)
        with pytest.raises(EffigyError, match="claim more than"):
            arrays_of(path)

    def test_lengths_without_bytes_count(self, tmp_path: Path) -> None:
        with pytest.raises(EffigyError, match="claim more than"):
            arrays_of(archive(tmp_path / "a.npz", {"a": npy((10**12, 0))}))

    def test_a_header_of_a_gigabyte_is_not_read(self, tmp_path: Path) -> None:
        bomb = b"\x93NUMPY\2\0" + struct.pack("<I", 60_000_000) + b" " * 60_000_000
        with pytest.raises(EffigyError, match="claim more than"):
            arrays_of(archive(tmp_path / "a.npz", {"a": bomb}, method=zipfile.ZIP_DEFLATED))

    def test_a_directory_of_a_million_members_is_not_read(self, tmp_path: Path) -> None:
        path = archive(tmp_path / "a.npz", {f"a{number}": b"" for number in range(MOST_MEMBERS + 1)})
        with pytest.raises(EffigyError, match="directory"):
            arrays_of(path)
        # A record for archives of more than 4 GB stands before the usual one, and zipfile would believe it.
        content = archive(path, {"a": npy((1,), data=bytes(8))}).read_bytes()
        end = content.rfind(b"PK\5\6")
        path.write_bytes(content[:end] + b"PK\6\7" + bytes(16) + content[end:])
        with pytest.raises(EffigyError, match="directory"):
            arrays_of(path)

    def test_objects_and_records_are_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", a=np.array([print], object))
        with pytest.raises(EffigyError, match="Python objects"):
            arrays_of(tmp_path / "a.npz")
        np.savez(tmp_path / "a.npz", a=np.zeros(3, [("x", "f4"), ("y", "i4")]))
        with pytest.raises(EffigyError, match="plain numbers"):
            arrays_of(tmp_path / "a.npz")


class TestHeads:
    def test_more_vertices_than_any_head_are_refused(self, tmp_path: Path) -> None:
        with np.load(FILES / "small_head.npz") as stored:
            arrays = dict(stored)
        arrays["template"] = np.zeros((MOST_VERTICES + 1, 3), np.float32)
        np.savez(tmp_path / "head.npz", **arrays)
        with pytest.raises(EffigyError, match=f"it has {MOST_VERTICES + 1} vertices"):
            load_head(tmp_path / "head.npz")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"template": 0.0}, "flat"),
            ({"template": 1e6}, "flat, or not a head's size"),
            ({"faces": 10**6}, "points outside"),
            ({"faces": -1}, "points outside"),
            ({"expression_range": np.nan}, "no range"),
            ({"skinning": np.nan}, "not finite"),
        ],
    )
    def test_an_impossible_mesh_is_refused(self, tmp_path: Path, change: dict[str, float], said: str) -> None:
        with np.load(FILES / "small_head.npz") as stored:
            arrays = dict(stored)
        for name, value in change.items():
            arrays[name] = arrays[name] * value if name == "template" else np.full_like(arrays[name], value)
        np.savez(tmp_path / "head.npz", **arrays)
        with pytest.raises(EffigyError, match=said):
            load_head(tmp_path / "head.npz")


def doubled(levels: int, make: bytes) -> bytes:
    """A pickle in which each level holds the level below twice."""
    return b"\x80\x02]" + b"".join(b"q" + bytes((level,)) + b"h" + bytes((level,)) + make for level in range(levels))


class TestPickles:
    @pytest.mark.parametrize(
        ("program", "said"),
        [
            # A note under the number 2^31 - 1: the compiled unpickler allocates a table of 16 GB.
            (b"\x80\x02]r\xff\xff\xff\x7f.", None),
            # 2^60 empty lists.
            (doubled(60, b"\x86") + b".", None),
            # The hash of 2^60 tuples.
            (b"\x80\x02}" + doubled(60, b"\x86")[2:] + b"Ns.", "text or numbers"),
            (b"\x80\x04\x8f(" + doubled(60, b"\x86")[2:] + b"\x90.", None),
            (b"\x80\x04(" + doubled(60, b"\x86")[2:] + b"\x91.", None),
            (b"\x80\x05\x96" + struct.pack("<Q", 10**11) + b".", "damaged"),
            (b"\x80\x04\x8e" + struct.pack("<Q", 10**11) + b".", "damaged"),
            (b"\x80\x02" + b"N0" * MOST_STEPS + b"N.", "instructions"),
            (b"(" * 100_000 + b"l" * 100_000 + b".", "damaged"),
        ],
        ids=["note", "lists", "keys", "set", "frozenset", "bytearray", "bytes", "long", "deep"],
    )
    def test_a_short_program_that_takes_much_is_stopped(self, tmp_path: Path, program: bytes, said: str | None) -> None:
        (tmp_path / "bomb.pkl").write_bytes(program)
        if said is None:
            load_restricted_pickle(tmp_path / "bomb.pkl")
        else:
            with pytest.raises(EffigyError, match=said):
                load_restricted_pickle(tmp_path / "bomb.pkl")

    def test_one_buffer_as_a_thousand_arrays_is_refused(self, tmp_path: Path) -> None:
        raw = np.zeros(10_000_000, np.uint8).tobytes()
        arrays = [np.frombuffer(raw, np.uint8) for _ in range(100)]

        class SharingPickler(pickle._Pickler):
            def reducer_override(self, value: object) -> object:
                if isinstance(value, np.ndarray):
                    return np._core.numeric._frombuffer, (raw, value.dtype, value.shape, "C")
                return NotImplemented

        stream = io.BytesIO()
        SharingPickler(stream, 4).dump(arrays)
        assert len(stream.getvalue()) < 2 * len(raw)
        (tmp_path / "bomb.pkl").write_bytes(stream.getvalue())
        with pytest.raises(EffigyError, match="far beyond any head model"):
            load_restricted_pickle(tmp_path / "bomb.pkl")

    def test_a_huge_sparse_matrix_is_refused(self, tmp_path: Path) -> None:
        import scipy.sparse

        matrix = scipy.sparse.csc_matrix((10**6, 10**6))
        (tmp_path / "bomb.pkl").write_bytes(pickle.dumps({"J_regressor": matrix}))
        with pytest.raises(EffigyError, match="far beyond any head model"):
            load_head(tmp_path / "bomb.pkl")


class TestAvatars:
    def rewritten(self, path: Path, **changes: object) -> Path:
        with safe_open(FILES / "person.effigy", "pt") as file:
            header = json.loads(file.metadata()["effigy"])
        settings = header["settings"] | {name: value for name, value in changes.items() if name in LARGEST}
        header |= {"settings": settings} | {name: value for name, value in changes.items() if name not in LARGEST}
        save_file(load_file(FILES / "person.effigy"), path, metadata={"effigy": json.dumps(header)})
        return path

    @pytest.mark.parametrize("name", LARGEST)
    @pytest.mark.parametrize("value", [10**9, -1, 3.5, "3", None, [], True])
    def test_absurd_settings_are_refused(self, tmp_path: Path, name: str, value: object) -> None:
        path = self.rewritten(tmp_path / "a.effigy", **{name: value})
        with pytest.raises(EffigyError, match=f"its {name} is not between"):
            load_avatar(path, load_head(FILES / "small_head.npz"))

    @pytest.mark.parametrize("name", [name for name in LARGEST if name not in ("size", "lips_turn")])
    def test_the_largest_settings_take_no_memory_before_the_tensors_bear_them_out(
        self, tmp_path: Path, name: str
    ) -> None:
        path = self.rewritten(tmp_path / "a.effigy", **{name: LARGEST[name]})
        with pytest.raises(EffigyError, match="do not fit its settings"):
            load_avatar(path, load_head(FILES / "small_head.npz"))

    def test_a_list_of_tensors_of_gigabytes_is_not_read(self, tmp_path: Path) -> None:
        for length, said in ((2**62, "cut short"), (10**7, "too large")):
            (tmp_path / "a.effigy").write_bytes(struct.pack("<Q", length) + b"{" + b" " * (length % 10**8))
            with pytest.raises(EffigyError, match=said):
                load_avatar(tmp_path / "a.effigy")

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"head_fingerprint": []}, "needs the head model"),
            ({"metrics": None}, "settings"),
            ({"schema": 10**400}, "newer"),
            ({"schema": "x"}, "damaged"),
        ],
    )
    def test_a_header_of_other_types_is_refused(self, tmp_path: Path, changes: dict[str, object], said: str) -> None:
        path = self.rewritten(tmp_path / "a.effigy", **changes)
        with pytest.raises(EffigyError, match=said):
            load_avatar(path)


def png_of(width: int, height: int) -> bytes:
    """The start of a PNG that claims this size."""
    data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + data + struct.pack(">I", zlib.crc32(b"IHDR" + data))
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", len(pixels)) + b"IDAT" + pixels + bytes(4)


class TestImages:
    @pytest.mark.parametrize("side", [5_000, 12_000, 60_000])
    def test_a_frame_of_many_pixels_is_not_decoded(self, samples: Path, side: int) -> None:
        path = samples / "person.capture" / "frames" / "000000.jpg"
        path.write_bytes(png_of(side, side))
        with pytest.raises(EffigyError, match="too large"):
            read_frame(load_capture(samples / "person.capture"), 0)

    def test_a_photograph_of_many_pixels_is_not_decoded(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(png_of(60_000, 60_000))
        with pytest.raises(EffigyError, match="too large"):
            probe(tmp_path / "a.png")

    def test_text_that_expands_in_an_image_is_not_expanded(self, samples: Path) -> None:
        text = b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)
        chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
        whole = cv2.imencode(".png", np.zeros((128, 128, 3), np.uint8))[1].tobytes()
        for path in (samples / "person.png", samples / "person.capture" / "frames" / "000000.jpg"):
            path.write_bytes(whole[:33] + chunk + whole[33:])
        for read in (
            lambda: probe(samples / "person.png"),
            lambda: read_frame(load_capture(samples / "person.capture"), 0),
        ):
            try:
                read()
            except EffigyError as error:
                assert "damaged" in str(error)

    def test_a_frame_that_is_not_square_is_refused(self, samples: Path) -> None:
        path = samples / "person.capture" / "frames" / "000000.jpg"
        path.write_bytes(cv2.imencode(".png", np.zeros((128, 4, 3), np.uint8))[1].tobytes())
        with pytest.raises(EffigyError, match="not square"):
            read_frame(load_capture(samples / "person.capture"), 0)


class TestVideos:
    def motion_jpeg(self, path: Path, sizes: list[int]) -> Path:
        """A video of JPEG images of 64 pixels that claim these sizes."""
        with av.open(str(path), "w", format="avi") as container:
            stream = container.add_stream("mjpeg", rate=25)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuvj420p"
            image = cv2.imencode(".jpg", np.full((64, 64, 3), 90, np.uint8))[1].tobytes()
            start = image.index(b"\xff\xc0") + 5
            for number, side in enumerate(sizes):
                packet = av.Packet(image[:start] + struct.pack(">HH", side, side) + image[start + 4 :])
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
                packet.is_keyframe = True
                container.mux(packet)
        return path

    def claim(self, path: Path, side: int) -> None:
        """Let an AVI claim another size of its frames."""
        content = path.read_bytes()
        place = content.index(b"strf") + 12
        path.write_bytes(content[:place] + struct.pack("<ii", side, side) + content[place + 8 :])

    def test_a_video_that_claims_many_pixels_is_not_decoded(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "raw.avi"), "w") as container:
            stream = container.add_stream("rawvideo", rate=25)
            stream.width = stream.height = 64
            stream.pix_fmt = "bgr24"
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "bgr24")))
            container.mux(stream.encode())
        self.claim(tmp_path / "raw.avi", 60_000)
        with pytest.raises(EffigyError, match="too large|could be decoded"):
            probe(tmp_path / "raw.avi")
        with pytest.raises(EffigyError, match="could be decoded"):
            probe(self.motion_jpeg(tmp_path / "b.avi", [60_000, 60_000]))

    def test_frames_that_become_huge_are_left_out(self, tmp_path: Path) -> None:
        path = self.motion_jpeg(tmp_path / "a.avi", [64, 64, 30_000, 30_000, 64])
        frames = [frame.image.shape for frame in read_frames(path)]
        assert set(frames) == {(64, 64, 3)} and 2 <= len(frames) <= 3

    @pytest.mark.parametrize("rate", [None, Fraction(0), Fraction(10**9), Fraction(-25), Fraction(1, 10**6)])
    def test_an_impossible_rate_is_replaced(self, rate: Fraction | None) -> None:
        assert frame_rate(SimpleNamespace(average_rate=rate, guessed_rate=rate)) == 25

    def test_pixels_of_an_impossible_shape_count_as_square(self, tmp_path: Path) -> None:
        with av.open(str(tmp_path / "a.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            stream.codec_context.sample_aspect_ratio = Fraction(100_000, 1)
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
            container.mux(stream.encode())
        assert probe(tmp_path / "a.mkv").width == 64


class TestTables:
    @pytest.fixture
    def rows(self, samples: Path) -> list[str]:
        return (samples / "performance.csv").read_text("utf-8").splitlines()

    def refusal(self, path: Path) -> str:
        with pytest.raises(EffigyError) as refused:
            read_livelink(path, load_head())
        return str(refused.value)

    def test_an_endless_line_is_not_read_to_its_end(self, samples: Path, rows: list[str]) -> None:
        path = samples / "performance.csv"
        path.write_text("\n".join([*rows, "1," * 5_000_000]), "utf-8")
        assert f"{MOST_LINE} characters" in self.refusal(path)

    def test_a_quotation_mark_that_is_never_closed_makes_no_row_of_the_rest(
        self, samples: Path, rows: list[str]
    ) -> None:
        (samples / "performance.csv").write_text("\n".join([*rows[:4], '"', *rows[4:]]), "utf-8")
        assert read_livelink(samples / "performance.csv", load_head()).frame_count == len(rows) - 1

    def test_a_table_of_gigabytes_is_not_read(self, samples: Path) -> None:
        with (samples / "performance.csv").open("r+b") as file:
            file.truncate(5 << 30)
        assert "too large (5,369 MB; 403 MB at most)" in self.refusal(samples / "performance.csv")

    def test_timecodes_days_apart_make_no_billion_frames(self, samples: Path, rows: list[str]) -> None:
        late = rows[-1].replace("10:00:00", "9999:00:00")
        (samples / "performance.csv").write_text("\n".join([*rows, late]), "utf-8")
        assert "hours by its timecodes" in self.refusal(samples / "performance.csv")

    def test_a_take_of_ten_minutes_takes_little_memory(self, samples: Path, rows: list[str]) -> None:
        cells = rows[1].partition(",")[2]
        codes = [f"10:{frame // 3600:02d}:{frame // 60 % 60:02d}:{frame % 60:02d}.0" for frame in range(36_000)]
        # Without one row, the phone's rows are not even and are interpolated.
        text = "\n".join([rows[0], *(f"{code},{cells}" for code in codes if code != "10:05:00:30.0")])
        (samples / "performance.csv").write_text(text, "utf-8")
        assert read_livelink(samples / "performance.csv", load_head()).frame_count == 36_000


class TestTexts:
    def test_json_of_ten_thousand_levels_is_damage(self, samples: Path) -> None:
        for text in ("[" * 10_000 + "]" * 10_000, '{"a":' * 100_000):
            with pytest.raises(Damaged):
                parse_json(text)
        (samples / "person.capture" / "capture.json").write_text("[" * 10_000, "utf-8")
        with pytest.raises(EffigyError, match=r"capture\.json cannot be read"):
            load_capture(samples / "person.capture")

    def test_json_of_gigabytes_is_not_read(self, tmp_path: Path) -> None:
        with (tmp_path / "a.json").open("wb") as file:
            file.write(b"[")
            file.truncate(5 << 30)
        path = tmp_path / "a.json"
        with pytest.raises(EffigyError, match=f"{MOST_TEXT / 1e6:.0f} MB at most"), reading(path, "note", "delete it"):
            read_json(path, "note", "delete it")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("fps", "1e999999999"),
            ("fps", "25/0"),
            ("fps", "1/100000000"),
            ("frame_count", 10**9),
            ("frame_count", float("inf")),
            ("size", 10**9),
            ("size", 0),
            ("crop", [0, 0, float("nan")]),
            ("intrinsics", [[0, 0, 0]] * 3),
            ("source", 5),
        ],
    )
    def test_impossible_settings_of_a_capture_are_damage(self, samples: Path, name: str, value: object) -> None:
        path = samples / "person.capture" / "capture.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {name: value}), "utf-8")
        with pytest.raises(EffigyError, match="damaged"):
            load_capture(samples / "person.capture")

    def test_frame_rates_are_read_in_every_usual_form(self) -> None:
        assert frame_rate_of("30000/1001") == Fraction(30000, 1001) and frame_rate_of(23.976) == Fraction("23.976")
        assert frame_rate_of(25) == frame_rate_of(" 25 ") == frame_rate_of("2.5e1") == 25
        for text in ("1e999999999", "9" * 5000, "0", "-25", "nan", "inf", "1/0", "", "25 fps", True, None):
            with pytest.raises(ValueError):
                frame_rate_of(text)


class TestTracks:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("expression", np.nan),
            ("rotations", np.inf),
            ("head_to_camera", 0.0),
            ("head_to_camera", 2.0),
            ("intrinsics", -1.0),
            ("identity", 1e9),
            ("size", 0),
            ("size", 10**9),
            ("training_count", 11),
            ("fps", np.array((25, 10**9))),
            ("flags", np.full(10, "x")),
            ("expression", np.float32(3)),
        ],
    )
    def test_impossible_numbers_are_damage(self, samples: Path, name: str, value: object) -> None:
        with np.load(samples / "track.npz") as stored:
            arrays = dict(stored)
        arrays[name] = arrays[name] * value if isinstance(value, float) else value
        np.savez(samples / "track.npz", **arrays)
        with pytest.raises(EffigyError, match="damaged"):
            load_track(samples / "track.npz")

    def test_a_billion_frames_are_not_believed(self, samples: Path) -> None:
        with zipfile.ZipFile(samples / "track.npz") as stored:
            members = {name.removesuffix(".npy"): stored.read(name) for name in stored.namelist()}
        archive(samples / "track.npz", members | {"expression": npy((10**9, 52), "<f4")})
        with pytest.raises(EffigyError, match="damaged"):
            load_track(samples / "track.npz")


def test_a_capture_whose_frames_are_links_to_a_pipe_does_not_wait(samples: Path) -> None:
    import os

    path = samples / "person.capture" / "frames" / "000000.jpg"
    path.unlink()
    os.mkfifo(samples / "pipe")
    path.symlink_to(samples / "pipe")
    with pytest.raises(EffigyError, match="a pipe or a device"):
        read_frame(load_capture(samples / "person.capture"), 0)
    shutil.rmtree(samples / "person.capture" / "frames")
    with pytest.raises(EffigyError, match="make the capture again"):
        read_frame(load_capture(samples / "person.capture"), 0)
