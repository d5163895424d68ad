"""Which layers of a network learn, and how fast: frozen ones, and learning rates by depth."""

from collections.abc import Sequence

from torch import nn

from dhn.base.errors import DhnError


def freeze(model: nn.Module, layers: Sequence[str]) -> list[nn.Module]:
    """Makes the weights of layers keep their values.

    Args:
        model: the network.
        layers: names like `backbone` or `backbone.stage2`; everything inside is frozen, too.

    Returns:
        the frozen layers. Their batch norms keep their running statistics only in eval mode, which
        the caller has to set after each `model.train()`.

    Raises:
        DhnError: there is no such layer, or none is left to learn.
    """
    known = dict(model.named_modules())
    for name in layers:
        if name not in known or not name:
            parent = name.rpartition(".")[0]
            inside = known.get(parent, model)
            near = ", ".join(
                f"{parent}.{child}".lstrip(".") for child, _ in inside.named_children()
            )
            raise DhnError(f"train.freeze: the network has no layer {name!r}; there are {near}")
    frozen = [known[name] for name in layers]
    for layer in frozen:
        layer.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise DhnError("train.freeze: no layer is left to learn")
    return frozen


def parameter_groups(model: nn.Module, decay: float) -> list[tuple[float, list[nn.Parameter]]]:
    """The weights that learn, by the depth of their layers.

    The heads are the highest level. Each layer of the backbone below is a level of its own, and so
    is each member of a list of layers; a batch norm belongs to the layer before it.

    Args:
        model: the network; weights that need no gradient are left out.
        decay: what the learning rate is multiplied by from one level to the next lower one.

    Returns:
        the factor of the learning rate and the weights of each level, from the input to the heads.
        With a decay of 1 all weights are one group, in the order of the network.
    """
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if decay == 1:
        return [(1.0, [parameter for _, parameter in learning])]
    levels: dict[str, list[nn.Parameter]] = {}
    heads = []
    for name, parameter in learning:
        if name.startswith("backbone."):
            levels.setdefault(_level(name, list(levels)), []).append(parameter)
        else:
            heads.append(parameter)
    ordered = [*levels.values(), heads]
    return [
        (decay ** (len(ordered) - 1 - depth), weights)
        for depth, weights in enumerate(ordered)
        if weights
    ]


def _level(name: str, levels: Sequence[str]) -> str:
    """`backbone.blocks.3` of `backbone.blocks.3.layers.0.weight`, `backbone.conv1` of `...bn1`."""
    _, layer, *rest = name.split(".")
    if layer.startswith("bn") and levels:
        return levels[-1]
    listed = f".{rest[0]}" if rest and rest[0].isdigit() and layer != "stem" else ""
    return f"backbone.{layer}{listed}"
