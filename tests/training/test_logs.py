import csv
import json
import sys

import cv2
import pytest
from click.testing import CliRunner

from dhn.base.errors import DhnError
from dhn.cli import main
from dhn.training.logs import read_metrics, read_runs, summary, write_csv


def line(epoch, **values):
    losses = {"loss": 1 / epoch, "heatmap": 0.5 / epoch, "flat": 0.3, "pull": 0.2, "push": 0.1}
    return {"epoch": epoch, "lr": 1e-3, **losses, "images_per_second": 10.0 + epoch, **values}


def write_run(folder, lines):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def two(tmp_path):
    short = [line(1), line(2, AP=0.25)]
    long = [line(1, AP=0.5, heatmap_fine_half=0.1), line(2), line(3, AP=0.125, skipped=2)]
    return write_run(tmp_path / "a", short), write_run(tmp_path / "b", long)


def logs(*arguments):
    return CliRunner().invoke(main, ["logs", *map(str, arguments)])


def test_a_table_of_runs(two):
    result = logs(*two)
    assert result.exit_code == 0, result.output
    rows = [
        [cell.strip() for cell in row.strip("│ ").split("│")]
        for row in result.stdout.splitlines()
        if row.startswith("│")
    ]
    a, b = rows
    assert a == ["a", "2", *("0.5", "0.25", "0.3", "0.2", "0.1"), "25.0%", "2", "12.0", "-", "0"]
    assert b[7:9] == ["50.0%", "1"]  # the best, not the last
    assert b[-1] == "2"


def test_curves_are_drawn(tmp_path):
    two = [
        write_run(tmp_path / name, [{"epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2)])
        for name in ("a", "b")
    ]
    path = tmp_path / "new" / "curves.png"
    result = logs(*two, "-q", "-o", path)
    assert result.exit_code == 0, result.output
    assert result.output == ""
    both = cv2.imread(str(path))
    # Each run has its colour: blue and vermilion (BGR) are both in it, and not with one run alone.
    vermilion = (abs(both.astype(int) - (0x00, 0x5E, 0xD5)).sum(-1) < 30).sum()
    assert vermilion > 100
    logs(two[0], "-o", path)
    one = cv2.imread(str(path))
    assert (abs(one.astype(int) - (0xB2, 0x72, 0x00)).sum(-1) < 30).sum() > 100
    assert (abs(one.astype(int) - (0x00, 0x5E, 0xD5)).sum(-1) < 30).sum() == 0


def test_unknown_image_format(two, tmp_path):
    result = logs(*two, "-o", tmp_path / "curves.xyz")
    assert result.exit_code == 1
    assert "curves.xyz" in result.stderr
    assert not (tmp_path / "curves.xyz").exists()


def test_missing_matplotlib_is_one_line(two, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = logs(two[0], "-o", tmp_path / "curves.png")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: curves are drawn by matplotlib")
    assert "pip install" in result.stderr
    assert result.stderr.count("\n") == 1
    assert logs(two[0]).exit_code == 0


def test_json_and_csv(two, tmp_path):
    result = logs(*two, "--json-output", tmp_path / "x.json", "--csv-output", tmp_path / "x.csv")
    assert result.exit_code == 0, result.output
    a, b = json.loads((tmp_path / "x.json").read_text())
    assert (a["name"], b["summary"]["best_AP"], b["summary"]["best_epoch"]) == ("a", 0.5, 1)
    assert b["epochs"] == read_metrics(two[1])
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["epoch"]) for row in rows] == [
        *(("a", "1"), ("a", "2")),
        *(("b", "1"), ("b", "2"), ("b", "3")),
    ]
    assert [row["AP"] for row in rows] == ["", "0.25", "0.5", "", "0.125"]
    assert float(rows[-1]["loss"]) == pytest.approx(1 / 3)


def test_a_run_that_is_being_written(two, capsys):
    path = two[0] / "metrics.jsonl"
    whole = path.read_bytes()
    for end in range(len(whole) - 1, whole.index(b"\n") + 1, -7):
        path.write_bytes(whole[:end])
        lines = read_metrics(two[0])
        warned = f"{path}: line 2 is cut short, left out" in capsys.readouterr().err
        # Without its line feed alone it is all there.
        assert [line["epoch"] for line in lines] == ([1] if warned else [1, 2])
        assert warned == (end < len(whole) - 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("", "is empty"),
        ('{"epoch": 1}\nnonsense\n{"epoch": 3}\n', "line 2: Expecting value"),
        ('{"epoch": 1}\n[1]\n', "line 2: is not an object with an epoch"),
        ('{"epoch": 1, "loss": "low"}\n', "line 1: loss is not a number"),
        (b"\xff\xfe\n", "cannot be read"),
    ],
)
def test_bad_files_are_one_line_and_others_go_on(two, tmp_path, content, message):
    bad = tmp_path / "bad"
    bad.mkdir()
    if content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (bad / "metrics.jsonl").write_bytes(data)
    result = logs(two[0], bad, "--json-output", tmp_path / "x.json")
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first.startswith(f"Error: {bad / 'metrics.jsonl'}: {message}")
    assert second == "Error: 1 of 2 runs could not be read"
    assert len(json.loads((tmp_path / "x.json").read_text())) == 1

    alone = logs(bad)
    assert alone.exit_code == 1
    assert alone.stderr.splitlines() == [first]


def test_nothing_named_is_bad_usage():
    assert logs().exit_code == 2


def test_names_are_as_short_as_they_can_be(tmp_path):
    folders = [write_run(tmp_path / x / "run", [line(1)]) for x in ("a", "b")]
    runs, _ = read_runs(folders)
    assert [run.name for run in runs] == ["a/run", "b/run"]
    with pytest.raises(DhnError, match="named twice"):
        read_runs([folders[0], folders[0]])


def test_the_file_itself_may_be_named(two):
    assert read_metrics(two[0] / "metrics.jsonl") == read_metrics(two[0])


def test_an_epoch_that_was_repeated_counts_once(tmp_path):
    run = write_run(tmp_path / "run", [line(1), line(2, loss=5), line(2, loss=4), line(3)])
    lines = read_metrics(run)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[1]["loss"] == 4


def test_numbers_that_are_none_or_nan(tmp_path):
    run = write_run(tmp_path / "run", [line(1, loss=None, AP=float("nan")), line(2, loss=0)])
    (read,), _ = read_runs([run])
    assert read.curve("loss") == ([2], [0])
    assert summary(read)["best_AP"] is None
    write_csv([read], tmp_path / "x.csv")
    assert logs(run, "-o", tmp_path / "x.png").exit_code == 0
