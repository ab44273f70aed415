"""An image file as an array: decoded, turned upright, resized, cropped, scaled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trt_opt.datasets.preprocess import Preprocess
from trt_opt.errors import DataError

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}

_EIGHT_BIT_MODES = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
)
"""Pillow's modes of at most 8 bits a channel. The others (I, I;16, F) lose values in `convert` without a word."""


def array_from_image(path: Path, preprocess: Preprocess) -> NDArray[np.generic]:
    """The image as the model wants it, without a batch dimension: [C, H, W], or [H, W, C] with layout=NHWC.

    The orientation that a camera noted (EXIF) is honoured, as image viewers do.

    Raises:
        DataError: Not a readable image, more than 8 bits a channel, several frames, or smaller than the crop.
    """
    image = _fitted(_decoded(path, preprocess), preprocess, path)
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if preprocess.color == "BGR":
        pixels = pixels[:, :, ::-1]
    if preprocess.layout == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    if preprocess.dtype == "uint8":
        return np.array(pixels, np.uint8, order="C")
    broadcast = (-1, 1, 1) if preprocess.layout == "NCHW" else (1, 1, -1)
    mean = np.array(preprocess.mean, np.float32).reshape(broadcast)
    std = np.array(preprocess.std, np.float32).reshape(broadcast)
    scaled: NDArray[np.float32] = np.ascontiguousarray(pixels, dtype=np.float32) * np.float32(preprocess.scale)
    scaled -= mean
    scaled /= std
    return scaled


def _decoded(path: Path, preprocess: Preprocess) -> Image.Image:
    """The upright image in the colours asked for, 8 bits a channel."""
    try:
        with Image.open(path) as image:
            refusal = _refusal(image, path)
            if refusal is None:
                upright = ImageOps.exif_transpose(image)
                # Pillow warns about a palette with transparent entries unless it passes through RGBA.
                if upright.mode == "P" and "transparency" in upright.info:
                    upright = upright.convert("RGBA")
                return upright.convert("L" if preprocess.color == "L" else "RGB")
    except Exception as error:
        # Over damaged files Pillow's decoders raise whatever they stumble upon: OSError, SyntaxError, TypeError …
        raise DataError(f"not an image that can be read ({type(error).__name__}: {error})", where=str(path)) from error
    raise refusal


def _refusal(image: Image.Image, path: Path) -> DataError | None:
    """Why a readable image is not taken, or None."""
    frames = getattr(image, "n_frames", 1)
    if frames != 1 and image.format != "MPO":  # a phone's photo with a second, smaller view
        return DataError(f"holds {frames} images; one is needed", where=str(path))
    if image.mode not in _EIGHT_BIT_MODES:
        return DataError(
            f"has more than 8 bits a channel (mode {image.mode}), which would be cut off",
            where=str(path),
            hint="convert it to 8 bits, or give arrays in .npz files",
        )
    return None


def _fitted(image: Image.Image, preprocess: Preprocess, path: Path) -> Image.Image:
    """The image resized, then its centre cropped."""
    size = preprocess.resized(image.size)
    if size != image.size:
        image = image.resize(size, _RESAMPLING[preprocess.interpolation])
    if preprocess.crop is None:
        return image
    width, height = preprocess.crop
    if width > size[0] or height > size[1]:
        raise DataError(
            f"{size[0]}x{size[1]} pixels (width x height) are too few for crop={width}x{height}",
            where=str(path),
            hint=f"put resize={max(width, height)} before the crop",
        )
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return image.crop((left, top, left + width, top + height))
