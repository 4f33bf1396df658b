"""Pictures of training samples as the network is given them: to be looked at before anything is trained."""

from pathlib import Path

from ml_collections import ConfigDict

from ovenet_jax import files, supervision
from ovenet_jax.data import pipeline
from ovenet_jax.data.image_files import write_picture
from ovenet_jax.evaluation.colours import overlay
from ovenet_jax.evaluation.panel import panel
from ovenet_jax.training.checks import check_config

COUNT = 8


def browse(config: ConfigDict, folder: Path) -> None:
    """Writes the first COUNT augmented samples of a run under `folder`/browse, over those of the last time.

    <number>.png: the image beside its label, with a legend. <number>_overlay.png: the label over the image.

    Raises:
      UserError: what the user can mend in config or data.
    """
    check_config(config)
    supervision.prepare(config)
    source = supervision.open_training(config)
    acts = pipeline.augmentations(config.augment, source.classes)
    # How many there are to a batch makes no difference to the samples and their order.
    with pipeline.train_batches(source, acts, batch_size=COUNT, seed=config.seed, first_step=0) as batches:
        batch = next(batches)
    target = folder / "browse"
    samples = zip(batch["image"], batch["label"], strict=True)
    with files.writing(target, "--workdir"):
        for i, (image, label) in enumerate(samples):
            shown = panel(image, label, {}, offset=None, confidence=None, classes=source.classes)
            write_picture(target / f"{i}.png", shown)
            write_picture(target / f"{i}_overlay.png", overlay(image, label, source.classes))
    print(f"Written: the first {COUNT} samples of training, augmented, in {target}")
