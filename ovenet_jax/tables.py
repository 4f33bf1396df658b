"""Text tables."""

import math
from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[object] | None], width: int = 0) -> str:
    """The lines of a table: the first column to the left, the others to the right, two spaces apart at least and each
    at least `width` wide; None is a rule."""
    cells = [row and [str(cell) for cell in row] for row in rows]
    first, *others = ([len(cell) for cell in column] for column in zip(*filter(None, cells), strict=True))
    widths = [max(width, 2 + max(lengths)) for lengths in others]
    return "\n".join(
        line(row, [max(first), *widths]) if row else "-" * (max(first) + sum(widths)) for row in cells
    )


def line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One of its lines."""
    others = zip(cells[1:], widths[1:], strict=True)
    return "".join([cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in others)])


def percent(share: float | None) -> str:
    """With two decimals; "-" for none or nan."""
    return "-" if share is None or math.isnan(share) else f"{100 * share:.2f}"
