"""A GPU that computes nothing: code runs on fake CUDA tensors, and what it asks of one is counted.

PyTorch's fake tensors have shapes, strides, dtypes and a device, but no values. So the code under
test takes the path that it takes on a GPU, without a GPU and without a CUDA build of torch, and
every operator passes by here on its way. fake_cuda_run.py uses it in a process of its own, since
fake_cuda_device.cpp must be loaded before torch.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
# Wait until the GPU has computed a shape or an index on its own.
_SIZES = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
# The answers to what PyTorch asks about the device.
_H100 = {
    "torch.cuda.get_device_capability": (9, 0),
    "torch.cuda.is_bf16_supported": True,
    "torch.cuda.amp.common.amp_definitely_not_available": False,
}
_READS = {Tensor.tolist, Tensor.item, Tensor.__bool__, Tensor.__float__, Tensor.__int__}


class Counts(Counter[str]):
    """How often a GPU was asked for what costs more than its arithmetic.

    Keys:
        upload, download: copies from and to the host.
        wait: the host waits for the GPU: in a copy that blocks, for a number of a tensor or a size
            that depends on values, or by `torch.cuda.synchronize`.
        clone: tensors are copied on the GPU as they are, by `clone`, `contiguous`, a reshape that
            cannot be a view, or into another layout.
        strided: maps that come to an operator of ours and are not contiguous.
    """


@contextlib.contextmanager
def fake_cuda() -> Iterator[Counts]:
    """Within it tensors are fake, may lie on `CUDA`, and what is done to those is counted."""
    counts = Counts()

    def synchronize(device: object = None) -> None:
        counts["wait"] += 1

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("torch.cuda.synchronize", synchronize))
        for user in ("base.native", "inference.aggregate", "inference.decode"):
            stack.enter_context(mock.patch(f"dhn.{user}.has_kernels", return_value=True))
        for name, answer in _H100.items():
            stack.enter_context(mock.patch(name, return_value=answer))
        stack.enter_context(mock.patch.object(nn.Module, "_apply", _apply))
        # Its own reads one number after the other.
        stack.enter_context(mock.patch.object(FakeTensor, "tolist", Tensor.tolist))
        mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(), static_shapes=True)
        stack.enter_context(mode)
        stack.enter_context(_Operators(counts))
        stack.enter_context(_Reads(counts))
        yield counts


def _apply(module: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """`Module.to` with new tensors: fake ones cannot change places with what they become."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(change(weight.detach()), weight.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = change(buffer)
    return module


def _numpy_type(tensor: Tensor) -> np.dtype:
    return np.dtype(str(tensor.dtype).removeprefix("torch."))


class _Reads(TorchFunctionMode):
    """Makes up the values that Python asks for: all of them are 1."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        if func in _READS:
            (tensor,) = args
            self.counts["wait"] += tensor.is_cuda
            self.counts["download"] += tensor.is_cuda
            if func is Tensor.tolist or func is Tensor.item:
                return np.ones(tensor.shape, dtype=_numpy_type(tensor)).tolist()
            return {Tensor.__bool__: bool, Tensor.__float__: float, Tensor.__int__: int}[func](1)
        if func is Tensor.numpy:
            return np.ones(args[0].shape, dtype=_numpy_type(args[0]))
        if func is Tensor.__deepcopy__:  # its own would copy the mode, too
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    """Counts what reaches the GPU."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        name = func._schema.name.split("::")[1]
        if name == "_local_scalar_dense":
            raise AssertionError("a number was read in a way that _Reads does not know")
        if func.namespace == "aten" and torch.is_inference_mode_enabled():
            with self:  # there operators come whole: reshape, contiguous, to
                result = func.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        result = func(*args, **(kwargs or {}))
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        on_gpu = [x.is_cuda for x in inputs], [x.is_cuda for x in outputs]
        if any(on_gpu[0]) or any(on_gpu[1]):
            self._count(func, name, inputs, outputs, kwargs or {})
        return result

    def _count(self, func, name, inputs, outputs, kwargs) -> None:
        counts = self.counts
        if name in ("_to_copy", "copy_"):
            source, target = inputs[-1], outputs[0]
            if source.is_cuda != target.is_cuda:
                counts["upload" if target.is_cuda else "download"] += 1
                counts["wait"] += not kwargs.get("non_blocking", False)
            elif name == "_to_copy" and source.dtype == target.dtype:
                counts["clone"] += 1
        elif name == "clone":
            counts["clone"] += 1
        elif name in _SIZES:
            counts["wait"] += 1
        elif func.namespace == "dhn":
            counts["strided"] += sum(x.dim() > 3 and not x.is_contiguous() for x in inputs)
        elif not func.is_view:  # an index that lies on the host is uploaded first
            indices = sum(x.dim() > 0 and not x.is_cuda for x in inputs)
            counts["upload"] += indices
            counts["wait"] += indices
