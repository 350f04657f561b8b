"""One epoch of a place: its surface, how sure it is, and both epochs in one vertical reference."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from terrain3d.crs import Vertical, vertical_from_name
from terrain3d.errors import FrameError, InputFileError
from terrain3d.io.geoid import to_vertical, undulation
from terrain3d.io.raster_file import RasterFile, raster_file, with_vertical
from terrain3d.raster import Raster

ASSUMED_SIGMA = 0.2  # metres, where a surface comes without sigma; calibration on stable ground makes it larger
SAME = "same"
Source = Raster | RasterFile
OPTION = "say what it is: --vertical-before or --vertical-after with ellipsoid, egm96, a geoid grid, or same"


@dataclass(frozen=True)
class Epoch:
    """Rasters of one epoch; grids and horizontal references may differ, the vertical one is that of the DSM's grid.

    dsm: surface heights, metres, NaN for voids.
    sigma: 1-sigma of these heights, metres; None where it is not known (ASSUMED_SIGMA then stands in).
    mask: why a cell is what it is, codes of ``terrain3d.surface.mask.MaskCode``; None: all cells count as measured.
    dtm, dtm_sigma: ground heights and their 1-sigma, metres. ortho: brightness, any unit, NaN or 0 for none.
    date: of the images, ISO 8601; empty where it is not known.
    """

    name: str
    dsm: Source
    sigma: Source | None = None
    mask: Source | None = None
    dtm: Source | None = None
    dtm_sigma: Source | None = None
    ortho: Source | None = None
    date: str = ""

    @property
    def vertical(self) -> Vertical:
        return self.dsm.grid.reference.vertical


def load_epoch(path: str | Path) -> Epoch:
    """Epoch from the directory of a run or a batch, or from a DSM; the rasters stay in their files.

    Of a directory: dsm.tif (dsm.vrt of a batch), and where present dsm_sigma, mask, dtm, dtm_sigma, ortho and the dates
    in quality.json. Raises InputFileError if there is no readable DSM, FrameError if it has no CRS.
    """
    path = Path(path)
    if not path.exists():
        raise InputFileError("no such file or directory", where=path, fix="give a run's directory or a DSM GeoTIFF")
    if not path.is_dir():
        return Epoch(path.stem, raster_file(path))
    kind = next((k for k in ("tif", "vrt") if (path / f"dsm.{k}").is_file()), None)
    if kind is None:
        raise InputFileError("directory holds no dsm.tif", where=path, fix="give a run's directory or a DSM GeoTIFF")

    def found(name: str, codes: bool = False) -> RasterFile | None:
        file = path / f"{name}.{kind}"
        return raster_file(file, codes=codes) if file.is_file() else None

    dsm = raster_file(path / f"dsm.{kind}")
    vertical = dsm.grid.reference.vertical
    dtm = found("dtm")
    return Epoch(
        path.resolve().name,
        dsm,
        sigma=found("dsm_sigma"),
        mask=found("mask", codes=True),
        dtm=dtm.told(vertical) if dtm is not None and not dtm.stated.is_declared else dtm,
        dtm_sigma=found("dtm_sigma"),
        ortho=found("ortho"),
        date=_date(path / "quality.json"),
    )


def _date(path: Path) -> str:
    """Day of the last image of a run; empty where none is stated."""
    try:
        images = json.loads(path.read_text(encoding="utf-8"))["images"]
        days = [str(i["acquired"])[:10] for i in images if i.get("acquired")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return max(days, default="")


def common_vertical(
    before: Epoch, after: Epoch, told_before: str | None = None, told_after: str | None = None
) -> tuple[Epoch, Epoch, list[str]]:
    """Both epochs in the vertical reference of ``before``, and notes on what was done or had to be assumed.

    told_before, told_after: what the heights of an epoch are over, whatever its files declare: 'ellipsoid', 'egm96',
    the path of a geoid grid, or 'same' as the other's. Declared references that differ are converted by their grids.
    Raises FrameError if an epoch declares none and nothing was told, or if a grid is missing.
    """
    notes: list[str] = []
    before, after = _told(before, told_before, notes), _told(after, told_after, notes)
    if told_before == SAME and after.vertical.is_declared:
        before = _as(before, after.vertical)
    if told_after == SAME and before.vertical.is_declared:
        after = _as(after, before.vertical)
    if SAME in (told_before, told_after):
        notes.append(f"{before.name} and {after.name} are taken to be over one vertical reference, as told")
        if before.vertical.name == after.vertical.name:
            return before, after, notes
    for epoch in (before, after):
        if not epoch.vertical.is_declared:
            raise FrameError(f"{epoch.name} declares no vertical reference", fix=OPTION)
    if before.vertical.name == after.vertical.name:
        return before, after, notes
    try:
        for vertical in (before.vertical, after.vertical):
            undulation(vertical, 0.0, 0.0) if vertical.grid_path is None and not vertical.is_ellipsoid else None
        moved = _converted(after, before.vertical)
    except FrameError as error:
        raise FrameError(
            f"heights are in '{after.vertical.name}', those of {before.name} in '{before.vertical.name}': {error.what}",
            where=after.name, fix=OPTION,
        ) from error  # fmt: skip
    notes.append(f"heights of {after.name} converted from {after.vertical.name} to {before.vertical.name}")
    return before, moved, notes


def _told(epoch: Epoch, told: str | None, notes: list[str]) -> Epoch:
    if told is None or told == SAME:
        return epoch
    vertical = vertical_from_name(told)
    stated = f"although it declares {epoch.vertical.name}" if epoch.vertical.is_declared else "as told"
    notes.append(f"heights of {epoch.name} are taken to be over {vertical.name}, {stated}")
    return _as(epoch, vertical)


def _as(epoch: Epoch, vertical: Vertical) -> Epoch:
    """The epoch said to be over a vertical reference; heights unchanged."""

    def told(source: Any) -> Any:
        if isinstance(source, RasterFile):
            return source.told(vertical)
        return None if source is None else replace(source, grid=with_vertical(source.grid, vertical))

    return replace(epoch, dsm=told(epoch.dsm), dtm=told(epoch.dtm))


def _converted(epoch: Epoch, vertical: Vertical) -> Epoch:
    """The epoch with its heights over another reference. Raises FrameError if a geoid grid is missing."""

    def over(source: Any) -> Any:
        if isinstance(source, RasterFile):
            return source.over(vertical)
        return None if source is None else to_vertical(source, vertical)

    # Ground heights without a reference of their own are over that of the surface.
    same = _as(replace(epoch), epoch.vertical) if isinstance(epoch.dtm, Raster) else epoch
    return replace(same, dsm=over(same.dsm), dtm=over(same.dtm))
