"""What a folder of ``terrain3d change`` says: co-registration, told vertical references, changed polygons."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from terrain3d.change.align import Alignment
from terrain3d.change.bend import Bend
from terrain3d.errors import InputFileError
from terrain3d.io.vectors import Layer, read_layer


@dataclass(frozen=True)
class ChangeFolder:
    """alignment: of the later epoch. registration: its 1-sigma, metres. told: vertical references that were told, of
    the earlier and the later epoch; None where the files' own hold."""

    alignment: Alignment
    registration: float
    told: tuple[str | None, str | None]


def read_change_folder(folder: Path) -> ChangeFolder:
    """Raises InputFileError if it is no folder of a change."""
    path = folder / "quality.json"
    try:
        quality: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stored = quality["alignment"]
        alignment = Alignment(**{f.name: stored[f.name] for f in fields(Alignment) if f.name in stored})
        if alignment.bend is not None:
            alignment = replace(alignment, bend=_bend(stored["bend"]))
        before, after = quality.get("vertical_told", (None, None))
        return ChangeFolder(alignment, float(quality["stable"]["registration"]), (before, after))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputFileError("is no quality.json of a change folder", where=path) from error


def _bend(stored: dict[str, Any]) -> Bend:
    coefficients = tuple(tuple(map(float, row)) for row in stored["coefficients"])
    return Bend(
        float(stored["half"]), coefficients, float(stored["along_deg"]), tuple(float(v) for v in stored["wave"])
    )


def read_changes(folder: Path) -> Layer:
    """Layer ``changes`` of a change folder. Raises InputFileError."""
    return read_layer(folder / "change.gpkg", "changes")
