"""Networks whose training step compiles in seconds, and what such a step takes."""

import numpy as np
from ml_collections import ConfigDict

from configs import common
from ovenet_jax.data import imagenet


def tiny_model() -> ConfigDict:
    """`config.model` of an OVeNet with 5 classes that compiles in seconds."""
    return ConfigDict(
        {
            "num_classes": 5,
            "align_corners": True,
            "norm_momentum": 0.1,
            "input": {"bgr": False, "divisor": 255.0, "mean": imagenet.MEAN, "std": imagenet.STD},
            "backbone": {
                "name": "hrnet",
                "width": 4,
                "modules": (1, 1, 1),
                "blocks": 1,
                "layer1_blocks": 1,
                "layer1_width": 4,
                "stem_width": 8,
                "he_init": False,
            },
            "head": common.ocr(16),
            "offset": {
                "branch": 4,
                "modules": (1,),
                "threshold": 0.2,
                "refinement": 0,
                "logits": True,
                "grid_align_corners": True,
                "default_init": True,
            },
        }
    )


def small_resnet() -> ConfigDict:
    """`config.model.backbone` of four blocks: a step compiles in a third of the time that one of HRNet takes."""
    return ConfigDict(
        {
            "name": "resnet",
            "stem": (4, 4, 4),
            "blocks": (1, 1, 1, 1),
            "widths": (2, 2, 2, 2),
            "output_stride": 8,
            "multi_grid": (1,),
            "half_dilation": True,
            "he_init": True,
        }
    )


def small_model() -> ConfigDict:
    """`config.model` of an OVeNet on that ResNet with the plain head."""
    model = tiny_model()
    model.backbone = small_resnet()
    model.head = {"name": "fcn", "classifier": common.classifier(4), "aux": common.classifier(4)}
    return model


def config(model: ConfigDict, batch_size: int = 8) -> ConfigDict:
    """What a task reads of a config."""
    ohem = {"on": False, "threshold": 0.9, "keep": 100, "group": 2, "softmax_again": True, "aux_over_all": True}
    loss = {"aux_weight": 0.4, "class_weights": (), "ohem": ohem, "confidence_weight": 2.0, "include_ignored": True}
    return ConfigDict({"model": model, "loss": loss, "batch_size": batch_size, "accumulate": 1})


def batch(size: int = 8, height: int = 64, width: int = 64) -> dict[str, np.ndarray]:
    """Random images and labels of 5 classes; the first three rows are ignored."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size, height, width, 3), np.uint8)
    label = rng.integers(0, 5, (size, height, width)).astype(np.uint8)
    label[:, :3] = 255
    return {"image": image, "label": label}
