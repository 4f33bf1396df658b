"""Folders of label maps from any tool: what the ids in them mean, and which files belong together."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import NamedTuple

import cv2
import numpy as np

from ovenet_jax.data import folder, image_files
from ovenet_jax.data.encodings import LABEL_IDS, read_ids
from ovenet_jax.data.labels import IGNORE, Labels, numbered
from ovenet_jax.data.layouts import TREES
from ovenet_jax.data.walk import counted, said, walk
from ovenet_jax.errors import UserError
from ovenet_jax.files import at_home
from ovenet_jax.segfix.files import named

KINDS = (".png", ".mat", ".txt")  # suffixes of files that may be in the same folder and are not reported


class Meaning(NamedTuple):
    """How label maps encode classes: as LABEL_IDS or TRAIN_IDS (`ids`) of `classes`. Without classes they hold plain
    numbers, and IGNORE is no class. ends: ends of the file names of images, labels and instance maps."""

    classes: Labels | None = None
    ids: str = LABEL_IDS
    ends: tuple[str, str, str] = ("", "", "")

    @property
    def _held(self) -> Labels:
        """The classes, with the ids that maps hold as their label ids."""
        in_label_ids = self.classes if self.ids == LABEL_IDS else None
        held = in_label_ids or numbered(len(self.classes.names) if self.classes else IGNORE)
        return replace(held, ignored_ids=(*held.ignored_ids, IGNORE))

    def to_numbers(self) -> np.ndarray:
        """Lookup table uint8 [256] from ids to train ids, IGNORE for those of no class."""
        return self._held.train_ids()

    def read(self, path: Path) -> np.ndarray:
        """The label map `path` as train ids, uint8 [H, W]. Raises what `read_ids` does."""
        return cv2.LUT(self.read_ids(path), self.to_numbers())

    def read_ids(self, path: Path) -> np.ndarray:
        """The label map `path`, uint8 [H, W]. Raises ValueError: it is no label map, or holds ids that are not in the
        class table; OSError: it cannot be read."""
        with named(path):
            return read_ids(path.read_bytes(), LABEL_IDS, self._held).array


def meaning_of(data_set: str | None, ids: str) -> Meaning:
    """The encoding of label maps of `data_set`: its name, a classes.yaml, or None if it is unknown. Raises UserError:
    there is no such data set, or the file does not describe one."""
    if data_set is None:
        return Meaning()
    if data_set.endswith(".yaml"):
        classes, parts = folder.read_classes(Path(at_home(data_set)))
    elif data_set in TREES:
        classes, parts = TREES[data_set].labels, TREES[data_set].layouts[0].splits["train"][0]._asdict()
    else:
        raise UserError(f"--dataset={data_set} is unknown; choose one of {', '.join(TREES)}, or give a classes.yaml.")
    label_end = next(iter(parts["label_ends"])).removesuffix(".png")
    return Meaning(classes, ids, (parts["image_end"], label_end, label_end.replace("labelIds", "instanceIds")))


def read_instance_ids(path: Path) -> np.ndarray:
    """The instance map `path`, uint8 or uint16 [H, W]. Raises what `read_instances` does, and OSError."""
    with named(path):
        return read_instances(path.read_bytes()).array


def read_instances(data: bytes) -> image_files.Read:
    """An instance map, uint8 or uint16 [H, W]. Raises ValueError: it does not decode, or has several channels."""
    if image_files.read_header(data).depth == 16:
        return image_files.Read(image_files.decode_label(data, bits=16), data)
    return image_files.read_label(data)


def files_by_name(folder: Path, suffixes: Sequence[str], ends: Sequence[str] = (), only: str = "") -> dict[str, Path]:
    """Sample name -> file under `folder`; the name is the path in the folder without suffix and `ends`.

    If the names of some end in `only`, others are ignored: Cityscapes has label maps beside other PNGs. Files with
    other suffixes are counted and named. Raises UserError: no such folder, no such file in it, or two of the same name.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder.")
    found, others = walk(folder, suffixes)
    for line in said(counted(note for note in others if not note[1].lower().endswith(KINDS))):
        print(f"Note: {line}")
    found = [path for path in found if path.stem.endswith(only)] or found
    if not found:
        raise UserError(f"{folder} has no file {' or '.join(suffixes)}; give a folder with such files.")
    files: dict[str, Path] = {}
    for path in found:
        name = path.relative_to(folder).with_suffix("").as_posix()
        for end in ends:
            name = name.removesuffix(end)
        other = files.setdefault(name, path)
        if other != path:
            raise UserError(f"{folder} holds both {other.name} and {path.name}, which are one sample; keep one.")
    return files


def partners(files: Mapping[str, Path], others: Mapping[str, Path], what: str) -> Callable[[str], Path]:
    """A function from a name in `files` to the file of that name in `others`; one of both may lie in a subfolder. It
    raises ValueError if none or several match. what: the `others`, for messages."""
    own = Counter(PurePath(name).name for name in files)
    alike = defaultdict(list)
    for key in others:
        alike[PurePath(key).name].append(key)

    def partner(name: str) -> Path:
        if name in others:
            return others[name]
        bare = PurePath(name).name
        if not (found := [key for key in alike[bare] if bare in (name, key)]):
            raise ValueError(f"{files[name]}: there is no {what} {name}")
        if own[bare] > 1 or len(found) > 1:
            fault = f"named {bare}: {len(found)} of them, {own[bare]} to refine"
            raise ValueError(f"{files[name]}: its {what} is ambiguous ({fault}); put both into the same subfolders")
        return others[found[0]]

    return partner
