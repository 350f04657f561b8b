"""One tree of errors: every failure a user can cause says what, where, and what to do about it.

Each child is also the builtin that a library user would expect to catch (ValueError, OSError, ...).
The command line turns any ``Terrain3dError`` into one line and exit code 2.
"""

from __future__ import annotations

from pathlib import Path


class Terrain3dError(Exception):
    """Base of all errors that the input, the configuration or the machine of a user can cause.

    Parameters
    ----------
    what: what is wrong, in one clause.
    where: the file, key or image it was found in.
    fix: what the user can do about it.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        return " ".join((text if self.fix is None else f"{text}; {self.fix}").split())

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(kind: type[Terrain3dError], what: str, where: str | None, fix: str | None) -> Terrain3dError:
    """Errors cross process borders, so their keyword arguments must survive pickling."""
    return kind(what, where=where, fix=fix)


class ConfigError(Terrain3dError, ValueError):
    """A configuration key or value is unknown or impossible."""


class InputFileError(Terrain3dError, OSError):
    """A file is missing, truncated, or not what its name says."""


class OutputError(Terrain3dError, OSError):
    """A result cannot be written (full disk, no permission, not a directory)."""


class FrameError(Terrain3dError, ValueError):
    """A horizontal or vertical reference is missing, unknown or contradictory."""


class CameraError(Terrain3dError, ValueError):
    """An image has no usable sensor model."""


class ImageError(Terrain3dError, ValueError):
    """An image has no usable pixels."""


class OverlapError(Terrain3dError, ValueError):
    """Inputs do not cover common ground."""


class AdjustmentError(Terrain3dError, ValueError):
    """The images cannot be tied together."""


class LidarError(Terrain3dError, ValueError):
    """A lidar granule has no usable returns, or lacks the fields that are needed."""


class MissingExtraError(Terrain3dError, ImportError):
    """An optional library was asked for by name and is not installed."""
