"""Which matches are enough to find the cameras by: those of the longest tracks, evenly over the images.

Cameras are found as well with a few hundred points an image as with thousands, in a fraction of the time, and the other
points are triangulated from the finished cameras. Long tracks hold a path together; short ones add little to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

_SHORTEST = 3
"""Two views of a point say nothing about how their cameras lie to the others."""


def longest_tracks(
    feature_counts: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    matches: Sequence[np.ndarray],
    features: int,
) -> list[np.ndarray]:
    """For each pair of images, which of its matches (M, 2) are kept, as (M,) bool.

    Matches are feature indices within the pair's two images (positions in `feature_counts`). Tracks are kept from the
    longest on, each that some image needs that has not got `features` of them yet.
    """
    starts = np.concatenate([[0], np.cumsum(feature_counts)])
    ends = [(starts[i] + m[:, 0], starts[j] + m[:, 1]) for (i, j), m in zip(pairs, matches, strict=True)]
    track = _tracks(int(starts[-1]), ends)
    length = np.bincount(track, minlength=1)
    image = np.repeat(np.arange(len(feature_counts)), feature_counts)
    images_of = np.split(image[np.argsort(track, kind="stable")], np.cumsum(length)[:-1])
    kept = np.zeros(len(length), bool)
    have = np.zeros(len(feature_counts), np.int64)
    for candidate in np.argsort(-length, kind="stable"):
        if length[candidate] < _SHORTEST:
            break
        seen_in = images_of[candidate]
        if (have[seen_in] < features).any():
            kept[candidate] = True
            have[seen_in] += 1
    return [kept[track[first]] for first, _ in ends]


def _tracks(feature_count: int, ends: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(F,) int: which track each feature is in; features without a match are tracks of their own."""
    if not ends:
        return np.arange(feature_count)
    first, second = (np.concatenate(side) for side in zip(*ends, strict=True))
    graph = sparse.coo_matrix((np.ones(len(first), bool), (first, second)), shape=(feature_count, feature_count))
    return sparse.csgraph.connected_components(graph, directed=False)[1]
