"""Runs compared: evaluated on one split, those that differ in their seed together."""

import json

from configs import cityscapes
from ovenet_jax.compare import compare
from tests import trees
from tests.untrained import save_untrained, tiny


def test_networks_are_compared_over_their_seeds(tmp_path):
    data, folders = trees.write_cityscapes(tmp_path), []
    for variant, seed in (("ovenet", 0), ("hrnet", 0), ("hrnet", 1)):
        config = tiny(cityscapes.get_config(variant), data)
        config.seed = seed
        folders.append(save_untrained(config, tmp_path / f"{variant}{seed}"))
    compare(config, ",".join(map(str, folders)), tmp_path)
    found = json.loads((tmp_path / "comparison/comparison.json").read_text())
    assert {title: group["runs"] for title, group in found["groups"].items()} == {"ovenet0": 1, "hrnet0 (+1)": 2}
    assert found["differences"].keys() == {"hrnet0 (+1)"}
    assert found["groups"]["hrnet0 (+1)"]["miou"]["margin"] > 0
    page = (tmp_path / "comparison/comparison.html").read_text()
    assert '"runs": ["ovenet0", "hrnet0 (+1)"]' in page
