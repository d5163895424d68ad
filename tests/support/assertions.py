"""Assertions that several tests make about weights and error messages."""

import pytest
import torch

from dhn.base.errors import DhnError


def assert_same_weights(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def complaint(function, *arguments, **keywords) -> str:
    """The message of the error that `function` must raise, which must be one line."""
    with pytest.raises(DhnError) as caught:
        function(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    return str(caught.value)
