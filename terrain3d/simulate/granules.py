"""Spaceborne lidar over a world, in the HDF5 layouts of ATL08 (release 006) and GEDI02_A (version 2).

Heights are sampled from the bare earth over the footprint and then disturbed as the instruments are: noise, canopy that
lets only part of the light through, roofs taken for ground, clouds (only partly flagged), and GEDI's geolocation error.
Layouts: ICESat-2 ATL08 ATBD and data dictionary, release 006; GEDI02_A version 2 data dictionary.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, cos, pi, radians, sin, tan
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from terrain3d.crs import to_lonlat
from terrain3d.simulate.layers import BUILDING, TREE, WATER
from terrain3d.simulate.world import World

Floats = NDArray[np.float64]
FILL = np.float32(3.4028235e38)
ATLAS_EPOCH_GPS_S = 1_198_800_018.0
ATL08_BEAMS = ("gt1l", "gt1r", "gt2l", "gt2r", "gt3l", "gt3r")
GEDI_BEAMS = tuple(f"BEAM{i:04b}" for i in (0, 1, 2, 3, 5, 6, 8, 11))


@dataclass(frozen=True)
class Faults:
    """Shares of returns that go wrong, and how far off honest ones are.

    cloud: returns from cloud, ``cloud_flagged`` of which the product flags. roof: chance that a footprint mostly on a
    roof is reported as ground. blocked: chance that dense canopy hides the ground, with no or a raised height.
    noise: 1-sigma on open flat ground (m). geolocation: 1-sigma of GEDI's horizontal error per axis and beam (m).
    """

    cloud: float = 0.04
    cloud_flagged: float = 0.7
    roof: float = 0.8
    blocked: float = 0.25
    noise: float = 0.12
    geolocation: float = 6.5


@dataclass(frozen=True)
class _Footprints:
    """What lies under N footprints: mean and spread of the ground, shares of the classes, canopy and highest point."""

    ground: Floats
    spread: Floats
    slope: Floats
    canopy_share: Floats
    roof_share: Floats
    water_share: Floats
    canopy: Floats
    roof: Floats
    highest: Floats


def _look(world: World, x: Floats, y: Floats, along: Floats, weight: Floats) -> _Footprints:
    """Footprints from (N, M) sample places that all lie in the world; ``along`` (M,) their distance along the track."""
    column, row = world.grid.column_row(x, y)
    at = np.rint(row).astype(np.intp), np.rint(column).astype(np.intp)
    ground, surface = world.ground[at].astype(float), world.surface[at].astype(float)
    classes = world.classes[at]
    w = np.broadcast_to(weight / weight.sum(), ground.shape)
    tree, roof = classes == TREE, classes == BUILDING
    mean = (w * ground).sum(1)
    centred = along - (w[0] * along).sum()
    slope = (w * (ground - mean[:, None]) * centred).sum(1) / max(float((w[0] * centred**2).sum()), 1e-9)
    above = surface - ground
    canopy = np.where(tree.any(1), np.quantile(np.where(tree, above, 0.0), 0.98, axis=1), 0.0)
    roof_share = (w * roof).sum(1)
    return _Footprints(
        ground=mean,
        spread=np.sqrt((w * (ground - mean[:, None]) ** 2).sum(1)),
        slope=slope,
        canopy_share=(w * tree).sum(1),
        roof_share=roof_share,
        water_share=(w * (classes == WATER)).sum(1),
        canopy=canopy,
        roof=(w * roof * surface).sum(1) / np.maximum(roof_share, 1e-9),
        highest=surface.max(1),
    )


def _estimate(
    seen: _Footprints, cloud: NDArray[np.bool_], faults: Faults, scale: float, rng: np.random.Generator
) -> tuple[Floats, NDArray[np.bool_]]:
    """Ground heights as a product would report them, and where it finds none at all."""
    n = seen.ground.size
    height = seen.ground + rng.normal(0, 1, n) * scale * (faults.noise + 0.15 * np.minimum(seen.spread, 3.0))
    height += seen.canopy_share * (0.04 + 0.3 * np.abs(rng.normal(0, 1, n)))
    dense = (seen.canopy_share > 0.7) & (rng.random(n) < faults.blocked)
    raised = dense & (rng.random(n) < 0.6)
    height[raised] += (rng.uniform(0.15, 0.7, n) * seen.canopy)[raised]
    on_roof = (seen.roof_share > 0.55) & (rng.random(n) < faults.roof)
    height[on_roof] = seen.roof[on_roof] + rng.normal(0, 0.2, n)[on_roof]
    height[cloud] += (rng.choice([-1, 1], n, p=[0.3, 0.7]) * rng.uniform(15, 250, n))[cloud]
    return height, dense & ~raised & ~cloud


def _track(world: World, heading_deg: float, offset: float, step: float, margin: float) -> tuple[Floats, Floats]:
    """Places every ``step`` metres on a line at ``offset`` right of the world's centre, ``margin`` inside its rim."""
    west, south, east, north = world.grid.bounds
    heading = radians(heading_deg)
    d = np.array([sin(heading), cos(heading)])
    centre = np.array([(west + east) / 2, (south + north) / 2]) + offset * np.array([d[1], -d[0]])
    reach = np.hypot(east - west, north - south) / 2
    t = np.arange(-ceil(reach / step), ceil(reach / step) + 1) * step
    x, y = centre[0] + t * d[0], centre[1] + t * d[1]
    inside = (x > west + margin) & (x < east - margin) & (y > south + margin) & (y < north - margin)
    return x[inside], y[inside]


def write_atl08(
    path: Path,
    world: World,
    seed: int,
    heading_deg: float = 352.0,
    tracks: int = 6,
    time_s: float = 2.0e8,
    faults: Faults | None = None,
) -> None:
    """An ATL08 granule whose beams are spread evenly over the world, 100 m segments with their 20 m parts.

    Real beam pairs are 3.3 km apart; here they are as near as the world asks for. ``time_s``: seconds since the ATLAS
    epoch of the first segment.
    """
    faults = faults or Faults()
    rng = np.random.default_rng((seed, 3))
    width = world.grid.width * world.grid.resolution
    with h5py.File(path, "w") as file:
        file.attrs["short_name"] = np.bytes_("ATL08")  # of fixed length, as in the product
        file.create_group("METADATA/DatasetIdentification").attrs["VersionID"] = np.bytes_("006")
        file["ancillary_data/atlas_sdp_gps_epoch"] = np.array([ATLAS_EPOCH_GPS_S])
        file["orbit_info/sc_orient"] = np.array([1], np.int8)
        for i, beam in enumerate(ATL08_BEAMS[:tracks]):
            offset = ((i + 0.5) / tracks - 0.5) * 0.9 * width + float(rng.normal(0, 0.01 * width))
            x, y = _track(world, heading_deg, offset, 20.0, 20.0)
            count = x.size // 5
            if count == 0:
                continue
            group = file.create_group(beam)
            # with the spacecraft flying forward the right beams are the strong ones
            group.attrs["atlas_beam_type"] = np.bytes_("strong" if beam.endswith("r") else "weak")
            _atl08_beam(
                group, world, x[: 5 * count], y[: 5 * count], heading_deg, beam.endswith("r"), time_s, faults, rng
            )


def _atl08_beam(
    group: h5py.Group,
    world: World,
    x: Floats,
    y: Floats,
    heading_deg: float,
    strong: bool,
    time_s: float,
    faults: Faults,
    rng: np.random.Generator,
) -> None:
    count = x.size // 5
    heading = radians(heading_deg)
    along, across = (a.ravel() for a in np.meshgrid(np.arange(-9.5, 10, 1.0), np.arange(-5, 5.1, 1.0), indexing="ij"))
    px = x[:, None] + along * sin(heading) + across * cos(heading)
    py = y[:, None] + along * cos(heading) - across * sin(heading)
    seen = _look(world, px, py, along, np.ones(along.size))
    cloud_100 = rng.random(count) < faults.cloud
    cloud = np.repeat(cloud_100, 5)
    height, lost = _estimate(seen, cloud, faults, 1.0 if strong else 1.4, rng)
    height_20 = np.where(lost, FILL, height.astype(np.float32)).reshape(count, 5)
    canopy = seen.canopy * rng.normal(0.95, 0.06, x.size)
    canopy_20 = np.where(seen.canopy_share > 0.05, canopy, FILL).astype(np.float32).reshape(count, 5)

    # 100 m: a straight line through the parts that have ground, at the middle of the segment
    parts = np.ma.masked_array(height.reshape(count, 5), lost.reshape(count, 5))
    enough = parts.count(1) >= 2
    best = np.where(enough, _line_at_middle(parts), FILL).astype(np.float32)
    median = np.where(enough, np.ma.median(parts, axis=1).filled(FILL), FILL).astype(np.float32)
    share = seen.canopy_share.reshape(count, 5).mean(1)
    tallest = np.where(share > 0.05, canopy.reshape(count, 5).max(1), FILL).astype(np.float32)
    photons = rng.poisson((130 if strong else 35) * (1.0 - 0.75 * share))
    rough = seen.spread.reshape(count, 5).mean(1)
    middle = np.arange(count) * 5 + 2
    lon, lat = to_lonlat(world.grid.reference.horizontal, x, y)
    flagged = cloud_100 & (rng.random(count) < faults.cloud_flagged)

    land = group.create_group("land_segments")
    land["latitude"], land["longitude"] = lat[middle].astype(np.float32), lon[middle].astype(np.float32)
    land["latitude_20m"] = lat.reshape(count, 5).astype(np.float32)
    land["longitude_20m"] = lon.reshape(count, 5).astype(np.float32)
    land["delta_time"] = time_s + np.arange(count) * 100.0 / 6900.0
    land["segment_watermask"] = (seen.water_share.reshape(count, 5).mean(1) > 0.5).astype(np.int32)
    land["cloud_flag_atm"] = np.where(flagged, rng.integers(2, 6, count), rng.integers(0, 2, count)).astype(np.int8)
    land["msw_flag"] = np.where(flagged, 3, 0).astype(np.int8)
    land["night_flag"] = np.ones(count, np.int32)
    land["urban_flag"] = (seen.roof_share.reshape(count, 5).mean(1) > 0.1).astype(np.int32)
    land["sigma_h"] = np.full(count, 0.3, np.float32)
    reference = seen.ground[middle] + rng.normal(1.0, 2.5, count)
    land["dem_h"] = reference.astype(np.float32)
    terrain, vegetation = land.create_group("terrain"), land.create_group("canopy")
    terrain["h_te_best_fit"], terrain["h_te_median"] = best, median
    terrain["h_te_best_fit_20m"] = height_20
    sigma = np.sqrt(rough**2 + 0.3**2 + (0.03 * np.abs(seen.canopy.reshape(count, 5).mean(1))) ** 2)
    stated = sigma / np.sqrt(np.maximum(photons, 1)) + 0.3
    terrain["h_te_uncertainty"] = np.where(enough, stated, FILL).astype(np.float32)
    terrain["n_te_photons"] = photons.astype(np.int32)
    along_100 = np.diff(seen.ground.reshape(count, 5)[:, [0, 4]], axis=1)[:, 0] / 80.0
    terrain["terrain_slope"] = along_100.astype(np.float32)
    vegetation["h_canopy"], vegetation["h_canopy_20m"] = tallest, canopy_20
    vegetation["n_ca_photons"] = rng.poisson((90 if strong else 25) * share).astype(np.int32)


def _line_at_middle(parts: np.ma.MaskedArray) -> Floats:
    """Value at the middle of five equidistant parts of the straight line through those that are there."""
    weight = (~np.ma.getmaskarray(parts)).astype(float)
    t = np.arange(5) - 2.0
    values = parts.filled(0.0)
    s0, s1, s2 = weight.sum(1), (weight * t).sum(1), (weight * t * t).sum(1)
    v0, v1 = (weight * values).sum(1), (weight * t * values).sum(1)
    return (s2 * v0 - s1 * v1) / np.maximum(s0 * s2 - s1 * s1, 1e-9)


def write_gedi_l2a(
    path: Path, world: World, seed: int, time_s: float = 6.0e7, tracks: int = 8, faults: Faults | None = None
) -> None:
    """A GEDI02_A granule: beams of 25 m footprints every 60 m, half of them on the ascending heading.

    Coordinates are those the product states; the footprint itself is off by the beam's geolocation error.
    """
    faults = faults or Faults()
    rng = np.random.default_rng((seed, 4))
    width = world.grid.width * world.grid.resolution
    crs = world.grid.reference.horizontal
    radius = np.sqrt((np.arange(61) + 0.5) / 61) * 15.0
    angle = np.arange(61) * pi * (3.0 - np.sqrt(5.0))
    dx, dy = radius * np.cos(angle), radius * np.sin(angle)
    # 25 m is the diameter at which the Gaussian beam has fallen to exp(-2)
    weight = np.exp(-2.0 * (radius / 12.5) ** 2)
    with h5py.File(path, "w") as file:
        file.attrs["short_name"] = np.bytes_("GEDI_L2A")
        for i, beam in enumerate(GEDI_BEAMS[:tracks]):
            heading = 42.0 if i % 2 else 138.0
            offset = ((i + 0.5) / tracks - 0.5) * 0.8 * width + float(rng.normal(0, 0.02 * width))
            x, y = _track(world, heading, offset, 60.0, 16.0 + 4.0 * faults.geolocation)
            n = x.size
            if n == 0:
                continue
            shift = np.clip(rng.normal(0, faults.geolocation, 2), -3 * faults.geolocation, 3 * faults.geolocation)
            tx = x + shift[0] + np.clip(rng.normal(0, 1.0, n), -3, 3)
            ty = y + shift[1] + np.clip(rng.normal(0, 1.0, n), -3, 3)
            seen = _look(world, tx[:, None] + dx, ty[:, None] + dy, dx, weight)
            cloud = rng.random(n) < 1.5 * faults.cloud
            ground, lost = _estimate(seen, cloud, faults, 1.5, rng)
            ground[lost] += 0.3 * seen.canopy[lost]
            highest = np.where(cloud, ground + rng.uniform(2, 15, n), np.maximum(seen.highest, ground + 0.5))
            highest += rng.normal(0, 0.15, n)
            lon, lat = to_lonlat(crs, x, y)
            power = int(beam[4:], 2) >= 5
            sensitivity = np.clip(rng.normal(0.97 if power else 0.94, 0.012, n), 0.5, 0.995)
            bad = (cloud & (rng.random(n) < faults.cloud_flagged)) | (rng.random(n) < 0.03)
            group = file.create_group(beam)
            group.attrs["description"] = np.bytes_("Full power beam" if power else "Coverage beam")
            group["lat_lowestmode"], group["lon_lowestmode"] = lat, lon
            group["elev_lowestmode"] = ground.astype(np.float32)
            group["elev_highestreturn"] = highest.astype(np.float32)
            group["rh"] = _relative_heights(seen, highest - ground)
            group["quality_flag"] = (~bad).astype(np.uint8)
            group["degrade_flag"] = np.where(rng.random(n) < 0.02, 3, 0).astype(np.uint8)
            group["surface_flag"] = (~bad).astype(np.uint8)
            group["sensitivity"] = np.where(bad, rng.uniform(0.4, 0.9, n), sensitivity).astype(np.float32)
            group["solar_elevation"] = np.full(n, -20.0 if i % 4 < 2 else 25.0, np.float32)
            group["delta_time"] = time_s + 60.0 * i + np.arange(n) / 121.0
            group["shot_number"] = np.uint64(10_000_000 * (i + 1)) + np.arange(n, dtype=np.uint64)
            group["digital_elevation_model"] = (seen.ground + rng.normal(1.5, 3.0, n)).astype(np.float32)


def _relative_heights(seen: _Footprints, top: Floats) -> NDArray[np.float32]:
    """(N, 101) heights below which 0 to 100 per cent of the energy returns: a pulse on the ground, and the canopy."""
    energy = np.linspace(0.0, 1.0, 101)
    pulse = 0.9 + seen.spread[:, None]
    share = np.clip(seen.canopy_share + seen.roof_share, 0.0, 0.95)[:, None]
    in_ground = np.clip(energy / np.maximum(1.0 - share, 1e-6), 0.0, 1.0)
    ground = pulse * np.tan(1.2 * (in_ground - 0.5)) / tan(0.6) * 0.8
    in_canopy = np.clip((energy - (1.0 - share)) / np.maximum(share, 1e-6), 0.0, 1.0)
    height = np.where(energy < 1.0 - share, ground, np.maximum(ground, top[:, None] * (0.25 + 0.75 * in_canopy**0.6)))
    height = np.maximum.accumulate(np.minimum(height, top[:, None]), axis=1)
    height[:, 100] = top
    return height.astype(np.float32)
