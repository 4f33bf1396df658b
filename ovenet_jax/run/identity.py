"""What a run was trained on, in its folder as `data.json`: the classes, and which images and labels by their content.

Where the data are, or the list files that chose them, makes no difference. Folders of commit 27140ce have no such file:
the classes of config.data are taken for theirs, and a training that goes on writes it.
"""

from collections.abc import Mapping
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
TABLE: dict[str, files.Form] = {
    "names": [str],
    "colors": [[int]],
    "ids": [[int]],
    "ignored_ids": [int],
    "void_id": int,
    "flip_pairs": [[int]],
}


class Identity(NamedTuple):
    """The class table, and what was trained and validated on, as `pipeline.Split.identity` says it; of an import the
    table alone."""

    classes: Labels
    training: Mapping[str, Any] = {}
    validation: Mapping[str, Any] = {}


def write(folder: Path, identity: Identity) -> None:
    """Notes it in a run's folder. Raises UserError where that cannot be written."""
    with files.writing(folder, "--workdir"):
        files.write_json(folder / FILE, identity._asdict() | {"classes": asdict(identity.classes)})


def read(folder: Path) -> Identity | None:
    """Of the run or import in `folder`; None where there is none, or one of an earlier version.

    Raises:
      UserError: it is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return None
    remedy = (
        "delete it: the classes are then those of the data, and the training writes it anew when it goes on"
    )
    content = files.read_json(file, {"classes": TABLE, "training": dict, "validation": dict}, remedy)
    classes = Labels(**{key: workdir.with_tuples(content["classes"][key]) for key in TABLE})
    numbers = [*sum((*classes.ids, *classes.colors), ()), *classes.ignored_ids, classes.void_id]
    rows = {len(classes.names), len(classes.colors), len(classes.ids)}
    sound = len(rows) == 1 and all(classes.ids) and all(len(color) == 3 for color in classes.colors)
    if not sound or not all(0 <= number <= 255 for number in numbers):
        raise UserError(f"{file} is damaged (it describes no classes); {remedy}.")
    return Identity(classes, content["training"], content["validation"])


def classes_of(folder: Path) -> Labels | None:
    """The classes of the run or import in `folder`; None where it has no table, which is said of a run of an earlier
    version.

    Raises:
      UserError: the table is damaged.
    """
    identity = read(folder)
    if identity is None and workdir.is_run(folder):
        parallel.say(
            f"Note: {folder} is of a version that kept no class table; the classes are taken to be those that "
            f"config.data has now."
        )
    return identity and identity.classes


def check(folder: Path, now: Identity) -> None:
    """Whether a training may go on in `folder` with these classes and data; other validation data are said.

    Raises:
      UserError: it was trained on others; its file is damaged.
    """
    if not workdir.has_checkpoint(folder):
        return
    before = read(folder)
    if before is None:
        if now.training:
            parallel.say(
                f"Note: {folder} is of a version that kept no class table and no digest of its data; it is given those "
                f"of the data as they are now."
            )
        return
    anew = f"start in another --workdir with --config.init.base={folder}"
    if difference := _difference(before.classes, now.classes):
        raise UserError(
            f"{folder} was trained on other classes: {difference}; restore the class table, or {anew}, which takes "
            f"over what it has learned, of the head by the names of the classes."
        )
    if now.training and before.training and before.training != now.training:
        raise UserError(
            f"{folder} was trained on other images or labels, {_said(before.training)}, now {_said(now.training)}; "
            f"restore them, or {anew}."
        )
    if now.validation and before.validation and before.validation != now.validation:
        parallel.say(
            f"Note: {folder} was validated on {_said(before.validation)} before, now it is {_said(now.validation)}; "
            f"its scores do not compare with earlier ones."
        )


def _difference(there: Labels, here: Labels) -> str:
    """The first class whose name or label ids are not the same; "" if all are."""
    rows = zip_longest(zip(there.names, there.ids, strict=True), zip(here.names, here.ids, strict=True))
    for number, (before, now) in enumerate(rows):
        if before != now:
            was, is_now = (f"{x[0]!r} of label ids {list(x[1])}" if x else "absent" for x in (before, now))
            return f"class {number} was {was} and is {is_now}"
    return ""


def _said(split: Mapping[str, Any]) -> str:
    return f"{split.get('images')} of {split.get('split')} (digest {str(split.get('digest'))[:12]})"
