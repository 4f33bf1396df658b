"""ACDC, driving in adverse conditions, as rgb_anon_trainvaltest.zip and gt_trainval.zip unpack.

rgb_anon/<condition>/<split>/<sequence>/<sequence>_frame_<frame>_rgb_anon.png
gt/<condition>/<split>/<sequence>/<sequence>_frame_<frame>_gt_labelIds.png

A sample's group is its condition. Splits are train, val and, where its folders are there, test, whose labels are
secret. The reference images in fair weather (<split>_ref) stay out.
"""

from pathlib import Path

from ovenet_jax.data.labels import ACDC
from ovenet_jax.data.trees import Folders, Tree

CONDITIONS = ("fog", "night", "rain", "snow")


def splits(root: Path) -> dict[str, list[Folders]]:
    found = {split: [_folders(root, condition, split) for condition in CONDITIONS] for split in ("train", "val")}
    test = [_folders(root, condition, "test")._replace(labels=None) for condition in CONDITIONS]
    return found | {"test": test} if any(folders.images.is_dir() for folders in test) else found


def _folders(root: Path, condition: str, split: str) -> Folders:
    return Folders(
        images=root / "rgb_anon" / condition / split,
        labels=root / "gt" / condition / split,
        image_end="_rgb_anon",
        label_end="_gt_labelIds",
        group=condition,
    )


TREE = Tree(
    name="acdc",
    labels=ACDC,
    layout="the ACDC folder, with rgb_anon/ and gt/ in it",
    splits=splits,
    official={"train": 1600, "val": 406, "test": 2000},
)
