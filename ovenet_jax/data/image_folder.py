"""Any folder of images, as a source to predict."""

from collections import Counter
from pathlib import Path

from ovenet_jax.data.image_files import IMAGE_SUFFIXES, read_image
from ovenet_jax.errors import UserError


class ImageFolder:
    """Random access to the images under `folder`, subfolders included, in the order of their names.

    Raises:
      UserError: no such folder, no image in it, or two images that differ in their suffix only.
    """

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise UserError(f"--source={folder} is no folder; give one that holds images.")
        self._files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self._files:
            kinds = ", ".join(IMAGE_SUFFIXES)
            raise UserError(f"--source={folder} holds no image ({kinds}); give a folder that does.")
        self.folder = folder
        self.names = [str(p.relative_to(folder).with_suffix("")) for p in self._files]
        name, count = Counter(self.names).most_common(1)[0]
        if count > 1:
            raise UserError(
                f"{folder} holds {count} images named {name}; their label maps would be one file: rename them."
            )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict:
        """{'image': uint8 RGB [H, W, 3], 'name': path without suffix}; with 'fault' in place of an unreadable image."""
        path, name = self._files[index], self.names[index]
        try:
            image = read_image(path.read_bytes()).array
        except (OSError, ValueError) as error:
            return {"fault": f"{path}: {error}", "name": name}
        return {"image": image, "name": name}
