import json

import pytest
from ml_collections import ConfigDict

from ovenet_jax import workdir
from ovenet_jax.errors import UserError


def config(**changes):
    values = {"steps": 10, "report_every": 5, "model": {"width": 4}, "data": {"root": "a", "workers": 0}}
    return ConfigDict(values | changes)


def test_a_folder_is_claimed_and_claimed_again_by_the_same_config(tmp_path):
    workdir.claim(tmp_path / "run", config())
    workdir.claim(tmp_path / "run", config())
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == config().to_dict()


def test_what_only_feeds_or_watches_a_run_may_change(tmp_path):
    workdir.claim(tmp_path, config())
    workdir.claim(tmp_path, config(report_every=7, data={"root": "b", "workers": 4}))
    assert json.loads((tmp_path / "config.json").read_text())["data"]["workers"] == 4


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"steps": 20}, "steps is 10 there and 20 here"),
        ({"model": {"width": 8}}, "model.width is 4 there and 8 here"),
        ({"extra": 1}, "extra is 'absent' there and 1 here"),
    ],
)
def test_another_configs_run_is_not_touched(tmp_path, changes, difference):
    workdir.claim(tmp_path, config())
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(UserError, match="holds the run of another config") as error:
        workdir.claim(tmp_path, config(**changes))
    assert difference in str(error.value)
    assert "choose another --workdir" in str(error.value)
    assert (tmp_path / "config.json").read_text() == before


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        workdir.note_model_differences(tmp_path, config())
