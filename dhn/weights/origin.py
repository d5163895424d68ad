"""What a foreign checkpoint says about its training, where keys and shapes do not tell."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dhn.base.errors import DhnError

# Data sets whose joints are those of CrowdPose (14) and of COCO (17), and data sets with as many
# others, as MMPose names them.
_SAME = {14: {"crowdpose"}, 17: {"coco", "ochuman", "humanart"}}
_OTHERS = {
    "aic": "AI Challenger",
    "challenger": "AI Challenger",
    "ai_challenger": "AI Challenger",
    "aichallenger": "AI Challenger",
    "exlpose": "ExLPose",
    "lsp": "LSP",
    "h36m": "Human3.6M",
    "posetrack18": "PoseTrack18",
    "ap10k": "AP-10K",
    "macaque": "MacaquePose",
}
_IS = r"['\"]?\s*[=:]\s*['\"]"
_DATASET = re.compile(
    rf"\bdataset_name{_IS}(\w+)"
    rf"|\btype{_IS}(?:TopDown|BottomUp)?(\w+?)Dataset\b"
    r"|datasets/(\w+)\.py"
)
_UDP = re.compile(r"\buse_udp['\"]?\s*[=:]\s*True|\bUDPHeatmap\b")


def refuse_other_training(content: Any, J: int, path: Path) -> None:
    """Refuses a network whose outputs mean something else than its keys and shapes suggest.

    Args:
        content: what `checkpoint.read_file` gave: the weights with what stands beside them.
        J: the number of joints of the network, 14 or 17.
        path: the file; its name counts, too.

    Raises:
        DhnError: the file says that it was trained on other joints, or with UDP.
    """
    text = "\n".join(_statements(content))
    words = set(re.split(r"[^a-z0-9]+", path.name.lower()))
    if _UDP.search(text) or "udp" in words:
        raise DhnError(
            f"{path}: was trained with UDP, which lays heatmaps on the image in another way than "
            "dhn decodes; every keypoint would be off. Take a network that was trained without it"
        )
    trained_on = {next(filter(None, found.groups())).lower() for found in _DATASET.finditer(text)}
    if not trained_on & _SAME[J]:
        for name in sorted(trained_on | words):
            if name in _OTHERS:
                ours = "CrowdPose" if J == 14 else "COCO"
                raise DhnError(
                    f"{path}: was trained on {_OTHERS[name]}, whose {J} joints are not those of "
                    f"{ours}; dhn has no names for them"
                )


def _statements(content: Any) -> Iterator[str]:
    """The strings and switches beside the weights, as `key='value'`; settings may be one text."""
    left, seen = [("", content)], set()
    while left:
        key, value = left.pop()
        if isinstance(value, str):
            yield f"{key}='{value}'"
        elif isinstance(value, bool):
            yield f"{key}={value}"
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))  # a file may hold a list that holds itself
            if isinstance(value, Mapping):
                left += [(str(name), child) for name, child in value.items()]
            else:
                left += [(key, child) for child in value]
