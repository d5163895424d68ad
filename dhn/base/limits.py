"""How large an image may be."""

import os

from dhn.base.errors import DhnError

# OpenCV's own variable: it refuses larger images before it decodes them, if the variable is set
# before OpenCV is imported.
VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"
DEFAULT_PIXELS = 2**28  # three bytes each: 805 MB
MAX_SIDE = 2**15 - 2  # OpenCV's warps count in 16 bits


def max_pixels() -> int:
    """How many pixels an image may have: the variable's value, else `DEFAULT_PIXELS`.

    Raises:
        DhnError: the variable does not hold a number from 1 to 2^31 - 1.
    """
    text = os.environ.get(VARIABLE, str(DEFAULT_PIXELS))
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise DhnError(f"{VARIABLE}={text}: must be a number of pixels below 2147483648")
    return int(text)


def limit_opencv() -> None:
    """Lets OpenCV refuse too large images before it decodes them; call it before it is imported."""
    os.environ[VARIABLE] = str(max_pixels())
