"""Any folder of images, or a single one, as a source to predict."""

from collections import Counter
from pathlib import Path

from ovenet_jax.data.image_files import PREDICTED_SUFFIXES, read_any_image
from ovenet_jax.data.walk import counted, said, walk
from ovenet_jax.errors import UserError


class ImageFolder:
    """Random access to the image `source`, or to those under it, subfolders included, in the order of their names.

    left_out: a line for each kind of files that are no images.

    Raises:
      UserError: no such folder, or no image in it.
    """

    def __init__(self, source: Path):
        self.left_out: list[str] = []
        if source.is_file():
            folder, self._files = source.parent, [source]
        elif source.is_dir():
            folder, (self._files, others) = source, walk(source, PREDICTED_SUFFIXES)
            self.left_out = said(counted(others))
        else:
            raise UserError(f"--source={source} is no folder; give one that holds images, or an image.")
        if not self._files:
            beside = "".join(f" ({line})" for line in self.left_out[:5])
            kinds = ", ".join(PREDICTED_SUFFIXES)
            raise UserError(f"--source={folder} holds no image ({kinds}){beside}; give a folder that does.")
        self.names = _names([path.relative_to(folder) for path in self._files])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict:
        """{'image': uint8 RGB [H, W, 3], 'name': of what is written of it, 'note': what is to be said of it, 'file'};
        with 'fault' in place of an unreadable image and its note."""
        path, name = self._files[index], self.names[index]
        try:
            read = read_any_image(path.read_bytes())
        except (OSError, ValueError) as error:
            return {"fault": f"{path}: {error}", "name": name}
        return {"image": read.array, "name": name, "note": read.note, "file": str(path)}


def _names(paths: list[Path]) -> list[str]:
    """Each path without its suffix, which those keep that would have the same name."""
    names = [str(path.with_suffix("")) for path in paths]
    while len(set(names)) < len(names):
        count = Counter(names)
        names = [str(path) if count[name] > 1 else name for path, name in zip(paths, names, strict=True)]
    return names
