"""One epoch of a place: its surface, how sure it is, and both epochs in one vertical reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from terrain3d.crs import Reference, Vertical
from terrain3d.errors import FrameError, InputFileError
from terrain3d.io.geoid import to_vertical
from terrain3d.io.rasters import read_classes, read_raster
from terrain3d.raster import Raster

ASSUMED_SIGMA = 0.2  # metres, where a surface comes without sigma; calibration on stable ground makes it larger


@dataclass(frozen=True)
class Epoch:
    """Rasters of one epoch; grids and horizontal references may differ, the vertical one is that of the DSM's grid.

    dsm: surface heights, metres, NaN for voids.
    sigma: 1-sigma of these heights, metres; None where it is not known (ASSUMED_SIGMA then stands in).
    mask: why a cell is what it is, codes of ``terrain3d.surface.mask.MaskCode``; None: all cells count as measured.
    dtm: ground heights, metres.
    """

    name: str
    dsm: Raster
    sigma: Raster | None = None
    mask: Raster | None = None
    dtm: Raster | None = None


def load_epoch(path: str | Path) -> Epoch:
    """Epoch from the directory of a run (dsm.tif, and where present dsm_sigma.tif, mask.tif, dtm.tif) or from a DSM.

    Raises InputFileError if there is no readable DSM, FrameError if it has no CRS.
    """
    path = Path(path)
    if not path.exists():
        raise InputFileError("no such file or directory", where=path, fix="give a run's directory or a DSM GeoTIFF")
    if not path.is_dir():
        return Epoch(path.stem, read_raster(path))
    if not (path / "dsm.tif").is_file():
        raise InputFileError("directory holds no dsm.tif", where=path, fix="give a run's directory or a DSM GeoTIFF")
    dsm = read_raster(path / "dsm.tif")
    present = {name: path / f"{name}.tif" for name in ("dsm_sigma", "mask", "dtm") if (path / f"{name}.tif").is_file()}
    return Epoch(
        path.resolve().name,
        dsm,
        sigma=read_raster(present["dsm_sigma"]) if "dsm_sigma" in present else None,
        mask=read_classes(present["mask"]) if "mask" in present else None,
        dtm=read_raster(present["dtm"]) if "dtm" in present else None,
    )


def common_vertical(before: Epoch, after: Epoch) -> tuple[Epoch, Epoch, list[str]]:
    """Both epochs in the vertical reference of ``before``, and notes on what was done or had to be assumed.

    An epoch that declares no vertical reference is taken to be in the other's: co-registration removes a constant
    offset anyway, and the note tells. Declared references that differ are converted with their geoid grids.
    Raises FrameError if a conversion is needed and a grid is missing.
    """
    first, second = before.dsm.grid.reference.vertical, after.dsm.grid.reference.vertical
    if not first.is_declared and not second.is_declared:
        return before, after, [f"neither {before.name} nor {after.name} declares a vertical reference: taken as equal"]
    if not first.is_declared:
        note = f"{before.name} declares no vertical reference: taken to be {second.name} as {after.name}"
        return _declared(before, second), after, [note]
    if not second.is_declared:
        note = f"{after.name} declares no vertical reference: taken to be {first.name} as {before.name}"
        return before, _declared(after, first), [note]
    if first.name == second.name:
        return before, after, []
    try:
        moved = replace(
            after,
            dsm=to_vertical(after.dsm, first),
            dtm=None if after.dtm is None else to_vertical(_with_vertical(after.dtm, second), first),
        )
    except FrameError as error:
        raise FrameError(
            f"heights are in '{second.name}', those of {before.name} in '{first.name}': {error.what}",
            where=after.name,
            fix="bring both DSMs into one vertical reference, or into the ellipsoid or egm96",
        ) from error
    return before, moved, [f"heights of {after.name} converted from {second.name} to {first.name}"]


def _declared(epoch: Epoch, vertical: Vertical) -> Epoch:
    dtm = None if epoch.dtm is None else _with_vertical(epoch.dtm, vertical)
    return replace(epoch, dsm=_with_vertical(epoch.dsm, vertical), dtm=dtm)


def _with_vertical(raster: Raster, vertical: Vertical) -> Raster:
    reference = Reference(raster.grid.reference.horizontal, vertical)
    return replace(raster, grid=replace(raster.grid, reference=reference))
