"""Offsets of whole tracks: what thin cloud, blowing snow or a poor orbit shifts all returns of a pass by.

A track that disagrees with all others by more than they and the model can explain says less of the height of the model;
how much less is told from the returns themselves, as a mixture of usual tracks and of a few that are off. Its offset is
not taken off, for the track may as well be the one that is right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.register.lines import Lines
from terrain3d.register.smooth import TRACK_SIGMA, Candidate, Observations, height_prior, without_offsets

Floats = NDArray[np.float64]

# 1-sigma of a track's offset in metres, and its chance
KINDS = ((TRACK_SIGMA, 0.9), (0.2, 0.06), (0.6, 0.03), (2.0, 0.01))
PLAIN = 0.9  # chance of not being usual, from which a track is named
BENDS, REACH = 0.1, 1 / 7  # metres, and share of the extent: size and length of bends that are no offsets
TURNS = 20
DAMPING = 0.5


@dataclass(frozen=True)
class TrackOffset:
    """A track that is off: its index, by how much against all others, metres, and the 1-sigma of that."""

    track: int
    height: float
    sigma: float

    def note(self, names: tuple[str, ...]) -> str:
        """In words; names: of all tracks."""
        off = f"{abs(self.height):.2f} ± {self.sigma:.2f} m {'above' if self.height > 0 else 'below'}"
        return f"{names[self.track]} lies {off} the other tracks: counts little"


def with_offsets(observed: Observations, extent: float, lines: Lines) -> tuple[Observations, list[TrackOffset]]:
    """The observations with the 1-sigma of each track's offset as the other tracks tell it, and those plainly off."""
    tracks, column = np.unique(observed.track, return_inverse=True)
    if len(tracks) < 3:  # of two that differ none is known to be off
        return observed, []
    model = Candidate(BENDS, 0.5, REACH * extent, lines, 1.0)
    same = np.equal.outer(column, np.arange(len(tracks))).astype(float)
    weights = without_offsets(observed, model, height_prior(observed, lines), np.column_stack([observed.height, same]))
    pull, stiffness = same.T @ weights[:, 0], same.T @ weights[:, 1:]
    variances, chances = np.array([s**2 for s, _ in KINDS]), np.array([c for _, c in KINDS])
    variance = np.full(len(tracks), variances[0])
    for _ in range(TURNS):
        left = np.linalg.inv(np.diag(1 / variance) + stiffness)
        known = np.maximum(1 / np.diag(left) - 1 / variance, 1e-9)  # inverse variance of each offset against the others
        offset = left @ pull / np.diag(left) / known
        total = variances + 1 / known[:, None]
        chance = chances * np.exp(-0.5 * offset[:, None] ** 2 / total) / np.sqrt(total)
        chance = chance / chance.sum(axis=1, keepdims=True)
        found = np.exp(chance @ np.log(variances))
        variance = variance**DAMPING * found ** (1 - DAMPING)
    off = [
        TrackOffset(int(t), float(o), float(s))
        for t, o, s, usual in zip(tracks, offset, known**-0.5, chance[:, 0], strict=True)
        if 1 - usual > PLAIN
    ]
    return replace(observed, offset=np.sqrt(variance)[column]), off
