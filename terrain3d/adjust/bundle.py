"""Bundle adjustment in image space: bias and drift of every view and all ground points, estimated together.

Model of Grodecki & Dial (2003). The network is free: pointing priors hold its datum, so that two views, or a narrow
base, stay solvable. Ground points are eliminated by the Schur complement (Triggs et al. 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera, Correction
from terrain3d.stats import nmad

Floats = NDArray[np.float64]
PARAMETERS = 6  # line: bias, drift by line, drift by sample; then the same for the sample
BIAS_SIGMA_PX = 8.0
DRIFT_SIGMA_PX = 1.5
TIE_SIGMA_PX = 0.2  # floor of the scale: no key point is better than this
# Errors of neighbouring ties are alike (jitter, relief, the RPC's own fit), so thousands of them know no more than some
# hundred independent ones. Without this the datum drifts along combinations that only such errors determine.
INDEPENDENT_TIES = 200
_METRES_PER_DEG = 111_320.0


@dataclass(frozen=True)
class Adjustment:
    """Result of the bundle adjustment.

    cameras: the views' cameras with their corrections. points: (T, 3) lon_deg, lat_deg, ellipsoidal height of tracks.
    used: (observations,) which ones the robust estimate kept. residual_line, residual_sample: px, after.
    rms_before_px, rms_after_px: one a view, over the used observations, with points intersected both times.
    covariance: (6 n, 6 n) of the corrections, px^2. converged: whether the last step was below 0.001 px.
    """

    cameras: tuple[Camera, ...]
    points: Floats
    used: NDArray[np.bool_]
    residual_line: Floats
    residual_sample: Floats
    rms_before_px: tuple[float, ...]
    rms_after_px: tuple[float, ...]
    covariance: Floats
    converged: bool


def intersect(cameras: list[Camera], ties: Ties, start_height: float, weight: Floats | None = None) -> Floats:
    """Ground points (T, 3) of the tracks by least squares in image space, corrections as they are."""
    points = _start(cameras, ties, start_height)
    w = np.ones(len(ties.view)) if weight is None else weight
    for _ in range(6):
        a, residual = _linearize(cameras, ties, points)
        step = _solve_points(a, residual, w, ties)
        points = _moved(points, step)
        if np.abs(step).max(initial=0) < 1e-4:
            break
    return points


def adjust(cameras: list[Camera], ties: Ties, start_height: float, *, iterations: int = 12) -> Adjustment:
    """Estimate corrections of all cameras from ties, robustly (Huber first, then Tukey's biweight)."""
    start = [c.corrected(Correction()) for c in cameras]
    points = intersect(start, ties, start_height)
    cameras = start
    parameters = np.zeros((len(cameras), PARAMETERS))
    weight = np.ones(len(ties.view))
    scale, step_px = 3.0, np.inf
    freedom = np.sqrt(2 * len(ties.view) / max(2 * len(ties.view) - 3 * ties.n_tracks, 1))
    alike = min(1.0, INDEPENDENT_TIES / max(len(ties.view), 1))
    covariance = np.eye(parameters.size)
    for turn in range(iterations):
        a, residual = _linearize(cameras, ties, points)
        length = np.hypot(*residual.T)
        inner = residual[weight > 0].ravel()
        scale = max(freedom * nmad(np.concatenate([inner, -inner])), TIE_SIGMA_PX)
        weight = _robust(length / scale, redescending=turn >= 4) * alike / scale**2
        step, points_step, covariance = _joint_step(cameras, a, residual, weight, ties, parameters)
        parameters += step
        points = _moved(points, points_step)
        cameras = [_with(c, p) for c, p in zip(start, parameters, strict=True)]
        step_px = float(np.abs(step).max())
        if turn > 6 and step_px < 1e-3:
            break
    used = weight * scale**2 / alike > 0.05
    points = intersect(cameras, ties, start_height, weight=used.astype(float) + 1e-9)
    after = _linearize(cameras, ties, points)[1]
    before_points = intersect(start, ties, start_height, weight=used.astype(float) + 1e-9)
    before = _linearize(start, ties, before_points)[1]
    return Adjustment(
        tuple(cameras), points, used, after[:, 0], after[:, 1],
        _rms(before, used, ties, len(cameras)), _rms(after, used, ties, len(cameras)), covariance, step_px < 1e-2,
    )  # fmt: skip


def _rms(residual: Floats, used: NDArray[np.bool_], ties: Ties, n: int) -> tuple[float, ...]:
    """RMS of one image coordinate (line and sample together) by view."""
    return tuple(
        float(np.sqrt((residual[used & (ties.view == i)] ** 2).mean()))
        if (used & (ties.view == i)).any()
        else float("nan")
        for i in range(n)
    )


def _with(camera: Camera, p: Floats) -> Camera:
    return camera.corrected(Correction((p[0], p[1], p[2]), (p[3], p[4], p[5])))


def _robust(t: Floats, *, redescending: bool) -> Floats:
    """Weights of lengths in units of the scale."""
    if redescending:
        return np.where(t < 5.0, (1 - (t / 5.0) ** 2) ** 2, 0.0)
    return np.minimum(1.0, 2.0 / np.maximum(t, 1e-9))


def _start(cameras: list[Camera], ties: Ties, height: float) -> Floats:
    """Mean of the places where the rays of a track meet the start height."""
    total, count = np.zeros((ties.n_tracks, 2)), np.zeros(ties.n_tracks)
    for i, camera in enumerate(cameras):
        mine = ties.view == i
        lonlat = np.column_stack(camera.locate(ties.line[mine], ties.sample[mine], height))
        np.add.at(total, ties.track[mine], np.nan_to_num(lonlat))
        np.add.at(count, ties.track[mine], 1)
    return np.column_stack([total / np.maximum(count, 1)[:, None], np.full(ties.n_tracks, height)])


def _degrees(points: Floats) -> Floats:
    """Metres per degree of longitude and latitude, and 1: unit of the ground steps at each point."""
    return np.column_stack(
        [
            _METRES_PER_DEG * np.cos(np.radians(points[:, 1])),
            np.full(len(points), _METRES_PER_DEG),
            np.ones(len(points)),
        ]
    )


def _moved(points: Floats, step_m: Floats) -> Floats:
    return points + step_m / _degrees(points)


def _linearize(cameras: list[Camera], ties: Ties, points: Floats) -> tuple[Floats, Floats]:
    """Jacobian by ground metres (N, 2, 3) and residuals observed minus projected (N, 2), px."""
    a, residual = np.empty((len(ties.view), 2, 3)), np.empty((len(ties.view), 2))
    for i, camera in enumerate(cameras):
        mine = ties.view == i
        p = points[ties.track[mine]]
        line, sample = camera.project(*p.T)
        residual[mine] = np.column_stack([ties.line[mine] - line, ties.sample[mine] - sample])
        a[mine] = camera.jacobian(*p.T) / _degrees(p)[:, None, :]
    return a, residual


def _point_normals(a: Floats, residual: Floats, weight: Floats, ties: Ties) -> tuple[Floats, Floats]:
    normal = np.zeros((ties.n_tracks, 3, 3))
    right = np.zeros((ties.n_tracks, 3))
    np.add.at(normal, ties.track, np.einsum("nki,nkj,n->nij", a, a, weight))
    np.add.at(right, ties.track, np.einsum("nki,nk,n->ni", a, residual, weight))
    normal += np.eye(3) * 1e-9  # tracks that lost their weight keep their place
    return np.asarray(np.linalg.inv(normal), float), right


def _solve_points(a: Floats, residual: Floats, weight: Floats, ties: Ties) -> Floats:
    inverse, right = _point_normals(a, residual, weight, ties)
    return np.asarray(np.einsum("tij,tj->ti", inverse, right))


def _joint_step(
    cameras: list[Camera], a: Floats, residual: Floats, weight: Floats, ties: Ties, parameters: Floats
) -> tuple[Floats, Floats, Floats]:
    """One Gauss-Newton step of corrections (n, 6) and points (T, 3), and the covariance of the corrections."""
    n, m = len(cameras), len(ties.view)
    basis = np.ones((m, 3))
    for i, camera in enumerate(cameras):
        mine = ties.view == i
        basis[mine, 1] = (ties.line[mine] - camera.rpc.line_off) / camera.rpc.line_scale
        basis[mine, 2] = (ties.sample[mine] - camera.rpc.samp_off) / camera.rpc.samp_scale
    rows = np.repeat(np.arange(2 * m), 3)
    first = (ties.view[:, None] * PARAMETERS + np.array([0, 3])).ravel()
    columns = (first[:, None] + np.arange(3)).ravel()
    root = np.sqrt(weight)
    values = (np.repeat(basis, 2, axis=0) * np.repeat(root, 2)[:, None]).ravel()
    c = csr_array((values, (rows, columns)), shape=(2 * m, n * PARAMETERS))
    points_columns = (np.repeat(ties.track, 2)[:, None] * 3 + np.arange(3)).ravel()
    b = csr_array(((a * root[:, None, None]).reshape(-1), (rows, points_columns)), shape=(2 * m, 3 * ties.n_tracks))
    r = (residual * root[:, None]).ravel()
    inverse, right = _point_normals(a, residual, weight, ties)
    cross = (b.T @ c).toarray().reshape(ties.n_tracks, 3, n * PARAMETERS)
    solved = np.einsum("tij,tjk->tik", inverse, cross)
    sigma = np.tile([BIAS_SIGMA_PX, DRIFT_SIGMA_PX, DRIFT_SIGMA_PX], 2 * n)
    prior = 1 / sigma**2
    normal = (c.T @ c).toarray() - np.einsum("tik,til->kl", cross, solved) + np.diag(prior)
    rhs = c.T @ r - np.einsum("tik,ti->k", solved, right) - prior * parameters.ravel()
    covariance = np.linalg.inv(normal)
    step = covariance @ rhs
    points_step = np.einsum("tij,tj->ti", inverse, right - np.einsum("tik,k->ti", cross, step))
    return step.reshape(n, PARAMETERS), points_step, covariance
