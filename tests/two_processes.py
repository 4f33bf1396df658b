"""One of several processes that evaluate together: python -m tests.two_processes ADDRESS COUNT INDEX CONFIG.json.

Prints the evaluation as JSON.
"""

import json
import sys
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ovenet_jax.devices import parallel
from ovenet_jax.evaluation.evaluator import Evaluator
from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model


def main(address: str, count: str, index: str, config_file: str) -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(address, num_processes=int(count), process_id=int(index))
    config = ConfigDict(json.loads(Path(config_file).read_text()))
    graphdef, *arrays = parameters.split(create_model(config.model))
    replicate = jax.jit(lambda x: x, out_shardings=parallel.replicated(parallel.create_mesh()))
    evaluation = Evaluator(config, graphdef).run(*replicate(arrays))
    matrices = {name: matrix.tolist() for name, matrix in evaluation.matrices.items()}
    print(json.dumps({"matrices": matrices, "images": evaluation.images}))


if __name__ == "__main__":
    main(*sys.argv[1:])
