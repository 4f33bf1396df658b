"""What a run was trained on, in its folder as `data.json`: the classes, and digests of the images and labels.

Paths and list files make no difference. Folders of earlier versions lack this file: then the classes of config.data are
used, and resuming the training writes it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from ovenet_jax import described, errors, files
from ovenet_jax.data.labels import Labels
from ovenet_jax.devices import parallel
from ovenet_jax.run import workdir

FILE = "data.json"
TABLE: dict[str, files.Form] = {"names": [str], "ignored_ids": [int], "void_id": int}
TABLE |= dict.fromkeys(("colors", "ids", "flip_pairs"), [[int]])
EARLIER = "is of a version that wrote no data.json"


class Identity(NamedTuple):
    """The class table, and `pipeline.Source.identity` of the training and validation data (imports: only the table)."""

    classes: Labels
    training: Mapping[str, Any] = {}
    validation: Mapping[str, Any] = {}


def write(folder: Path, identity: Identity) -> None:
    """Writes data.json. Raises UserError where it cannot."""
    with files.writing(folder, "--workdir"):
        files.write_json(folder / FILE, identity._asdict() | {"classes": asdict(identity.classes)})


def read(folder: Path) -> Identity | None:
    """Reads data.json; None where there is none. Raises UserError where it is damaged."""
    file = folder / FILE
    if not file.exists():
        return None
    remedy = "delete it: the classes of config.data are then used, and resuming the training writes it anew"
    content = files.read_json(file, {"classes": TABLE, "training": dict, "validation": dict}, remedy)
    classes = Labels(**{key: described.with_tuples(content["classes"][key]) for key in TABLE})
    count, numbers = (len(classes.names), {classes.void_id, *classes.ignored_ids}.union(*classes.ids, *classes.colors))
    sound = len(classes.ids) == count and all(classes.ids) and [*map(len, classes.colors)] == count * [3]
    if not sound or not numbers <= set(range(256)):
        raise errors.UserError(f"{file} is damaged (it describes no classes); {remedy}.")
    return Identity(classes, content["training"], content["validation"])


def classes_of(folder: Path) -> Labels | None:
    """The classes of the run or import in `folder`; None where it has no table, with a note if it is a run. Raises
    UserError where it is damaged."""
    identity = read(folder)
    if identity is None and workdir.is_run(folder):
        parallel.say(f"Note: {folder} {EARLIER}; the classes of config.data are used.")
    return identity and identity.classes


def check(folder: Path, now: Identity) -> None:
    """Checks that training may continue in `folder` with these classes and data. Prints a note if the validation data
    differ. Raises UserError: other classes or training data, or a damaged file."""
    before = read(folder) if workdir.has_checkpoint(folder) else now
    if before is None:
        if now.training:
            parallel.say(f"Note: {folder} {EARLIER}; it is written now, for the present data.")
        return
    faults = differences(before.classes, now.classes)
    if now.training and before.training not in ({}, now.training):
        faults.append(f"it was {_said(before.training)} and is {_said(now.training)}")
    if faults:
        remedy = f"restore its data, or start in another --workdir with --config.init.base={folder}"
        taken = "which starts from this run's network; classes are matched by name"
        raise errors.UserError(f"{folder} was trained on other data: {faults[0]}; {remedy}, {taken}.")
    if now.validation and before.validation not in ({}, now.validation):
        others = f"{_said(before.validation)} before and is validated on {_said(now.validation)} now"
        parallel.say(f"Note: {folder} was validated on {others}; earlier scores are not comparable.")


def differences(there: Labels, here: Labels) -> list[str]:
    """One sentence for each class whose name or label ids differ."""

    def rows(x: Labels) -> Iterator[str]:
        for name, ids in zip(x.names, x.ids, strict=True):
            yield f"{name!r} of label ids {', '.join(map(str, ids))}"

    both = enumerate(zip_longest(rows(there), rows(here), fillvalue="absent"))
    return [f"class {number} was {before} and is {now}" for number, (before, now) in both if before != now]


def _said(split: Mapping[str, Any]) -> str:
    return f"{split.get('images')} images of {split.get('split')} (digest {str(split.get('digest'))[:12]})"
