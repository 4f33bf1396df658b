"""PASCAL-Context with 59 classes, or 60 where all else is one, as its labels unpack inside PASCAL VOC 2010.

VOC2010/JPEGImages/<name>.jpg                     of VOCtrainval_03-May-2010.tar
VOC2010/ImageSets/Main/train.txt and val.txt      which name the images of a split
VOC2010/59_context_labels/<name>.png              of 59_context_labels.tar.gz: ids 0 to 59
"""

from pathlib import Path

from ovenet_jax.data.labels import PASCAL_CONTEXT, PASCAL_CONTEXT_60
from ovenet_jax.data.trees import Folders, Tree


def splits(root: Path) -> dict[str, list[Folders]]:
    images, labels = root / "JPEGImages", root / "59_context_labels"
    return {split: [Folders(images, labels, keys=root / f"ImageSets/Main/{split}.txt")] for split in ("train", "val")}


TREE = Tree(
    name="pascal_context",
    labels=PASCAL_CONTEXT,
    layout="the folder VOC2010, with JPEGImages/, ImageSets/ and 59_context_labels/ in it",
    splits=splits,
    official={"train": 4998, "val": 5105},
)
TREE_60 = TREE._replace(name="pascal_context_60", labels=PASCAL_CONTEXT_60)
