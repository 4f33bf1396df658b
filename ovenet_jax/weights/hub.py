"""Weights by their name on the Hugging Face hub: hub:OWNER/NAME, or hub:OWNER/NAME@REVISION."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ovenet_jax.errors import UserError, cause_of
from ovenet_jax.run import workdir
from ovenet_jax.weights.published_names import TABLES

PREFIX = "hub:"
FILES = (workdir.WEIGHTS, "pytorch_model.bin")  # the first that there is is taken


def name_of(backbone: Mapping[str, Any]) -> str:
    """The name of ImageNet weights for `config.model.backbone`; "" if none is known."""
    known = TABLES["imagenet"].items()
    return next((f"{PREFIX}{name}" for name, parts in known if parts.items() <= dict(backbone).items()), "")


def located(config: ConfigDict, folder: Path) -> ConfigDict:
    """`config` with the folders where the run `folder` keeps imports, in place of names on the hub in `config.init`."""
    config = config.copy_and_resolve_references()
    for role, name in config.init.items():
        if name.startswith(PREFIX):
            config.init[role] = str(folder / "init" / name.removeprefix(PREFIX).replace("/", "--"))
    return config


def download(name: str) -> tuple[str, str, dict[str, str]]:
    """The path of the weights OWNER/NAME[@REVISION] in huggingface_hub's cache, "" for no entry of it, and its revision
    (a commit), licence and SHA-256 checksum, as far as the hub gives them. Raises UserError: the package is not
    installed, no connection, no such name, or no file of weights under it."""
    try:
        from huggingface_hub import HfApi, errors
    except ImportError as error:
        helps = "`pip install huggingface_hub`, or ovenet_jax with its extra [hub]"
        raise UserError(f"{PREFIX}{name} needs the package huggingface_hub: {helps}.") from error
    api, (model, _, revision) = HfApi(), name.partition("@")
    try:
        info = api.model_info(model, revision=revision or None, files_metadata=True)
        held = {x.rfilename: x for x in info.siblings or ()}
        if not (found := [held[file] for file in FILES if file in held]):
            raise UserError(f"{PREFIX}{name} holds no weights; it must have the file {' or '.join(FILES)}.")
        path = api.hf_hub_download(model, found[0].rfilename, revision=info.sha)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise UserError(f"The hub has no {name}, or keeps it private; check owner, name and revision.") from error
    except (OSError, errors.HTTPError) as error:
        if cause_of(error):
            raise  # a full disk, for example
        helps = f"check the network, or copy {' or '.join(FILES)} from elsewhere and import that"
        raise UserError(f"{PREFIX}{name} cannot be downloaded ({type(error).__name__}); {helps}.") from error
    facts = {"revision": info.sha, "licence": info.card_data and info.card_data.license}
    facts["sha256"] = found[0].lfs and found[0].lfs.sha256
    return path, "", {key: value for key, value in facts.items() if value}
