"""Text tables."""

import math
from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[object] | None], width: int = 0) -> str:
    """The lines of a table: the first column left-aligned, the others right-aligned, at least `width` wide and at least
    two spaces apart; None is a horizontal rule."""
    cells = [[str(cell) for cell in row] if row else None for row in rows]
    longest = [max(map(len, column)) for column in zip(*filter(None, cells), strict=True)]
    first, widths = longest[0], [max(width, 2 + length) for length in longest[1:]]
    rule = "-" * (first + sum(widths))
    return "\n".join(row[0].ljust(first) + "".join(map(str.rjust, row[1:], widths)) if row else rule for row in cells)


def number_of(number: int, noun: str) -> str:
    """A number and its noun: "1 image", "2 images"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def percent(share: float | None) -> str:
    """`share` in percent with two decimals; "-" for None or NaN."""
    return "-" if share is None or math.isnan(share) else f"{100 * share:.2f}"
