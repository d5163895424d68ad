"""Published checkpoints: their table, and networks opened by name."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dhn.base.cache import cache_folder
from dhn.cli import main
from dhn.model import build_model
from dhn.weights import download
from dhn.weights.download import cached, fetch
from dhn.weights.load import open_network
from dhn.weights.zoo import PUBLISHED, Published
from download_server import named, serving


@pytest.fixture
def server():
    with serving({}) as server:
        yield server


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("DHN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSE", 0)


def address_of(server, name):
    return server.address + name


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_checkpoints_have_a_hash_in_their_names(name):
    known = PUBLISHED[name]
    assert known.address.startswith("https://download.openmmlab.com/mmpose/")
    assert re.search(r"-[0-9a-f]{8}[_.]", known.file)
    assert cached(known.address).parent == cache_folder() / "checkpoints"
    assert (known.ap is None) == (known.input_size is None) == (known.data == "ImageNet")


@pytest.mark.parametrize("name", [n for n in PUBLISHED if PUBLISHED[n].ap])
def test_published_networks_have_the_size_in_the_table(name):
    known = PUBLISHED[name]
    kind = re.match(r"(higher)?hrnet_w\d+", name)[0]
    with torch.device("meta"):
        model = build_model(kind, {"CrowdPose": 14, "COCO": 17}[known.data], branches=1)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == known.parameters


def test_published_checkpoints_are_those_of_the_notes(shared):
    notes = "".join((shared / "notes" / f"{n}.md").read_text() for n in ("checkpoints", "trust"))
    for known in PUBLISHED.values():
        assert known.file.removesuffix(".pth") in notes
        if known.ap is not None:
            forms = f"`{known.file}` .{known.ap * 10:.0f}/", f"{known.file[:-4]} ({known.ap})"
            assert any(form in notes for form in forms)


@pytest.fixture
def published(server, monkeypatch, tmp_path):
    """A small HigherHRNet, published under a name."""
    torch.manual_seed(0)
    model = build_model("higherhrnet", 17, width=8, modules=(1, 1, 1), blocks=1, stem=8)
    weights = {
        key if key.startswith("backbone.") else f"keypoint_head.{key}": value
        for key, value in model.state_dict().items()
    }
    torch.save({"meta": {}, "state_dict": weights}, tmp_path / "weights.pth")
    content = (tmp_path / "weights.pth").read_bytes()
    address = address_of(server, named(content))
    server.files[f"/{named(content)}"] = content
    monkeypatch.setitem(PUBLISHED, "tiny_coco", Published(address, 0.1, "COCO", 64, 12.3))
    return address


def test_a_network_is_opened_by_its_published_name(published, server):
    opened = open_network("tiny_coco")
    assert (opened.input_size, opened.source) == (64, str(cached(published)))
    server.files.clear()
    assert open_network("tiny_coco", offline=True).source == opened.source


def test_predict_by_name(published, server, tmp_path):
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.zeros((40, 60, 3), np.uint8))

    def predict(*options):
        command = ["predict", str(image), "--json-output", str(tmp_path / "out.json")]
        return CliRunner().invoke(main, [*command, "--device", "cpu", *options])

    offline = predict("--checkpoint", "tiny_coco", "--offline")
    assert (offline.exit_code, offline.stdout) == (1, "")
    assert offline.stderr.startswith("Error: tiny_coco: is not in the cache (")
    assert server.requests == []
    first = predict("--checkpoint", "tiny_coco")
    assert first.exit_code == 0, first.output
    assert f"Weights: {cached(published)}" in first.stdout
    assert (tmp_path / "out.json").exists()
    server.files.clear()
    assert predict("--checkpoint", published, "--offline").exit_code == 0
    assert len(server.requests) == 1


def test_models_lists_names_sizes_and_cached_files(published, server):
    def models(*options):
        result = CliRunner().invoke(main, ["models", *options])
        assert result.exit_code == 0
        return result.stdout

    before = json.loads(models("--json"))
    assert [row["name"] for row in before] == ["people", *PUBLISHED]
    assert Path(before[0]["cached"]).stat().st_size == before[0]["size"]
    assert before[1] == PUBLISHED["higherhrnet_w32_crowdpose"]._asdict() | {
        "name": "higherhrnet_w32_crowdpose",
        "size": None,
        "cached": None,
    }
    assert server.requests == []
    path = fetch(published)
    (row,) = [row for row in json.loads(models("--json")) if row["name"] == "tiny_coco"]
    assert (row["size"], row["cached"]) == (path.stat().st_size, str(path))
    lines = models().splitlines()
    assert lines[0].split() == ["name", "data", "input", "AP", "size", "cached"]
    w32 = ["higherhrnet_w32_crowdpose", "CrowdPose", "512", "65.5", "~114", "MB", "no"]
    assert lines[1].split()[0] == "people"
    assert lines[2].split() == w32
    assert lines[1 + len(PUBLISHED)].split()[-1] == "yes"
    assert f"Cache: {cache_folder()}" in lines[-1]
    assert models("--quiet").splitlines() == lines[1 : len(PUBLISHED) + 2]
