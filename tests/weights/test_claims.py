"""What a checkpoint claims about itself may be anything: it loads, or it is refused in one line."""

import copy
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import dhn
from assertions import complaint
from dhn.base.errors import DhnError
from dhn.data.joints import CROWDPOSE
from dhn.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dhn.weights.load import load_weights, open_network, warm_start
from tiny_networks import SMALL, network

NETWORK = SMALL | {"name": "doublehighernet", "fusion": "attention", "num_joints": 14}
WEIGHT = "coarse_head_half.weight"


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """The content of a valid checkpoint; not to be changed."""
    path = tmp_path_factory.mktemp("valid") / "last.pt"
    model = network()
    progress = {"epoch": 1, "step": 2, "best_ap": 0.5, "weights": dict(model.state_dict())}
    config = {"data": {"input_size": 64, "eval_size": None}}
    save_checkpoint(path, Checkpoint(NETWORK, CROWDPOSE, model.state_dict(), config, progress))
    return torch.load(path, weights_only=True)


def complaint_of(use, path) -> str | None:
    """The message of the DhnError that `use(path)` raises, if it raises one."""
    try:
        use(path)
    except DhnError as error:
        return str(error)
    return None


def changed(content, where, value):
    """A copy with `value` at the dotted path `where`."""
    content = {key: copy.copy(part) for key, part in content.items()}
    *parents, last = where.split(".", 2 if where.startswith("config") else 1)
    inner = content
    for parent in parents:
        inner[parent] = copy.copy(inner[parent])
        inner = inner[parent]
    inner[last] = value
    return content


def test_the_valid_one_loads(valid, tmp_path):
    torch.save(valid, tmp_path / "x.pt")
    assert open_network(tmp_path / "x.pt").input_size == 64


FLIP = list(CROWDPOSE.flip)
WRONG = [
    ("network", None),
    ("network", [1]),
    ("network.name", 3),
    ("network.num_joints", 17),
    ("network.num_joints", "14"),
    ("network.width", 10**12),
    ("network.width", [8]),
    ("network.modules", [10**9, 1, 1]),
    ("network.modules", [1, 1]),
    ("network.modules", 1.5),
    ("network.blocks", 10**9),
    ("network.stem", -1),
    ("network.stem", 10**15),
    ("network.fusion", "other"),
    ("network.depth", 3),
    ("joints", "crowdpose"),
    ("joints.name", 5),
    ("joints.names", ["a"] * 14),
    ("joints.names", list("abc")),
    ("joints.names", "abcdefghijklmn"),
    ("joints.names", []),
    ("joints.skeleton", [[0, 14]]),
    ("joints.skeleton", [[-1, 2]]),
    ("joints.skeleton", [[0, 1, 2]]),
    ("joints.skeleton", [0, 1]),
    ("joints.flip", FLIP[:-1]),
    ("joints.flip", [*FLIP[:-1], 99]),
    ("joints.flip", [1, 2, 0, *range(3, 14)]),
    ("joints.flip", [0.0] * 14),
    ("joints.sigmas", [0.1] * 13),
    ("joints.sigmas", [-0.1] * 14),
    ("joints.sigmas", [math.nan] * 14),
    ("joints.grouping_order", [0] * 14),
    ("joints.grouping_order", [0]),
    ("joints.colours", 3),
    ("weights", [torch.ones(1)]),
    ("weights", {3: torch.ones(1)}),
    ("weights." + WEIGHT, [1.0]),
    ("weights." + WEIGHT, torch.ones(14, 8)),
    ("weights." + WEIGHT, torch.full((14, 8, 1, 1), math.nan)),
    ("weights." + WEIGHT, torch.full((14, 8, 1, 1), -math.inf)),
    ("weights." + WEIGHT, torch.full((14, 8, 1, 1), 1e300, dtype=torch.float64)),
    ("weights." + WEIGHT, torch.ones(14, 8, 1, 1, dtype=torch.int8)),
    ("weights." + WEIGHT, torch.ones(14, 8, 1, 1, dtype=torch.complex64)),
    ("weights." + WEIGHT, torch.ones(14, 8, 1, 1).to_sparse()),
    ("weights." + WEIGHT, torch.ones(14, 8, 1, 1, device="meta")),
    ("weights." + WEIGHT, torch.zeros(1).expand(10**15)),
    ("weights.a\nb\udc80", torch.ones(1)),
    ("config", [1]),
    ("config.data", 3),
    ("config.data.input_size", "64"),
    ("config.data.input_size", 100),
    ("config.data.input_size", 64 * 10**6),
    ("config.data.eval_size", -64),
    ("config.data.eval_size", True),
    ("progress", 3),
    ("progress.epoch", "1"),
    ("progress.epoch", -1),
    ("progress.step", 1.5),
    ("progress.best_ap", None),
    ("progress.optimiser", [1]),
    ("progress.scaler", torch.ones(1)),
    ("progress.random", "x"),
    ("progress.weights", {"a": 3}),
    ("progress.weights", {"a": torch.tensor(math.nan)}),
]


@pytest.mark.parametrize(("where", "value"), WRONG, ids=[where for where, _ in WRONG])
def test_a_wrong_claim_is_one_line(valid, tmp_path, where, value):
    path = tmp_path / "x.pt"
    torch.save(changed(valid, where, value), path)
    assert complaint(open_network, path).startswith(f"{path}: ")


def test_the_line_names_the_claim(valid, tmp_path):
    path = tmp_path / "x.pt"
    for where, value in (
        ("network.modules", [10**9, 1, 1]),
        ("joints.names", 3),
        ("config.data.input_size", 100),
        ("progress.epoch", "1"),
    ):
        torch.save(changed(valid, where, value), path)
        assert f"({where}" in complaint(load_checkpoint, path)
    torch.save(changed(valid, "weights." + WEIGHT, torch.full((2,), math.nan)), path)
    for load in (load_checkpoint, open_network, lambda path: load_weights(network(), path)):
        message = complaint(load, path)
        assert message.startswith(f"{path}: {WEIGHT} is not finite (NaN or infinity)")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_foreign_weights_are_checked_as_well(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    for value, named in (
        (torch.full((14, 8, 1, 1), math.nan), "is not finite"),
        (torch.ones(14, 8, 1, 1, dtype=torch.int8), "is torch.int8, not torch.float32"),
        (torch.ones(3), "is no convolution"),
    ):
        weights = {k: v.contiguous() for k, v in network().state_dict().items()} | {WEIGHT: value}
        if suffix == ".pth":
            torch.save(weights, path)
        else:
            save_file(weights, path, {"format": "pt", "num_joints": "many"})
        assert named in complaint(open_network, path)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b'{"a": 3}',
        b'{"__metadata__": 3}',
        b'{"__metadata__": {"a": [1]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [99999999999999999999], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "X", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a\\nb": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        b"{" * 5000,
    ],
)
def test_headers_of_safetensors_are_checked(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert complaint(open_network, path).startswith(f"{path}: ")


# --- random changes ---

tensors = st.sampled_from([
    torch.ones(2, 3),
    torch.tensor(math.nan),
    torch.ones(0),
    torch.tensor(7),
    torch.zeros(1).expand(10**9),
    torch.ones(2, dtype=torch.complex64),
    torch.ones(14, 8, 1, 1, device="meta"),
])  # fmt: skip
keys = st.one_of(
    st.text(max_size=5), st.integers(-3, 20), st.sampled_from(["data", "format", "name", "state"])
)
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([-1, 0, 10**9, 2**63, 10**30]),
        st.floats(),
        st.text(max_size=8),
        tensors,
        st.binary(max_size=4),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=5,
)


def mutated(draw, value, depth=0):
    """`value` with one part of it replaced, dropped, added or moved."""
    inside = isinstance(value, dict | list | tuple) and len(value) > 0
    if not inside or draw(st.integers(0, 5)) == 0:
        return draw(values)
    if isinstance(value, dict):
        key = draw(st.sampled_from(list(value)))
        rest = {k: v for k, v in value.items() if k != key}
        action = draw(st.sampled_from(["into"] * 4 + ["drop", "rename", "add"]))
        if action == "drop":
            return rest
        if action == "rename":
            return rest | {draw(keys): value[key]}
        if action == "add":
            return value | {draw(keys): draw(values)}
        return rest | {key: mutated(draw, value[key])}
    items = list(value)
    k = draw(st.integers(0, len(items) - 1))
    action = draw(st.sampled_from(["into", "into", "drop", "twice"]))
    items[k : k + 1] = {"drop": [], "twice": [items[k]] * 2}.get(action) or (
        [] if action == "drop" else [mutated(draw, items[k])]
    )
    return type(value)(items)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_random_changes_load_or_are_one_line(valid, tmp_path, data):
    path, fresh = tmp_path / "x.pt", network()
    content = valid
    for _ in range(data.draw(st.integers(1, 2))):
        content = mutated(data.draw, content)
    torch.save(content, path)

    def predict(path):
        predictor = dhn.load(path, device="cpu", flip=True, precision="float32", input_size=64)
        predictor(np.zeros((64, 64, 3), np.uint8))

    for use in (
        predict,
        load_checkpoint,
        lambda path: load_weights(fresh, path),
        lambda path: warm_start(fresh, path),
    ):
        line = complaint_of(use, path)
        if line is not None:
            assert re.fullmatch(rf"{re.escape(str(path))}: [^\n]+", line)
            assert line.isprintable()
            assert len(line) < 1500
