"""`make demo`, shortened: OVeNet learns the toy streets."""

import json

from tests import command_line


def test_the_demo_learns(tmp_path):
    """Forty steps on scenes of half their size: the final table is clearly better than the one before training."""
    small = [
        f"--config.data.prepared={tmp_path}/prepared",
        "--config.model.backbone.width=6",
        "--config.model.backbone.stem_width=16",
        "--config.model.backbone.layer1_blocks=1",
        "--config.model.backbone.blocks=1",
        "--config.model.offset.modules=(1,)",
        "--config.augment.base_size=128",
        "--config.augment.crop=(64,128)",
        "--config.eval.base_size=128",
        "--config.eval.window=(64,128)",
        "--config.steps=40",
        "--config.report_every=40",
        "--config.evaluate_every=40",
        "--config.eval.panels=0",
        "--config.eval.worst=0",
        f"--workdir={tmp_path}/run",
    ]
    command_line.output("--config=configs/demo.py", *small, **command_line.WITHOUT_TENSORFLOW)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for name in ("initial", "seed", "fused"):
        assert lines[-1][f"eval_miou_{name}"] > lines[0][f"eval_miou_{name}"] + 0.1
