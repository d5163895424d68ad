"""What tests of weights and of error messages assert alike."""

import pytest
import torch

from dhn.base.errors import DhnError


def assert_same_weights(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def complaint(function, *arguments, **keywords) -> str:
    """The one line of the error that `function` must raise."""
    with pytest.raises(DhnError) as caught:
        function(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    return str(caught.value)
