"""A small image as a data address: rows of pixels in, PNG bytes inside a ``data:`` URL out."""

from __future__ import annotations

import base64
import struct
import zlib

import torch
from jaxtyping import Float
from torch import Tensor


def data_url(image: Float[Tensor, "c h w"]) -> str:
    """The picture of one image, its own darkest value black and its lightest white.

    Args:
        image: one channel is grey and three are red, green and blue; of any other number the mean is drawn.

    Returns:
        A ``data:image/png`` address.

    Example:
        >>> data_url(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))[:32]
        'data:image/png;base64,iVBORw0KGg'
    """
    pixels = image.detach().to(device="cpu", dtype=torch.float64)
    if len(pixels) not in (1, 3):
        pixels = pixels.mean(dim=0, keepdim=True)
    low, high = pixels.min(), pixels.max()
    levels = (255 * (pixels - low) / torch.where(high > low, high - low, 1.0)).round().to(torch.uint8)
    channels, height, width = levels.shape
    lines = b"".join(
        b"\0" + bytes(line) for line in levels.permute(1, 2, 0).reshape(height, -1).tolist()
    )  # each begins with its filter
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
