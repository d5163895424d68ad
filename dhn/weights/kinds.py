"""Names of networks that are recognised but not run here, for messages."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

# By names that only these networks give to layers.
_WITH_HRNET = (
    (
        r"offset_(feature|final|conv)|heatmap_conv_layers|head_heatmap|transition_(heatmap|offset)",
        "DEKR (which regresses joints from centres)",
    ),
    (r"(^|\.)(iia|gfd)(_module)?\.", "CID (which separates people by their centres)"),
    (r"(^|\.)(rpn_head|roi_head|bbox_head)\.", "a detector of boxes"),
    (r"(^|\.)(last_layer|decode_head|ocr_\w+|aux_head)\.", "a network for segmentation"),
    (r"(^|\.)(incre_modules|downsamp_modules|classifier|fc)\.|^head\.\d", "a classifier"),
)
_WITHOUT_HRNET = (
    (r"(^|\.)patch_embed", "a vision transformer, such as ViTPose"),
    (r"(^|\.)layer4\.", "a ResNet"),
    (r"(^|\.)transition[12]\.|(^|\.)stage[23]\.", "a variant of HRNet"),
)
# Channels of a head with one heatmap and one tag for each joint.
_BOTTOM_UP = {32: "MHP's 16 joints", 266: "COCO-WholeBody's 133 joints"}


def kind_with_hrnet(weights: Mapping[str, Tensor]) -> str:
    """The kind of a network that has an HRNet inside, but no head that dhn knows."""
    if kind := _first(_WITH_HRNET, weights):
        return kind
    for name, tensor in weights.items():
        if re.search(r"(^|\.)(final_layer|head)\.weight$", name) and tensor.ndim == 4:
            joints = _BOTTOM_UP.get(len(tensor))
            if joints:
                return f"a bottom-up network for {joints}"
            return f"a network for one person in a box ({len(tensor)} heatmaps, no tags)"
    if all(name.startswith("backbone.") for name in weights):
        return "a backbone without a head"
    return "a network of another kind"


def kind_without_hrnet(weights: Iterable[str]) -> str:
    """`: a ResNet`, or nothing if the kind is not known."""
    kind = _first(_WITHOUT_HRNET, weights)
    return f": {kind}" if kind else ""


def _first(kinds: Iterable[tuple[str, str]], names: Iterable[str]) -> str | None:
    names = list(names)
    return next((k for pattern, k in kinds if any(re.search(pattern, n) for n in names)), None)
