"""What a trained network says of a split, and where it is right: python -m benchmarks.examine WORKDIR --json=FILE

Pixels are counted by class, by distance to the nearest boundary and by size of their region, in blocks of neighbouring
images, so that all of it can be resampled. Of an OVeNet also what its seeds and its confidence are worth, and two
ceilings from the truth, as predictions of their own:

- perfect_confidence: right where any F in [0, 1] makes (1 - F) S_i + F S_s right;
- perfect_seed: right where S_i is right in the pixel's own segment, no farther away than its offset is long.

A pixel that a ceiling cannot mend keeps what S_f says of it.
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from ovenet_jax import errors
from ovenet_jax.data import pipeline
from ovenet_jax.data.labels import IGNORE
from ovenet_jax.devices import environment
from ovenet_jax.evaluation.inference import Inference, Segmentation, on_canvases
from ovenet_jax.run import identity, workdir
from ovenet_jax.segfix.files import Offsets
from ovenet_jax.supervision.task import Task, task_of
from ovenet_jax.weights.network import restore_network

BLOCK = 10  # images of one drive, one after the other
DISTANCES = (2, 4, 8, 16, 32)  # pixels to the nearest boundary: upper ends of groups, the last has none
SIZES = (64, 256, 1024, 4096, 16384)  # pixels of a segment, likewise

ClassMaps = dict[str, np.ndarray]  # uint8 [H, W] by prediction
Sums = dict[str, np.ndarray]  # [G] by grouping: "class", "distance" or "size"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.examine", description=__doc__.split("\n")[0])
    parser.add_argument("workdir", type=Path, help="of a run")
    parser.add_argument("--splits", nargs="+", default=["val"])
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    environment.convolve_by_eigen()
    found = {split: examine(arguments.workdir, split) for split in arguments.splits}
    arguments.json.write_text(json.dumps(found) + "\n")


def examine(folder: Path, split: str) -> dict:
    """Of the latest network of the run in `folder`, over a split of its data set; fit for JSON.

    classes: their names. groups: upper ends of the other groupings' groups, the last of which has none. images: names.
    scores: the mIoU of each image, over the classes in it, by prediction. blocks: the drive that each block of images
    is of, [B]. pixels: by grouping, [B][G]. predictions: by name, how many pixels are right by grouping, [B][G], and
    `predicted` of each class, [B][K]. seeds: of an OVeNet, sums over the split by grouping, [G], see `seed_values`.
    """
    config = workdir.config_of(folder)
    config.data.eval_split = split
    config.eval.sum = "logits"  # which the fusion is one of
    task = task_of(config, identity.classes_of(folder))
    source = task.open_evaluation()
    network = restore_network(config.model, folder, "latest")
    inference = Inference.from_config(config, network.graphdef, task.classes)
    found = {}
    with pipeline.samples(source, range(len(source))) as samples:
        arrays = inference.stored(network.params, network.statistics)
        for batch, segmentation in inference.over(samples, *arrays):
            answers = zip(batch, *_on_host(batch, segmentation, task), strict=True)
            for sample, predicted, seeds in answers:
                counts = measure(sample["label"], predicted, seeds, len(source.classes.names))
                found[int(sample["index"])] = {"name": sample["name"], **counts}
    return {
        "classes": list(source.classes.names),
        "groups": {"distance": DISTANCES, "size": SIZES},
        **_in_blocks([image for _, image in sorted(found.items())]),
    }


def _on_host(batch: list[dict], segmentation: Segmentation, task: Task) -> tuple[list[ClassMaps], list[Offsets | None]]:
    """Class maps of each image, those of a perfect confidence among them, and its seeds if there are any."""
    scores = segmentation.scores
    maps = {name: task.class_map(x) for name, x in scores.items()}
    seeds: list[Offsets | None] = [None] * len(batch)
    if segmentation.offset is not None:
        *trunk, class_maps = jax.device_get((segmentation.offset, segmentation.confidence, maps["fused"]))
        own = (x[tuple(map(slice, sample["label"].shape))] for x, sample in zip(class_maps, batch, strict=False))
        seeds = list(map(task.offsets, own, *trunk))
        labels = on_canvases([sample["label"] for sample in batch], maps["fused"].shape, IGNORE)
        mendable = some_confidence_is_right(scores["initial"], scores["seed"], labels)
        maps["perfect_confidence"] = jnp.where(mendable, labels, maps["fused"])
    maps = jax.device_get(maps)
    boxes = [(row, *map(slice, sample["label"].shape)) for row, sample in enumerate(batch)]
    return [{name: of_batch[box] for name, of_batch in maps.items()} for box in boxes], seeds


@jax.jit
def some_confidence_is_right(initial: jax.Array, seed: jax.Array, label: jax.Array) -> jax.Array:
    """Whether some F in [0, 1] makes the label's score the largest of (1 - F) initial + F seed.

    Scores [B, H, W, K] and label uint8 [B, H, W] -> bool [B, H, W], False where ignored. The lead over each other class
    is linear in F, so each wants F on one side of the F where its lead is 0.
    """
    own = jnp.minimum(label, initial.shape[-1] - 1).astype(int)[..., None]
    before, after = (jnp.take_along_axis(x, own, axis=-1) - x for x in (initial, seed))
    zero = before / jnp.where(before == after, 1, before - after)
    least = jnp.where(before >= 0, 0.0, jnp.where(after >= 0, zero, jnp.inf)).max(axis=-1)
    most = jnp.where(after >= 0, 1.0, jnp.where(before >= 0, zero, -jnp.inf)).min(axis=-1)
    return (least <= most) & (label != IGNORE)


def measure(label: np.ndarray, predicted: ClassMaps, seeds: Offsets | None, classes: int) -> dict:
    """Counts of one image, of train ids, uint8 [H, W], with the ceiling of perfect seeds where there are seeds."""
    ids, valid = segments(label, classes), label != IGNORE
    distance, size = boundary_distance(label, classes), np.bincount(ids.ravel())[ids]
    groups = {
        "class": (label, classes),
        "distance": (np.digitize(distance, DISTANCES, right=True), len(DISTANCES) + 1),
        "size": (np.digitize(size, SIZES, right=True), len(SIZES) + 1),
    }

    def total(values: np.ndarray) -> Sums:
        """Of a map [H, W], over the valid pixels."""
        weights = values[valid].astype(float)
        return {key: np.bincount(group[valid], weights, count) for key, (group, count) in groups.items()}

    pixels = total(valid)
    result = {"pixels": pixels, "predictions": {}, "scores": {}, "seeds": {}}
    if seeds:
        result["seeds"] = {what: total(values) for what, values in seed_values(label, ids, seeds).items()}
        reach = np.linalg.norm(seeds.offset, axis=-1)
        mendable = valid & (distance_to_right(ids, predicted["initial"] == label) <= reach)
        predicted = {**predicted, "perfect_seed": np.where(mendable, label, predicted["fused"])}
    for name, class_map in predicted.items():
        right = total(class_map == label)
        of_class = np.bincount(class_map[valid], minlength=classes)
        result["predictions"][name] = {**right, "predicted": of_class}
        union = pixels["class"] + of_class - right["class"]
        iou = right["class"][union > 0] / union[union > 0]
        result["scores"][name] = round(float(iou.mean()), 5) if iou.size else None
    return result


def seed_values(label: np.ndarray, ids: np.ndarray, seeds: Offsets) -> dict[str, np.ndarray]:
    """What is summed of seeds, [H, W] each, given labels and segments.

    pixels: 1; length: of the offset, in pixels; confidence: F; same_segment, same_class: whether the seed is in the
    pixel's own segment, or class; confidence_if_same: F where it is in its class.
    """
    row, column = np.indices(label.shape) + np.moveaxis(seeds.offset, -1, 0)
    same = label[row, column] == label
    return {
        "pixels": np.ones(label.shape),
        "length": np.linalg.norm(seeds.offset, axis=-1),
        "confidence": seeds.confidence,
        "same_segment": ids[row, column] == ids,
        "same_class": same,
        "confidence_if_same": same * seeds.confidence,
    }


def boundary_distance(label: np.ndarray, classes: int) -> np.ndarray:
    """Distance in pixels, [H, W], to the nearest pixel of another class; 0 where ignored, which is no other class."""
    distance = np.zeros(label.shape, np.float32)
    for class_id in range(classes):
        inside = label == class_id
        if inside.any():
            alike = inside | (label == IGNORE)
            distance[inside] = _distance_to_false(alike)[inside]
    return distance


def segments(label: np.ndarray, classes: int) -> np.ndarray:
    """Connected regions of one class (8 neighbours), numbered from 1, int32 [H, W]; 0 where ignored."""
    ids, count = np.zeros(label.shape, np.int32), 0
    for class_id in range(classes):
        inside = label == class_id
        if inside.any():
            found, numbers = cv2.connectedComponents(inside.view(np.uint8), connectivity=8)
            ids[inside] = numbers[inside] + count
            count += found - 1
    return ids


def distance_to_right(ids: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Distance in pixels, [H, W], to the nearest pixel of the own segment where `right` holds; inf without one."""
    distance = np.full(ids.shape, np.inf, np.float32)
    for segment, box in enumerate(ndimage.find_objects(ids), start=1):
        inside = ids[box] == segment
        wrong = ~(inside & right[box])
        if not wrong.all():
            np.copyto(distance[box], _distance_to_false(wrong), where=inside)
    return distance


def _distance_to_false(mask: np.ndarray) -> np.ndarray:
    """Euclidean, in pixels, [H, W]; beyond any image's size where there is none."""
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _in_blocks(images: list[dict]) -> dict:
    """The counts of images added up in blocks, and what is kept of each image."""
    blocks: list[list[dict]] = []
    drives: list[str] = []
    for image in images:
        drive, _, _ = image["name"].rpartition("_")
        if not drives or drives[-1] != drive or len(blocks[-1]) == BLOCK:
            blocks.append([])
            drives.append(drive)
        blocks[-1].append(image)

    def per_block(key: str) -> dict:
        sums = [jax.tree.map(lambda *x: sum(x), *(image[key] for image in block)) for block in blocks]
        return jax.tree.map(lambda *x: np.stack(x).astype(int).tolist(), *sums)

    seeds = jax.tree.map(lambda *x: np.round(sum(x), 1).tolist(), *(image["seeds"] for image in images))
    names = images[0]["scores"]
    return {
        "images": [image["name"] for image in images],
        "scores": {name: [image["scores"][name] for image in images] for name in names},
        "blocks": drives,
        "pixels": per_block("pixels"),
        "predictions": per_block("predictions"),
        "seeds": seeds,
    }


if __name__ == "__main__":
    sys.exit(errors.run(main))
