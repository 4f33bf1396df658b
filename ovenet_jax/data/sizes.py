"""Sizes of resized and padded images, with the rounding of the published code."""


def scaled_size(size: tuple[int, int], long_side: float) -> tuple[int, int]:
    """(H, W) with the longer side resized to long_side, rounded, and the other in proportion, rounded, at least 1."""
    height, width = size
    long_side = int(long_side + 0.5)
    if height > width:
        return long_side, max(1, int(width * long_side / height + 0.5))
    return max(1, int(height * long_side / width + 0.5)), long_side


def padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """(H, W), each at least as large and a multiple of `multiple`."""
    height, width = size
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def short_side_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(H, W) with the shorter side resized to short_side, and the other in proportion, rounded."""
    height, width = size
    if height < width:
        return short_side, int(width * short_side / height + 0.5)
    return int(height * short_side / width + 0.5), short_side
