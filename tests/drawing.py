"""What pictures are drawn of in tests: three classes, a sample and its predictions; and counting their pixels."""

from types import SimpleNamespace

import numpy as np

CLASSES = SimpleNamespace(names=("road", "car", "sky"), colors=((128, 64, 128), (0, 0, 142), (70, 130, 180)))
ROAD, CAR, SKY, IGNORED = 0, 1, 2, 255
WHITE = (255, 255, 255)


def sample(height=360, width=480):
    """A grey image, its label (left half road, right half car) and three predictions.

    Initial: the upper half wrong. Seed: all right. Fused: an eighth wrong, below; it mends 1/2 and breaks 1/8.
    """
    image = np.full((height, width, 3), 90, np.uint8)
    label = np.full((height, width), ROAD, np.uint8)
    label[:, width // 2 :] = CAR
    initial = label.copy()
    initial[: height // 2] = SKY
    fused = label.copy()
    fused[height // 2 :, width * 3 // 4 :] = SKY
    return image, label, {"initial S_i": initial, "seed S_s": label.copy(), "fused S_f": fused}


def count(picture: np.ndarray, color) -> int:
    return int((picture == np.array(color, np.uint8)).all(-1).sum())
