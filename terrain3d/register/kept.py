"""A registration that is kept while more lidar agrees with it, so that a new granule changes only what it touches.

Every cell rests on the registration, and each new return moves it by a small part of its sigma. To take that move would
redo everything and mean nothing; so the registration stays until what all lidar says now differs by a share of its
sigma that matters, or is much more certain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.points import LidarReturns
from terrain3d.raster import Grid
from terrain3d.register.move import Move
from terrain3d.register.registration import Registration

AGREES = 2.0  # kept 1-sigmas that a new registration may differ by, anywhere: more contradicts the kept one
BETTER = 0.5  # of the kept 1-sigma: a new one that is smaller is worth to do everything anew
NODES = 33  # a side, at which heights are compared


@dataclass(frozen=True)
class Registered:
    """A registration and what it rests on.

    returns: those that it has places for, row by row; fitted: (N,) which of them it came from. files: names of the
    lidar files of these. model: names of the files of the points that were registered, on ``grid``.
    """

    registration: Registration
    returns: LidarReturns
    fitted: NDArray[np.bool_]
    files: tuple[str, ...]
    model: tuple[str, ...]
    grid: Grid

    @classmethod
    def of(
        cls, registration: Registration, returns: LidarReturns, model: tuple[str, ...], grid: Grid
    ) -> Registered:  # fmt: skip
        """A registration with the returns that it came from."""
        return cls(registration, returns, np.ones(len(returns), bool), returns.files, model, grid)


@dataclass(frozen=True)
class Difference:
    """Between two registrations over a grid: largest up and sideways, metres; the larger of both as a share of the
    first one's 1-sigma; smallest ratio of the second one's 1-sigma to the first one's."""

    up: float
    sideways: float
    share: float
    sigma_ratio: float

    def __str__(self) -> str:
        return f"up to {self.up:.3f} m in height and {self.sideways:.3f} m sideways ({self.share:.2f} of its sigma)"


def difference(old: Move, new: Move, grid: Grid) -> Difference:
    """How far a model moved by one lies from where the other puts it. Both are applied."""
    x, y = grid.lattice(NODES)
    up = np.abs(new.vertical_at(x, y) - old.vertical_at(x, y))
    sigma, own = old.sigma_at(x, y), new.sigma_at(x, y)
    shift = np.array([new.dx - old.dx, new.dy - old.dy])
    flat, ours = old.covariance[:2, :2], new.covariance[:2, :2]
    sideways = float(np.sqrt(shift @ np.linalg.solve(flat, shift)))
    ratio = min(float(np.median(own / sigma)), float((np.linalg.det(ours) / np.linalg.det(flat)) ** 0.25))
    return Difference(
        float(up.max()), float(np.hypot(*shift)), max(float((up / sigma).max()), sideways), ratio
    )  # fmt: skip


def kept(old: Registered, new: Registered, tell: Callable[[str], None]) -> Registered | None:
    """``old`` with places for the returns of ``new``; None where it holds no more. tell: is told why.

    It holds while the model and all the returns that it came from are still there, and what all returns say now differs
    nowhere by more than AGREES of its sigma, which grows beyond the model that it came from, and is not more certain
    there than by the factor BETTER. Returns that it did not know get their places from ``new``.
    """
    known = {row: i for i, row in enumerate(_rows(old.returns))}
    at = np.array([known.get(row, -1) for row in _rows(new.returns)], int)
    missing = set(np.flatnonzero(old.fitted).tolist()) - set(at.tolist())
    if missing or not set(old.model) <= set(new.model):
        tell(f"registration anew: {'lidar' if missing else 'the model'} that it came from has changed")
        return None
    if not (old.registration.applied and new.registration.applied):
        if old.registration.applied != new.registration.applied:
            tell("registration anew: lidar now suffices" if new.registration.applied else "lidar no longer suffices")
            return None
    else:
        found = difference(old.registration, new.registration, new.grid)
        ratio = difference(old.registration, new.registration, old.grid).sigma_ratio
        if found.share > AGREES or ratio < BETTER:
            tell(f"registration anew: it moves by {found}, its sigma falls to {ratio:.2f} of what it was")
            return None
        if (at < 0).any():
            tell(f"registration kept: with all lidar of now it would move by {found}")
    return replace(
        old, registration=_with_places(old.registration, new.registration, at), returns=new.returns,
        fitted=(at >= 0) & old.fitted[at],
    )  # fmt: skip


def _with_places(old: Registration, new: Registration, at: NDArray[np.int64]) -> Registration:
    """The old registration with one row for each return of the new one. at: rows of the old, -1 where there is none."""
    known = at >= 0
    rows = {}
    for name in ("places", "place_sigma", "residual", "used"):
        own, other = getattr(old, name), getattr(new, name)
        fresh = np.zeros_like(other) if name == "used" else other
        rows[name] = np.where(known[:, None] if own.ndim > 1 else known, own[at], fresh)
    return replace(old, **rows)


def _rows(returns: LidarReturns) -> list[bytes]:
    """What tells one return from another."""
    names = [f.name for f in fields(returns) if f.name not in ("track", "track_names", "product", "place_sigma")]
    table = np.column_stack([np.asarray(getattr(returns, n), float) for n in names])
    return [row.tobytes() for row in table]
