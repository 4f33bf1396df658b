"""The network of a run, an import or an export for the hub, loaded."""

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from flax import nnx
from ml_collections import ConfigDict

from ovenet_jax import files
from ovenet_jax.devices import parallel
from ovenet_jax.models import parameters, zoo
from ovenet_jax.models.normalisation import Normalisation
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.run import workdir
from ovenet_jax.run.checkpoint import Checkpoints
from ovenet_jax.weights import torch_weights


class Network(NamedTuple):
    """A network at training step `step`, replicated on all devices."""

    step: int
    graphdef: nnx.GraphDef
    params: Arrays
    statistics: Arrays


def load_model(folder: str | Path) -> nnx.Module:
    """The best network of the run or import in `folder`, in evaluation mode. Raises UserError: the folder holds no run,
    import or checkpoint."""
    folder = Path(files.at_home(str(folder)))
    return parameters.merge(*restore_network(workdir.config_of(folder).model, folder)[1:])


def load_normalisation(folder: str | Path) -> Normalisation:
    """The input normalisation of the network in `folder`. Raises UserError: the folder holds no run or import."""
    return Normalisation.from_config(workdir.config_of(Path(files.at_home(str(folder)))).model.input)


def restore_network(model: ConfigDict, folder: Path, which: str = "best", held: bool = False) -> Network:
    """The network of `config.model` with the arrays of the "best" or "latest" readable checkpoint of `folder`, or those
    that --form=hub has written there. held: this process trains there. Raises UserError: no such checkpoint, or one of
    another network."""
    graphdef, *fresh = parameters.split(zoo.create_model(model))
    mesh, file = parallel.create_mesh(), folder / workdir.WEIGHTS
    if file.exists() and not workdir.has_checkpoint(folder):
        state_dict = torch_weights.fold_in_place_abn(torch_weights.read_file(file))
        read = torch_weights.fill(fresh[0] | fresh[1], state_dict, str(file))
        return Network(0, graphdef, *parallel.replicate(mesh, [{name: read[name] for name in part} for part in fresh]))
    like = parallel.replicate(mesh, fresh)
    with closing(Checkpoints(folder / "checkpoints", read_only=True, held=held)) as checkpoints:
        step, *arrays = checkpoints.restore_model(which, *like)
        return Network(step, graphdef, *arrays)
