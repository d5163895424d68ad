"""The pages of `dhn eval --report` and `dhn compare --report`: whole, alone, and true."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner

from coco_sets import make_set, results_of, write_images
from dhn.cli import main
from dhn.data.joints import CROWDPOSE
from dhn.evaluation.error_analysis import ERRORS
from dhn.evaluation.scoring import score
from dhn.pages import report
from dhn.pages.gallery import choose

VOID = {"meta", "br", "image", "path", "line", "use", "circle", "polyline", "link", "img", "hr"}


class Page(HTMLParser):
    """Checks that tags are closed, and gathers what a page refers to and shows."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.keys, self.figures, self.words = [], [], [], [], []
        self.ids, self.photos = [], 0
        self.feed(text)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        self.links += [given[key] for key in ("href", "src", "action") if key in given]
        self.photos += tag == "image"
        if "id" in given:
            self.ids.append(given["id"])
        if "data-key" in given:
            self.keys.append(given["data-key"])
        if "data-keys" in given:
            self.figures.append(set(given["data-keys"].split()))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Annotations with images, predictions of two systems, and the pages about them."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "json").mkdir()
    raw = make_set(40, seed=2)
    raw["images"][0]["file_name"] = "<b>&amp;1.png"
    write_images(folder, raw)
    (folder / "json/crowdpose_test.json").write_text(json.dumps(raw))
    for name, noise in (("a", 7), ("b", 3)):
        results = results_of(raw, noise=noise) + results_of(raw, noise=30, seed=1)
        (folder / f"{name}.json").write_text(json.dumps(results))
    run(folder, "eval", "--results", "a.json", "--report", "report")
    args = [
        "a.json",
        "b.json",
        "--report",
        "comparison",
        "--samples",
        30,
        "--json-output",
        "c.json",
    ]
    run(folder, "compare", *args, "--samples", 30)
    return folder


def run(folder, command, *args):
    paths = ("json", "report", "comparison")
    args = [folder / arg if str(arg).endswith(paths) and arg[0] != "-" else arg
            for arg in map(str, args)]  # fmt: skip
    args = [command, *args, "--annotations", folder / "json/crowdpose_test.json"]
    result = CliRunner().invoke(main, [*map(str, args)])
    assert result.exit_code == 0, result.output
    return result


def page(folder, name):
    text = (folder / name / "index.html").read_text(encoding="utf-8")
    return Page(text), text


def test_report_says_what_eval_says(folder):
    written = json.loads((folder / "report/report.json").read_text())
    raw = json.loads((folder / "json/crowdpose_test.json").read_text())
    results = json.loads((folder / "a.json").read_text())
    expected = score(raw, results, "crowdpose", evaluator="pycocotools")
    assert written["figures"] == pytest.approx(expected, abs=1e-9)
    # The curves, the parts and the joints agree with the table.
    precision = np.array(list(written["precision"].values()))
    assert precision.shape == (10, 101)
    assert precision.mean() == pytest.approx(expected["AP"], abs=1e-9)
    for name, bins in written["parts"].items():
        if name.startswith("AR"):
            people = sum(b["size"] for b in bins)
            mean = sum(b["size"] * b["value"] for b in bins) / people
            assert mean == pytest.approx(expected["AR"], abs=1e-9), name
    assert [joint["name"] for joint in written["joints"]] == list(CROWDPOSE.names)
    counted = [p for p in raw["annotations"] if not p["iscrowd"]]
    labels = np.array([p["keypoints"] for p in counted]).reshape(-1, 14, 3)[..., 2] > 0
    assert [joint["labelled"] for joint in written["joints"]] == labels.sum(axis=0).tolist()
    for name, share in written["figures"].items():
        low, high = written["intervals"][name]
        assert low <= share <= high
    with_people = {p["image_id"] for p in counted}
    alone = {int(id) for id, ap in written["image_ap"].items() if ap is not None}
    assert alone == with_people
    assert written["settings"]["evaluator"] == "dhn"
    assert written["settings"]["results"] == str(folder / "a.json")


def test_errors_by_joint_add_up(folder):
    written = json.loads((folder / "report/report.json").read_text())
    assert list(written["errors"]) == list(ERRORS)
    result = run(folder, "eval", "--results", "a.json", "--errors", "-q")
    for name, error in written["errors"].items():
        (line,) = (
            row for row in result.stdout.splitlines() if f"│ {name.replace('_', ' ')} " in row
        )
        assert f" {error['cases']} " in line
        assert f" {100 * error['gain']:+.1f} " in line


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_page_needs_nothing_beside_it(folder, name):
    found, text = page(folder, name)
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in found.links)
    assert not re.search(r"@import|url\(|https?://", text)
    assert len(set(found.ids)) == len(found.ids)
    assert "prefers-color-scheme: dark" in text
    assert "<b>&1.png" not in text  # names of files are no markup
    assert "<b>&amp;1.png" in found.text or name == "comparison"
    assert "None" not in found.text
    assert "<Macro" not in found.text
    assert "nan" not in re.findall(r"[a-z]+", found.text)


def test_report_shows_every_figure_and_image(folder):
    found, _ = page(folder, "report")
    written = json.loads((folder / "report/report.json").read_text())
    for name, value in written["figures"].items():
        assert f"{name.replace('_', ' ')} {100 * value:.1f}" in found.text
    for key in found.keys:
        some = sum(key in keys for keys in found.figures)
        assert some == 24 if key in ("worst", "random") else some <= 6
    bars = {f"part{p}-{k}" for p, bins in enumerate(written["parts"].values())
            for k in range(len(bins))}  # fmt: skip
    assert set(found.keys) == {"worst", "random", *bars, *ERRORS}
    assert {key for keys in found.figures for key in keys} <= set(found.keys)
    for name, error in written["errors"].items():
        assert bool(error["cases"]) == any(name in keys for keys in found.figures)
    assert found.photos == len(found.figures)


def test_comparison_shows_what_the_json_says(folder):
    found, _ = page(folder, "comparison")
    written = json.loads((folder / "c.json").read_text())
    beside = json.loads((folder / "comparison/comparison.json").read_text())
    assert written["comparisons"] == beside["comparisons"]
    (comparison,) = written["comparisons"]
    ap = comparison["figures"]["AP"]
    low, high = ap["interval"]
    assert (
        f"AP {100 * ap['first']:.1f} {100 * ap['second']:.1f} {100 * ap['change']:+.1f} "
        f"{100 * low:+.1f} to {100 * high:+.1f} {ap['verdict']}"
    ) in found.text
    assert f"images better {comparison['wins']}" in found.text


def test_without_images_only_people_are_drawn(folder, tmp_path):
    (tmp_path / "json").mkdir()
    for name in ("json/crowdpose_test.json", "a.json"):
        shutil.copy(folder / name, tmp_path / name)
    program = (
        "import sys; from dhn.cli import main; from dhn.pages import report\n"
        "report.SAMPLES = 20\n"
        "main(['eval', *sys.argv[1:]], standalone_mode=False)\n"
        "assert not {'torch', 'cv2', 'av'} & set(sys.modules)"
    )
    args = [
        "--results",
        "a.json",
        "--annotations",
        "json/crowdpose_test.json",
        "--report",
        "report",
    ]
    subprocess.run([sys.executable, "-c", program, *args], cwd=tmp_path, check=True)
    found, _ = page(tmp_path, "report")
    assert found.photos == 0
    assert "The image files were not found" in found.text


@pytest.mark.parametrize("people", [True, False])
def test_nobody_found_or_nobody_annotated(tmp_path, monkeypatch, people):
    monkeypatch.setattr(report, "SAMPLES", 20)
    raw = make_set(3, crowd_index=False)
    (tmp_path / "json").mkdir()
    annotations = raw["annotations"] if people else []
    (tmp_path / "json/crowdpose_test.json").write_text(
        json.dumps(raw | {"annotations": annotations})
    )
    (tmp_path / "a.json").write_text("[]")
    run(tmp_path, "eval", "--results", "a.json", "--report", "report")
    page(tmp_path, "report")
    run(tmp_path, "compare", "a.json", "json/../a.json", "--report", "comparison", "--samples", 20)
    page(tmp_path, "comparison")


def test_an_input_is_not_overwritten(folder):
    report = folder / "report"
    args = [
        "--results",
        report / "report.json",
        "--annotations",
        folder / "json/crowdpose_test.json",
    ]
    result = CliRunner().invoke(main, [*map(str, ["eval", *args, "--report", report])])
    assert result.exit_code == 1
    assert "is an input" in result.output


def test_of_equally_bad_images_those_with_most_people_are_shown():
    ap, people = np.zeros(40), np.arange(40) % 20
    ap[39] = 0.5
    chosen = choose(ap, people, {"bar": (np.arange(40) < 10, 1 - ap)}, seed=0)
    worst = [image for image, keys in chosen.items() if "worst" in keys]
    assert worst[:5] == [19, 18, 38, 17, 37]
    assert {image for image, keys in chosen.items() if "bar" in keys} == {4, 5, 6, 7, 8, 9}


# In a browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as tool, contextlib.ExitStack() as stack:
        try:
            found = tool.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium here ({str(error).splitlines()[0]})")
        stack.callback(found.close)
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_in_a_browser(folder, browser, name, width, scheme):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    tab = context.new_page()
    problems = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("console", lambda message: problems.append(message.text))
    tab.on("requestfailed", lambda request: problems.append(request.url))
    tab.goto((folder / name / "index.html").as_uri())
    # The page fits; tables scroll inside their panels.
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    colour = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(re.findall(r"\d+", colour)[0])
    assert (red < 64) == (scheme == "dark")
    if name == "report":
        visible = "document.querySelectorAll('figure:not([hidden])').length"
        assert tab.evaluate(visible) == 24
        bar = tab.locator("[data-key=miss]")
        bar.click()
        assert bar.get_attribute("aria-pressed") == "true"
        assert 1 <= tab.evaluate(visible) <= 6
        assert "miss: " in tab.locator("#which").inner_text()
        photo = tab.locator("figure:not([hidden])").first
        small = photo.bounding_box()["width"]
        photo.click()
        assert photo.bounding_box()["width"] >= (small if width == 400 else 2 * small)
        tab.locator("[data-key=random]").click()
        assert tab.evaluate(visible) == 24
    assert problems == []
    context.close()
