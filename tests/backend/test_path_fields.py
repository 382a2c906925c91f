"""Which files a worker on another machine is sent, and which it sends back."""

from __future__ import annotations

from typing import Any

import pytest

from blender_addon.worker.path_fields import JOBS, METHODS, PathField, paths_in, with_paths

IN_CAPTURE = (
    *("capture.json", "landmarks.npz", "frames", "mattes"),
    *("head_mattes", "body_mattes", "track.npz", "track_refined.npz"),
)
FILE = ("",)
"""What is written where the file or the folder itself is."""


def paths(**parameters: Any) -> dict[str, Any]:
    return parameters


METHOD_ROWS = (
    ("head.rig", paths(head={"file": "h"}), [("h", "the head model", True, (), None)]),
    ("head.remember", paths(file="h"), [("h", "the head model", True, (), None)]),
    ("track.read", paths(path="t"), [("t", "the track", True, (), None)]),
    ("capture.read", paths(path="c"), [("c", "the capture", True, IN_CAPTURE[:2], None)]),
    ("avatar.open", paths(path="a"), [("a", "the avatar", True, (), None)]),
    ("avatar.splats", paths(avatar="a", pose={}), [("a", "the avatar", True, (), None)]),
    (
        "avatar.render",
        paths(subjects=[{"avatar": "a"}, {"avatar": "b"}]),
        [("a", "the avatar", True, (), None), ("b", "the avatar", True, (), None)],
    ),
    (
        "avatar.export",
        paths(subjects=({"avatar": "a"},), path="s"),
        [("a", "the avatar", True, (), None), ("s", "the splats", False, (), FILE)],
    ),
)
JOB_ROWS = (
    (
        "import",
        paths(video="v", capture="c", head="h"),
        [
            ("v", "footage", True, (), None),
            ("c", "the capture", False, (), FILE),
            ("h", "the head model", True, (), None),
        ],
    ),
    (
        "capture",
        paths(video="v", capture="c"),
        [("v", "footage", True, (), None), ("c", "the capture", False, (), FILE)],
    ),
    (
        "track",
        paths(capture="c", head="h"),
        [
            ("c", "the capture", True, IN_CAPTURE[:4], ("head_mattes", "body_mattes", "track.npz")),
            ("h", "the head model", True, (), None),
        ],
    ),
    (
        "train",
        paths(capture="c", avatar="a"),
        [("c", "the capture", True, IN_CAPTURE, ("track_refined.npz",)), ("a", "the avatar", False, (), FILE)],
    ),
    (
        "refine",
        paths(capture="c", avatar="a"),
        [("c", "the capture", True, IN_CAPTURE[:7], ("track_refined.npz",)), ("a", "the avatar", True, (), None)],
    ),
    (
        "bake",
        paths(avatar="a", capture="c", out="o"),
        [
            ("a", "the avatar", True, (), None),
            ("c", "the capture", True, ("track.npz",), None),
            ("o", "the baked avatar", False, (), FILE),
        ],
    ),
    (
        "evaluate",
        paths(avatar="a", capture="c", out="o"),
        [
            ("a", "the avatar", True, (), None),
            ("c", "the capture", True, IN_CAPTURE, None),
            ("o", "the result", False, (), FILE),
        ],
    ),
    (
        "render",
        paths(avatar="a", track="t", out="o"),
        [("a", "the avatar", True, (), None), ("t", "the track", True, (), None), ("o", "the result", False, (), FILE)],
    ),
    ("live", {"camera": "0"}, []),
    (
        "light",
        paths(capture="c"),
        [("c", "the capture", True, ("capture.json", "landmarks.npz", "frames", "mattes", "track.npz"), None)],
    ),
    (
        "speak",
        paths(sound="s", target="t", phones="p", out="o"),
        [
            ("s", "the sound", True, (), None),
            ("t", "the person's track", True, ("track.npz",), None),
            ("p", "the phone table", True, (), None),
            ("o", "the result", False, (), FILE),
        ],
    ),
    (
        "retarget",
        paths(performance="p", target="t", out="o"),
        [
            ("p", "the performance", True, ("track.npz",), None),
            ("t", "the person's track", True, ("track.npz",), None),
            ("o", "the result", False, (), FILE),
        ],
    ),
)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"), (*METHOD_ROWS, *JOB_ROWS), ids=lambda value: str(value)[:12]
)
def test_what_is_sent_and_what_comes_back(name: str, parameters: dict[str, Any], expected: list[tuple]) -> None:
    fields = (METHODS if "." in name else JOBS)[name]
    found = [(path, field.noun, field.reads, field.parts, field.writes) for field, path in paths_in(fields, parameters)]
    assert found == expected


def test_every_method_and_job_with_paths_is_known() -> None:
    assert set(METHODS) == {row[0] for row in METHOD_ROWS} and set(JOBS) == {row[0] for row in JOB_ROWS}


def test_only_avatars_are_looked_at_before_they_are_sent_only_captures_are_replaced_whole() -> None:
    every = [(name, field) for table in (METHODS, JOBS) for name, fields in table.items() for field in fields]
    for name, field in every:
        assert field.is_avatar == (field.noun == "the avatar" and field.reads), name
        assert field.whole == (field.noun == "the capture" and not field.reads), name
        assert field.images == (field.noun == "footage"), name
        assert field.beside == ((".checkpoint",) if field.noun == "the avatar" and not field.reads else ()), name
    assert PathField(("subjects", "*", "avatar"), "the avatar").name == "avatar"


def test_paths_are_replaced_where_they_are_and_nothing_else_changes() -> None:
    given = {"subjects": [{"avatar": "a", "pose": {"jaw": 1}}, {"avatar": None}, {}], "path": "s", "axes": [1]}
    changed = with_paths(METHODS["avatar.export"], given, lambda field, path: f"{field.name}:{path}")
    assert changed == {
        "subjects": [{"avatar": "avatar:a", "pose": {"jaw": 1}}, {"avatar": None}, {}],
        "path": "path:s",
        "axes": [1],
    }
    assert given["path"] == "s" and given["subjects"][0]["avatar"] == "a"
    odd = {"subjects": "none", "path": 7}
    assert with_paths(METHODS["avatar.export"], odd, lambda _, path: path + "!") == {"subjects": "none", "path": "7!"}
    assert next(iter(paths_in(METHODS["avatar.export"], odd)))[1] == "7"
    assert with_paths(METHODS["head.rig"], {"head": "fingerprint"}, lambda _, path: path + "!") == {
        "head": "fingerprint"
    }


def test_every_capture_of_a_training_is_sent() -> None:
    order = {"capture": ["a", "b"], "avatar": "x"}
    assert [path for _, path in paths_in(JOBS["train"], order)] == ["a", "b", "x"]
    assert with_paths(JOBS["train"], order, lambda _, path: path + "!") == {"capture": ["a!", "b!"], "avatar": "x!"}
