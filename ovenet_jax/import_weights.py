"""Published PyTorch weights -> a folder that training starts from, and that is evaluated and predicted with."""

import json
from collections import Counter
from contextlib import closing
from pathlib import Path

from ml_collections import ConfigDict

from ovenet_jax import starting_point, torch_weights, workdir
from ovenet_jax.checkpoint import Checkpoints
from ovenet_jax.errors import UserError
from ovenet_jax.models import parameters
from ovenet_jax.models.zoo import create_model


def import_weights(config: ConfigDict, source: Path | None, folder: Path) -> None:
    """Reads the checkpoint `source` into the configured network and saves that in `folder`, with `import.json`.

    A network must be there as a whole. A backbone alone (ImageNet weights) is taken as the starting point of the
    rest, which starting_point.py tells. The report says of every array where it comes from, and of every key of the
    file that was left out, why.

    Raises:
      UserError: no file, one that cannot be read or does not fit, or a folder that holds checkpoints.
    """
    if source is None:
        raise UserError("--mode=import needs the file to read: --source=FILE.pth.")
    if workdir.has_checkpoint(folder) or workdir.is_run(folder):
        raise UserError(f"{folder} holds a run or an import already; choose another --workdir.")
    state_dict = torch_weights.read_pth(source)
    ignored = {key: reason for key in state_dict if (reason := torch_weights.why_ignored(key))}
    graphdef, params, statistics = parameters.split(create_model(config.model, config.seed))
    fresh = params | statistics
    expected, form = fresh, "a whole network"
    if torch_weights.holds_backbone_only(state_dict):
        expected = {name: value for name, value in fresh.items() if name.startswith("backbone.")}
        form = "a backbone alone, as ImageNet weights are: the starting point of a training"
    loaded = torch_weights.fill(expected, state_dict, str(source))
    arrays, origins = starting_point.take_over(fresh, starting_point.Source(source.name, loaded))

    report = {"source": str(source), "form": form, "arrays": origins, "ignored": ignored}
    with workdir.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / workdir.IMPORT_REPORT).write_text(json.dumps(report, indent=2) + "\n")
    workdir.claim(folder, config)
    with closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        checkpoints.save_model({n: arrays[n] for n in params}, {n: arrays[n] for n in statistics})
    print(f"{source} holds {form}.")
    print(starting_point.summary(origins))
    for reason, count in Counter(ignored.values()).items():
        print(f"ignored: {count} keys, {reason}")
    print(f"Written: {folder}")
