"""Registration of a stereo surface to lidar ground returns: what is accepted of what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.adjust.pointing import USUAL, USUAL_TILT, Pointing
from terrain3d.crs import from_lonlat, to_lonlat
from terrain3d.errors import FrameError, LidarError, OverlapError
from terrain3d.points import LidarReturns, horizontal_sigma
from terrain3d.raster import Raster
from terrain3d.register.beams import place_beams
from terrain3d.register.coverage import extent_share, uncontrolled_parts
from terrain3d.register.crowns import CLEAR_OF_CANOPY, contradict, crown_height
from terrain3d.register.heights import Heights, SmoothCorrection, node_grid, settle_heights
from terrain3d.register.horizontal import Placement, settle_horizontal
from terrain3d.register.lines import Lines
from terrain3d.register.move import Move
from terrain3d.register.offsets import TrackOffset
from terrain3d.register.scene import Scene, prepare
from terrain3d.register.shift import DZ, SHIFT, VERTICAL, Fit, Linearization, fit_linear, search_start
from terrain3d.register.validate import (
    MIN_RETURNS,
    MIN_TRACKS,
    RegistrationReport,
    coverage,
    fold_results,
    gross,
    group_errors,
)
from terrain3d.register.weights import heard_by_product, heard_notes, weighed_by_product
from terrain3d.stats import ErrorSummary, summarize

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MIN_USED = 4
ENOUGH = 20  # returns that need no help of less precise ones, nor of crowns
MIN_TILT_EXTENT = 0.5  # of the surface that the returns must span both ways
PRECISE = 5.0  # metres of horizontal sigma below which returns can place a model
MOSTLY = 0.5  # of the returns on a level that the model does not show: a user is told
STANDING = 0.8  # of the returns on the surface, on what stands there: then they may be no ground
SPARSE = 0.3  # of the cells of a model: if fewer have heights and no return meets them, the model is to blame


@dataclass(frozen=True)
class Registration(Move):
    """A move of a model, and how it came about from returns.

    places: (N, 2) east and north of the returns, displaced beams put where they are. place_sigma: (N,) 1-sigma of the
        horizontal error that is left, metres.
    used: (N,) which of the returns carried weight. residual: (N,) return minus corrected surface, NaN where the surface
        has no value.
    horizontal_constrained: whether relief and returns alone determine dx and dy to better than 1 m;
        ``horizontal_reason`` says what was done and why.
    notes: what was done. warnings: what a user must know.
    """

    places: Floats
    place_sigma: Floats
    used: Bools
    residual: Floats
    horizontal_constrained: bool
    horizontal_reason: str
    report: RegistrationReport
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def move(self) -> Move:
        """What moves a model, without what is known of single returns."""
        return Move(*(getattr(self, f.name) for f in fields(Move)))

    @property
    def before(self) -> ErrorSummary | None:
        """Errors (surface minus return) on held-out returns without the correction."""
        return self.report.before

    @property
    def after(self) -> ErrorSummary | None:
        """Errors (surface minus return) on held-out returns with the correction of the other tracks."""
        return self.report.after

    def placed(self, returns: LidarReturns, crs: str) -> LidarReturns:
        """The returns that were registered to where they are; ``crs``: of the surface."""
        lon, lat = to_lonlat(crs, *self.places.T)
        return replace(returns, lon_deg=lon, lat_deg=lat, place_sigma=self.place_sigma)


def register_dsm(
    dsm: Raster,
    returns: LidarReturns,
    dsm_sigma: Raster | None = None,
    lines: Lines | None = None,
    pointing: Pointing = USUAL,
) -> Registration:
    """Shift, and tilt and smooth height correction where they are proven, of a surface model onto ground returns.

    dsm: heights over the WGS 84 ellipsoid in a projected CRS in metres, NaN for voids.
    dsm_sigma: 1-sigma of these heights, same CRS.
    lines: of the images, from the origin of the CRS; where none are known they run north.
    pointing: of the images, as their ties show it.

    The horizontal shift is the mean of what the returns say and of what the images' pointing says, weighted by their
    certainty, so it fades where relief does not constrain it; held-out tracks must fit no worse. Where
    returns span the surface a tilt is applied unless held-out tracks fit worse by more than chance, and a smooth
    correction if they fit better.

    Raises LidarError without returns, OverlapError where none meets the surface, FrameError for heights or coordinates
    of another kind.
    """
    _check_frame(dsm)
    if not len(returns):
        raise LidarError("no lidar returns to register to", fix="give granules that cross the images")
    scene = prepare(dsm, returns, dsm_sigma)
    unmoved = scene.linearize((0.0, 0.0))
    if not np.isfinite(unmoved.difference).any():
        raise _nothing_met(dsm, returns)
    # returns whose own footprint misjudges the ground under a misplaced model may still help to place it
    precise = horizontal_sigma(returns) < PRECISE
    candidates = ~(returns.canopy > CLEAR_OF_CANOPY) & ~scene.footprints.level
    if (candidates & precise).sum() >= ENOUGH:
        candidates &= precise
    start = search_start(scene.dsm, scene.objects, returns, scene.footprints, candidates)
    fit, problem = scene.fit(SHIFT, start)
    scene = heard_by_product(scene, problem)
    scene = weighed_by_product(scene, fit, problem)
    unmoved = scene.linearize((0.0, 0.0))
    placed = settle_horizontal(scene, *scene.fit(SHIFT, problem.at), unmoved, pointing)
    fit, problem = placed.fit, placed.problem
    n_used = int(fit.used.sum())
    if n_used < ENOUGH:
        crowns = crown_height(scene, unmoved)
        if crowns is not None and (n_used < MIN_USED or contradict(fit, crowns)):
            return _on_crowns(scene, unmoved, fit, crowns, pointing, placed.reason)
    if n_used < MIN_USED:
        return _unapplied(scene, problem, n_used, placed.reason)
    scene, fit, problem, beams = _with_beams_placed(scene, fit, problem)
    lines = lines or Lines()
    heights = _settled(scene, problem, fit, lines)
    if heights.off:
        placed, fit, problem = _placed_without(heights.off, scene, problem, pointing)
        heights = _settled(scene, problem, fit, lines)
    off = [o.note(returns.track_names) for o in heights.off]
    heights = replace(heights, notes=[*heard_notes(scene), *beams, *off, *heights.notes])
    return _finish(scene, heights, problem, unmoved, placed)


def _settled(scene: Scene, problem: Linearization, fit: Fit, lines: Lines) -> Heights:
    span = extent_share(scene.dsm, scene.footprints.x[fit.used], scene.footprints.y[fit.used])
    spanned = min(span) >= MIN_TILT_EXTENT
    return settle_heights(problem, fit, scene.footprints, scene.dsm.grid, scene.origin, lines, spanned)


def _placed_without(
    off: Sequence[TrackOffset], scene: Scene, problem: Linearization, pointing: Pointing
) -> tuple[Placement, Fit, Linearization]:
    """The placement anew with tracks that are off levelled, which would else be paid with a shift; and the fit and the
    comparison of the returns as they are."""
    height = scene.returns.height.copy()
    for track in off:
        height[scene.returns.track == track.track] -= track.height
    level = replace(scene, returns=replace(scene.returns, height=height))
    placed = settle_horizontal(level, *level.fit(SHIFT, problem.at), level.linearize((0.0, 0.0)), pointing)
    problem = scene.linearize(placed.problem.at)
    fit = replace(fit_linear(problem, VERTICAL), covariance=placed.fit.covariance, free=placed.fit.free)
    return placed, fit, problem


def _check_frame(dsm: Raster) -> None:
    reference = dsm.grid.reference
    if not reference.vertical.is_ellipsoid:
        raise FrameError(
            f"surface heights refer to {reference.vertical.name}, lidar heights to the ellipsoid",
            fix="convert the surface to ellipsoidal heights first",
        )
    if not reference.crs.is_projected:
        raise FrameError(f"surface CRS {reference.crs.name} is not projected", fix="use a UTM zone")


def _with_beams_placed(scene: Scene, fit: Fit, problem: Linearization) -> tuple[Scene, Fit, Linearization, list[str]]:
    """The scene with beams where relief shows them to be, and the fit and the comparison anew."""
    precise = int((fit.used & (scene.footprints.shared == 0)).sum())
    up = float(fit.parameters[DZ])
    footprints, names = place_beams(
        scene.dsm, scene.objects, scene.returns, scene.footprints, problem.at, up, precise >= ENOUGH
    )
    if not names:
        return scene, fit, problem, []
    scene = replace(scene, footprints=footprints)
    problem = scene.linearize(problem.at)
    height = fit_linear(problem, VERTICAL)
    covariance = fit.covariance.copy()
    covariance[DZ:, DZ:] = height.covariance[DZ:, DZ:]
    farthest = np.hypot(*footprints.moved.T).max()
    note = f"geolocation of {len(names)} beams estimated from relief and taken off: up to {farthest:.0f} m"
    return scene, replace(height, covariance=covariance, free=fit.free), problem, [note]


def _nothing_met(dsm: Raster, returns: LidarReturns) -> OverlapError:
    """Why no return has a height of the model: there is no return, or no model."""
    column, row = dsm.grid.column_row(*from_lonlat(dsm.grid.reference.horizontal, returns.lon_deg, returns.lat_deg))
    height, width = dsm.grid.shape
    inside = int(((column > -0.5) & (row > -0.5) & (column < width - 0.5) & (row < height - 0.5)).sum())
    known = float(np.isfinite(dsm.values).mean())
    if inside and known < SPARSE:
        return OverlapError(
            f"only {100 * known:.2g} % of the surface model has heights, and none of {inside} lidar returns meets them",
            fix="check the images for cloud, snow, water or ground without texture",
        )
    return OverlapError(
        f"none of {len(returns)} lidar returns meets the surface model",
        fix="give granules that cross the images, or run without lidar",
    )


def _unapplied(scene: Scene, problem: Linearization, n_used: int, reason: str) -> Registration:
    text = f"{n_used} lidar returns on open ground: the surface is not corrected"
    still = Move(0.0, 0.0, 0.0, 0.0, 0.0, scene.origin, np.zeros((5, 5)), None, False)
    return _not_by_ground(scene, problem, still, problem.difference, reason, text)


def _on_crowns(
    scene: Scene, problem: Linearization, ground: Fit, crowns: Fit, pointing: Pointing, reason: str
) -> Registration:  # fmt: skip
    """A model of closed forest at the height that its crowns give."""
    up, variance = float(crowns.parameters[DZ]), float(crowns.covariance[DZ, DZ])
    n_used, n_crowns = int(ground.used.sum()), int(crowns.used.sum())
    text = f"{n_used} lidar returns on open ground: the height of the surface is that of {n_crowns} tops of crowns"
    if n_used >= MIN_USED:
        apart = float(ground.parameters[DZ]) - up
        text = (
            f"{n_used} lidar returns on ground that seems open place the surface {abs(apart):.1f} m "
            f"{'above' if apart > 0 else 'below'} where {n_crowns} tops of crowns do: these are believed"
        )
    text += f", with a sigma of {np.sqrt(variance):.1f} m"
    grid = scene.dsm.grid
    nodes = node_grid(grid, max(grid.shape) * grid.resolution)
    smooth = SmoothCorrection(None, Raster(np.full(nodes.shape, np.sqrt(variance)), nodes))
    covariance = np.diag([0.0, 0.0, variance, USUAL_TILT[0] ** 2, USUAL_TILT[0] ** 2])
    (dx, dy), covariance[:2, :2] = pointing.sideways(up)
    move = Move(float(dx), float(dy), up, 0.0, 0.0, scene.origin, covariance, smooth, True)
    return _not_by_ground(scene, problem, move, problem.difference - up, reason, text)


def _not_by_ground(
    scene: Scene, problem: Linearization, move: Move, residual: Floats, reason: str, text: str
) -> Registration:
    """A registration that no return on open ground is behind, so that none tells its accuracy."""
    sigma = np.sqrt(np.diag(move.covariance)) if move.applied else np.full(3, np.nan)
    report = RegistrationReport(
        len(scene.returns), 0, 0, problem.ground.rejected,
        (move.dx, move.dy, move.dz), (float(sigma[0]), float(sigma[1]), float(sigma[2])), (0.0, 0.0), (), None, None,
        float("nan"), None, (), text,
    )  # fmt: skip
    places = np.column_stack([scene.footprints.x, scene.footprints.y])
    return Registration(
        move.dx, move.dy, move.dz, move.tilt_e, move.tilt_n, move.origin, move.covariance, move.smooth, move.applied,
        places, scene.footprints.place_sigma, np.zeros(len(scene.returns), bool), residual, False, reason, report, (),
        (text,),
    )  # fmt: skip


def _enough(track: NDArray[np.int32], rows: Bools) -> bool:
    return bool(rows.sum() >= MIN_RETURNS and len(np.unique(track[rows])) >= MIN_TRACKS)


def _standing(scene: Scene, problem: Linearization, residual: Floats) -> str | None:
    """A line where most returns lie on what stands on the ground, as those do that roofs or crowns were given for."""
    out = ~problem.ground.usable & np.isfinite(residual) & ~(scene.returns.canopy > CLEAR_OF_CANOPY)
    n_out = min(dict(problem.ground.rejected).get("on a building or trees", 0), int(out.sum()))
    n_all = n_out + int((problem.ground.usable & np.isfinite(residual)).sum())
    if n_out <= STANDING * n_all:
        return None
    off = float(np.median(residual[out]))
    raised = "; if they are of roofs or crowns, the model was placed too high by as much" if off < 0 else ""
    return (
        f"{n_out} of {n_all} returns lie on buildings or trees and were left out, {abs(off):.1f} m "
        f"{'above' if off > 0 else 'below'} the corrected surface in the median: check that their heights are of the "
        f"ground{raised}"
    )


def _finish(
    scene: Scene,
    heights: Heights,
    problem: Linearization,
    unmoved: Linearization,
    placed: Placement,
) -> Registration:
    fit, held, fits, notes = heights.fit, heights.held, heights.folds, heights.notes
    residual = problem.residuals(fit.parameters) - heights.smooth.height_at(scene.footprints.x, scene.footprints.y)
    usable = problem.ground.usable & np.isfinite(residual)
    is_gross = usable & gross(residual, fit.scale * problem.sigma)
    kept = np.isfinite(held) & np.isfinite(unmoved.difference) & ~is_gross
    n_tracks = len(np.unique(problem.track[usable]))
    precise = kept & (horizontal_sigma(scene.returns) < PRECISE)
    stated = precise if _enough(problem.track, precise) else kept
    note = ""
    if not fits or kept.sum() < MIN_RETURNS:
        note = (
            f"{int(usable.sum())} usable returns on {n_tracks} tracks are too few to hold tracks out "
            f"({MIN_RETURNS} on {MIN_TRACKS} are needed): no accuracy is stated"
        )
    parts = uncontrolled_parts(scene.dsm, scene.footprints.x[fit.used], scene.footprints.y[fit.used])
    warnings = [note] if note else []
    if standing := _standing(scene, problem, residual):
        warnings = [standing, *warnings]
    wet = scene.footprints.level
    if wet.sum() > 0:
        text = (
            f"{wet.sum()} of {len(wet)} returns lie on a level that the model does not show, such as water that was "
            "not matched: they tell no shift"
        )
        notes = [*notes, text]
        warnings = [text, *warnings] if wet.mean() > MOSTLY else warnings
    if parts:
        text = f"no usable return in the {', '.join(parts)} of the surface: its correction is extrapolated"
        warnings = [text, *warnings]
    dx, dy, dz, tilt_e, tilt_n = (float(v) for v in fit.parameters)
    sx, sy, sz = (float(s) for s in np.sqrt(np.diag(fit.covariance))[:3])
    disagree = int((usable & ~fit.used).sum())
    x, y = scene.footprints.x, scene.footprints.y
    sigma = np.hypot(fit.scale * problem.sigma, heights.smooth.sigma_at(x, y))
    slope = np.hypot(problem.slope_x, problem.slope_y)
    report = RegistrationReport(
        n_read=len(scene.returns),
        n_used=int(fit.used.sum()),
        n_gross=int(is_gross.sum()),
        rejected=(*problem.ground.rejected, ("disagrees with the other returns", disagree)),
        shift=(dx, dy, dz),
        sigma=(sx, sy, sz),
        tilt=(tilt_e, tilt_n),
        folds=() if note else fold_results(problem, unmoved.difference, held, fits, kept, scene.returns.track_names),
        before=None if note else summarize(-unmoved.difference[stated]),
        after=None if note else summarize(-held[stated]),
        scale=fit.scale,
        coverage=None if note else coverage(held[stated], sigma[stated]),
        groups=() if note else group_errors(scene.returns, slope, unmoved.difference, held, kept),
        note=note,
    )
    return Registration(
        dx, dy, dz, tilt_e, tilt_n, scene.origin, fit.covariance, heights.smooth, True, np.column_stack([x, y]),
        scene.footprints.place_sigma, fit.used, residual, placed.constrained, placed.reason, report, tuple(notes),
        tuple(warnings),
    )  # fmt: skip
