"""Figures in the README and in docs/results.md are those in benchmarks/results."""

import json

import pytest

from dhn.model.cost import network_cost
from doc_pages import ROOT

KEYS = ("jitter", "error")
README, RESULTS = "README.md", "docs/results.md"


def percent(value):
    return f"{100 * value:.1f}"


def median(results, name):
    return results["official_over_ours"][name]["median"]


def faster(results, name):
    """How many times faster: the median with its quartiles."""
    times = results["official_over_ours"][name]
    return f"{times['median']:.1f} ({times['low']:.1f} to {times['high']:.1f})"


def span(limits):
    return f"{limits['low']:.0f} to {limits['high']:.0f}"


def keypoints(results):
    """How many keypoints were compared with the official pipeline, if all of them agree."""
    rows = [row["whole with parity, pixels of the image"] for row in results["pipelines"]]
    assert sum(row["missing"] + row["beyond 0.01"] for row in rows) == 0
    return sum(row["keypoints"] for row in rows)


FIGURES = [
    (README, "inference", lambda r: f"{median(r, 'float32'):.1f} times faster"),
    (README, "inference", lambda r: f"{median(r, 'default'):.0f} times faster"),
    (RESULTS, "inference", lambda r: faster(r, "float32")),
    (RESULTS, "inference", lambda r: faster(r, "default")),
    (RESULTS, "inference", lambda r: faster(r, "compile")),
    (README, "training", lambda r: f"{r['step_s']['ours float32']['ratio']:.2f} times faster"),
    (README, "training", lambda r: f"{r['step_s']['ours']['ratio']:.1f} times faster"),
    (RESULTS, "training", lambda r: f"{r['samples_ms']['ours']['ratio']:.1f} times faster"),
    (README, "demo", lambda r: f"{percent(r['rows']['--flip']['AP'])} AP"),
    (README, "memorise", lambda r: f"{percent(r['stats']['AP'])} AP"),
    (RESULTS, "precision", lambda r: f"{100 * r['share_within_one_pixel']:.0f} % lie within one"),
    (RESULTS, "tracking", lambda r: f"{r['ms_per_frame_of_20_people']:.2f} ms of CPU time a frame"),
    (RESULTS, "long_video", lambda r: f"at {span(r['resident_mb'])} MB and open files at"),
    (RESULTS, "long_video", lambda r: f"open files at {span(r['files'])}, after"),
    (RESULTS, "long_video", lambda r: f"Over {r['images']:,} frames with sound"),
    (README, "parity", lambda r: f"all {keypoints(r):,} keypoints equal"),
    (RESULTS, "parity", lambda r: f"all {keypoints(r):,} keypoints equal"),
    (RESULTS, "kernels-cpu", lambda r: f"{r['decode']['median_ratio']:.0f} times faster"),
]


@pytest.mark.parametrize(("page", "results", "text"), FIGURES)
def test_figures_are_those_measured(page, results, text):
    measured = json.loads((ROOT / f"benchmarks/results/{results}.json").read_text())
    assert text(measured) in " ".join((ROOT / page).read_text(encoding="utf-8").split())


def test_decode_against_the_official_code():
    measured = json.loads((ROOT / "benchmarks/results/decode.json").read_text())
    times = measured["official_over_ours"]["default"]
    median, least, most = (f"{times[key]:,.0f}" for key in ("median", "least", "most"))
    readme = (ROOT / README).read_text(encoding="utf-8")
    assert f"{median} times faster, {least} at least" in readme
    text = " ".join((ROOT / RESULTS).read_text(encoding="utf-8").split())
    assert f"{median} times faster at the median, {least} at least, {most} at most" in text


def table(page, first):
    """The rows of the table whose first row starts so, without its head."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    start = lines.index(next(line for line in lines if line.startswith(first)))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_every_row_of_the_demo():
    rows = json.loads((ROOT / "benchmarks/results/demo.json").read_text())["rows"]
    keys = ("AP", "AP50", "AP75", "AR", "AP_easy", "AP_medium", "AP_hard")
    expected = [[f"`{name}`", *(percent(row[key]) for key in keys)] for name, row in rows.items()]
    assert table(RESULTS, "| `--flip` |") == expected


def test_every_row_of_the_ablation():
    result = json.loads((ROOT / "benchmarks/results/ablation.json").read_text())
    found = [row[1] for row in table(RESULTS, "| plain concatenation |")]
    assert found == [
        f"{percent(r['mean'])} ± {percent(r['standard_error'])}" for r in result["rows"]
    ]


def test_every_error_of_the_bundled_network():
    report = json.loads((ROOT / "benchmarks/results/report_people.json").read_text())
    found = [row[1:] for row in table(RESULTS, "| jitter |")]
    assert found == [
        [
            "{} ({} to {}) of {}".format(
                *map(percent, (e["share"], *e["share_interval"])), e["among"]
            ),
            "{:+.1f} ({:+.1f} to {:+.1f})".format(
                *(round(100 * gain, 1) + 0 for gain in (e["gain"], *e["gain_interval"]))
            ),
        ]
        for e in report["errors"].values()
    ]


def test_every_tracker():
    trackers = json.loads((ROOT / "benchmarks/results/tracking.json").read_text())["trackers"]
    found = [row[1:5] for row in table(RESULTS, "| dhn |")]
    assert found == [
        [percent(t["idf1"]), f"{t['num_switches']:.1f}", percent(t["mota"]), percent(t["hota"])]
        for t in trackers.values()
    ]


def test_every_way_of_smoothing():
    result = json.loads((ROOT / "benchmarks/results/smoothing.json").read_text())
    found = [row[1:] for row in table(RESULTS, "| as found |")]
    assert found == [
        [
            *(f"{result[kind][way][key]:.1f}" for kind in ("standing", "walking") for key in KEYS),
            f"{abs(result['walking'][way]['delay_ms']):.0f}",
        ]
        for way in result["standing"]
    ]


def test_what_a_network_costs():
    cost = network_cost("doublehighernet_w32")
    found = table(RESULTS, "| DoubleHigherNet-w32 |")[0][1:]
    assert found == [f"{cost.parameters / 1e6:.2f} M", f"{cost.gflops:.1f}"]
