"""The requests: one frozen dataclass for each command, which both the command line and the worker's jobs fill.

This is the only place that says which parameters a command takes, their types, defaults, allowed values and help. The
functions that carry the requests out are in `backend.service.commands`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Final

from ..avatar.settings import DEFAULT_GENERATOR, GENERATORS
from ..devices import DEVICES
from ..formats.frame_formats import FRAME_FORMATS
from ..formats.frame_times import SEQUENCE_RATE
from ..training.presets import PRESETS
from .request_fields import Request, flag, option, positional


@dataclass(frozen=True)
class CaptureRequest(Request):
    command: ClassVar = "capture"
    summary: ClassVar = "crop the head out of a video, a photograph or numbered images, with mattes and landmarks"

    video: Path = positional("VIDEO", "a file, a folder of numbered images, or shot.####.png")
    capture: Path = positional("CAPTURE", "the folder to make, *.capture")
    size: int = option("side of the frames, pixels", "N", default=512)
    start: float | None = option("seconds from the start of the clip", "S", default=None, minimum=0)
    end: float | None = option("seconds from the start of the clip", "S", default=None, minimum=0)
    first_frame: int | None = option(
        "number of the first frame, counted from 1, or of the first image", "N", default=None, minimum=1
    )
    last_frame: int | None = option("number of the last frame or image", "N", default=None, minimum=1)
    max_frames: int | None = option(
        "number of frames after which to stop", "N", default=None, minimum=1, default_in_words="all"
    )
    rotate: int = option("degrees clockwise by which to turn the images: 90, 180 or 270", "D", default=0, minimum=0)
    rate: Fraction | None = option(
        "frames a second of numbered images", "N", default=None, default_in_words=str(SEQUENCE_RATE)
    )

    @property
    def output(self) -> Path:
        return self.capture


@dataclass(frozen=True)
class TrackRequest(Request):
    command: ClassVar = "track"
    summary: ClassVar = "fit a head model to a capture; writes CAPTURE/track.npz"

    captures: tuple[Path, ...] = positional(
        "CAPTURE", "several, clips or photographs, of one person", parameter="capture"
    )
    head: Path | None = option("a FLAME file (.pkl, .npz) instead of the open head", "FILE", default=None)
    expression_count: int | None = option(
        "how many of a FLAME file's components are expressions, where it does not say",
        "N",
        default=None,
        minimum=0,
        default_in_words="as the file says",
    )
    cameras: Path | None = option(
        "a transforms.json of nerfstudio: the captures are the same moments, filmed by these calibrated cameras",
        "FILE",
        default=None,
    )
    landmarks_only: bool = flag(
        "do not align frames to the person's own skin: three times as fast, less accurate and less steady"
    )

    @property
    def output(self) -> Path:
        return self.captures[0]

    @property
    def locked(self) -> tuple[Path, ...]:
        return self.captures


@dataclass(frozen=True)
class TrainRequest(Request):
    command: ClassVar = "train"
    summary: ClassVar = "train an avatar on one or several tracked captures of a person"

    captures: tuple[Path, ...] = positional(
        "CAPTURE",
        "several, of one person and tracked together; the avatar has the colours of the first",
        parameter="capture",
    )
    avatar: Path = positional("AVATAR", "the file to write, *.effigy")
    preset: str = option("how carefully", default="draft", choices=tuple(PRESETS))
    size: int | None = option("side of the training images", "N", default=None, default_in_words="the preset's")
    generator: str | None = option(
        "what makes the Gaussians: the graph U-Nets of the paper, or blendshapes",
        default=None,
        choices=tuple(GENERATORS),
        default_in_words=f"{DEFAULT_GENERATOR}, or that of the checkpoint",
    )
    refined: bool = flag("train in the poses that `refine` has found as well as in those of `track`")
    fit_poses: bool = flag("let the avatar fit the poses of some frames on its way, and train in both, to track better")
    head_only: bool = flag("no collar and shoulders, even where the footage shows them")
    device: str = option("what to train on", default="auto", choices=DEVICES)
    minutes: float | None = option(
        "train for this long instead of the preset's number of steps", "M", default=None, minimum=0, above_minimum=True
    )
    resume: bool = flag("continue from the checkpoint that a stopped training left")

    @property
    def output(self) -> Path:
        return self.avatar


@dataclass(frozen=True)
class RefineRequest(Request):
    command: ClassVar = "refine"
    summary: ClassVar = "track a capture again through an avatar of the person; writes CAPTURE/track_refined.npz"

    capture: Path = positional("CAPTURE", "tracked; the footage that the avatar was trained on, or any other")
    avatar: Path = positional("AVATAR")

    @property
    def output(self) -> Path:
        return self.capture


@dataclass(frozen=True)
class BakeRequest(Request):
    command: ClassVar = "bake"
    summary: ClassVar = "distil an avatar of graph U-Nets into blendshapes, which Blender plays without the backend"

    avatar: Path = positional("AVATAR")
    out: Path = positional("OUT", "the avatar to write, *.effigy")
    capture: Path | None = option(
        "tracked footage of the person: the result is most accurate in such poses",
        "CAPTURE",
        default=None,
        default_in_words="all poses within the avatar's ranges alike",
    )

    @property
    def output(self) -> Path:
        return self.out


@dataclass(frozen=True)
class EvaluateRequest(Request):
    command: ClassVar = "evaluate"
    summary: ClassVar = "measure an avatar on the frames that training never saw"

    avatar: Path = positional("AVATAR")
    captures: tuple[Path, ...] = positional(
        "CAPTURE", "several: each is measured on its own, in a folder of DIR with its name", parameter="capture"
    )
    out: Path = option("the folder to write the figures and images to", "DIR")
    baselines: bool = flag("measure the nearest training frame and mesh-bound Gaussians as well")
    refitted: bool = flag("score the frames in poses fitted through the avatar as well: how much error is the track's")

    @property
    def output(self) -> Path:
        return self.out

    @property
    def locked(self) -> tuple[Path, ...]:
        return (self.out / "metrics.json",)


@dataclass(frozen=True)
class RenderRequest(Request):
    command: ClassVar = "render"
    summary: ClassVar = "render a track with an avatar"

    avatar: Path = positional("AVATAR")
    track: Path = positional("TRACK", "a track.npz, of the same person or another")
    out: Path = positional("OUT", "a folder, or a file for mp4")
    size: int | None = option("side of the images", "N", default=None, default_in_words="the track's")
    format: str = option("file format of the frames", default="png", choices=FRAME_FORMATS)
    background: str = option("colour behind the head", "transparent|#rrggbb", default="transparent")
    plain: bool = flag("render the Gaussians alone, without the avatar's enhancer")
    head_only: bool = flag("leave out collar and shoulders")

    @property
    def output(self) -> Path:
        return self.out


@dataclass(frozen=True)
class OrbitRequest(Request):
    command: ClassVar = "orbit"
    summary: ClassVar = "a video of the avatar at rest, seen from the front and from both sides in turn"

    avatar: Path = positional("AVATAR")
    out: Path = positional("OUT.mp4")
    size: int = option("side of the images", "N", default=512)
    degrees: float = option("how far to each side", "D", default=45.0)

    @property
    def output(self) -> Path:
        return self.out


@dataclass(frozen=True)
class ExtremesRequest(Request):
    command: ClassVar = "extremes"
    summary: ClassVar = "an image of the avatar with each expression at its end"

    avatar: Path = positional("AVATAR")
    out: Path = positional("OUT.png")
    size: int = option("side of each head", "N", default=192)
    scores: bool = flag(
        "every slider at one half and at one, and 20 visemes and emotions, scored by the face detector; the figures go "
        "to a .json file beside the image"
    )

    @property
    def output(self) -> Path:
        return self.out

    @property
    def locked(self) -> tuple[Path, ...]:
        return (self.out, self.out.with_suffix(".json")) if self.scores else (self.out,)


@dataclass(frozen=True)
class ExportRequest(Request):
    command: ClassVar = "export"
    summary: ClassVar = "write the Gaussians of one frame, or a file for each of several, as 3DGS programs read them"

    avatar: Path = positional("AVATAR")
    track: Path = positional("TRACK")
    out: Path = positional("OUT", "a name that ends in .ply, .spz or .glb; of several frames, each gets its number")
    frame: int = option("index into the track", "N", default=0)
    frames: str | None = option(
        "indices of the first and the last of several frames", "A-B", default=None, default_in_words="one frame"
    )
    head_only: bool = flag("leave out collar and shoulders")

    @property
    def output(self) -> Path:
        return self.out


@dataclass(frozen=True)
class PageRequest(Request):
    command: ClassVar = "page"
    summary: ClassVar = "a web page with the avatar inside, one file that opens in a browser by a double click"

    avatar: Path = positional("AVATAR", "of blendshapes")
    out: Path = positional("OUT.html")

    @property
    def output(self) -> Path:
        return self.out


@dataclass(frozen=True)
class ReportRequest(Request):
    command: ClassVar = "report"
    summary: ClassVar = "an image that shows how reliable a track is"

    capture: Path = positional("CAPTURE")
    out: Path = positional("OUT.png")

    @property
    def output(self) -> Path:
        return self.out


@dataclass(frozen=True)
class OverlayRequest(Request):
    command: ClassVar = "overlay"
    summary: ClassVar = "a video of the footage with the tracked head and its landmarks over it"

    capture: Path = positional("CAPTURE")
    out: Path = positional("OUT.mp4")

    @property
    def output(self) -> Path:
        return self.out


@dataclass(frozen=True)
class RetargetRequest(Request):
    command: ClassVar = "retarget"
    summary: ClassVar = "put one person's performance on another's head; writes a track"

    performance: Path = positional(
        "PERFORMANCE",
        "a capture, a track.npz, or ARKit's channels (Live Link Face .csv, Audio2Face .json, Face Cap .txt)",
    )
    target: Path = positional("TARGET", "whose head: a capture, a track.npz or an avatar")
    out: Path = positional("OUT.npz")
    intensity: float = option("factor on the expression", "X", default=1.0, minimum=0)
    smoothing: float = option("seconds over which the performance is smoothed", "S", default=0.0, minimum=0)
    motion: float = option("factor on the head's motion; 0 holds the head still", "X", default=1.0, minimum=0)
    fps: Fraction | None = option("frames a second", "N", default=None, default_in_words="the performance's own")

    @property
    def output(self) -> Path:
        return self.out


@dataclass(frozen=True)
class SpeakRequest(Request):
    command: ClassVar = "speak"
    summary: ClassVar = "make a head speak what is said in a sound; writes a track"

    sound: Path = positional(
        "SOUND", "an audio file, a video with sound, or ARKit's curves made of it (Audio2Face .csv, .json)"
    )
    target: Path = positional("TARGET", "whose head: a capture, a track.npz or an avatar")
    out: Path = positional("OUT.npz")
    text: str | None = option(
        "what is said, in English; the mouth then follows it more exactly",
        "T",
        default=None,
        default_in_words="found by listening",
    )
    phones: Path | None = option(
        "the phones and their times, for any language: a Praat TextGrid, a table of Rhubarb (.tsv, .json) or a file of "
        "Papagayo (.pgo, .dat)",
        "FILE",
        default=None,
    )
    intensity: float = option("factor on the shapes of the mouth", "X", default=1.0, minimum=0)
    smoothing: float = option("seconds over which the mouth is smoothed", "S", default=0.0, minimum=0)
    fps: Fraction | None = option("frames a second", "N", default=None, default_in_words="the target's own")

    @property
    def output(self) -> Path:
        return self.out


@dataclass(frozen=True)
class LiveRequest(Request):
    command: ClassVar = "live"
    summary: ClassVar = "watch a face through a camera, as Live in Blender does, and say how fast that is"

    camera: str = positional("CAMERA", "its number, counted from 0, or a film to play in its place")
    seconds: float | None = option(
        "stop after this long", "S", default=None, minimum=0, above_minimum=True, default_in_words="Ctrl-C, or the end"
    )


@dataclass(frozen=True)
class LightRequest(Request):
    command: ClassVar = "light"
    summary: ClassVar = "say which light is on the face in a tracked capture; Blender makes lamps of it"

    capture: Path = positional("CAPTURE", "tracked")


@dataclass(frozen=True)
class BatchRequest(Request):
    command: ClassVar = "batch"
    summary: ClassVar = "capture, track, train and evaluate many clips; finished work is not done again"

    sheet: Path = positional("SHEET.csv", "a table with one clip a row; see docs/batch.md")
    out: Path | None = option(
        "the folder for everything that is made",
        "DIR",
        default=None,
        default_in_words="beside the sheet, named after it",
    )
    cluster: str | None = option(
        "machines that do the work: tcp://host:port, ssh:hosts.txt, ssh://host1,host2 or slurm:options.yaml",
        "ADDRESS",
        default=None,
        default_in_words="this machine",
    )
    at_once: int | None = option(
        "clips to work on at the same time on this machine",
        "N",
        default=None,
        minimum=1,
        default_in_words="as many as its cores and memory allow",
    )

    @property
    def output(self) -> Path:
        return self.out or self.sheet.with_suffix("")

    @property
    def locked(self) -> tuple[Path, ...]:
        """Nothing: a batch locks its table itself (`batch.witness`), and its stages lock what they write."""
        return ()


@dataclass(frozen=True)
class DoctorRequest(Request):
    command: ClassVar = "doctor"
    summary: ClassVar = "what this machine can do, and what is missing; or what an avatar's file contains"

    avatar: Path | None = positional("AVATAR", "list the contents of this avatar's file instead", default=None)
    check: bool = flag("train and draw a tiny avatar as well, and fail with exit code 2 if anything is broken")
    device: str = option("what --check trains on", default="auto", choices=DEVICES)


REQUESTS: Final[tuple[type[Request], ...]] = (
    CaptureRequest,
    TrackRequest,
    TrainRequest,
    RefineRequest,
    BakeRequest,
    EvaluateRequest,
    RenderRequest,
    OrbitRequest,
    ExtremesRequest,
    ExportRequest,
    PageRequest,
    ReportRequest,
    OverlayRequest,
    RetargetRequest,
    SpeakRequest,
    LiveRequest,
    LightRequest,
    BatchRequest,
    DoctorRequest,
)
"""In the order in which `--help` lists the commands."""
