"""COCO-Stuff 10k with 171 classes, as cocostuff-10k-v1.1.zip unpacks, its annotations converted to PNG.

images/<name>.jpg
imageLists/train.txt and test.txt      which name the images of a split
annotations/<name>.png                 ids 0 to 182; the download has <name>.mat, whose field S they are

Its test split has labels, and is what results are reported on.
"""

from pathlib import Path

from ovenet_jax.data.labels import COCO_STUFF
from ovenet_jax.data.trees import Folders, Tree


def splits(root: Path) -> dict[str, list[Folders]]:
    return {
        split: [Folders(root / "images", root / "annotations", keys=root / f"imageLists/{split}.txt")]
        for split in ("train", "test")
    }


TREE = Tree(
    name="coco_stuff",
    labels=COCO_STUFF,
    layout="the folder of COCO-Stuff 10k, with images/, imageLists/ and annotations/, as PNG, in it",
    splits=splits,
    official={"train": 9000, "test": 1000},
)
