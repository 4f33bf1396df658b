"""Checkpoints by Orbax: the latest one to resume from, the best one by mIoU to evaluate."""

from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp
from flax import nnx
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers

from ovenet_jax import parallel, workdir
from ovenet_jax.errors import UserError
from ovenet_jax.inference import Normalisation
from ovenet_jax.models import parameters
from ovenet_jax.models.parameters import Arrays
from ovenet_jax.models.zoo import create_model
from ovenet_jax.step import TrainState


class Network(NamedTuple):
    """A network as it was at `step`, on all devices."""

    step: int
    graphdef: nnx.GraphDef
    params: Arrays
    statistics: Arrays


def load_model(folder: str | Path) -> nnx.Module:
    """The best network of the run or import in `folder`, in evaluation mode.

    Raises:
      UserError: the folder holds neither, or no checkpoint.
    """
    return parameters.merge(*restore_network(_model_of(folder), Path(folder))[1:])


def load_normalisation(folder: str | Path) -> Normalisation:
    """What makes of RGB images the input of the network in `folder`.

    Raises:
      UserError: the folder holds neither a run nor an import.
    """
    return Normalisation.from_config(_model_of(folder).input)


def _model_of(folder: str | Path) -> ConfigDict:
    config = workdir.read_config(Path(folder))
    if config is None:
        raise UserError(
            f"{folder} holds no run (no config.json); give the --workdir of a training or an import."
        )
    return config.model


def restore_network(model: ConfigDict, folder: Path, which: str = "best") -> Network:
    """The "best" or "latest" checkpoint of `folder`, of the network that `config.model` describes.

    Raises:
      UserError: no checkpoint, or one of another network.
    """
    graphdef, *fresh = parameters.split(create_model(model))
    like = jax.device_put(fresh, parallel.replicated(parallel.create_mesh()))
    with closing(Checkpoints(folder / "checkpoints", read_only=True)) as checkpoints:
        step = checkpoints.step_of(which)
        return Network(step, graphdef, *checkpoints.restore_model(step, *like))


class Checkpoints:
    """The checkpoints of a run under `folder`: each holds "model", the params and statistics that are evaluated, and
    "training", the rest of the state: where averages are evaluated also the params and statistics that go on training.
    An import's only one, of step 0, holds "model" alone.

    Saving is asynchronous. The latest and the best are kept, older ones are deleted only when a newer one is
    complete; what an interrupted save left behind is ignored and cleaned away. With `read_only` nothing is touched:
    a training may be saving there meanwhile.
    """

    def __init__(self, folder: Path, read_only: bool = False):
        def miou(metrics: dict) -> float:
            return metrics["miou"]

        keep = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(1),
                checkpoint_managers.BestN(
                    get_metric_fn=miou, n=1, reverse=False, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        if read_only and not folder.is_dir():
            raise UserError(f"{folder} does not exist; train first, or check --workdir.")
        self.folder = folder
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            item_handlers={item: ocp.StandardCheckpointHandler() for item in ("model", "training")},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep,
                best_fn=miou,
                best_mode="max",
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            ),
        )

    def save(self, state: TrainState, miou: float | None = None) -> None:
        """Starts saving `state` under its step, with its validation mIoU where it has been evaluated."""
        model, training = _items(state)
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(model), training=ocp.args.StandardSave(training)
            ),
            metrics=None if miou is None else {"miou": miou},
            force=True,
        )

    def save_model(self, params: Arrays, statistics: Arrays) -> None:
        """Starts saving a network that nothing has trained here, under step 0."""
        model = ocp.args.StandardSave({"params": params, "statistics": statistics})
        self._manager.save(0, args=ocp.args.Composite(model=model), force=True)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def step_of(self, which: str = "best") -> int:
        """The step of the "latest" checkpoint, or of the "best" evaluated one, where there is none also the latest.

        Raises:
          UserError: another word, or no checkpoint.
        """
        if which not in ("best", "latest"):
            raise UserError(f"config.eval.checkpoint is {which!r}; it must be 'best' or 'latest'.")
        latest, best = self.latest_step(), self._manager.best_step()
        if latest is None:
            raise UserError(f"{self.folder} holds no checkpoint; train first, or check --workdir.")
        return latest if which == "latest" or best is None else best

    def restore_state(self, step: int, like: TrainState) -> TrainState:
        """The whole training state of `step`, with the shapes and shardings of `like`."""
        model, training = (
            self._restore(step, item, tree)
            for item, tree in zip(("model", "training"), _items(like), strict=True)
        )
        ema = (model["params"], model["statistics"]) if like.ema else None
        return TrainState(**model | training, ema=ema)

    def restore_model(self, step: int, params: Arrays, statistics: Arrays) -> tuple[Arrays, Arrays]:
        """Parameters and statistics of `step`, with the shapes and shardings of these."""
        model = self._restore(step, "model", {"params": params, "statistics": statistics})
        return model["params"], model["statistics"]

    def close(self) -> None:
        """Waits for a save under way."""
        self._manager.close()

    def _restore(self, step: int, item: str, like: dict) -> dict:
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        args = ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)})
        try:
            if item == "model":
                self._check_same_model(step, like)
            return self._manager.restore(step, args=args)[item]
        except UserError:
            raise
        except Exception as error:  # Orbax raises plain Exceptions for damaged files
            raise UserError(
                f"Checkpoint {step} in {self.folder} cannot be read ({repr(error)[:200]}); move its folder "
                f"away, and the one before is used."
            ) from error

    def _check_same_model(self, step: int, like: dict) -> None:
        metadata = self._manager.item_metadata(step)["model"]
        saved, ours = (
            {
                jax.tree_util.keystr(path, simple=True, separator=" "): tuple(x.shape)
                for path, x in jax.tree_util.tree_leaves_with_path(tree)
            }
            for tree in (metadata, like)
        )
        differences = [
            f"{name}: {saved.get(name, 'absent')} in the checkpoint, {ours.get(name, 'absent')} in the config's model"
            for name in sorted(saved.keys() | ours.keys())
            if saved.get(name) != ours.get(name)
        ]
        if differences:
            raise UserError(
                f"Checkpoint {step} in {self.folder} is of another model: {len(differences)} arrays differ, the first "
                f"being {'; '.join(differences[:3])}; use the config it was trained with, or another --workdir."
            )


def _items(state: TrainState) -> tuple[dict, dict]:
    """What a checkpoint of `state` holds as "model" and as "training"."""
    params, statistics = state.evaluated
    training = {"step": state.step, "opt_state": state.opt_state}
    if state.ema:
        training |= {"params": state.params, "statistics": state.statistics}
    return {"params": params, "statistics": statistics}, training
