"""Sets of keys as ranges: sorted, apart from each other, each ``begin <= key < end``."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

Interval = tuple[bytes, bytes]


def cover(intervals: list[Interval], begin: bytes, end: bytes) -> None:
    """Adds a range in place; joins those that it touches."""
    if begin >= end:
        return
    first = bisect_left(intervals, (begin,))
    if first and intervals[first - 1][1] >= begin:
        first -= 1
        begin = intervals[first][0]
    last = first
    while last < len(intervals) and intervals[last][0] <= end:
        end = max(end, intervals[last][1])
        last += 1
    intervals[first:last] = [(begin, end)]


def covers(intervals: list[Interval], key: bytes) -> bool:
    """Whether a key lies in one of the ranges."""
    place = bisect_right(intervals, key, key=_begin)
    return place > 0 and key < intervals[place - 1][1]


def gaps(intervals: list[Interval], begin: bytes, end: bytes) -> list[Interval]:
    """What the ranges leave of ``begin <= key < end``, in order."""
    left = []
    place = bisect_right(intervals, begin, key=_begin)
    for low, high in intervals[max(0, place - 1) :]:
        if low >= end:
            break
        if begin < low:
            left.append((begin, low))
        begin = max(begin, high)
    if begin < end:
        left.append((begin, end))
    return left


def _begin(interval: Interval) -> bytes:
    return interval[0]
