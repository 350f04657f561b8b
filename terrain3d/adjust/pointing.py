"""How far the images point wrong, as the ties show, and where the model may therefore be before any lidar is read.

Ties do not see what the images' errors have in common, which is what displaces and tilts a model, but they see how far
the images disagree; errors are as large in the one as in the other, but for a part of the place that a pass has in
common. Lidar adds how far the height was wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.adjust.bundle import BIAS_SIGMA_PX, DRIFT_SIGMA_PX, Adjustment, parameters_from
from terrain3d.adjust.sigma import plane_by_parameters, position_covariance

Floats = NDArray[np.float64]

USUAL_COUNTS = 2.0  # numbers that the usual size of errors counts as much as, against those that are seen
# 1-sigma at the ends of an image, px: along the lines attitude drifts with time, across them nothing moves but a little
# rotation and scale
USUAL_DRIFT_PX = (0.2, 0.05)
# m/m, the tilts of a model that these leave, along and across the succession of lines, where the images are not known:
# a drift of one image against the next along their common epipolar lines is no parallax that ties could see
USUAL_TILT = (0.45e-3, 0.12e-3)
COMMON = 1.5  # metres east and north, of orbit and attitude, that images of one pass may have in common unseen
PLAIN = 1.75  # times the usual size, from which a user is told


@dataclass(frozen=True)
class Pointing:
    """Place of a model as the orientation of its images gives it.

    covariance: (3, 3) of its error east, north and up, m^2, for errors of usual size. squares, count: sum of squares of
    the errors that are seen, in units of their usual size, and how many independent ones these are. tilt: (2, 2)
    covariance of the model's tilt east and north, of the drifts whose size ties show; None where nothing is known.
    """

    covariance: Floats
    squares: float = 0.0
    count: float = 0.0
    tilt: Floats | None = None

    @property
    def size(self) -> float:
        """Size of the errors over the usual one."""
        return _size(self.squares, self.count)

    def seen_up(self, up: float) -> Pointing:
        """With the height (m) by which lidar says that the model must be raised."""
        return replace(self, squares=self.squares + up**2 / float(self.covariance[2, 2]), count=self.count + 1)

    @property
    def sigma(self) -> Floats:
        """1-sigma (3,) of the place east, north and up, metres."""
        common = COMMON**2 * np.array([1.0, 1.0, 0.0])
        return np.asarray(np.sqrt(self.size**2 * np.diag(self.covariance) + common))

    def sideways(self, up: float) -> tuple[Floats, Floats]:
        """Move (2,) east and north that is to be expected of a model that must be raised by ``up``, and its covariance
        (2, 2): rays that lean meet elsewhere when they meet higher."""
        c = self.covariance
        lean = c[:2, 2] / c[2, 2]
        apart = c[:2, :2] - np.outer(lean, c[2, :2])
        return lean * up, self.seen_up(up).size ** 2 * apart + COMMON**2 * np.eye(2)

    def warning(self, up: float | None = None) -> str | None:
        """What a user must know of it; ``up`` as for ``seen_up``, where lidar told it."""
        size = (self if up is None else self.seen_up(up)).size
        if size < PLAIN:
            return None
        return (
            f"the images point wrong by some {size * BIAS_SIGMA_PX:.0f} px, where {BIAS_SIGMA_PX:.0f} are usual: check "
            "that each has its own RPC, of this very image or crop"
        )


# of a model of which only the surface is known, as the mean of some images gives it
USUAL = Pointing(np.diag([2.6, 2.6, 15.0]) ** 2)


def pointing_of(adjustment: Adjustment, crs: str, x: float, y: float, height: float) -> Pointing:
    """Pointing of a network at the middle of its model, a place of ``crs`` at an ellipsoidal height."""
    views = tuple(range(len(adjustment.cameras)))
    covariance = position_covariance(adjustment, views, crs, x, y, height)[0]
    tilt_by = plane_by_parameters(adjustment, crs)[0][1:] / 1000
    tilt = np.zeros((2, 2))
    for number, usual in enumerate(USUAL_DRIFT_PX, start=1):
        which, squares, count = _seen(adjustment, number, usual, DRIFT_SIGMA_PX)
        # heights of least squares answer to nothing that ties see, so all of a drift that moves them is left
        by = tilt_by[:, which] * (_size(squares, count) * usual)
        tilt += by @ by.T
    return Pointing(covariance, *_seen(adjustment, 0, BIAS_SIGMA_PX, BIAS_SIGMA_PX)[1:], tilt)


def _seen(adjustment: Adjustment, number: int, usual: float, assumed: float) -> tuple[NDArray[np.int64], float, float]:
    """One kind of parameter of all images and both coordinates: indices, sum of squares in units of the usual size, and
    how many of them ties determine. number: 0 bias, 1 and 2 drift along and across the lines. assumed: prior sigma."""
    parameters = parameters_from(adjustment.cameras)
    half = parameters.shape[1] // 2
    which = np.arange(2 * len(parameters)) * half + number
    left = np.diag(adjustment.covariance)[which] / assumed**2
    squares = float((parameters.ravel()[which] ** 2).sum()) / usual**2
    return which, squares, float((1 - left).clip(0, 1).sum())


def _size(squares: float, count: float) -> float:
    """Root mean square of what is seen and of what is usual (mean of a scaled inverse chi-squared; Gelman et al. 2013,
    sec. 2.6)."""
    return float(np.sqrt((USUAL_COUNTS + squares) / (USUAL_COUNTS + count)))
