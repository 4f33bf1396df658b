"""Compares ours with the numbers the published systems produced: `python -m tests.goldens DIR [DIR ...]`.

A golden folder holds `case.json`, `io.npz` and, for a network, `weights.npz`; everything about a case is read from
its `case.json`. One line per array, `case array max_abs_error scale ok|FAIL|not covered`, and a last line
`N passed, M failed`; the exit code is 1 if anything failed. A case that cannot be computed fails, and the others go on.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests import golden_data, golden_outputs, golden_segfix, golden_training
from tests.golden_case import Case, Comparison, compare

Topic = Callable[[Case], dict[str, np.ndarray]]  # computes arrays of a case, in the reference's layout


def topics(case: Case) -> list[Topic]:
    """What a case is about; nothing where it is about what ours does not have yet."""
    return _topics_without_network(case) if case.network is None else _topics_of_network(case)


def _topics_without_network(case: Case) -> list[Topic]:
    by_inputs = {
        ("aux", "main", "offset", "f"): golden_training.loss_values,
        ("image", "label", "crop_yx"): golden_data.preprocessing,
        ("label", "pred"): golden_data.metrics,
        ("label", "ramp"): golden_segfix.class_ground_truth,
        ("label", "pred_mask", "pred_dir"): golden_segfix.predicted_offsets,
        ("pred_mask", "pred_dir"): golden_training.segfix_losses,
        ("instance_label",): golden_segfix.instance_ground_truth,
        ("label", "offset", "offset_float"): golden_segfix.refinement,
        ("running_mean", "running_var"): golden_outputs.batch_norm,
    }
    return [topic for inputs, topic in by_inputs.items() if set(inputs) <= set(case.spec["inputs"])]


def _topics_of_network(case: Case) -> list[Topic]:
    if case.network["architecture"] not in golden_outputs.ARCHITECTURES:
        return []
    asked = {
        golden_outputs.forward: any(x["array"] in case.outputs for x in case.network["outputs"]),
        golden_outputs.inference: "inference" in case.spec,
        golden_training.baseline_losses: "ohem" in case.spec,
        golden_training.criteria: "losses" in case.spec,
        golden_training.training: "optimizer" in case.spec,
    }
    return [topic for topic, is_asked in asked.items() if is_asked]


def run_case(folder: str | Path) -> Iterator[Comparison]:
    """Compares every output array of a golden folder."""
    case = Case(Path(folder))
    ours = {}
    for topic in topics(case):
        ours |= topic(case)
    for array in case.outputs:
        yield compare(case, array, ours.get(array))


def main(folders: list[str]) -> int:
    passed = failed = 0
    for folder in folders:
        try:
            for comparison in run_case(folder):
                print(comparison, flush=True)
                passed += comparison.verdict == "ok"
                failed += comparison.verdict == "FAIL"
        except Exception as error:  # whatever a network unknown here leads to
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"{Path(folder).name} - nan nan FAIL, not computed ({reason})", flush=True)
            failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
