"""What the runs of compare_networks say, from their JSON files alone: python -m benchmarks.evidence [--split=test]

Writes results_SPLIT.md and its figures. The test split is looked at once, when all runs are there.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from benchmarks import resampling
from benchmarks.compare_networks import NETWORKS, RESULTS, SEEDS, SPLITS
from benchmarks.resampling import Draws, Interval
from ovenet_jax import errors
from ovenet_jax.errors import UserError
from ovenet_jax.tables import percent

SMALLEST_OF_INTEREST = 0.005  # of mIoU
TITLES = {
    "main": "prediction",
    "initial": "S_i",
    "seed": "S_s",
    "fused": "S_f",
    "perfect_confidence": "perfect F",
    "perfect_seed": "perfect seed",
}
SECOND = "S_2"  # what the second head says by itself, in the place of S_s
Prediction = tuple[str, str]  # a network's name, and that of one of its predictions
COMPARISONS: dict[str, tuple[Prediction, Prediction]] = {
    "T1": (("ovenet", "fused"), ("hrnet_ocr_wide", "main")),
    "T2": (("ovenet", "fused"), ("hrnet_ocr", "main")),
    "T3": (("offsets", "fused"), ("offsets", "initial")),
    "T4": (("offsets", "fused"), ("second_head", "fused")),
}
OVENETS = ("ovenet", "offsets")
GROUPINGS = {
    "class": "IoU by class",
    "distance": "accuracy by distance to the nearest boundary",
    "size": "accuracy by size of the region",
}


class Results:
    """The runs with these seeds in a folder, on one split.

    Raises:
      UserError: one of them is missing.
    """

    def __init__(self, folder: Path, split: str, seeds: int):
        self.seeds, self.split, self.folder = seeds, split, folder
        self.runs = {name: [self._read(name, seed) for seed in range(seeds)] for name in NETWORKS}
        first = self.of_split("hrnet_ocr")[0]
        self.strata, self.images = first["blocks"], len(first["images"])
        self.groups = {"class": first["classes"]}
        for key, ends in first["groups"].items():
            ranges = [f"{low} to {high} px" for low, high in zip([0, *ends[:-1]], ends, strict=True)]
            self.groups[key] = [*ranges, f"more than {ends[-1]} px"]
        self.pixels = {key: np.array(counts) for key, counts in first["pixels"].items()}
        self.draws = resampling.draw(seeds, self.strata)
        self.fixed_images = resampling.draw(seeds, self.strata, fixed_images=True)

    def _read(self, name: str, seed: int) -> dict:
        file = self.folder / f"{name}-{seed}.json"
        if not file.exists():
            command = "python -m benchmarks.compare_networks --root=DIR"
            raise UserError(f"{file} is missing; `{command}` makes it, or choose fewer --seeds.")
        return json.loads(file.read_text())

    def of_split(self, name: str) -> list[dict]:
        """By seed, what benchmarks.examine found."""
        return [run["splits"][self.split] for run in self.runs[name]]

    def predictions(self, name: str) -> list[str]:
        """In the order of TITLES; perfect seeds are left out where there are none."""
        found = self.of_split(name)[0]
        without = {"perfect_seed"} if name == "second_head" else set()
        return [key for key in TITLES if key in found["predictions"].keys() - without]

    def counts(self, prediction: Prediction, key: str) -> np.ndarray:
        """[S, B, G] of "predicted", or of the right pixels by a grouping."""
        name, of = prediction
        return np.array([found["predictions"][of][key] for found in self.of_split(name)])

    def ious(self, prediction: Prediction, blocks: np.ndarray | None = None) -> np.ndarray:
        """[S, K], or [R, S, K] of the drawn `blocks`."""
        correct, predicted = (self.counts(prediction, key) for key in ("class", "predicted"))
        return resampling.mean_ious(self.pixels["class"], correct, predicted, blocks)

    def mious(self, prediction: Prediction, blocks: np.ndarray | None = None) -> np.ndarray:
        """[S], or [R, S]."""
        return self.ious(prediction, blocks).mean(axis=-1)

    def accuracies(self, prediction: Prediction, key: str, blocks: np.ndarray | None = None) -> np.ndarray:
        """The share of right pixels of each group of a grouping: [S, G], or [R, S, G]."""
        right, pixels = self.counts(prediction, key), self.pixels[key]
        if blocks is None:
            return right.sum(1) / np.maximum(1, pixels.sum(0))
        drawn = np.maximum(1, blocks @ pixels)
        return np.einsum("rb,sbg->rsg", blocks, right, optimize=True) / drawn[:, None]

    def interval(
        self, measure: Callable[[np.ndarray | None], np.ndarray], draws: Draws | None = None, rows: int = 1
    ) -> Interval:
        """Of the mean over the seeds of a measure: None -> [S, ...], blocks [R, B] -> [R, S, ...].

        95 % for all of `rows` intervals together (Bonferroni).
        """
        draws = draws or self.draws
        resampled = resampling.over_seeds(measure(draws.blocks), draws)
        return resampling.interval(measure(None).mean(axis=0), resampled, self.seeds, 1 - 0.05 / rows)


class Comparison(NamedTuple):
    """A difference of mIoU. differences: of each seed; fixed_images: the interval of other seeds on these images."""

    differences: np.ndarray
    interval: Interval
    fixed_images: Interval
    p: float


def compare(results: Results, first: Prediction, second: Prediction) -> Comparison:
    def difference(blocks: np.ndarray | None) -> np.ndarray:
        return results.mious(first, blocks) - results.mious(second, blocks)

    differences = difference(None)
    return Comparison(
        differences,
        results.interval(difference),
        results.interval(difference, results.fixed_images),
        resampling.sign_flip_p(differences),
    )


def verdict(found: Interval, adjusted_p: float) -> str:
    """The plan's words for a difference."""
    if adjusted_p <= 0.05 and found.low > 0:
        return "yes, worth its cost" if found.low >= SMALLEST_OF_INTEREST else "yes"
    if found.high < 0:
        return "no, harm"
    return "no" if found.high < SMALLEST_OF_INTEREST else "undecided"


def write(folder: Path, split: str = "val", seeds: int = SEEDS) -> None:
    """results_SPLIT.md and its figures in `folder`, from the runs there."""
    results = Results(folder, split, seeds)
    comparisons = {key: compare(results, *pair) for key, pair in COMPARISONS.items()}
    command = f"python -m benchmarks.evidence --split={split} --seeds={seeds}"
    parts = [
        f"# OVeNet and its baselines on CamVid, {split} split\n\nMade by `{command}` of {seeds} seeds and "
        f"{results.images} images; questions, networks and methods: [plan.md](plan.md). All in points of 100. "
        "Brackets: 95 % intervals over seeds and images, widened where a table has several rows of one kind.",
        "## Tests\n\n" + tests_table(comparisons) + f"\n\n![Differences](differences_{split}.png)",
        "## Every run, mIoU\n\n" + runs_table(results),
        "## Means and ceilings, mIoU\n\n" + means_table(results),
        f"## Where\n\n{where_table(results)}\n\n![Where](where_{split}.png)",
        f"## Seeds and confidence\n\n{seeds_table(results)}\n\n![Seeds](seeds_{split}.png)",
        "## Image by image\n\n" + share_of_images(results),
        "## Cost\n\n" + cost_table(results),
    ]
    (folder / f"results_{split}.md").write_text("\n\n".join(parts) + "\n")
    differences_figure(comparisons).savefig(folder / f"differences_{split}.png", dpi=100)
    where_figure(results).savefig(folder / f"where_{split}.png", dpi=100)
    seeds_figure(results).savefig(folder / f"seeds_{split}.png", dpi=100)
    print(f"Written: {folder}/results_{split}.md")


def title(name: str, of: str) -> str:
    """Of a network's prediction."""
    return SECOND if (name, of) == ("second_head", "seed") else TITLES[of]


def tests_table(comparisons: dict[str, Comparison]) -> str:
    adjusted = resampling.holm([c.p for c in comparisons.values()])
    rows = [
        [
            key,
            " - ".join(f"{NETWORKS[name].title} {TITLES[of]}" for name, of in COMPARISONS[key]),
            in_brackets(c.interval),
            in_brackets(c.fixed_images),
            f"{c.p:.4f}",
            f"{p:.4f}",
            verdict(c.interval, p),
        ]
        for (key, c), p in zip(comparisons.items(), adjusted, strict=True)
    ]
    titles = ("", "difference", "mIoU", "on these images", "p", "p by Holm", "better?")
    return markdown(titles, rows)


def runs_table(results: Results) -> str:
    rows = []
    for name, network in NETWORKS.items():
        for of in results.predictions(name):
            mious = results.mious((name, of))
            rows.append([network.title, title(name, of), *map(percent, mious)])
    return markdown(("network", "", *(f"seed {seed}" for seed in range(results.seeds))), rows)


def means_table(results: Results) -> str:
    """Each prediction's mean and, within an OVeNet, what it has more than S_i."""
    rows = []
    for name, network in NETWORKS.items():
        for of in results.predictions(name):
            mean = results.interval(lambda blocks, p=(name, of): results.mious(p, blocks))
            gain = ""
            if "initial" in results.predictions(name) and of != "initial":
                pair = (name, of), (name, "initial")
                gain = in_brackets(
                    results.interval(
                        lambda blocks, pair=pair: results.mious(pair[0], blocks) - results.mious(pair[1], blocks)
                    )
                )
            spread = percent(results.mious((name, of)).std(ddof=1))
            rows.append([network.title, title(name, of), in_brackets(mean, sign=False), spread, gain])
    return markdown(("network", "", "mIoU", "standard deviation of seeds", "more than S_i"), rows)


def gains(results: Results, key: str, pair: tuple[Prediction, Prediction], rows: int) -> Interval:
    """Differences by class (of IoU), or by distance or size (of accuracy), with intervals for all of `rows`."""

    def difference(blocks: np.ndarray | None) -> np.ndarray:
        if key == "class":
            return results.ious(pair[0], blocks) - results.ious(pair[1], blocks)
        return results.accuracies(pair[0], key, blocks) - results.accuracies(pair[1], key, blocks)

    return results.interval(difference, rows=rows)


def where_table(results: Results) -> str:
    """IoU by class, accuracy by distance and by size: of the base, and the difference of each comparison."""
    parts = []
    for key, names in results.groups.items():
        base = ("hrnet_ocr", "main")
        values = results.ious(base) if key == "class" else results.accuracies(base, key)
        pixels = results.pixels[key].sum(0)
        found = [gains(results, key, pair, len(names)) for pair in COMPARISONS.values()]
        rows = [
            [
                name,
                percent(pixels[i] / pixels.sum()),
                percent(values.mean(0)[i]),
                *(in_brackets(Interval(*(x[i] for x in interval))) for interval in found),
            ]
            for i, name in enumerate(names)
        ]
        parts.append(markdown((GROUPINGS[key], "pixels", NETWORKS["hrnet_ocr"].title, *COMPARISONS), rows))
    return "\n\n".join(parts)


def seed_means(results: Results, name: str, key: str) -> dict[str, np.ndarray]:
    """Means over pixels and seeds by a grouping, [G]: of an OVeNet's offset lengths in pixels, and shares."""
    sums = {
        what: sum(np.array(found["seeds"][what][key]) for found in results.of_split(name))
        for what in results.of_split(name)[0]["seeds"]
    }
    pixels, same = np.maximum(1, sums["pixels"]), sums["same_class"]
    inside, outside = sums["confidence_if_same"], sums["confidence"] - sums["confidence_if_same"]
    return {
        "offset [px]": sums["length"] / pixels,
        "seed in own segment": sums["same_segment"] / pixels,
        "seed in own class": same / pixels,
        "F": sums["confidence"] / pixels,
        "F if in own class": inside / np.maximum(1, same),
        "F if not": outside / np.maximum(1, sums["pixels"] - same),
    }


def seeds_table(results: Results) -> str:
    """Of the trained OVeNets, by class and by distance."""
    parts = []
    for name in OVENETS:
        for key in ("class", "distance"):
            length, *shares = seed_means(results, name, key).items()
            columns = [[f"{x:.1f}" for x in length[1]], *(map(percent, share) for _, share in shares)]
            titles = (NETWORKS[name].title, length[0], *(what for what, _ in shares))
            parts.append(markdown(titles, list(zip(results.groups[key], *columns, strict=True))))
    return "\n\n".join(parts)


def seeds_figure(results: Results) -> Figure:
    """Length of offsets, where seeds lie and F, by class."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    means = {name: seed_means(results, name, "class") for name in OVENETS}
    for axes, what in zip(figure.subplots(1, 3), ("offset [px]", "seed in own segment", "F"), strict=True):
        for shift, name in zip((-0.2, 0.2), OVENETS, strict=True):
            axes.barh(np.arange(len(results.groups["class"])) + shift, means[name][what], 0.4, label=name)
        axes.set_yticks(range(len(results.groups["class"])), results.groups["class"], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel(what)
    figure.axes[0].legend(fontsize=8)
    return figure


def share_of_images(results: Results) -> str:
    """How often S_f is better than S_i of the same frozen base, image by image."""
    fused, initial = (
        np.array([found["scores"][of] for found in results.of_split("offsets")], float) for of in ("fused", "initial")
    )
    difference = fused - initial
    return (
        f"On the frozen base S_f has a higher mIoU than S_i on {percent(np.mean(difference > 0))} % of the images, a "
        f"lower one on {percent(np.mean(difference < 0))} %, over all seeds; median difference "
        f"{100 * np.nanmedian(difference):+.2f}."
    )


def cost_table(results: Results) -> str:
    rows, total = [], 0.0
    for name, network in NETWORKS.items():
        hours = [run["processor_seconds"] / 3600 for run in results.runs[name]]
        machines = sorted({run["machine"] for run in results.runs[name]})
        commits = sorted({run["commit"] for run in results.runs[name]})
        total += sum(hours)
        rows.append([network.title, len(hours), results.runs[name][0]["steps"], f"{sum(hours):.2f}",
                     ", ".join(machines), ", ".join(commits)])  # fmt: skip
    table = markdown(("network", "runs", "steps", "processor hours", "machine", "commit"), rows)
    return f"{table}\n\nTogether {total:.1f} processor hours, evaluations included."


def differences_figure(comparisons: dict[str, Comparison]) -> Figure:
    """Every seed's difference, the mean and its interval."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    for row, (key, found) in enumerate(comparisons.items()):
        estimate, low, high = (100 * x for x in found.interval)
        axes.plot(100 * found.differences, np.full(len(found.differences), row + 0.2), "o", color="0.6", ms=4)
        axes.errorbar(estimate, row, xerr=[[estimate - low], [high - estimate]], fmt="ks", capsize=3)
        axes.text(1.01, row, key, transform=axes.get_yaxis_transform(), va="center")
    titles = [" -\n".join(f"{name} {TITLES[of]}" for name, of in COMPARISONS[key]) for key in comparisons]
    axes.set_yticks(range(len(titles)), titles, fontsize=8)
    axes.axvline(0, color="k", lw=0.8)
    axes.axvspan(0, 100 * SMALLEST_OF_INTEREST, color="0.93")
    axes.invert_yaxis()
    axes.set_xlabel("difference of mIoU [points]; grey: below what is of interest; dots: seeds")
    return figure


def where_figure(results: Results) -> Figure:
    """The differences of where_table, for the comparison at equal cost and for that on the frozen base."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (key, names) in zip(figure.subplots(1, 3), results.groups.items(), strict=True):
        for shift, test in ((-0.15, "T1"), (0.15, "T3")):
            found = gains(results, key, COMPARISONS[test], len(names))
            estimate, low, high = (100 * x for x in found)
            rows = np.arange(len(names)) + shift
            axes.errorbar(estimate, rows, xerr=[estimate - low, high - estimate], fmt="o", ms=4, label=test)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.axvline(0, color="k", lw=0.8)
        axes.invert_yaxis()
        axes.set_title(GROUPINGS[key], fontsize=8)
        axes.set_xlabel("difference [points]")
    figure.axes[0].legend()
    return figure


def in_brackets(interval: Interval, sign: bool = True) -> str:
    """Of shares, in points: "+0.52 [-0.10, +1.14]"."""
    estimate, low, high = (f"{100 * x:+.2f}" if sign else f"{100 * x:.2f}" for x in interval)
    return f"{estimate} [{low}, {high}]"


def markdown(titles: Sequence[str], rows: Sequence[Sequence]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the runs' JSON files")
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="that every network has")
    arguments = parser.parse_args()
    write(arguments.results, arguments.split, arguments.seeds)


if __name__ == "__main__":
    sys.exit(errors.run(main))
