"""Cityscapes with fine annotations, as leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip unpack.

leftImg8bit/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
gtFine/<split>/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png

Splits are train, val and, where its folder is there, test: its labels are secret, the files in gtFine/test are empty.
The coarse annotations (gtCoarse/ and the images of train_extra/) stay out.
"""

from pathlib import Path

from ovenet_jax.data.labels import CITYSCAPES
from ovenet_jax.data.trees import Folders, Tree


def splits(root: Path) -> dict[str, list[Folders]]:
    found = {split: [_folders(root, split)] for split in ("train", "val")}
    test = _folders(root, "test")._replace(labels=None)
    return found | {"test": [test]} if test.images.is_dir() else found


def _folders(root: Path, split: str) -> Folders:
    return Folders(
        images=root / "leftImg8bit" / split,
        labels=root / "gtFine" / split,
        image_end="_leftImg8bit",
        label_end="_gtFine_labelIds",
    )


TREE = Tree(
    name="cityscapes",
    labels=CITYSCAPES,
    layout="the Cityscapes folder, with leftImg8bit/ and gtFine/ in it",
    splits=splits,
    official={"train": 2975, "val": 500, "test": 1525},
)
