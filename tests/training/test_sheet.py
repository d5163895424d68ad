import json

import cv2
import numpy as np
import pytest
import torch

from coco_sets import make_set
from dhn.data.annotations import load_annotations
from dhn.data.dataset import PoseDataset, Sample
from dhn.data.joints import CROWDPOSE
from dhn.inference.predictor import Predictor
from dhn.model import PoseMaps, build_model
from dhn.training.settings import Loss
from dhn.training.sheets import draw_sheet, draw_sheets

S, TILE = 64, 256
NOBODY = np.zeros((0, 14, 3), np.float32)


def grey_sample(keypoints=NOBODY, mask=None):
    return Sample(np.full((S, S, 3), 100, np.uint8), keypoints, mask)


def tile(sheet, row, column):
    return sheet[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE].astype(int)


def maps(stages=2, levels=2):
    heatmaps = [torch.zeros(1, 14, S // s, S // s) for _ in range(stages) for s in (4, 2)[:levels]]
    return PoseMaps(heatmaps, [torch.zeros(1, 14, S // 4, S // 4) for _ in range(stages)])


@pytest.mark.parametrize(("stages", "levels"), [(2, 2), (1, 2), (1, 1)])
def test_each_heatmap_is_drawn_where_it_is_high(stages, levels):
    drawn = maps(stages, levels)
    for number, heatmap in enumerate(drawn.heatmaps):
        h = heatmap.shape[-1]
        place = 1 + 2 * number  # of eight, in x; another joint each time
        heatmap[0, number, h // 2, place * h // 8 : place * h // 8 + h // 16] = 1
    sheet = draw_sheet(grey_sample(), torch.zeros(14, S // 2, S // 2), drawn, NOBODY, CROWDPOSE)
    assert sheet.dtype == np.uint8
    assert sheet.shape == ((1 + stages) * TILE, 3 * TILE, 3)
    for number in range(stages * levels):
        shown = tile(sheet, 1 + number // levels, number % levels)[:200]  # without the caption
        y, x = np.unravel_index(shown.sum(-1).argmax(), shown.shape[:2])
        assert abs(y - TILE / 2) < TILE / 8
        assert abs(x - (1 + 2 * number) * TILE / 8) < TILE / 8
        assert shown[y, x, 0] > 200


def test_people_have_the_colours_of_their_tags():
    drawn = maps()
    for column, tag in ((3, -5.0), (12, 5.0)):
        drawn.heatmaps[2][0, 0, 8, column] = 1
        drawn.tags[1][0, 0, :, max(column - 3, 0) : column + 4] = tag
    drawn.tags[1][0, 1] = 99  # of a joint that is not there
    sheet = draw_sheet(grey_sample(), torch.zeros(14, S // 2, S // 2), drawn, NOBODY, CROWDPOSE)
    left, right = (tile(sheet, 2, 2)[8 * 16 + 8, column * 16 + 8] for column in (3, 12))
    assert abs(left - right).max() > 50
    elsewhere = tile(sheet, 2, 2)[20, 20]
    assert np.ptp(elsewhere) == 0  # grey: nobody


def test_labels_and_target_of_a_masked_image():
    keypoints = np.zeros((1, 14, 3), np.float32)
    keypoints[0, :2] = (16, 16, 2), (48, 16, 1)
    mask = np.ones((S, S), np.uint8)
    mask[32:] = 0
    target = torch.zeros(14, S // 2, S // 2)
    target[3, 4, 24] = 1
    sheet = draw_sheet(grey_sample(keypoints, mask), target, maps(), NOBODY, CROWDPOSE)
    labels = tile(sheet, 0, 0)
    assert labels[230, 200].tolist() == [25, 25, 25]  # not counted
    assert labels[20, 128].tolist() == [100, 100, 100]
    assert abs(labels[64, 64] - 100).max() > 50  # a joint
    y, x = np.unravel_index(tile(sheet, 0, 1)[:200].sum(-1).argmax(), (200, TILE))
    assert abs(y - 4.5 * 8) < 8
    assert abs(x - 24.5 * 8) < 8


@pytest.mark.parametrize("name", ["doublehighernet", "higherhrnet", "hrnet"])
def test_sheets_of_a_data_set(tmp_path, name):
    raw = make_set(images=5)
    (tmp_path / "images").mkdir()
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "crowdpose_train.json").write_text(json.dumps(raw))
    for image in raw["images"][:-1]:  # the last one is not there
        cv2.imwrite(str(tmp_path / "images" / image["file_name"]), np.full((120, 160, 3), 90, "u1"))
    annotations = load_annotations(tmp_path, "train")
    dataset = PoseDataset(annotations, input_size=S, augmentation=None, keep_empty=True)
    torch.manual_seed(0)
    model = build_model(name, width=8, modules=(1, 1, 1), blocks=1, stem=8)
    predictor = Predictor(model, CROWDPOSE, input_size=S, precision="float32")
    sheets = list(draw_sheets(predictor, dataset, 9, Loss()))
    assert len(sheets) == 4
    assert len(list(draw_sheets(predictor, dataset, 2, Loss()))) == 2
    for sheet, sample in zip(sheets, (dataset[0, i] for i in range(4)), strict=True):
        labelled = bool((sample.keypoints[..., 2] > 0).any())
        assert (tile(sheet, 0, 1)[:200].max() > 200) == labelled
