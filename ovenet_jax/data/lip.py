"""LIP, "Look into Person", single-person parsing with 20 classes, as its three archives unpack.

TrainVal_images/train_images/                             TrainVal_images/val_images/       <name>.jpg
TrainVal_parsing_annotations/train_segmentations/         .../val_segmentations/            <name>.png, ids 0 to 19

Where Testing_images/testing_images/ is there, its images are the split test, whose labels are secret.
"""

from pathlib import Path

from ovenet_jax.data.labels import LIP
from ovenet_jax.data.trees import Folders, Tree


def splits(root: Path) -> dict[str, list[Folders]]:
    images, labels = root / "TrainVal_images", root / "TrainVal_parsing_annotations"
    found = {
        split: [Folders(images / f"{split}_images", labels / f"{split}_segmentations")] for split in ("train", "val")
    }
    test = root / "Testing_images" / "testing_images"
    return found | {"test": [Folders(test, None)]} if test.is_dir() else found


TREE = Tree(
    name="lip",
    labels=LIP,
    layout="the LIP folder, with TrainVal_images/ and TrainVal_parsing_annotations/ in it",
    splits=splits,
    official={"train": 30_462, "val": 10_000, "test": 10_000},
)
