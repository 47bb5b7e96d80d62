"""A storage format by its name."""

from __future__ import annotations

from kvtier.errors import ConfigError
from kvtier.formats.affine import Int4, Int8
from kvtier.formats.base import FORMATS, Codec
from kvtier.formats.fp8 import Float8
from kvtier.formats.lossless import Lossless
from kvtier.spec import KVSpec


def codec_for(name: str, spec: KVSpec, *, budget: float | None = None) -> Codec:
    """The format of that name for blocks of a geometry.

    Args:
        name: One of ``kvtier.formats.base.FORMATS``.
        spec: The geometry.
        budget: Of the lossless format; see ``kvtier.formats.lossless.Lossless``.

    Raises:
        ConfigError: No such format, or one that is not for this dtype, takes no budget or lacks its library.
    """
    if name == Lossless.name:
        return Lossless(spec, budget)
    if budget is not None:
        raise ConfigError(f"storage format {name!r} has a fixed size; a budget is for 'lossless'")
    fixed: dict[str, type[Int8 | Float8]] = {kind.name: kind for kind in (Float8, Int8, Int4)}
    if name not in fixed:
        raise ConfigError(f"storage format {name!r} is not known; use 'raw' or one of: {', '.join(FORMATS)}")
    return fixed[name](spec)
