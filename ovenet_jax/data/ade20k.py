"""ADE20K with 150 classes, as the Scene Parsing Challenge 2016 released it (ADEChallengeData2016.zip) ...

images/training/ images/validation/               ADE_<split>_<number>.jpg
annotations/training/ annotations/validation/     labels of the same names: PNG, ids 0 to 150

... or in the tree that openseg's scripts make of it:

train/image/ val/image/                           the same images
train/label/ val/label/                           and labels

Where release_test/testing/ (release_test.zip) is there, its images are the split test, whose labels are secret.
"""

from pathlib import Path

from ovenet_jax.data.labels import ADE20K
from ovenet_jax.data.trees import Folders, Tree


def splits(root: Path) -> dict[str, list[Folders]]:
    if (root / "train").is_dir():
        found = {split: [Folders(root / split / "image", root / split / "label")] for split in ("train", "val")}
    else:
        found = {
            split: [Folders(root / "images" / folder, root / "annotations" / folder)]
            for split, folder in (("train", "training"), ("val", "validation"))
        }
    test = root / "release_test" / "testing"
    return found | {"test": [Folders(test, None)]} if test.is_dir() else found


TREE = Tree(
    name="ade20k",
    labels=ADE20K,
    layout="the folder of ADE20K's challenge release, with images/ and annotations/ in it, or one with train/image/, "
    "train/label/, val/image/ and val/label/",
    splits=splits,
    official={"train": 20_210, "val": 2000, "test": 3352},
)
