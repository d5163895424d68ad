"""Images that `data.exclude` keeps out of a training."""

import json

import pytest

from coco_sets import make_set, write_images
from dhn.base.distributed import ALONE
from dhn.base.errors import DhnError
from dhn.base.progress import silent
from dhn.training.runs import resumed_config
from dhn.training.setup import open_data
from tiny_runs import TINY, invoke, settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of five images with the ids 1 to 5, in the splits train and val."""
    path = tmp_path_factory.mktemp("set")
    raw = make_set(images=5, seed=3)
    (path / "annotations").mkdir()
    for split in ("train", "val"):
        for image in raw["images"]:
            image["file_name"] = f"{split}{image['id']}.png"
        (path / "annotations" / f"{split}.json").write_text(json.dumps(raw))
        write_images(path, raw)
    return path


@pytest.fixture
def ids(tmp_path):
    path = tmp_path / "seen: these.txt"  # YAML would take it for a mapping
    path.write_text("2  # a copy\n4\n")
    return path


def opened(folder, *overrides):
    return open_data(settings(folder, *overrides), ALONE, silent)


def test_the_command_leaves_them_out_and_says_so(folder, ids, tmp_path):
    run = tmp_path / "run"
    tiny = [*TINY, f"data.dataset={folder}", "train.epochs=1", "data.eval_split=null"]
    result = invoke("--exclude", ids, "--output", run, *tiny)
    assert result.exit_code == 0, result.output
    assert "training: 3 images" in result.stdout
    assert "left out: 2 images by data.exclude\n" in result.stdout
    assert resumed_config(run).data.exclude == str(ids)


def test_neither_trained_nor_held_out_but_scored_where_another_split_has_such_ids(folder, ids):
    data = opened(folder, f"data.exclude='{ids}'", "data.hold_out=0.3")
    every = [*data.annotations.images, *data.held_out.images]
    assert sorted(image.id for image in every) == [1, 3, 5]
    data = opened(folder, f"data.exclude='{ids}'", "data.eval_split=val")
    assert [image.id for image in data.annotations.images] == [1, 3, 5]
    assert len(data.held_out.images) == 5


def test_each_of_several_sets_has_its_own(folder, ids):
    sets = f"[{{path: {folder}, exclude: '{ids}'}}, {{path: {folder}, split: val}}]"
    data = opened(folder, f"data.dataset={sets}", "data.eval_split=null")
    assert (len(data.annotations.images), data.excluded) == (8, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [("1\n2\n3\n4\n5\n", "leaves out all images of"), ("6", "image 6, to be left out, is not")],
)
def test_bad_lists_end_the_training_before_it_begins(folder, tmp_path, text, message):
    ids = tmp_path / "ids.txt"
    ids.write_text(text)
    with pytest.raises(DhnError, match=message):
        opened(folder, f"data.exclude={ids}")


def test_one_list_for_several_sets_is_refused(folder, ids):
    with pytest.raises(DhnError, match=r"data: exclude: ids belong to one data set"):
        settings(folder, f"data.exclude='{ids}'", f"data.dataset=[{{path: {folder}}}]")
