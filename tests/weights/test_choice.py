"""Which network is meant by what a user names."""

import os
from pathlib import Path

import pytest

from assertions import complaint
from dhn.base.errors import DhnError
from dhn.weights.choice import BUNDLED, LAST, chosen


def test_last_is_the_newest_runs_best_else_last(tmp_path):
    def run(name, time, *files):
        (tmp_path / name).mkdir(exist_ok=True)
        for file in files:
            (tmp_path / name / file).touch()
            os.utime(tmp_path / name / file, (time, time))

    assert "no checkpoint in" in complaint(chosen, LAST, tmp_path)
    assert "the preset `demo` needs no data" in complaint(chosen, LAST, tmp_path / "none")
    run("without", 900)
    run("zebra", 100, "last.pt", "best.pt")
    assert chosen(LAST, tmp_path) == tmp_path / "zebra" / "best.pt"
    run("apple", 200, "last.pt")
    assert chosen(LAST, tmp_path) == tmp_path / "apple" / "last.pt"
    run("zebra", 300, "last.pt")  # it was resumed; its best is older than apple's last
    assert chosen(LAST, tmp_path) == tmp_path / "zebra" / "best.pt"


def test_the_package_brings_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert chosen(None) == chosen("people") == BUNDLED
    assert BUNDLED.is_file()
    Path("people").touch()  # a file of that name comes first
    assert chosen("people") == "people"
    assert chosen(None) == BUNDLED


def test_a_folder_is_the_run_in_it(tmp_path):
    with pytest.raises(DhnError, match=r"holds neither best\.pt nor last\.pt"):
        chosen(tmp_path)
    (tmp_path / "last.pt").touch()
    assert chosen(str(tmp_path)) == tmp_path / "last.pt"
    (tmp_path / "best.pt").touch()
    assert chosen(tmp_path) == tmp_path / "best.pt"


def test_all_else_is_left_as_it_is(tmp_path):
    for checkpoint in ("higherhrnet_w32_coco", "https://x.org/a-1aa4a132.pth", tmp_path / "last"):
        assert chosen(checkpoint) == checkpoint
