"""Lidar heights as observations of the network: its height, tilt and bends from returns, its inner geometry from ties.

Sequential least squares: the finished free network enters with its normal matrix, so what ties determine stays as they
have it and lidar moves what they leave open (Triggs et al. 2000, section 9 on gauge and priors).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrain3d.adjust.bundle import Adjustment, parameters_from, reweighted, with_parameters
from terrain3d.adjust.heights import Footprints, pick_returns, rough_offset, see_footprints
from terrain3d.adjust.normal import basis, linearize, metres_per_unit
from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera
from terrain3d.camera.rpc import project
from terrain3d.crs import from_lonlat
from terrain3d.image.view import View
from terrain3d.points import LidarReturns
from terrain3d.stats import nmad, tukey_weights

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SIGMA_FLOOR = 0.1  # metres
ROUGHNESS_SHARE = 0.5  # of the places' spread that stays in the height of their plane
MODE_WINDOW = 1.5  # metres
TUKEY_C = 4.685
SCALE_LIMITS = (1.0, 3.0)
MIN_FOOTPRINTS = 8
MIN_SHARE = 0.4  # of the footprints that must agree on a height
PASSES = 2
TURNS = 20
# Random horizontal error of a return, metres: GEDI version 2 about 10, ICESat-2 mostly common to a pass.
HORIZONTAL_SIGMA = (("GEDI", 10.0), ("ATL", 1.0))
HORIZONTAL_SIGMA_OTHER = 2.0


@dataclass(frozen=True)
class HeightTies:
    """What lidar said of the network. Return minus views, metres.

    given: returns. measured: those that the views see ground of. used: those that carried weight at the end.
    median_before, nmad_before, median_after, nmad_after: of the ``used``, without and with their part in the network.
    applied: whether the network follows them; ``reason`` if not.
    """

    given: int
    measured: int
    used: int
    median_before: float
    nmad_before: float
    median_after: float
    nmad_after: float
    applied: bool
    reason: str


def level(
    adjustment: Adjustment, views: list[View], ties: Ties, returns: LidarReturns, crs: str
) -> tuple[Adjustment, HeightTies]:
    """The adjustment moved onto lidar heights; as it is, with the reason, where too few returns agree.

    views: with the cameras of the adjustment. returns: usable ground returns; those on roofs, in trees or off by gross
    errors get no weight.
    """
    rows = pick_returns(returns)
    lift = rough_offset(adjustment.points, returns.select(rows), crs)
    free = parameters_from(adjustment.cameras)
    parameters, stiff = free, np.linalg.inv(adjustment.covariance)
    first: Floats | None = None
    for _ in range(PASSES):
        cameras = [with_parameters(v.camera, p) for v, p in zip(views, parameters, strict=True)]
        here = [v.with_camera(c) for v, c in zip(views, cameras, strict=True)]
        seen = see_footprints(here, returns, rows, lift, crs)
        if len(seen.at) < MIN_FOOTPRINTS:
            return adjustment, _refused(returns, seen, f"views see the ground of {len(seen.at)} lidar returns")
        design = _heights_by_parameters(cameras, seen, crs, adjustment.along)
        sigma = _sigma(returns, seen)
        parameters, weight, covariance = _solve(free, parameters, stiff, design, seen.offset, sigma)
        if first is None:
            first = np.full(len(returns), np.nan)
            first[seen.at] = seen.offset
        lift = 0.0
    used = weight > 0
    if used.sum() < max(MIN_FOOTPRINTS, MIN_SHARE * len(used)):
        return adjustment, _refused(returns, seen, f"{used.sum()} of {len(used)} lidar returns agree on a height")
    after = seen.offset - design @ (parameters - _parameters(cameras)).ravel()
    before = first[seen.at[used]]
    found = HeightTies(
        len(returns), len(used), int(used.sum()), float(np.nanmedian(before)), nmad(before),
        float(np.median(after[used])), nmad(after[used]), True, "",
    )  # fmt: skip
    return reweighted(adjustment, ties, parameters, covariance), found


def _parameters(cameras: list[Camera]) -> Floats:
    return parameters_from(cameras)


def _refused(returns: LidarReturns, seen: Footprints, reason: str) -> HeightTies:
    nan = float("nan")
    return HeightTies(len(returns), len(seen.at), 0, nan, nan, nan, nan, False, f"{reason}: too few to level by")


def _sigma(returns: LidarReturns, seen: Footprints) -> Floats:
    """1-sigma of a return's height against the plane of its footprint, metres."""
    by_track = [
        next((s for name, s in HORIZONTAL_SIGMA if product.startswith(name)), HORIZONTAL_SIGMA_OTHER)
        for product in returns.product
    ]
    sideways = np.array(by_track)[returns.track[seen.at]] * np.hypot(*seen.slope.T)
    variance = returns.sigma[seen.at] ** 2 + sideways**2 + (ROUGHNESS_SHARE * seen.roughness) ** 2 + SIGMA_FLOOR**2
    return np.asarray(np.sqrt(variance))


def _solve(
    free: Floats, start: Floats, stiff: Floats, design: Floats, offset: Floats, sigma: Floats
) -> tuple[Floats, Floats, Floats]:
    """Parameters, weights of the returns (0 to 1), covariance. Linear but for the weights."""
    residual, scale = offset - _most_common(offset), SCALE_LIMITS[1]
    parameters = start
    for _ in range(TURNS):
        weight = tukey_weights(residual, scale * sigma, TUKEY_C)
        w = weight / (scale * sigma) ** 2
        covariance = np.linalg.inv(stiff + (design * w[:, None]).T @ design)
        step = covariance @ (design.T @ (w * offset) - stiff @ (start - free).ravel())
        before, parameters = parameters, start + step.reshape(start.shape)
        residual = offset - design @ step
        agreeing = np.abs(residual / sigma)[weight > 0]
        scale = float(np.clip(1.4826 * np.median(agreeing), *SCALE_LIMITS)) if len(agreeing) else SCALE_LIMITS[1]
        if np.abs(parameters - before).max() < 1e-4:
            break
    return parameters, weight, covariance


def _most_common(values: Floats) -> float:
    """Median of the values within the window that holds the most of them."""
    v = np.sort(values)
    last = np.searchsorted(v, v + 2 * MODE_WINDOW, side="right")
    first = int(np.argmax(last - np.arange(len(v))))
    return float(np.median(v[first : last[first]]))


def _heights_by_parameters(cameras: list[Camera], seen: Footprints, crs: str, along: int) -> Floats:
    """Change of the views' height at the returns by the corrections' parameters, metres per px (N, n p)."""
    ties, half = seen.ties, 3 + along
    owner = np.full(len(seen.points), -1)
    for k in range(len(seen.at)):
        owner[seen.first[k] : seen.first[k] + seen.count[k]] = k
    a = linearize(cameras, ties, seen.points)[0]
    normal = np.zeros((len(seen.points), 3, 3))
    np.add.at(normal, ties.track, np.einsum("nki,nkj->nij", a, a))
    # height of the plane at a fixed place: what its points rise, less what they move uphill
    up = np.column_stack([-seen.slope, np.ones(len(seen.at))]) / seen.count[:, None]
    rows = np.flatnonzero(owner[ties.track] >= 0)
    k = owner[ties.track[rows]]
    lever = np.einsum("ni,nij,nkj->nk", up[k], np.linalg.inv(normal)[ties.track[rows]], a[rows])
    out = np.zeros((len(seen.at), len(cameras), 2, half))
    for i, camera in enumerate(cameras):
        mine = ties.view[rows] == i
        places = seen.points[ties.track[rows[mine]]]
        terms = basis(camera, *project(camera.rpc, *places.T), along)
        # a larger correction moves the projection as a smaller measurement would
        np.add.at(out[:, i], k[mine], -lever[mine][:, :, None] * terms[:, None, :])
    return out.reshape(len(seen.at), -1)
