"""Which matches cameras are found with."""

from __future__ import annotations

import itertools

import numpy as np

from sfmttr._sfm.thinning import longest_tracks


def chain(features: list[list[int]]) -> list[np.ndarray]:
    """Matches between neighbouring images that hold these points, in this order."""
    pairs = itertools.pairwise(features)
    return [np.array([(a.index(p), b.index(p)) for p in a if p in b], np.int64).reshape(-1, 2) for a, b in pairs]


IMAGES = [[0, 1, 2, 3], [9, 0, 1, 2], [2, 0, 7, 1], [7, 0, 2, 8]]
"""Points by image: 0 and 2 are seen in four images, 1 in three, 7 in two, the others in one."""
PAIRS = [(0, 1), (1, 2), (2, 3)]
COUNTS = [4, 4, 4, 4]


def points_kept(features: int) -> list[set[int]]:
    matches = chain(IMAGES)
    kept = longest_tracks(COUNTS, PAIRS, matches, features)
    return [{IMAGES[i][row] for row in m[keep][:, 0]} for (i, _), m, keep in zip(PAIRS, matches, kept, strict=True)]


def test_longest_come_first_and_stop_at_the_number() -> None:
    assert [len(points) for points in points_kept(1)] == [1, 1, 1]
    assert points_kept(1)[0] <= {0, 2}
    assert points_kept(2) == [{0, 2}, {0, 2}, {0, 2}]


def test_pairs_are_not_tracks() -> None:
    assert points_kept(99) == [{0, 1, 2}, {0, 1, 2}, {0, 2}]


def test_tracks_stay_whole() -> None:
    """A track is kept in all of its pairs or in none."""
    rng = np.random.default_rng(0)
    points = [rng.permutation(40)[:25].tolist() for _ in range(6)]
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    matches = [
        np.array([(points[i].index(p), points[j].index(p)) for p in points[i] if p in points[j]]) for i, j in pairs
    ]
    kept = longest_tracks([25] * 6, pairs, matches, 5)
    chosen = [{points[i][row] for row in m[keep][:, 0]} for (i, _), m, keep in zip(pairs, matches, kept, strict=True)]
    everything = set.union(*chosen)
    for (i, j), here in zip(pairs, chosen, strict=True):
        assert here == everything & set(points[i]) & set(points[j])
    for seen in points:
        assert len(everything & set(seen)) >= 5


def test_images_without_matches() -> None:
    assert longest_tracks([3, 0, 2], [], [], 5) == []
    empty = np.zeros((0, 2), np.int64)
    (kept,) = longest_tracks([3, 2], [(0, 1)], [empty], 5)
    assert kept.shape == (0,)
