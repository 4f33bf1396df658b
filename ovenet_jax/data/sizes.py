"""Sizes of resized and padded images, with the rounding of the published code."""

from collections.abc import Callable


def scaled_size(size: tuple[int, int], side: float, which: Callable[[tuple[int, int]], int] = max) -> tuple[int, int]:
    """(H, W) with the longer side, or the shorter one (`which` is min), resized to `side`, rounded, and the other in
    proportion, rounded, at least 1."""
    height, width = (max(1, int(length * int(side + 0.5) / which(size) + 0.5)) for length in size)
    return height, width


def padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """(H, W), each at least as large and a multiple of `multiple`."""
    height, width = size
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple
