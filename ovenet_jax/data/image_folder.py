"""Any folder of images, or a single one, as a source to predict."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ovenet_jax.data.image_files import CHANNEL_SUFFIXES, PREDICTED_SUFFIXES, read_any_image
from ovenet_jax.data.walk import counted, said, walk
from ovenet_jax.errors import UserError


class ImageFolder:
    """Random access to the image `source`, or to all images under that folder, sorted by their paths.

    channels: their names, () for usual images. left_out: a line for each kind of file that is skipped. Raises
    UserError: no such folder, or no image in it.
    """

    def __init__(self, source: Path, channels: Sequence[str] = ()):
        self.left_out: list[str] = []
        self._channels, suffixes = channels, CHANNEL_SUFFIXES if channels else PREDICTED_SUFFIXES
        if source.is_file():
            folder, self._files = source.parent, [source]
        elif source.is_dir():
            folder, (self._files, others) = source, walk(source, suffixes)
            self.left_out = said(counted(others))
        else:
            raise UserError(f"There is no file or folder {source}; give --source a folder with images, or an image.")
        if not self._files:
            beside = "".join(f" ({line})" for line in self.left_out[:5])
            kinds = ", ".join(suffixes)
            raise UserError(f"--source={folder} has no image ({kinds}){beside}; give a folder with images.")
        self.names = _names([path.relative_to(folder) for path in self._files])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict:
        """{'image': uint8 RGB [H, W, 3] (of named channels: uint16 [H, W, C]), 'name': for output files, 'note': for
        the user, 'file': its path}, or {'fault', 'name'} of an unreadable image."""
        path, name = self._files[index], self.names[index]
        try:
            read = read_any_image(path.read_bytes(), self._channels)
        except (OSError, ValueError) as error:
            return {"fault": f"{path}: {error}", "name": name}
        return {"image": read.array, "name": name, "note": read.note, "file": str(path)}


def _names(paths: list[Path]) -> list[str]:
    """Each path without its suffix, except where two would then be equal."""
    names = [str(path.with_suffix("")) for path in paths]
    while len(set(names)) < len(names):
        count = Counter(names)
        names = [str(path) if count[name] > 1 else name for path, name in zip(paths, names, strict=True)]
    return names
