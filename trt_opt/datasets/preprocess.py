"""How an image becomes a model's input: `resize=256,crop=224,layout=NCHW,color=RGB,scale=1/255,mean=…,std=…`.

In this order: turn upright (EXIF), convert the colours, resize, crop the centre, then `(pixel * scale - mean) / std`
with pixels 0 … 255, then the layout. Mean and std are in the order of the channels the model gets: B, G, R with
color=BGR.

    resize=256           the shorter side becomes 256, the longer one follows, rounded down (as torchvision does)
    resize=320x240       exactly 320 wide and 240 high: width first, as Pillow and cameras count, whatever the aspect
    crop=224             the centre, 224 wide and 224 high; crop=320x240 is width first too
    interpolation=…      bilinear (default), bicubic or nearest; Pillow's, so antialiased when shrinking but for nearest
    layout=NCHW|NHWC     where the channels are
    color=RGB|BGR|L      L is grey (ITU-R 601-2 luma); an alpha channel is dropped
    scale=1/255          a number or a fraction; default 1
    mean=a:b:c std=a:b:c one number for all channels, or one per channel; default 0 and 1
    dtype=float32|uint8  what the arithmetic ends in; uint8 needs scale 1, mean 0, std 1
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from trt_opt.errors import RequestError

Interpolation = Literal["bilinear", "bicubic", "nearest"]
Layout = Literal["NCHW", "NHWC"]
Color = Literal["RGB", "BGR", "L"]
PixelType = Literal["float32", "uint8"]
Size = tuple[int, int]
"""Width, then height, in pixels."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How an image becomes a model's input; the module's text says what each option means.

    Attributes:
        resize: The shorter side, or (width, height); None leaves the size.
        crop: (width, height) of the centre that is kept; None keeps all.
        interpolation: How pixels are resampled.
        layout: Where the channels are.
        color: The channels and their order.
        scale: What a pixel of 0 … 255 is multiplied with.
        mean: Subtracted after scaling; one number, or one per channel.
        std: Divided by last; one number, or one per channel.
        dtype: The element type of the result.

    Raises:
        RequestError: A value that makes no sense, alone or with the others.
    """

    resize: int | Size | None = None
    crop: Size | None = None
    interpolation: Interpolation = "bilinear"
    layout: Layout = "NCHW"
    color: Color = "RGB"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dtype: PixelType = "float32"

    def __post_init__(self) -> None:
        self._check_sizes()
        for name, known in _CHOICES.items():
            _check_choice(name, getattr(self, name), known)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, self.channels) or not all(map(math.isfinite, values)):
                raise RequestError(f"{name} takes 1 number, or {self.channels} with color={self.color}, not {values}")
        if min(self.std) <= 0:
            raise RequestError(f"std must be positive, not {self.std}")
        if not math.isfinite(self.scale) or self.scale == 0:
            raise RequestError(f"scale must be a number other than 0, not {self.scale}")
        if self.dtype == "uint8" and (self.scale != 1 or any(self.mean) or set(self.std) != {1}):
            raise RequestError("dtype=uint8 feeds the pixels as they are: it goes without scale, mean and std")

    def __str__(self) -> str:
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        return ",".join(f"{name}={_text(name, value)}" for name, value in options.items() if value is not None)

    @property
    def channels(self) -> int:
        """How many channels the result has."""
        return 1 if self.color == "L" else 3

    @property
    def fixed_size(self) -> Size | None:
        """The result's width and height where they don't depend on the image."""
        return self.crop or (self.resize if isinstance(self.resize, tuple) else None)

    def resized(self, size: Size) -> Size:
        """The size after `resize`, before `crop`, of an image of this size."""
        if self.resize is None:
            return size
        if isinstance(self.resize, tuple):
            return self.resize
        shorter = min(size)
        return cast(Size, tuple(self.resize if side == shorter else side * self.resize // shorter for side in size))

    def _check_sizes(self) -> None:
        for name, value in (("resize", self.resize), ("crop", self.crop)):
            sides = value if isinstance(value, tuple) else () if value is None else (value,)
            if any(side < 1 for side in sides) or len(sides) > 2:
                raise RequestError(f"{name} takes sizes from 1 upwards, not {value}")
        if isinstance(self.crop, int):
            raise RequestError(f"crop takes a width and a height, not {self.crop}")
        if self.crop is None or self.resize is None:
            return
        if isinstance(self.resize, tuple):
            too_large = self.crop[0] > self.resize[0] or self.crop[1] > self.resize[1]
        else:
            too_large = min(self.crop) > self.resize
        if too_large:
            raise RequestError(f"crop={_text('crop', self.crop)} is larger than resize={_text('resize', self.resize)}")


_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "interpolation": get_args(Interpolation),
        "layout": get_args(Layout),
        "color": get_args(Color),
        "dtype": get_args(PixelType),
    }
)


def preprocess_from_text(text: str, *, where: str = "--preprocess") -> Preprocess:
    """Parses `resize=256,crop=224,scale=1/255,mean=0.485:0.456:0.406`.

    Args:
        text: Options separated by commas.
        where: Where the text stands, for error messages.

    Raises:
        RequestError: Not `option=value`, an option that is unknown or given twice, or a value that makes no sense.
    """
    table: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise RequestError(f"cannot read {part!r}", where=where, hint="write resize=256,crop=224,scale=1/255")
        if name in table:
            raise RequestError(f"{name} is given twice", where=where)
        table[name] = value
    return preprocess_from_table(table, where=where)


def preprocess_from_table(table: Mapping[str, object], *, where: str = "preprocess") -> Preprocess:
    """Reads the options from a table, as in a TOML recipe: texts, numbers, and lists of numbers.

    Args:
        table: `{"resize": 256, "crop": [224, 224], "scale": "1/255", "mean": [0.485, 0.456, 0.406]}`.
        where: Where the table stands, for error messages.

    Raises:
        RequestError: An unknown option, or a value that makes no sense.
    """
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in _READERS:
            near = difflib.get_close_matches(name, list(_READERS), n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise RequestError(f"unknown option {name!r}", where=where, hint=f"{guess}known are {', '.join(_READERS)}")
        values[name] = _READERS[name](name, value, where)
    try:
        return Preprocess(**values)
    except RequestError as error:
        raise RequestError(error.what, where=where, hint=error.hint) from error


def _read_size(name: str, value: object, where: str) -> int | Size:
    sides = (
        value.lower().split("x") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    )
    try:
        numbers = [_whole(side) for side in sides]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, 2):
        raise RequestError(
            f"cannot read {name}={value!r}", where=where, hint=f"write {name}=224, or {name}=320x240 (width x height)"
        )
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _read_crop(name: str, value: object, where: str) -> Size:
    size = _read_size(name, value, where)
    return size if isinstance(size, tuple) else (size, size)


def _read_number(name: str, value: object, where: str) -> float:
    try:
        return _number(value)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise RequestError(
            f"cannot read {name}={value!r} as a number", where=where, hint="write 0.5 or 1/255"
        ) from error


def _read_numbers(name: str, value: object, where: str) -> tuple[float, ...]:
    parts = value.split(":") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    return tuple(_read_number(name, part, where) for part in parts)


def _read_choice(name: str, value: object, where: str) -> str:
    for known in _CHOICES[name]:
        if str(value).lower() == known.lower():
            return known
    raise RequestError(f"cannot read {name}={value}", where=where, hint=f"known are {', '.join(_CHOICES[name])}")


_READERS: Mapping[str, Callable[[str, object, str], object]] = MappingProxyType(
    {
        "resize": _read_size,
        "crop": _read_crop,
        "interpolation": _read_choice,
        "layout": _read_choice,
        "color": _read_choice,
        "scale": _read_number,
        "mean": _read_numbers,
        "std": _read_numbers,
        "dtype": _read_choice,
    }
)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError("a whole number was expected")
    return int(value)


def _number(value: object) -> float:
    if isinstance(value, str):
        above, slash, below = value.partition("/")
        return float(above) / float(below) if slash else float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("a number was expected")
    return float(value)


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RequestError(f"{name} is one of {', '.join(known)}, not {value!r}")


def _text(name: str, value: object) -> str:
    """A value as `preprocess_from_text` reads it back, to the last bit."""
    if isinstance(value, tuple):
        return ("x" if name in ("resize", "crop") else ":").join(_text(name, item) for item in value)
    if isinstance(value, float):
        decimal = repr(value).removesuffix(".0")
        inverse = round(1 / value) if 1e-9 < abs(value) < 1 else 0
        is_fraction = inverse != 0 and 1 / inverse == value
        return f"1/{inverse}" if is_fraction and len(decimal) > 8 else decimal
    return str(value)
