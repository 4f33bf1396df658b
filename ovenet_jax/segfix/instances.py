"""Instance predictions as Cityscapes takes them: refined, and their average precision.

Each image has a list <name>_pred.txt with a line per instance: path of its mask (beside the list or in a folder below),
label id and score, separated by one space. A mask is a PNG, whatever its name, whose pixels other than 0 belong to the
instance. Refined masks hold 0 and 255. The list of an image without instances is empty.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

from ovenet_jax import errors, files
from ovenet_jax.segfix.files import named

LIST_END = "_pred"


def read_list(file: Path) -> dict[str, int]:
    """The label ids of the masks in a list, by their paths. Raises ValueError: a malformed line; OSError:
    the list cannot be read."""
    label_ids = {}
    with named(file):
        lines = file.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            path, label_id, score = line.split(" ")
            numbers = float(label_id).is_integer() and math.isfinite(float(score))
            if not files.is_inside(path) or not numbers:
                raise ValueError(line)
        except ValueError:
            wanted = "a path below the list's folder, a label id and a score, with one space between"
            raise ValueError(f"{file}, line {number}: expected {wanted}") from None
        label_ids[path] = int(float(label_id))
    return label_ids


def check_ids(file: Path, label_ids: Iterable[int]) -> None:
    """Raises ValueError for label ids in `file` that Cityscapes' evaluation does not know."""
    evaluation, _ = official_evaluation()
    if unknown := sorted(set(label_ids) - evaluation.id2label.keys()):
        raise ValueError(f"{file}: {', '.join(map(str, unknown))} are not label ids of Cityscapes")


def average_precision(lists: Sequence[Path], truth: Sequence[Path], root: Path) -> tuple[float, float]:
    """AP, and AP at 50 % overlap, by Cityscapes' own evaluation. lists: relative to the folder `root`. truth: their
    instance maps."""
    evaluation, instances2dict = official_evaluation()
    options = evaluation.args
    top = root.resolve()
    options.predictionPath, options.quiet = str(top), True
    evaluation.setInstanceLabels(options)
    predicted, true = [str(top / path) for path in lists], [str(path.resolve()) for path in truth]
    matches = evaluation.matchGtWithPreds(predicted, true, instances2dict(true), options)
    averages = evaluation.computeAverages(evaluation.evaluateMatches(matches, options), options)
    return averages["allAp"], averages["allAp50%"]


def official_evaluation() -> tuple[ModuleType, Callable]:
    """Cityscapes' evaluation of instances, and its reader of the truth. Raises UserError: it is not installed."""
    try:
        from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as evaluation  # noqa: N813
        from cityscapesscripts.evaluation.instances2dict import instances2dict
    except ImportError as error:
        fault = "--truth of instances needs Cityscapes' own evaluation"
        raise errors.UserError(f"{fault}; pip install cityscapesscripts, or leave it out.") from error
    evaluation.np = SimpleNamespace(**{**vars(np), "in1d": np.isin})  # it calls what NumPy 2.4 has removed
    return evaluation, instances2dict
