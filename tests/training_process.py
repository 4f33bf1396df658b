"""A training in a process of its own: python -m tests.training_process CONFIG.json WORKDIR [ADDRESS COUNT INDEX].

With an address, it is one of COUNT processes that train together. Ends like main.py: 0 when all is done, 75 when it was
interrupted.
"""

import json
import sys
from pathlib import Path

import jax
from absl import flags, logging
from ml_collections import ConfigDict

from ovenet_jax.train import train


def main(config_file: str, folder: str, address: str = "", count: str = "1", index: str = "0") -> int:
    sys.modules["clu.metric_writers"] = None  # no TensorBoard, so that the process starts fast
    jax.config.update("jax_num_cpu_devices", 2 if address else 1)
    if address:
        jax.distributed.initialize(address, num_processes=int(count), process_id=int(index))
    flags.FLAGS.mark_as_parsed()
    logging.set_verbosity(logging.ERROR)
    config = ConfigDict(json.loads(Path(config_file).read_text()))
    return 0 if train(config, Path(folder)) else 75


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
