"""The network that the package brings."""

import json

import pytest
from click.testing import CliRunner

import dhn
from dhn.cli import main
from dhn.data.joints import COCO
from dhn.weights.choice import BUNDLED
from dhn.weights.compact import read_description
from doc_pages import ROOT

PHOTOGRAPHS = ROOT / "examples/images"


def test_it_is_small_and_says_what_it_is():
    assert BUNDLED.stat().st_size <= 8e6
    description = read_description(BUNDLED)
    assert description["network"]["name"] == "doublehighernet_lite"
    card = " ".join((ROOT / "docs/model-card.md").read_text(encoding="utf-8").split())
    about = description["config"]["about"]
    assert {"summary", "data", "labels", "not_for", "card"} <= set(about)
    assert about["summary"] in card


@pytest.fixture(scope="module")
def predictor():
    return dhn.load(device="cpu", precision="float32")


def test_it_finds_somebody_in_a_photograph(predictor):
    """A man who leans on a post; his head and body are where people see them, in pixels."""
    assert predictor.joints == COCO
    people = predictor(PHOTOGRAPHS / "000000234748.webp")
    left, top, width, height = people.boxes[people.scores.argmax()]
    assert 270 < left + width / 2 < 380
    assert 200 < top + height / 2 < 330
    assert 120 < height < 300


def test_predict_takes_it_and_says_so(tmp_path):
    photo = PHOTOGRAPHS / "000000234748.webp"
    result = CliRunner().invoke(
        main, ["predict", str(photo), "--device", "cpu", "--json-output", str(tmp_path / "a.json")]
    )
    assert result.exit_code == 0, result.output
    summary = read_description(BUNDLED)["config"]["about"]["summary"]
    assert f"Weights: people, the small network that dhn brings ({summary})." in result.stdout
    assert json.loads((tmp_path / "a.json").read_text())
