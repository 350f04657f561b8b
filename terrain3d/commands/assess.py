"""``terrain3d assess``."""

from __future__ import annotations

from pathlib import Path

from terrain3d.assess import Assessment, assess
from terrain3d.console import say, say_table
from terrain3d.io.atomic import write_json


def assess_command(estimate: Path, reference: Path, classes: Path | None, json: Path | None) -> None:
    """``terrain3d assess``."""
    found = assess(estimate, reference, classes)
    say_assessment(found)
    if json is not None:
        write_json(json, found.to_dict())


def say_assessment(found: Assessment) -> None:
    """Table of accuracy, remaining offset, notes."""
    say_table(*found.table())
    if found.offset is not None:
        o = found.offset
        say(f"offset: {o.east:+.2f} m east, {o.north:+.2f} m north, {o.up:+.2f} m up")
    for note in found.notes:
        say(f"note: {note}")
