"""The first half of `make demo`, with one photograph in place of all."""

import shutil
import subprocess

import pytest

from doc_pages import ROOT

PHOTOGRAPH = "examples/images/000000234748.webp"


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.skipif(not (ROOT / ".venv/bin/dhn").exists(), reason="needs what make installs")
def test_the_photographs(tmp_path):
    def run(*command):
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    # `make test` is a make above this one, which hands on its flags and has folders announced.
    make = ("env", "-u", "MAKEFLAGS", "-u", "MAKELEVEL", "make", "--no-print-directory")
    recipe = run(*make, "-n", "-B", "-o", "build", "demo/photos")
    assert recipe.returncode == 0, recipe.stderr
    sources = "examples/images examples/clip.mp4"
    assert sources in recipe.stdout
    script = recipe.stdout.replace(sources, PHOTOGRAPH).replace("demo/", f"{tmp_path}/")
    result = run("sh", "-ec", script)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == [
        "000000234748.webp.predictions.jpg",
        "000000234748.webp.predictions.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
