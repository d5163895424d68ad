"""An image that lossy codecs leave nearly as it is."""

import cv2
import numpy as np


def scene(height=48, width=64, shift=0):
    """Smooth colour ramps and a white square: survives lossy codecs nearly unchanged."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([40 + 2 * x, 200 - 2 * y, np.full_like(x, 90)], -1).clip(0, 255)
    image[10:20, 8 + shift : 18 + shift] = 255
    return image.astype(np.uint8)


def encoded(suffix, image=None):
    image = scene() if image is None else image
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()
