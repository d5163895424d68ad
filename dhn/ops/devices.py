"""On which devices the tensors of an operator may lie."""

from collections.abc import Sequence

from torch import Tensor


def check_one_device(**arguments: Tensor | Sequence[Tensor] | None) -> None:
    """Demands that all tensors lie on one device, as csrc/checks.h does where kernels run.

    Args:
        arguments: by name, tensors, lists of them, or None.

    Raises:
        RuntimeError: they lie on two.
    """
    named = [
        (name, tensor)
        for name, argument in arguments.items()
        for tensor in ([argument] if isinstance(argument, Tensor) else argument or ())
    ]
    first, tensor = named[0]
    for name, other in named:
        if other.device != tensor.device:
            raise RuntimeError(
                f"all tensors must be on one device, but {first} is on {tensor.device} "
                f"and {name} on {other.device}"
            )
