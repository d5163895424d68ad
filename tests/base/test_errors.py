import pickle

import pytest

from dhn.base.errors import DhnError, SettingError


@pytest.mark.parametrize(
    ("setting", "value", "plain", "as_option"),
    [
        ("device", "cuda:9", "device cuda:9: no", "--device cuda:9: no"),
        ("max_people", 1, "max_people 1: no", "--max-people 1: no"),
        ("fine_only", True, "fine_only: no", "--fine-only: no"),
        ("checkpoint", None, "checkpoint: no", "--checkpoint: no"),
    ],
)
def test_a_setting_is_named_as_its_reader_knows_it(setting, value, plain, as_option):
    error = SettingError(setting, value, "no")
    assert isinstance(error, DhnError)
    assert str(error) == plain
    assert error.line("--" + setting.replace("_", "-")) == as_option


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(SettingError("device", "gpu", "no")))
    assert (type(error), str(error)) == (SettingError, "device gpu: no")
