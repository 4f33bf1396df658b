"""List files, which choose and order the samples of a data set.

A list file is named after its split, train.lst, val.lst or test.lst, as HRNet publishes them: a line names an image and
its label, relative to the root and separated by white space; test.lst may name only images. Further columns are not
read. LIP's lists are called trainList.txt, valList.txt or testvalList.txt, with paths that may be relative to folders.
Windows line ends are accepted. A path that is absolute, climbs up by `..` or leads out of the root by a link is
reported as a fault, and so is every other malformed line.
"""

from collections.abc import Collection, Sequence
from pathlib import Path, PurePath

from ovenet_jax.errors import UserError

SPLITS = ("train", "val", "test")


def list_files(lists: Path) -> dict[str, Path]:
    """The list file of each split that has one in the folder `lists`. Raises UserError: there is none."""
    names = [(split, name) for split in SPLITS for name in (f"test{split}List.txt", f"{split}List.txt", f"{split}.lst")]
    if not (found := {split: lists / name for split, name in names if (lists / name).is_file()}):
        raise UserError(f"config.data.lists: {lists} has none of {'.lst, '.join(SPLITS)}.lst; set it to their folder.")
    return found


def read_list(
    file: Path, root: Path, folders: Sequence[str] = ("", "")
) -> tuple[list[tuple[Path, Path | None]], list[str]]:
    """(image, label or None) of each valid line, and one sentence for each fault. folders: of images and labels under
    the root, to which paths are relative that lead to no file from the root; "" for none."""
    lines, faults = read_lines(file)
    images_alone = file.stem in ("test", "testList") and all(len(columns) == 1 for columns in lines.values())
    pairs: list[tuple[Path, Path | None]] = []
    for number, columns in lines.items():
        paths = [
            next((found for found in (path, f"{folder}/{path}") if not _fault_of(found, root)), path)
            for path, folder in zip(columns[: 1 if images_alone else 2], folders, strict=False)
        ]
        odd = [fault for fault in (_fault_of(path, root) for path in paths) if fault]
        if not images_alone and len(paths) == 1:
            odd.append("one column instead of two, image and label")
        faults += [f"{file}, line {number}: {fault}" for fault in odd]
        if not odd:
            pairs.append((root / paths[0], None if images_alone else root / paths[1]))
    return pairs, faults


def read_lines(file: Path, names: Collection[str] = ()) -> tuple[dict[int, list[str]], list[str]]:
    """Line number -> columns, for lines whose first is new; and a sentence for each fault. A line that is one of
    `names` is a single column, whatever spaces it holds."""
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return {}, [f"{file}: cannot be read as text ({error})"]
    stripped = {number: line.strip() for number, line in enumerate(text.split("\n"), 1) if line.strip()}
    lines = {number: [line] if line in names else line.split() for number, line in stripped.items()}
    faults = [] if lines else [f"{file}: no sample in this list"]
    line_of: dict[PurePath, int] = {}
    for number, (name, *_) in lines.items():
        first = line_of.setdefault(PurePath(name), number)
        if first != number:
            faults.append(f"{file}, line {number}: {name} is in line {first} already")
    return {number: lines[number] for number in line_of.values()}, faults


def _fault_of(path: str, root: Path) -> str | None:
    if Path(path).is_absolute():
        return f"{path} is an absolute path; it must be relative to {root}"
    if ".." in Path(path).parts:
        return f"{path} climbs up by '..'; it must stay in {root}"
    try:
        target = (root / path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # also links in a circle, and a null character
        return f"there is no {path} in {root}"
    return None if target.is_relative_to(root.resolve()) else f"{path} is a link to a file outside {root}"
