"""Pictures that are the same although their files are not: saved anew, resized, brightened.

A picture is known by a thumbnail. Candidates are pairs whose difference hashes are close; they count as twins when
their thumbnails also agree in what sets them apart from the average picture, since the images of a benchmark (brains,
solar cells) all look alike.
"""

from collections.abc import Iterator

import cv2
import numpy as np

SIDE = 16
SHAPE = (SIDE, SIDE + 1)  # of a thumbnail, so that there are SIDE x SIDE differences of neighbours
HASH_WORDS = SIDE * SIDE // 64
FAR = 48  # of the hash's 256 bits: candidates differ in no more; JPEG at quality 50 or half the size changes under 40
ALIKE = 0.95  # correlation of twins; a picture and its JPEG or half-size copy have over 0.99
AVERAGED_FROM = 16  # with fewer pictures an average says nothing
CELLS, PAIRS = 1 << 21, 1 << 13  # hashes, and thumbnails, compared at a time


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) RGB -> uint8 SHAPE, grey, by area."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, SHAPE[::-1], interpolation=cv2.INTER_AREA)


def difference_hash(thumbnails: np.ndarray) -> np.ndarray:
    """uint8 (N, *SHAPE) -> uint64 (N, HASH_WORDS): one bit a pair of neighbours, set where it grows brighter."""
    brighter = thumbnails[:, :, 1:] > thumbnails[:, :, :-1]
    return np.packbits(brighter.reshape(len(thumbnails), SIDE * SIDE), axis=1).view(np.uint64)


def near_duplicates(ones: np.ndarray, others: np.ndarray, alike: float = ALIKE) -> dict[int, tuple[int, float]]:
    """Of thumbnails (N, *SHAPE) and (M, *SHAPE): for each of `ones` that has a twin the closest one's place in `others`
    and their correlation.
    """
    both = np.concatenate([ones, others])
    average = both.mean(axis=0, dtype=np.float64) if len(both) >= AVERAGED_FROM else np.zeros(SHAPE)
    found: dict[int, tuple[int, float]] = {}
    for rows, columns in _candidates(difference_hash(ones), difference_hash(others)):
        correlation = (_apart(ones[rows], average) * _apart(others[columns], average)).sum(axis=1)
        for place in np.flatnonzero(correlation >= alike):
            row, value = int(rows[place]), float(correlation[place])
            if row not in found or value > found[row][1]:
                found[row] = int(columns[place]), value
    return found


def _candidates(ones: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places (n,) and (n,) of pairs whose hashes (N, W), (M, W) differ in at most FAR bits, in pieces."""
    step = max(1, CELLS // max(1, len(others)))
    for first in range(0, len(ones), step):
        part = ones[first : first + step]
        bits = np.zeros((len(part), len(others)), np.uint16)
        for word in range(HASH_WORDS):
            bits += np.bitwise_count(part[:, None, word] ^ others[None, :, word])
        rows, columns = np.nonzero(bits <= FAR)
        for start in range(0, len(rows), PAIRS):
            piece = slice(start, start + PAIRS)
            yield first + rows[piece], columns[piece]


def _apart(thumbnails: np.ndarray, average: np.ndarray) -> np.ndarray:
    """Unit vectors (n, pixels) of what sets thumbnails apart from the average; zero where nothing does."""
    values = (thumbnails - average).reshape(len(thumbnails), -1)
    values -= values.mean(axis=1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
