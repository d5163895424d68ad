import json
import re

import pytest
import yaml
from click.testing import CliRunner

from dhn.cli import main
from dhn.data.coco_file import check_coco
from dhn.training.config import load_config, override_config, presets
from dhn.training.describe import commented_yaml, preset_comment, settings_page
from dhn.training.settings import SECTIONS, Config
from doc_pages import ROOT, blocks

PAGE = ROOT / "docs/settings.md"


def test_the_page_is_fresh():
    """If it is not: python -m dhn.training.describe docs/settings.md"""
    assert PAGE.read_text(encoding="utf-8") == settings_page()


@pytest.mark.parametrize("name", SECTIONS)
def test_every_setting_is_explained_in_a_sentence(name):
    for key, field in SECTIONS[name].model_fields.items():
        assert re.fullmatch(r"[A-Z`].*\.", field.description or ""), key


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("network.backbone", "hrnet | efficientnet; default `hrnet`"),
        ("network.modules", "3 values, each: integer from 1 to 16; default `[1, 4, 3]`"),
        ("data.eval_size", "integer from 64 to 2048, a multiple of 64 | null; default `null`"),
        ("loss.foreground", "2 values, each: number at least 0; default `[0.0, 0.0]`"),
        ("train.init", "text | null; default `null`"),
        ("train.milestones", "a list, each: integer from 0 to 1e+06; default `[200, 260]`"),
        ("train.gamma", "number above 0, at most 1; default `0.1`"),
        ("train.ema", "number at least 0, below 1; default `0.0`"),
        ("train.sync_bn", "true | false; default `false`"),
    ],
)
def test_the_page_says_which_values_a_setting_takes(setting, words):
    assert f"**`{setting}`** ({words})." in settings_page()


@pytest.mark.parametrize("name", presets())
def test_the_page_shows_what_a_preset_changes(name):
    (shown,) = re.findall(rf"^### {name}\n.*?```yaml\n(.*?)```$", settings_page(), re.M | re.S)
    assert override_config(yaml.safe_load(shown), [], "page") == load_config(name)
    assert preset_comment(name)[0].endswith(".")


@pytest.mark.parametrize("config", [Config(), load_config("demo", ["train.lr=1e-5"])])
def test_comments_change_no_setting(config):
    text = commented_yaml(config)
    assert override_config(yaml.safe_load(text), [], "text") == config
    assert max(map(len, text.splitlines())) <= 100
    keys = [line.partition(":")[0].strip() for line in text.splitlines() if ":" in line]
    for section in SECTIONS.values():
        assert set(section.model_fields) <= set(keys)


def test_the_help_lists_the_presets():
    wide = {"terminal_width": 300, "max_content_width": 300}
    lines = CliRunner().invoke(main, ["train", "--help"], **wide).output.splitlines()
    listed = [line.split(maxsplit=1) for line in lines[lines.index("Presets:") + 1 :]]
    assert listed == [[name, preset_comment(name)[0]] for name in presets()]


def test_the_annotations_that_the_guide_shows_can_be_read():
    shown = [block for block in blocks(ROOT / "docs/training.md") if block.language == "json"]
    (raw,) = (json.loads(block.text) for block in shown)
    file = check_coco(raw, "docs/training.md")
    assert file.joints.flip == (0, 2, 1, 4, 3)
    assert file.raw["annotations"][0]["num_keypoints"] == 4
