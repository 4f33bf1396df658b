"""Writes augmented training samples as pictures, for inspection before training."""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from ovenet_jax import files
from ovenet_jax.data import image_files, pipeline
from ovenet_jax.evaluation.colours import in_colors, overlay
from ovenet_jax.evaluation.panel import panel
from ovenet_jax.supervision.task import task_of

COUNT = 8
OVERLAY_WIDTH = 900  # pixels


def browse(config: ConfigDict, folder: Path) -> None:
    """Writes the first COUNT augmented samples of a run under `folder`/browse, replacing earlier ones.

    <number>.png: the image beside its label, with a legend. <number>_overlay.png: the label over the image, its pixels
    enlarged to about OVERLAY_WIDTH. Raises UserError for invalid config or data.
    """
    task = task_of(config)
    task.prepare()
    if jax.process_index() > 0:  # all would write the same files
        return
    source = task.open_training()
    acts = pipeline.augmentations(config.augment, source.classes)
    # The batch size does not affect the samples or their order.
    with pipeline.train_batches(source, acts, batch_size=COUNT, seed=config.seed, first_step=0) as batches:
        batch = next(batches)
    target = folder / "browse"
    with files.writing(target, "--workdir"):
        for i, (image, label) in enumerate(zip(batch["image"], batch["label"], strict=True)):
            image = in_colors(image, source.classes.channels)
            shown = panel(image, label, {}, offset=None, confidence=None, classes=source.classes)
            image_files.write_picture(target / f"{i}.png", shown)
            factor = max(1, round(OVERLAY_WIDTH / image.shape[1]))
            enlarged = overlay(image, label, source.classes).repeat(factor, 0).repeat(factor, 1)
            image_files.write_picture(target / f"{i}_overlay.png", enlarged)
    print(f"Written: the first {COUNT} samples of training, augmented, in {target}")
