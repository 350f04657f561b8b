"""Linear algebra of the bundle adjustment: residuals, derivatives, and normal equations without the ground points.

Ground points are eliminated by the Schur complement (Triggs et al. 2000); matrices are sparse but for the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import bsr_array, csr_array

from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera, along_basis
from terrain3d.camera.rpc import project

Floats = NDArray[np.float64]
_METRES_PER_DEG = 111_320.0
_SPLINE_MEAN_SIGMA_PX = 1e-3


@dataclass(frozen=True)
class Prior:
    """What is known of the parameters without ties: mean (n, p), px, and precision (n p, n p), 1 / px^2."""

    mean: Floats
    precision: Floats

    @classmethod
    def of(cls, mean: Floats, sigma: Floats, along: int) -> Prior:
        """Independent parameters of prior ``sigma`` (n, p). Splines with neither a constant nor a linear part, which
        bias and drift are for."""
        precision = np.diag(1 / sigma.ravel() ** 2)
        if along:
            modes = linear_modes(along)
            stiff = modes.T @ modes / _SPLINE_MEAN_SIGMA_PX**2
            for first in range(3, sigma.size, 3 + along):
                precision[first : first + along, first : first + along] += stiff
        return cls(mean, precision)


def linear_modes(along: int) -> Floats:
    """Orthonormal coefficients (2, along) of the constant and of the linear spline."""
    index = np.arange(along) - (along - 1) / 2  # coefficients that grow linearly make a linear spline
    modes = np.stack([np.ones(along), index])
    return np.asarray(modes / np.linalg.norm(modes, axis=1)[:, None])


def parameters_of(along: int) -> int:
    """Number of correction parameters of an image: bias, drift by line and by sample, and ``along`` spline
    coefficients; first of the line, then of the sample."""
    return 2 * (3 + along)


def basis(camera: Camera, line: Floats, sample: Floats, along: int) -> Floats:
    """What the parameters of either coordinate are multiplied with at RPC positions, (N, 3 + along)."""
    u, v = camera.normalized(line, sample)
    plane = np.column_stack([np.ones(len(u)), u, v])
    return np.hstack([plane, along_basis(u, along)]) if along else plane


def metres_per_unit(points: Floats) -> Floats:
    """Metres per degree of longitude and latitude, and 1: unit of the ground steps at each point (T, 3)."""
    one_lon = _METRES_PER_DEG * np.cos(np.radians(points[:, 1]))
    return np.column_stack([one_lon, np.full(len(points), _METRES_PER_DEG), np.ones(len(points))])


def linearize(cameras: list[Camera], ties: Ties, points: Floats) -> tuple[Floats, Floats]:
    """Jacobian by ground metres (N, 2, 3) and residuals observed minus projected (N, 2), px."""
    a, residual = np.empty((len(ties.view), 2, 3)), np.empty((len(ties.view), 2))
    for i, camera in enumerate(cameras):
        mine = ties.view == i
        p = points[ties.track[mine]]
        line, sample = camera.project(*p.T)
        residual[mine] = np.column_stack([ties.line[mine] - line, ties.sample[mine] - sample])
        a[mine] = camera.jacobian(*p.T) / metres_per_unit(p)[:, None, :]
    return a, residual


def solve_points(a: Floats, residual: Floats, weight: Floats, ties: Ties) -> Floats:
    """Steps (T, 3) of the ground points in metres, cameras fixed."""
    inverse, right = _point_normals(a, residual, weight, ties)
    return np.asarray(np.einsum("tij,tj->ti", inverse, right))


def joint_step(
    cameras: list[Camera],
    ties: Ties,
    points: Floats,
    weight: Floats,
    parameters: Floats,
    prior: Prior,
) -> tuple[Floats, Floats, Floats]:
    """One Gauss-Newton step of the corrections (n, p) and points (T, 3), and the covariance of the corrections (n p,
    n p). parameters: (n, p) as they are. weight: (N,) 1 / px^2."""
    a, residual = linearize(cameras, ties, points)
    n, p = parameters.shape
    m, half = len(ties.view), p // 2
    design = np.empty((m, half))
    for i, camera in enumerate(cameras):
        mine = ties.view == i
        design[mine] = basis(camera, *project(camera.rpc, *points[ties.track[mine]].T), half - 3)
    root = np.sqrt(weight)
    rows = np.repeat(np.arange(2 * m), half)
    columns = ((ties.view[:, None] * p + np.array([0, half])).ravel()[:, None] + np.arange(half)).ravel()
    c = csr_array((np.repeat(design * root[:, None], 2, axis=0).ravel(), (rows, columns)), shape=(2 * m, n * p))
    c.eliminate_zeros()
    point_columns = (np.repeat(ties.track, 2)[:, None] * 3 + np.arange(3)).ravel()
    b = csr_array(
        ((a * root[:, None, None]).ravel(), (np.repeat(np.arange(2 * m), 3), point_columns)),
        shape=(2 * m, 3 * ties.n_tracks),
    )
    r = (residual * root[:, None]).ravel()
    inverse, right = _point_normals(a, residual, weight, ties)
    blocks = np.arange(ties.n_tracks + 1)
    inverted = bsr_array((inverse, blocks[:-1], blocks), shape=(3 * ties.n_tracks, 3 * ties.n_tracks)).tocsr()
    cross = (b.T @ c).tocsr()
    solved = inverted @ cross
    normal = (c.T @ c - cross.T @ solved).toarray() + prior.precision
    rhs = c.T @ r - solved.T @ right.ravel() - prior.precision @ (parameters - prior.mean).ravel()
    covariance = np.linalg.inv(normal)
    step = covariance @ rhs
    points_step = inverted @ (right.ravel() - cross @ step)
    return step.reshape(n, p), points_step.reshape(-1, 3), covariance


def _point_normals(a: Floats, residual: Floats, weight: Floats, ties: Ties) -> tuple[Floats, Floats]:
    """Inverse normal matrices (T, 3, 3) and right sides (T, 3) of the points."""
    normal = np.zeros((ties.n_tracks, 3, 3))
    right = np.zeros((ties.n_tracks, 3))
    np.add.at(normal, ties.track, np.einsum("nki,nkj,n->nij", a, a, weight))
    np.add.at(right, ties.track, np.einsum("nki,nk,n->ni", a, residual, weight))
    normal += np.eye(3) * 1e-9  # tracks that lost their weight keep their place
    return np.asarray(np.linalg.inv(normal), float), right
