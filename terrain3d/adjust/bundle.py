"""Bundle adjustment in image space: bias and drift of every view and all ground points, estimated together.

Model of Grodecki & Dial (2003), with splines along the track where jitter is found. The network is free: pointing
priors hold its datum, so that two views, or a narrow base, stay solvable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.adjust.normal import Prior, joint_step, linearize, metres_per_unit, parameters_of, solve_points
from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera, Correction
from terrain3d.stats import NMAD_FACTOR, tukey_weights

Floats = NDArray[np.float64]
BIAS_SIGMA_PX = 8.0
DRIFT_SIGMA_PX = 1.5
NO_DRIFT_SIGMA_PX = 0.01
JITTER_SIGMA_PX = 0.3
HELD_SIGMA_PX = 0.3
FIXED_SIGMA_PX = 1e-4
TIE_SIGMA_PX = 0.2  # floor of the scale that ties weigh by: more weight and their small common errors bend the datum
POLISHED_SIGMA_PX = 0.05  # floor of the scale for the covariance: no patch is matched better than this
# Errors of neighbouring ties are alike (jitter, relief, the RPC's own fit), so thousands of them know no more than some
# hundred independent ones. Without this the datum drifts along combinations that only such errors determine.
INDEPENDENT_TIES = 200
TIES_PER_SPLINE = 20


@dataclass(frozen=True)
class Adjustment:
    """Result of the bundle adjustment.

    cameras: the views' cameras with their corrections. points: (T, 3) lon_deg, lat_deg, ellipsoidal height of tracks.
    used: (observations,) which ones the robust estimate kept.
    rms_before_px, rms_after_px: one a view, over the used observations, with points intersected both times.
    covariance: (n p, n p) of the corrections, px^2, p parameters a view (``terrain3d.adjust.normal``). along: number of
    spline coefficients among them. converged: whether the last step was below 0.001 px.
    """

    cameras: tuple[Camera, ...]
    points: Floats
    used: NDArray[np.bool_]
    rms_before_px: tuple[float, ...]
    rms_after_px: tuple[float, ...]
    covariance: Floats
    along: int
    converged: bool


def intersect(cameras: list[Camera], ties: Ties, start_height: float, weight: Floats | None = None) -> Floats:
    """Ground points (T, 3) of the tracks by least squares in image space, corrections as they are."""
    points = _start(cameras, ties, start_height)
    w = np.ones(len(ties.view)) if weight is None else weight
    for _ in range(6):
        a, residual = linearize(cameras, ties, points)
        step = solve_points(a, residual, w, ties)
        points = _moved(points, step)
        if np.abs(step).max(initial=0) < 1e-4:
            break
    return points


def adjust(
    cameras: list[Camera], ties: Ties, start_height: float, *, drift: Sequence[bool] = (), iterations: int = 12
) -> Adjustment:
    """Estimate corrections of all cameras from ties, robustly (Huber first, then Tukey's biweight).

    drift: one a camera, whether its drift is estimated; without it stays near zero. All are by default.
    """
    bare = [c.corrected(Correction()) for c in cameras]
    points = intersect(bare, ties, start_height)
    start = np.zeros((len(cameras), parameters_of(0)))
    prior = pointing_prior(len(cameras), drift, 0)
    return _solve(bare, ties, points, start, prior, prior, iterations)


def refine(adjustment: Adjustment, ties: Ties, along: int, prior: Prior, covariance_prior: Prior) -> Adjustment:
    """Go on from an adjustment with ``along`` spline coefficients (4 or more) an image and coordinate.

    prior: holds what the splines must not move. covariance_prior: what is known without ties, for the covariance.
    """
    bare = [c.corrected(Correction()) for c in adjustment.cameras]
    start = with_splines(adjustment.cameras, along)
    return _solve(bare, ties, adjustment.points, start, prior, covariance_prior, 8)


def tied_to(
    fixed: Mapping[int, Camera], adjustment: Adjustment, ties: Ties, along: int, drift: Sequence[bool]
) -> Adjustment:  # fmt: skip
    """An adjustment in which some cameras, by index, are fixed, and the others are tied to them.

    adjustment: of all of them together, to start from. along, drift: spline coefficients of the fixed cameras, and
    whether the drift of each camera is estimated. The covariance is that of cameras that are all free.
    """
    bare = [c.corrected(Correction()) for c in adjustment.cameras]
    start = np.zeros((len(bare), parameters_of(along)))
    for i, camera in fixed.items():
        start[i] = parameters_from([camera])[0]
    free = pointing_prior(len(bare), drift, along)
    held = np.isin(np.arange(len(bare)), list(fixed)).repeat(start.shape[1])
    precision = np.where(held[:, None] | held, 0.0, free.precision) + np.diag(held / FIXED_SIGMA_PX**2)
    found = _solve(bare, ties, adjustment.points, start, Prior(start, precision), free, 12)
    exact = [fixed.get(i, c) for i, c in enumerate(found.cameras)]
    return moved_to(found, ties, parameters_from(exact), found.covariance)


def with_splines(cameras: Sequence[Camera], along: int) -> Floats:
    """Parameters (n, p) of corrections without splines, with room for their coefficients."""
    parameters = np.zeros((len(cameras), 2, 3 + along))
    parameters[..., :3] = [[c.correction.line, c.correction.sample] for c in cameras]
    return parameters.reshape(len(cameras), -1)


def parameters_from(cameras: Sequence[Camera]) -> Floats:
    """Parameters (n, p) of the cameras' corrections, which have splines all or none."""
    return np.array(
        [
            [*c.correction.line, *c.correction.line_along, *c.correction.sample, *c.correction.sample_along]
            for c in cameras
        ]
    )


def moved_to(adjustment: Adjustment, ties: Ties, parameters: Floats, covariance: Floats) -> Adjustment:
    """The adjustment with other parameters (n, p): points and residuals that follow from them."""
    cameras = [with_parameters(c, p) for c, p in zip(adjustment.cameras, parameters, strict=True)]
    used = adjustment.used
    points = intersect(cameras, ties, float(np.median(adjustment.points[:, 2])), weight=used.astype(float) + 1e-9)
    rms = _rms(linearize(cameras, ties, points)[1], used, ties, len(cameras))
    return replace(adjustment, cameras=tuple(cameras), points=points, rms_after_px=rms, covariance=covariance)


def _solve(
    bare: list[Camera],
    ties: Ties,
    points: Floats,
    parameters: Floats,
    prior: Prior,
    covariance_prior: Prior,
    iterations: int,
) -> Adjustment:
    n = len(bare)
    along = parameters.shape[1] // 2 - 3
    alike = _alike(len(ties.view), along * n)
    huber = 0 if along else 4
    used = np.ones(len(ties.view), bool)
    cameras = [with_parameters(c, p) for c, p in zip(bare, parameters, strict=True)]
    for turn in range(iterations):
        residual = linearize(cameras, ties, points)[1]
        scale = _scale(residual[used])
        robust = _robust(np.hypot(*residual.T) / max(2**0.5 * scale, TIE_SIGMA_PX), redescending=turn >= huber)
        used = robust > 0
        weight = robust * alike / _tie_sigma(scale, ties) ** 2
        step, points_step, _ = joint_step(cameras, ties, points, weight, parameters, prior)
        parameters = parameters + step
        points = _moved(points, points_step)
        cameras = [with_parameters(c, p) for c, p in zip(bare, parameters, strict=True)]
        step_px = float(np.abs(step).max())
        if turn > huber + 2 and step_px < 1e-3:
            break
    weight = robust * alike / _tie_sigma(scale, ties, POLISHED_SIGMA_PX) ** 2
    covariance = joint_step(cameras, ties, points, weight, parameters, covariance_prior)[2]
    used = robust > 0.05
    points = intersect(cameras, ties, float(np.median(points[:, 2])), weight=used.astype(float) + 1e-9)
    after = linearize(cameras, ties, points)[1]
    before_points = intersect(bare, ties, float(np.median(points[:, 2])), weight=used.astype(float) + 1e-9)
    before = linearize(bare, ties, before_points)[1]
    return Adjustment(
        tuple(cameras), points, used,
        _rms(before, used, ties, n), _rms(after, used, ties, n), covariance, along, step_px < 1e-2,
    )  # fmt: skip


def _scale(residual: Floats) -> float:
    """RMS of a coordinate, px, of residuals (N, 2) without gross errors. From their lengths: with two views the rays
    take up all of what lies along the epipolar line, so single coordinates may have no residual at all."""
    length = np.hypot(*residual.T)
    within = length[length <= 3 * NMAD_FACTOR * np.median(length)]
    return float(np.sqrt((within**2).mean() / 2))


def _tie_sigma(scale: float, ties: Ties, floor: float = TIE_SIGMA_PX) -> float:
    """1-sigma of a tie in either coordinate, px, from the RMS of residuals, which lack what points and relative
    orientation (affine, so 6 an image less the 9 of the datum) took of them."""
    rows, images = 2 * len(ties.view), int(ties.view.max(initial=0)) + 1
    left = rows - 3 * ties.n_tracks - max(6 * images - 9, 0)
    return max(scale * float(np.sqrt(rows / max(left, 1))), floor)


def _alike(n: int, splines: int) -> float:
    """Weight of one of ``n`` ties whose errors are alike; splines follow part of what neighbours have in common."""
    return min(1.0, max(INDEPENDENT_TIES, TIES_PER_SPLINE * splines) / max(n, 1))


def tie_weight(n: int, n_views: int, along: int, residual: Floats, ties: Ties) -> float:
    """Weight of a tie among ``n``, 1 / px^2; ``residual``: of those that are used."""
    return _alike(n, along * n_views) / _tie_sigma(_scale(residual), ties) ** 2


def pointing_prior(n: int, drift: Sequence[bool], along: int) -> Prior:
    """What is known of the pointing of ``n`` images without ties."""
    sigma = np.tile([BIAS_SIGMA_PX, DRIFT_SIGMA_PX, DRIFT_SIGMA_PX, *[JITTER_SIGMA_PX] * along], (n, 2))
    held = np.flatnonzero(~np.array(drift, bool))
    sigma[held[:, None], [1, 2, 4 + along, 5 + along]] = NO_DRIFT_SIGMA_PX
    return Prior.of(np.zeros_like(sigma), sigma, along)


def jitter_prior(adjustment: Adjustment, along: int) -> Prior:
    """Bias and drift stay about where an adjustment has them, for the many weak ties that splines need would else move
    the datum along combinations that only the errors of the ties determine."""
    mean = with_splines(adjustment.cameras, along)
    sigma = np.tile([HELD_SIGMA_PX] * 3 + [JITTER_SIGMA_PX] * along, (len(mean), 2))
    return Prior.of(mean, sigma, along)


def _rms(residual: Floats, used: NDArray[np.bool_], ties: Ties, n: int) -> tuple[float, ...]:
    """RMS of one image coordinate (line and sample together) by view."""
    return tuple(
        float(np.sqrt((residual[used & (ties.view == i)] ** 2).mean()))
        if (used & (ties.view == i)).any()
        else float("nan")
        for i in range(n)
    )


def with_parameters(camera: Camera, p: Floats) -> Camera:
    """Camera with a correction of these parameters in the order of ``terrain3d.adjust.normal``."""
    return camera.corrected(Correction.of(*np.split(p, 2)))


def _robust(t: Floats, *, redescending: bool) -> Floats:
    """Weights of lengths in units of the scale."""
    return tukey_weights(t, 1.0) if redescending else np.minimum(1.0, 2.0 / np.maximum(t, 1e-9))


def _start(cameras: list[Camera], ties: Ties, height: float) -> Floats:
    """Mean of the places where the rays of a track meet the start height."""
    total, count = np.zeros((ties.n_tracks, 2)), np.zeros(ties.n_tracks)
    for i, camera in enumerate(cameras):
        mine = ties.view == i
        lonlat = np.column_stack(camera.locate(ties.line[mine], ties.sample[mine], height))
        np.add.at(total, ties.track[mine], np.nan_to_num(lonlat))
        np.add.at(count, ties.track[mine], 1)
    return np.column_stack([total / np.maximum(count, 1)[:, None], np.full(ties.n_tracks, height)])


def _moved(points: Floats, step_m: Floats) -> Floats:
    return points + step_m / metres_per_unit(points)
