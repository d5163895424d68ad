"""Images of any kind that Python code holds, as RGB uint8 [H, W, 3]."""

import os
import sys
from typing import Any

import numpy as np

from dhn.base.errors import DhnError
from dhn.media.images import read_image

# PIL's modes of more than 8 bits, which its own conversion to RGB would clip at 255.
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def as_rgb(image: Any, name: str = "image") -> np.ndarray:
    """Converts an image to RGB uint8 [H, W, 3], or refuses it: nothing is guessed.

    Args:
        image: one of these.

            - A path (str or PathLike): see `read_image`. The image is turned as its EXIF
              orientation says.
            - A NumPy array [H, W], [H, W, 1] (grey), [H, W, 3] (RGB) or [H, W, 4] (RGBA, whose
              alpha is dropped). uint8 is taken as it is. uint16 counts from 0 to 65535, and its
              low byte is dropped. Floats count from 0 to 1 and are rounded to the nearest of 255
              steps. False is black and True is white. Other integers must lie in 0..255.
            - A torch tensor [H, W] or [C, H, W], channels first as torchvision has it, with 1, 3
              or 4 channels; values as for arrays.
            - A PIL image of any mode. Its pixels are taken as they stand: the EXIF orientation is
              not applied (`PIL.ImageOps.exif_transpose` does that), and transparency is dropped.

            Nothing distinguishes BGR from RGB: what OpenCV read is given as `image[..., ::-1]`.
        name: what error messages call the image; a path is called by its own name.

    Returns:
        RGB uint8 [H, W, 3], contiguous. It shares the memory of an array that is all of that.

    Raises:
        DhnError: a file that cannot be read; an object of another kind or shape; no pixels;
            values that are not finite or leave their range; 16 bit values that look like fewer
            bits, because none reaches 4096.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if _is_instance(image, "PIL.Image", "Image"):
        image = _from_pil(image, name)
    elif _is_instance(image, "torch", "Tensor"):
        image = _from_tensor(image, name)
    if not isinstance(image, np.ndarray):
        raise DhnError(
            f"{name}: is a {type(image).__name__}; give a path, a NumPy array, a torch tensor or "
            "a PIL image, or a list of these"
        )
    return np.ascontiguousarray(_eight_bits(_three_channels(image, name), name))


def _is_instance(image: Any, module: str, kind: str) -> bool:
    """isinstance for a class of a package that need not be installed or imported."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(image, getattr(loaded, kind))


def _from_pil(image: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(image if image.mode in _DEEP_MODES else image.convert("RGB"))
    except OSError as error:  # PIL reads the file only now
        raise DhnError(f"{name}: PIL cannot read it ({error})") from error


def _from_tensor(image: Any, name: str) -> np.ndarray:
    if image.dim() == 3:
        if image.shape[0] not in (1, 3, 4):
            raise DhnError(
                f"{name}: a tensor must be [C, H, W] with 1, 3 or 4 channels, not "
                f"{list(image.shape)}; image.permute(2, 0, 1) puts the channels first"
            )
        image = image.permute(1, 2, 0)
    image = image.detach().cpu()
    return (image.float() if image.is_floating_point() else image).numpy()


def _three_channels(image: np.ndarray, name: str) -> np.ndarray:
    """[H, W, 3] of any dtype."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        advice = ""
        if image.ndim == 4:
            advice = "; several images are given as a list of them"
        elif image.ndim == 3 and image.shape[0] in (1, 3, 4):
            advice = "; np.moveaxis(image, 0, 2) puts the channels last"
        raise DhnError(
            f"{name}: must be [H, W] or [H, W, C] with 1, 3 or 4 channels, not "
            f"{list(image.shape)}{advice}"
        )
    if image.size == 0:
        raise DhnError(f"{name}: has no pixels, its shape is {list(image.shape)}")
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]


def _eight_bits(image: np.ndarray, name: str) -> np.ndarray:
    """uint8, as bright as the image of another dtype."""
    kind, bytes_each = image.dtype.kind, image.dtype.itemsize
    if (kind, bytes_each) == ("u", 1):
        return image
    if kind == "b":
        return 255 * image.astype(np.uint8)
    if kind not in "iuf":
        raise DhnError(f"{name}: holds {image.dtype}, which are no brightnesses; give uint8")
    low, high = image.min(), image.max()  # NaN, if there is one
    if kind == "f":
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DhnError(f"{name}: holds NaN or infinity; replace such pixels")
        if low < 0 or high > 1:
            raise DhnError(
                f"{name}: floats must lie in 0..1, and these reach from {low:g} to {high:g}; "
                "scale or clip them, or give uint8 in 0..255"
            )
        return np.rint(255 * image.astype(np.float32)).astype(np.uint8)
    if (kind, bytes_each) == ("u", 2):
        if 0 < high < 4096:
            raise DhnError(
                f"{name}: uint16 counts to 65535, and the largest value here is {high}; scale "
                "values of fewer bits, or give them as uint8"
            )
        return (image >> 8).astype(np.uint8)
    if low < 0 or high > 255:
        raise DhnError(
            f"{name}: values of {image.dtype} must lie in 0..255, and these reach from {low} to "
            f"{high}; scale them, or give uint8 or uint16"
        )
    return image.astype(np.uint8)
