"""``terrain3d assess``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrain3d.assess import Assessment, assess
from terrain3d.console import say, say_table
from terrain3d.errors import Terrain3dError
from terrain3d.io.atomic import write_json
from terrain3d.pipeline.seen import views_seeing
from terrain3d.raster import Raster


def assess_command(estimate: Path, reference: Path, classes: Path | None, json: Path | None) -> None:
    """``terrain3d assess``."""
    images = estimate / "config.yaml"
    found = assess(estimate, reference, classes, partial(_seen, estimate) if images.is_file() else None)
    say_assessment(found)
    if json is not None:
        write_json(json, found.to_dict())


def _seen(run: Path, truth: Raster) -> NDArray[np.int64]:
    try:
        return views_seeing(run, truth)
    except Terrain3dError as error:
        say(f"note: nothing is told by number of views: {error}")
        return np.full(truth.grid.shape, -1)


def say_assessment(found: Assessment) -> None:
    """Table of accuracy, remaining offset, notes."""
    say_table(*found.table())
    if found.offset is not None:
        o = found.offset
        say(f"offset: {o.east:+.2f} m east, {o.north:+.2f} m north, {o.up:+.2f} m up")
    if found.sigma:
        say_table(*found.sigma_table())
    for note in found.notes:
        say(f"note: {note}")
