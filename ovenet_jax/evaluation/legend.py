"""The names and colours of classes, as a picture and beneath others."""

from collections.abc import Sequence

import numpy as np

from ovenet_jax.data.labels import Labels
from ovenet_jax.evaluation.colours import label_colors
from ovenet_jax.evaluation.drawing import GAP, arranged, bordered, shown_names, text


def legend(classes: Labels, present: Sequence[int], width: int = 900) -> np.ndarray:
    """A legend of the `present` train ids (255: ignored), uint8 [h, w, 3], in as few lines as fit `width` pixels."""
    names = [*shown_names(classes.names), *["ignored"] * 256]
    colors = label_colors(np.array(present, int), classes)
    entries = [
        arranged([[bordered(bordered(np.full((22, 22, 3), color, np.uint8), 1, shade=184), 4), text(names[k])]])
        for k, color in zip(present, colors, strict=True)
    ]
    for columns in range(len(entries), 0, -1):
        widths = [max(entry.shape[1] for entry in entries[i::columns]) for i in range(columns)]
        if sum(widths) + GAP * (columns - 1) <= width or columns == 1:
            break
    return arranged([entries[i : i + columns] for i in range(0, len(entries), columns)], down=0)
