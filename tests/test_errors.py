"""Errors: what, where, what to do; catchable as builtins; whole after a process border."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from terrain3d import errors
from terrain3d.errors import Terrain3dError

KINDS = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Terrain3dError)]
BUILTINS = {
    "ConfigError": ValueError, "InputFileError": OSError, "OutputError": OSError, "FrameError": ValueError,
    "CameraError": ValueError, "ImageError": ValueError, "OverlapError": ValueError, "AdjustmentError": ValueError,
    "LidarError": ValueError, "MissingExtraError": ImportError,
}  # fmt: skip


def test_errors__every_child_is_the_builtin_one_would_catch() -> None:
    assert {k.__name__ for k in KINDS} == {"Terrain3dError", *BUILTINS}
    for kind in KINDS:
        assert issubclass(kind, BUILTINS.get(kind.__name__, Exception))


@pytest.mark.parametrize("kind", KINDS)
def test_errors__survive_pickling(kind: type[Terrain3dError]) -> None:
    error = pickle.loads(pickle.dumps(kind("is broken", where=Path("a/b.tif"), fix="mend it")))
    assert type(error) is kind
    assert (error.what, error.where, error.fix) == ("is broken", str(Path("a/b.tif")), "mend it")
    assert str(error) == f"{Path('a/b.tif')}: is broken; mend it"


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "is broken"),
        ({"where": "x"}, "x: is broken"),
        ({"fix": "mend it"}, "is broken; mend it"),
        ({"where": "a\nb", "fix": "  mend\tit "}, "a b: is broken; mend it"),
    ],
)
def test_errors__are_one_line(parts: dict[str, str], text: str) -> None:
    assert str(Terrain3dError("is  broken", **parts)) == text
