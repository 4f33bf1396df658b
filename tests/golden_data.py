"""What happens to images and labels before the network, and to its classes after it."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from configs.cityscapes import CLASS_WEIGHTS
from ovenet_jax.data import augment
from ovenet_jax.data.augment import RandomScaleCrop, Sample
from ovenet_jax.data.labels import CITYSCAPES, OFFICIAL
from ovenet_jax.data.sizes import scaled_size
from ovenet_jax.evaluation.inference import read
from ovenet_jax.evaluation.protocol import Protocol, passes
from ovenet_jax.models.normalisation import Normalisation
from ovenet_jax.supervision.measures import class_scores, confusion_matrix
from tests.golden_case import Case


def preprocessing(case: Case) -> dict[str, np.ndarray]:
    """The real transforms on the case's images, which are BGR; what each array is, is in its name."""
    io, base_size = case.io, case.spec["config"]["base_size"]
    samples = {tall: {"image": io[f"image{tall}"][..., ::-1], "label": io[f"label{tall}"]} for tall in ("", "_tall")}
    wide = samples[""]
    normalisation = Normalisation(
        case.spec["config"]["mean_rgb"], case.spec["config"]["std_rgb"], divisor=255.0, bgr=False
    )
    normalised = np.asarray(normalisation(jnp.asarray(wide["image"][None])))[0]
    height, width = wide["label"].shape

    arrays = {
        "input_transform": normalised,
        "label_transform": wide["label"],  # train ids as they are
        "pad_image": augment.pad(wide | {"image": normalised}, (height + 5, width - 3))["image"],
        "city_ids_to_train": CITYSCAPES.train_ids()[io["city_ids"].astype(np.uint8)],  # id -1 is 255 in a file
        "city_train_to_ids": CITYSCAPES.label_ids()[io["city_train"]],
        "city_map_train": CITYSCAPES.train_ids()[io["city_map"]],
        "city_class_weights": np.array(CLASS_WEIGHTS),
        "ade_reduced": OFFICIAL["ade20k"].train_ids()[io["ade_map"]],
    }
    arrays |= _bgr("crop", _crop(wide, base_size, io["crop_image"].shape[:2], io["crop_yx"]))
    arrays |= _bgr("crop_padded", _crop(wide, base_size, io["crop_padded_image"].shape[:2], (0, 0)))
    for name in case.outputs:
        if match := re.fullmatch(r"msaug_float_([\d.]+)", name):
            arrays[name] = _resized_for_a_pass(wide["image"], base_size, float(match[1]), normalisation)
        elif match := re.fullmatch(r"msaug(_tall)?_([\d.]+)", name):
            sample = samples[match[1] or ""]
            size = scaled_size(sample["label"].shape, base_size * float(match[2]))
            arrays |= _bgr(name, _crop(sample, base_size, size, (0, 0), float(match[2])))
        elif match := re.fullmatch(r"short(_tall)?_(\d+)_(\d+|None)", name):
            sample, short_side = samples[match[1] or ""], int(match[2])
            multiple = 1 if match[3] == "None" else int(match[3])
            resized = augment.resize_short_side(sample, short_side, 1)
            padded = augment.resize_short_side(sample, short_side, multiple)
            arrays |= _bgr(name, padded)
            arrays[f"{name}_pad"] = np.subtract(padded["label"].shape, resized["label"].shape)
    return arrays


class _Told:
    """In place of a random generator: draws what it is told to."""

    def __init__(self, *values):
        self._values = iter(values)

    def integers(self, *_, **__):
        return next(self._values)


def _crop(sample: Sample, base_size: int, crop: tuple[int, int], corner: tuple[int, int], scale: float = 1.0) -> Sample:
    """The random crop at `corner` (y, x) of a random scale; the scale 1 of base_size makes no resize."""
    tenths = 10 * (scale - 0.5)
    return RandomScaleCrop(base_size, crop, scale_factor=16)(sample, _Told(tenths, corner))


def _resized_for_a_pass(image: np.ndarray, base_size: int, scale: float, normalisation: Normalisation) -> np.ndarray:
    """Float32 RGB [h, w, 3], as the network is fed the whole image at that scale."""
    protocol = Protocol(base_size, image.shape[:2], "cityscapes", side="long", sum="exp", scales=(scale,))
    (whole,) = passes(image.shape[:2], protocol, align_corners=False)
    taps = jax.tree.map(lambda x: x[None], whole.read)
    window, _ = read(jnp.asarray(image[None]), taps, normalisation=normalisation, precision="float32")
    return np.asarray(window)[0]


def _bgr(name: str, sample: Sample) -> dict[str, np.ndarray]:
    """A sample under the goldens' names: `crop_image` and `crop_label`, else `name` and `name_label`."""
    image = f"{name}_image" if name.startswith("crop") else name
    return {image: sample["image"][..., ::-1], f"{name}_label": sample["label"]}


def metrics(case: Case) -> dict[str, np.ndarray]:
    """The confusion matrix of the scores' classes, and what is read from it."""
    class_map = jnp.argmax(case.io["pred"], axis=1)
    matrix = np.asarray(confusion_matrix(case.io["label"], class_map, case.spec["config"]["num_classes"]))
    results = class_scores(matrix)
    published = {"iou": "iou", "mean_iou": "miou", "pixel_acc": "pixel_accuracy", "mean_acc": "mean_accuracy"}
    return {"cm": matrix} | {theirs: results[ours] for theirs, ours in published.items()}
