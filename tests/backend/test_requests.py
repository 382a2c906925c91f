"""The command line and the worker read the same requests: the same parameters, the same checks, the same sentences."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import backend
from backend.avatar.render import render_track
from backend.devices import DEVICES
from backend.errors import EffigyError
from backend.formats.frame_formats import FRAME_FORMATS
from backend.service import commands
from backend.service.argument_parser import read_arguments
from backend.service.job_specs import JOB_REQUESTS, read_job
from backend.service.parameters import Parameters
from backend.service.request_fields import (
    Request,
    field_types,
    parameter_name,
    parameter_names,
    read_request,
    spec_of,
    takes_many,
)
from backend.service.requests import (
    REQUESTS,
    CaptureRequest,
    DoctorRequest,
    LightRequest,
    LiveRequest,
    RenderRequest,
    RetargetRequest,
    TrackRequest,
    TrainRequest,
)
from backend.training.presets import PRESETS

ROOT = Path(__file__).resolve().parents[2]


def valid_value(request_class: type[Request], name: str) -> Any:
    """A value of this field as JSON carries it, other than the default."""
    spec = next(spec_of(each) for each in fields(request_class) if each.name == name)
    if takes_many(request_class, name):
        return "/folder/several.capture"
    if spec.choices:
        return spec.choices[-1]
    values: dict[Any, Any] = {
        Path: f"/folder/{name}",
        str: "#204060",
        int: 96,
        float: 1.5,
        bool: True,
        Fraction: "30000/1001",
    }
    return values[field_types(request_class)[name]]


def all_values(request_class: type[Request]) -> dict[str, Any]:
    return {parameter_name(each): valid_value(request_class, each.name) for each in fields(request_class)}


def words_for(request_class: type[Request], values: dict[str, Any]) -> list[str]:
    """The words of a command line for these values."""
    options: list[str] = []
    positionals: list[str] = []
    for each in fields(request_class):
        value = values.get(parameter_name(each))
        if value is None:
            continue
        option = f"--{each.name.replace('_', '-')}"
        if spec_of(each).positional:
            positionals.append(str(value))
        elif value is True:
            options.append(option)
        else:
            options += [option, str(value)]
    return [request_class.command, *options, *(["--", *positionals] if positionals else [])]


def read_as_worker(request_class: type[Request], values: dict[str, Any]) -> Request:
    parameters = Parameters(values, request_class.command)
    parameters.allow_only(*parameter_names(request_class))
    return read_request(request_class, parameters)


def sentence_of_worker(request_class: type[Request], values: dict[str, Any]) -> str:
    with pytest.raises(EffigyError) as refusal:
        read_as_worker(request_class, values)
    return str(refusal.value)


def sentence_of_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        read_arguments(words)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and len(error.splitlines()) == 1
    sentence, hint, rest = error.partition(f" (see `python -m backend {words[0]} --help`).")
    assert hint and rest == "\n"
    return f"{sentence}."


WRONG = [
    (request_class, each.name, value)
    for request_class in REQUESTS
    for each in fields(request_class)
    for value in (
        (["big", float("nan")] if field_types(request_class)[each.name] in (int, float) else [])
        + ([1.5] if field_types(request_class)[each.name] is int else [])
        + ([-1] if spec_of(each).minimum == 0 else [])
        + ([0] if spec_of(each).minimum == 1 or spec_of(each).above_minimum else [])
        + (["fast", "1/0"] if field_types(request_class)[each.name] is Fraction else [])
        + (["unheard of"] if spec_of(each).choices else [])
    )
]


@pytest.mark.parametrize("request_class", REQUESTS)
def test_every_field_reaches_the_request_from_the_command_line_and_from_the_worker(
    request_class: type[Request],
) -> None:
    values = all_values(request_class)
    typed, sent = read_arguments(words_for(request_class, values)), read_as_worker(request_class, values)
    assert typed == sent and type(sent) is request_class
    for each in fields(request_class):
        assert getattr(sent, each.name) != each.default, f"{each.name} was not read"


@pytest.mark.parametrize("request_class", REQUESTS)
def test_what_is_left_out_has_the_same_default(request_class: type[Request]) -> None:
    required = {
        parameter_name(each): valid_value(request_class, each.name)
        for each in fields(request_class)
        if each.default is MISSING
    }
    typed, sent = read_arguments(words_for(request_class, required)), read_as_worker(request_class, required)
    assert typed == sent
    assert all(
        getattr(sent, each.name) == each.default for each in fields(request_class) if each.default is not MISSING
    )


@pytest.mark.parametrize(("request_class", "name", "value"), WRONG)
def test_a_wrong_value_is_refused_with_the_same_sentence(
    request_class: type[Request], name: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    values = all_values(request_class) | {name: value}
    sentence = sentence_of_worker(request_class, values)
    assert sentence_of_command_line(words_for(request_class, values), capsys) == sentence
    assert sentence.startswith(f"{request_class.command}: ") and name in sentence


@pytest.mark.parametrize("request_class", REQUESTS)
def test_a_missing_value_is_refused_with_the_same_sentence(
    request_class: type[Request], capsys: pytest.CaptureFixture[str]
) -> None:
    required = [each for each in fields(request_class) if each.default is MISSING]
    # A positional argument cannot be left out before another one, so only the last of them is.
    positionals = [each for each in required if spec_of(each).positional]
    for missing in [each for each in required if not spec_of(each).positional] + positionals[-1:]:
        values = {name: value for name, value in all_values(request_class).items() if name != parameter_name(missing)}
        sentence = sentence_of_worker(request_class, values)
        assert sentence == f"{request_class.command} needs “{parameter_name(missing)}”."
        assert sentence_of_command_line(words_for(request_class, values), capsys) == sentence


@pytest.mark.parametrize("request_class", REQUESTS)
def test_an_unknown_parameter_is_refused_with_the_same_sentence(
    request_class: type[Request], capsys: pytest.CaptureFixture[str]
) -> None:
    values = all_values(request_class)
    sentence = sentence_of_worker(request_class, values | {"loud_ness": 3})
    assert "has no parameter “loud_ness”" in sentence
    for words in (["--loud-ness", "3"], ["--loud-ness=3"]):
        command, *rest = words_for(request_class, values)
        assert sentence_of_command_line([command, *words, *rest], capsys) == sentence


@pytest.mark.parametrize("request_class", REQUESTS)
def test_help_explains_every_option(request_class: type[Request], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_arguments([request_class.command, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for each in fields(request_class):
        spec = spec_of(each)
        assert " " not in (spec.metavar or "")
        if spec.positional:
            assert str(spec.metavar) in text
        else:
            assert f"--{each.name.replace('_', '-')}" in text and spec.description.split()[0] in text
        assert all(choice in text for choice in spec.choices or ())


def test_a_required_option_is_shown_as_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_arguments(["evaluate", "--help"])
    usage = capsys.readouterr().out.partition("\n\n")[0]
    assert "--out DIR" in usage and "[--out DIR]" not in usage


def test_several_captures_are_tracked_together_by_the_command_line_and_by_a_job() -> None:
    assert read_arguments(["track", "a.capture", "b.capture"]) == TrackRequest((Path("a.capture"), Path("b.capture")))
    (request,) = read_job("track", {"capture": ["/a.capture", "/b.capture"]}).requests
    assert request == TrackRequest((Path("/a.capture"), Path("/b.capture")))
    with pytest.raises(EffigyError, match="capture"):
        read_job("import", {"video": "/a.mp4", "capture": ["/a.capture", "/b.capture"]})


def test_relative_paths_are_for_the_command_line_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_arguments(["capture", "a.mp4", "a.capture"]) == CaptureRequest(Path("a.mp4"), Path("a.capture"))
    with pytest.raises(EffigyError, match="video must be a full path, but is “a.mp4”"):
        read_as_worker(CaptureRequest, {"video": "a.mp4", "capture": "/a.capture"})


def test_choices_are_those_of_the_backend(tmp_path: Path) -> None:
    choices = {
        (request_class, each.name): spec_of(each).choices
        for request_class in REQUESTS
        for each in fields(request_class)
        if spec_of(each).choices
    }
    assert choices == {
        (TrainRequest, "preset"): tuple(PRESETS),
        (TrainRequest, "generator"): ("unet", "blendshapes"),
        (TrainRequest, "device"): DEVICES,
        (DoctorRequest, "device"): DEVICES,
        (RenderRequest, "format"): FRAME_FORMATS,
    }
    with pytest.raises(EffigyError, match=", ".join(FRAME_FORMATS)):
        render_track(None, None, tmp_path / "out", size=64, fmt="gif")


def test_every_request_has_a_function_and_every_job_its_requests() -> None:
    assert set(commands._FUNCTIONS) == set(REQUESTS)
    for kind, request_classes in JOB_REQUESTS.items():
        params = {name: value for request_class in request_classes for name, value in all_values(request_class).items()}
        job = read_job(kind, params)
        assert tuple(map(type, job.requests)) == request_classes and job.output == job.requests[0].output


def test_an_import_takes_the_parameters_of_capturing_and_tracking() -> None:
    params = {"video": "/clip.mp4", "capture": "/clip.capture", "size": 256, "head": "/head.npz"}
    assert read_job("import", params).requests == (
        CaptureRequest(Path("/clip.mp4"), Path("/clip.capture"), size=256),
        TrackRequest((Path("/clip.capture"),), head=Path("/head.npz")),
    )
    with pytest.raises(
        EffigyError, match="import has no parameter “sizes”: it takes video, capture, size, start, end,"
    ):
        read_job("import", params | {"sizes": 3})


@pytest.mark.parametrize("rate", ["25", "23.976", "30000/1001", 25, 23.976])
def test_a_frame_rate_may_be_a_number_or_a_fraction(rate: Any) -> None:
    values = {"performance": "/a", "target": "/b", "out": "/c", "fps": rate}
    expected = Fraction(str(rate)).limit_denominator(1001)
    assert read_as_worker(RetargetRequest, values).fps == expected


@pytest.mark.parametrize("value", [True, [], {}, 10**400])
def test_values_that_are_no_numbers_are_refused(value: Any) -> None:
    with pytest.raises(EffigyError, match="size must be a whole number"):
        read_as_worker(CaptureRequest, {"video": "/a", "capture": "/b", "size": value})


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    manifest = tomllib.loads((ROOT / "blender_addon" / "blender_manifest.toml").read_text("utf-8"))
    assert project["version"] == manifest["version"] == backend.__version__


DEFAULTS: dict[str, dict[str, Any]] = {
    "capture": {
        "size": 512,
        "start": None,
        "end": None,
        "first_frame": None,
        "last_frame": None,
        "max_frames": None,
        "rotate": 0,
        "rate": None,
    },
    "track": {"head": None, "expression_count": None, "cameras": None, "landmarks_only": False},
    "train": {
        "preset": "draft",
        "size": None,
        "generator": None,
        "refined": False,
        "fit_poses": False,
        "head_only": False,
        "device": "auto",
        "minutes": None,
        "resume": False,
    },
    "refine": {},
    "bake": {"capture": None},
    "evaluate": {"baselines": False, "refitted": False},
    "render": {"size": None, "format": "png", "background": "transparent", "plain": False, "head_only": False},
    "orbit": {"size": 512, "degrees": 45.0},
    "extremes": {"size": 192, "scores": False},
    "export": {"frame": 0, "frames": None, "head_only": False},
    "page": {},
    "report": {},
    "overlay": {},
    "retarget": {"intensity": 1.0, "smoothing": 0.0, "motion": 1.0, "fps": None},
    "speak": {"text": None, "phones": None, "intensity": 1.0, "smoothing": 0.0, "fps": None},
    "live": {"seconds": None},
    "light": {},
    "batch": {"out": None, "cluster": None, "at_once": None},
    "doctor": {"avatar": None, "check": False, "device": "auto"},
}


def test_what_scripts_leave_out_keeps_its_meaning() -> None:
    found = {
        request_class.command: {
            each.name: each.default for each in fields(request_class) if each.default is not MISSING
        }
        for request_class in REQUESTS
    }
    assert found == DEFAULTS


@pytest.mark.parametrize(
    ("words", "accepted", "refused"),
    [
        (["capture", "a", "b", "--start"], "0", "-0.5"),
        (["capture", "a", "b", "--end"], "0.5", "-1"),
        (["capture", "a", "b", "--first-frame"], "1", "0"),
        (["capture", "a", "b", "--last-frame"], "1", "0"),
        (["capture", "a", "b", "--max-frames"], "1", "0"),
        (["train", "a", "b", "--minutes"], "0.01", "0"),
        (["retarget", "a", "b", "c", "--intensity"], "0", "-0.1"),
        (["retarget", "a", "b", "c", "--smoothing"], "0", "-0.1"),
        (["retarget", "a", "b", "c", "--motion"], "0", "-0.1"),
        (["speak", "a", "b", "c", "--intensity"], "0", "-0.1"),
        (["speak", "a", "b", "c", "--smoothing"], "0", "-0.1"),
        (["live", "0", "--seconds"], "0.1", "0"),
        (["batch", "a", "--at-once"], "1", "0"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else value,
)
def test_the_smallest_values_that_make_sense_are_taken_and_smaller_ones_are_not(
    words: list[str], accepted: str, refused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = words[-1].removeprefix("--").replace("-", "_")
    assert getattr(read_arguments([*words, accepted]), name) == float(accepted)
    sentence = sentence_of_command_line([*words, refused], capsys)
    assert f"{name} is {refused}, but must" in sentence


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("capture", "--size N side of the frames, pixels (default: 512) --start S seconds from the start of the clip"),
        ("capture", "--max-frames N number of frames after which to stop (default: all)"),
        ("capture", "CAPTURE the folder to make, *.capture"),
        ("track", "[--landmarks-only] CAPTURE [CAPTURE ...]"),
        ("train", "{instant,draft,standard,full} how carefully (default: draft) --size N side of the training images"),
        ("train", "train for this long instead of the preset's number of steps --resume continue"),
        ("orbit", "--degrees D how far to each side (default: 45)"),
        ("export", "--frame N index into the track (default: 0)"),
        ("retarget", "--smoothing S seconds over which the performance is smoothed (default: 0)"),
        ("batch", "(default: beside the sheet, named after it)"),
        ("train", "side of the training images (default: the preset's) --generator"),
        ("render", "--size N side of the images (default: the track's) --format"),
        ("retarget", "--fps N frames a second (default: the performance's own)"),
        ("batch", "(default: this machine) --at-once N"),
        ("batch", "on this machine (default: as many as its cores and memory allow)"),
        ("doctor", "[--device {auto,cpu,cuda}] [AVATAR]"),
    ],
)
def test_help_says_what_happens_where_nothing_is_given(
    command: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        read_arguments([command, "--help"])
    assert shown in " ".join(capsys.readouterr().out.split())


def test_the_programs_help_lists_every_command_with_what_it_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as ended:
        read_arguments(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and text.startswith("usage: python -m backend [-h] COMMAND ... From a video")
    listed = [f"{request_class.command} {request_class.summary}" for request_class in REQUESTS]
    assert " ".join([*listed, "serve run the worker"]) in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["orbit", "a", "b", "c"], "Unrecognized arguments: c (see `python -m backend orbit --help`).\n"),
        (["orbit", "-x", "a", "b"], "Unrecognized arguments: -x (see `python -m backend orbit --help`).\n"),
        (["serve", "--x"], "serve has no parameter “x”: it takes nothing (see `python -m backend serve --help`).\n"),
        ([], "The following arguments are required: COMMAND (see `python -m backend --help`).\n"),
    ],
)
def test_words_too_many_or_too_few_are_named_in_one_line(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_arguments(words)
    assert ended.value.code == 2 and capsys.readouterr().err == sentence


def test_numbers_may_be_written_as_people_write_them() -> None:
    assert read_arguments(["serve"]) is None
    sized = read_arguments(["capture", "a", "b", "--size", "256.0", "--start", "1e1"])
    assert sized == CaptureRequest(Path("a"), Path("b"), size=256, start=10.0)
    assert isinstance(sized, CaptureRequest) and type(sized.size) is int and type(sized.start) is float


def test_every_command_but_the_doctor_live_and_light_names_what_it_writes() -> None:
    written = {
        "capture": "/folder/capture",
        "track": "/folder/several.capture",
        "train": "/folder/avatar",
        "refine": "/folder/capture",
        "report": "/folder/out",
        "batch": "/folder/out",
    }
    for request_class in REQUESTS:
        output = read_as_worker(request_class, all_values(request_class)).output
        writes = request_class not in (DoctorRequest, LightRequest, LiveRequest)
        expected = written.get(request_class.command, "/folder/out") if writes else None
        assert output == (expected and Path(expected))
    batch = read_arguments(["batch", "films/shots.csv"])
    assert batch is not None and batch.output == Path("films/shots")
