"""One float64 step of training on a mesh, as each of several processes runs it too:

python -m tests.one_step HOST:PORT COUNT INDEX resnet|hrnet FOLDER DATAxROWS ...

saves loss, BatchNorm statistics and gradients of a tiny network on each mesh, DATAxROWS.npz; process 0 does.
"""

import sys
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ovenet_jax.devices import parallel
from ovenet_jax.models.zoo import create_model
from ovenet_jax.run import processes
from ovenet_jax.run.state import init_state
from tests.float64 import float64
from tests.steps import step_of
from tests.tiny_step import config, small_model, tiny_model

CLASSES = 3
HEIGHT, WIDTH, IMAGES = 64, 128, 8  # the coarsest maps have two rows


class Result(NamedTuple):
    """What a step says and changes; `program` is the compiled program's text."""

    measures: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    program: str


def model_config(hrnet: bool) -> ConfigDict:
    """Of an OVeNet of HRNet and OCR whose numbers of channels are no sizes of its maps; else on a small ResNet."""
    if not hrnet:
        config = small_model()
        config.num_classes = CLASSES
        return config
    config = tiny_model()
    config.num_classes = CLASSES
    config.backbone.update({"width": 5, "layer1_width": 7, "stem_width": 9, "he_init": True})
    config.head.update({"mid_features": 22, "key_features": 11, "dropout": 0.3})
    return config


def one_step(mesh: Mesh, hrnet: bool, accumulate: int = 1) -> Result:
    """A step of plain gradient descent with rate 1, so that what it takes from the parameters are the gradients."""
    settings = config(model_config(hrnet), IMAGES)
    model = create_model(settings.model)
    model.set_attributes(lay_out=parallel.row_layout(mesh))
    optimizer = optax.sgd(1.0)
    with float64():
        state = jax.tree.map(lambda x: np.asarray(x, np.float64 if x.ndim else x.dtype), init_state(model, optimizer))
        step = step_of(settings, model, optimizer, precision="float64", accumulate=accumulate)
        step = jax.jit(step, out_shardings=parallel.replicated(mesh))
        batch = parallel.to_global(mesh, _share(_batch()))
        arguments = parallel.replicate(mesh, state), batch["image"], batch["label"]
        compiled = step.lower(*arguments).compile()
        after, measures = jax.device_get(compiled(*arguments))
    gradients = {name: state.params[name] - after.params[name] for name in state.params}
    return Result(measures, after.statistics, gradients, compiled.as_text())


def _batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (IMAGES, HEIGHT, WIDTH, 3), np.uint8)
    label = rng.integers(0, CLASSES, (IMAGES, HEIGHT, WIDTH)).astype(np.uint8)
    label[:, :3] = 255
    return {"image": image, "label": label}


def _share(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """This process's images."""
    images = IMAGES // jax.process_count()
    first = images * jax.process_index()
    return {key: array[first : first + images] for key, array in batch.items()}


def main(coordinator: str, count: str, index: str, network: str, folder: str, *meshes: str) -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    processes.start(coordinator, int(count), int(index), 60, {})
    for mesh in meshes:
        data, rows = map(int, mesh.split("x"))
        result = one_step(parallel.create_mesh(sizes=(data, rows)), hrnet=network == "hrnet")
        if jax.process_index() == 0:
            arrays = result.statistics | result.gradients
            np.savez(f"{folder}/{mesh}.npz", loss=result.measures["loss_total"], **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
