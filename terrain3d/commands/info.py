"""``terrain3d info``."""

from __future__ import annotations

from pathlib import Path

from terrain3d.console import say
from terrain3d.errors import Terrain3dError
from terrain3d.info import describe


def info_command(files: list[Path]) -> None:
    """``terrain3d info``: every file is described; the first that cannot be is the error, at the end."""
    failed: Terrain3dError | None = None
    for path in files:
        try:
            found = describe(path)
        except Terrain3dError as error:
            failed = failed or error
            continue
        say(f"{found.path}: {found.kind}")
        width = max((len(str(k)) for k, _ in found.facts), default=0)
        for key, value in found.facts:
            say(f"  {str(key).ljust(width)}  {value}")
    if failed is not None:
        raise failed
