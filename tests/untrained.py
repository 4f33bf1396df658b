"""A folder like an import's, with an untrained network in it: enough to evaluate and to predict."""

from contextlib import closing
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model
from ovenet_jax.run import workdir
from ovenet_jax.run.checkpoint import Checkpoints
from tests.tiny_step import small_resnet


def narrow(hrnet: ConfigDict) -> ConfigDict:
    """`hrnet` with few channels and blocks."""
    few = {"width": 4, "modules": (1, 1, 1), "blocks": 1, "stem_width": 8, "layer1_blocks": 1, "layer1_width": 4}
    return ConfigDict({**hrnet, **few, "he_init": True})


def tiny(config: ConfigDict, data: ConfigDict, backbone: ConfigDict | None = None) -> ConfigDict:
    """`config` with a network that compiles in seconds, on a small ResNet by default, for 48 x 48 images of `data`."""
    config.data.update(data)
    config.data.workers = 0
    config.model.backbone = backbone or small_resnet()
    if config.model.head.name == "ocr":
        config.model.head.update({"mid_features": 16, "key_features": 8})
    if "offset" in config.model:
        config.model.offset.modules = (1,)
    config.eval.update({"base_size": 48, "window": (32, 48), "panels": 1, "worst": 2})
    return config


def save_untrained(config: ConfigDict, folder: Path) -> Path:
    """Saves the network of `config`, as it is before training, under `folder`."""
    _, *arrays = parameters.split(create_model(config.model, config.seed))
    workdir.claim(folder, config)
    with closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        checkpoints.save_model(*jax.device_put(arrays))
    return folder
