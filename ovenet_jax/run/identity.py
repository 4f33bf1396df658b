"""What a run was trained on, in its folder as `data.json`: the classes, and which images and labels by their content.

Where the data are, or the list files that chose them, makes no difference. Folders of commit 27140ce have no such file:
the classes of config.data are taken for theirs, and a training that goes on writes it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from ovenet_jax import files
from ovenet_jax.data.labels import Labels
from ovenet_jax.devices import parallel
from ovenet_jax.errors import UserError
from ovenet_jax.run import workdir

FILE = "data.json"
TABLE: dict[str, files.Form] = {"names": [str], "ignored_ids": [int], "void_id": int}
TABLE |= dict.fromkeys(("colors", "ids", "flip_pairs"), [[int]])
EARLIER = "is of a version that kept no class table"


class Identity(NamedTuple):
    """The class table, and what was trained and validated on, as `pipeline.Source.identity` says it; of an import the
    table alone."""

    classes: Labels
    training: Mapping[str, Any] = {}
    validation: Mapping[str, Any] = {}


def write(folder: Path, identity: Identity) -> None:
    """Notes it in a run's folder. Raises UserError where that cannot be written."""
    with files.writing(folder, "--workdir"):
        files.write_json(folder / FILE, identity._asdict() | {"classes": asdict(identity.classes)})


def read(folder: Path) -> Identity | None:
    """Of the run or import in `folder`; None where there is none, or one of an earlier version. Raises UserError where
    it is damaged."""
    file = folder / FILE
    if not file.exists():
        return None
    remedy = "delete it: the classes are then those of the data, and a training that goes on writes it anew"
    content = files.read_json(file, {"classes": TABLE, "training": dict, "validation": dict}, remedy)
    classes = Labels(**{key: workdir.with_tuples(content["classes"][key]) for key in TABLE})
    count, numbers = (len(classes.names), {classes.void_id, *classes.ignored_ids}.union(*classes.ids, *classes.colors))
    sound = len(classes.ids) == count and all(classes.ids) and [*map(len, classes.colors)] == count * [3]
    if not sound or not numbers <= set(range(256)):
        raise UserError(f"{file} is damaged (it describes no classes); {remedy}.")
    return Identity(classes, content["training"], content["validation"])


def classes_of(folder: Path) -> Labels | None:
    """The classes of the run or import in `folder`; None where it has no table, which is said of a run. Raises
    UserError where it is damaged."""
    identity = read(folder)
    if identity is None and workdir.is_run(folder):
        parallel.say(f"Note: {folder} {EARLIER}; the classes are taken to be those that config.data has now.")
    return identity and identity.classes


def check(folder: Path, now: Identity) -> None:
    """Whether a training may go on in `folder` with these classes and data; other validation data are said. Raises
    UserError where it was trained on others, or its file is damaged."""
    before = read(folder) if workdir.has_checkpoint(folder) else now
    if before is None:
        if now.training:
            given = "it is given those of the data as they are now"
            parallel.say(f"Note: {folder} {EARLIER} and no digest of its data; {given}.")
        return
    faults = differences(before.classes, now.classes)
    if now.training and before.training not in ({}, now.training):
        faults.append(f"it was {_said(before.training)} and is {_said(now.training)}")
    if faults:
        helps = f"restore them, or start in another --workdir with --config.init.base={folder}"
        learned = "which takes over what it has learned, of the head by names of classes"
        raise UserError(f"{folder} was trained on other data: {faults[0]}; {helps}, {learned}.")
    if now.validation and before.validation not in ({}, now.validation):
        others = f"{_said(before.validation)} before, now it is {_said(now.validation)}; its"
        parallel.say(f"Note: {folder} was validated on {others} scores do not compare with earlier ones.")


def differences(there: Labels, here: Labels) -> list[str]:
    """One sentence for each class whose name or label ids are not the same."""

    def rows(x: Labels) -> Iterator[str]:
        for name, ids in zip(x.names, x.ids, strict=True):
            yield f"{name!r} of label ids {', '.join(map(str, ids))}"

    both = enumerate(zip_longest(rows(there), rows(here), fillvalue="absent"))
    return [f"class {number} was {before} and is {now}" for number, (before, now) in both if before != now]


def _said(split: Mapping[str, Any]) -> str:
    return f"{split.get('images')} images of {split.get('split')} (digest {str(split.get('digest'))[:12]})"
