"""Points as values: a stereo cloud, and lidar ground returns."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.crs import Reference

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

# Random horizontal error of a return, metres. ICESat-2 is within 5 m, most of it common to a pass and so part of the
# frame that is matched to (Luthcke et al. 2021); GEDI version 2 is about 10 m, different for every beam and orbit.
HORIZONTAL_SIGMA = (("GEDI", 10.0), ("ATL", 1.0))
HORIZONTAL_SIGMA_OTHER = 2.0
CANOPY_LIMIT = 2.0  # metres of canopy under which ground counts as open


@dataclass(frozen=True)
class PointCloud:
    """Points of stereo matching in one reference (projected, heights of its vertical reference).

    xyz: (N, 3) easting, northing, height, metres.
    sigma: (N,) 1-sigma of the height, metres.
    confidence: (N,) 0 to 1, from the matcher.
    pair: (N,) index of the stereo pair that saw the point.
    intensity: (N,) image value of the point in the pair's first image.
    """

    reference: Reference
    xyz: Floats
    sigma: Singles
    confidence: Singles
    pair: NDArray[np.uint8]
    intensity: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.xyz)

    def select(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> PointCloud:
        """Points by a boolean mask or by indices."""
        return PointCloud(
            self.reference,
            self.xyz[which],
            self.sigma[which],
            self.confidence[which],
            self.pair[which],
            self.intensity[which],
        )


@dataclass(frozen=True)
class LidarReturns:
    """Ground returns of a height-measuring lidar, WGS 84 ellipsoidal heights, one row a return.

    lon_deg, lat_deg, height: position of the ground under the footprint.
    sigma: 1-sigma of the height as the product states it (floor applied by the reader), metres.
    length, width: footprint along and across the track, metres (equal for a round one).
    canopy: canopy height over the ground, metres; NaN where the product has none.
    time_s: seconds since 2018-01-01 where the product has dates; orders returns along a track.
    track: index into ``track_names``: one granule and beam, the unit that is held out in validation.
    track_names: names such as 'ATL08_20240501.h5/gt1r'.
    product: 'ATL08', 'GEDI_L2A', ... one a track.
    place_sigma: 1-sigma of the horizontal error where it is known by return, metres; else NaN or None, and the product
        tells, see ``horizontal_sigma``.
    """

    lon_deg: Floats
    lat_deg: Floats
    height: Floats
    sigma: Floats
    length: Floats
    width: Floats
    canopy: Floats
    time_s: Floats
    track: NDArray[np.int32]
    track_names: tuple[str, ...]
    product: tuple[str, ...]
    place_sigma: Floats | None = None

    def __len__(self) -> int:
        return len(self.height)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that have returns here."""
        return tuple(dict.fromkeys(self.track_names[t].partition("/")[0] for t in np.unique(self.track)))

    def select(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> LidarReturns:
        """Returns by a boolean mask or by indices; the list of tracks stays whole."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("track_names", "product")}
        return replace(self, **{name: values[which] for name, values in arrays.items() if values is not None})


def horizontal_sigma(returns: LidarReturns) -> Floats:
    """1-sigma of the random horizontal error of each return, metres: its own, or that of its product."""
    of_track = [
        next((s for name, s in HORIZONTAL_SIGMA if product.startswith(name)), HORIZONTAL_SIGMA_OTHER)
        for product in returns.product
    ]
    if not len(returns):
        return np.zeros(0)
    sigma = np.asarray(of_track, float)[returns.track]
    own = returns.place_sigma
    return sigma if own is None else np.where(np.isfinite(own), own, sigma)


def canopy_limit(returns: LidarReturns, slope: Any) -> Floats:
    """Canopy height, metres, up to which ground of a slope (rise over run) counts as open, one a return.

    A product measures canopy down to the lowest ground in the footprint, so half the footprint's relief is allowed for.
    """
    return np.asarray(CANOPY_LIMIT + slope * returns.length / 2)


def join_returns(parts: list[LidarReturns]) -> LidarReturns:
    """Returns of several granules as one, tracks renumbered."""
    offsets = np.cumsum([0, *(len(p.track_names) for p in parts)])[:-1]
    left_out = ("track", "track_names", "product", "place_sigma")
    names = [f.name for f in fields(LidarReturns) if f.name not in left_out]
    arrays = {n: np.concatenate([np.asarray(getattr(p, n)) for p in parts]) for n in names}
    if any(p.place_sigma is not None for p in parts):
        own = [np.full(len(p), np.nan) if p.place_sigma is None else p.place_sigma for p in parts]
        arrays["place_sigma"] = np.concatenate(own)
    return LidarReturns(
        **arrays,
        track=np.concatenate([p.track + o for p, o in zip(parts, offsets, strict=True)]).astype(np.int32),
        track_names=tuple(n for p in parts for n in p.track_names),
        product=tuple(n for p in parts for n in p.product),
    )
