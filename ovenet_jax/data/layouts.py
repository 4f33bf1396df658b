"""How the files of a data set are arranged under its root; layouts.json describes the official data sets."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, NamedTuple

from ovenet_jax.data.encodings import LABEL_IDS
from ovenet_jax.data.labels import OFFICIAL, Labels
from ovenet_jax.data.lists import SPLITS


class Folders(NamedTuple):
    """Two folders under the root whose files, also in subfolders, belong together by key: <key><image_end>.jpg or .png,
    and <key><label_end>. label_ends: label_end -> encoding; if several of these labels exist, the first counts.

    labels: "" if there are only images. keys: a text file with a key per line, which chooses and orders; the other
    files of both folders are not read. group: stored with each sample.
    """

    images: str
    labels: str = ""
    keys: str = ""
    group: str = ""
    image_end: str = ""
    label_ends: Mapping[str, str] = MappingProxyType({".png": LABEL_IDS})


Splits = Mapping[str, Sequence[Folders]]
OPENSEG = {"images": "{split}/image", "labels": "{split}/label"}


def each(content: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Folders]]:
    """The folders of each split. content: split names, separated by spaces -> Folders as JSON. In paths, {split}
    stands for one of these names and {group} for one of `groups`; each group has its own pair of folders."""

    def pairs(split: str, groups: Sequence[str] = ("",), **parts: Any) -> list[Folders]:
        paths = [key for key in Folders._fields[:3] if key in parts]
        named = [{key: parts[key].format(split=split, group=group) for key in paths} for group in groups]
        return [Folders(**parts | of_group, group=group) for of_group, group in zip(named, groups, strict=True)]

    return {split: pairs(split, **parts) for names, parts in content.items() for split in names.split()}


class Layout(NamedTuple):
    """One way in which the files of a data set are arranged under its root.

    splits: the folders of each split. One without labels may be missing; one that is not among SPLITS is read only
    where it is asked for. official: number of samples per split as published.
    """

    splits: Splits
    official: Mapping[str, int] = MappingProxyType({})


class Tree(NamedTuple):
    """A data set and its layouts, the usual one first.

    root_is: description of the root for error messages. others: a file or folder -> what a root that holds it
    is instead. lists: a folder of list files that come with it. listed_in: folders of images and labels to which paths
    in list files may be relative. sample_name: from an image's path under the root; names must be unique.
    """

    name: str
    labels: Labels
    root_is: str
    layouts: Sequence[Layout]
    others: Mapping[str, str] = MappingProxyType({})
    lists: Path | None = None
    listed_in: Sequence[str] = ("", "")
    sample_name: Callable[[PurePath], str] = lambda path: path.stem


def _layouts(content: Sequence[dict[str, Any]]) -> list[Layout]:
    """Those of a data set in layouts.json and, with the same splits, openseg's, which any data set may have."""
    found = [Layout(each(layout["splits"]), layout["official"]) for layout in content]
    splits = found[0].splits
    labelled = [split for split in SPLITS if split in splits and splits[split][0].labels]
    openseg = each({" ".join(SPLITS): OPENSEG}).values()
    return [*found, found[0]._replace(splits={**splits} | dict(zip(labelled, openseg, strict=False)))]


TREES = {
    name: Tree(name, OFFICIAL[name], layouts=_layouts(content.pop("layouts")), **content)
    for name, content in json.loads((Path(__file__).parent / "layouts.json").read_bytes()).items()
}
