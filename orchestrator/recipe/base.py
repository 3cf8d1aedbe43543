"""The base class of a recipe's tables, and the types of their values."""

from __future__ import annotations

import os
from typing import Annotated, Literal

# Set before the import: pydantic's search for plugins reads the metadata of every installed package, which takes 30 ms.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Filled = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
# Names become folders, file names and make targets.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$")]
Scalar = bool | int | float | str
Option = Scalar | tuple[Scalar, ...]
Conflict = tuple[str, str]  # dotted key of a value that cannot work, message

Family = Literal["lora", "locon", "loha", "lokr", "dylora", "glora", "full", "diag-oft", "boft"]


# Markers of keys of later versions. While unset, such a key is in no dump, so that the keys of earlier steps stay.
WhereSet = Field(exclude_if=lambda value: value is None)
WhereFilled = Field(exclude_if=lambda value: not value)


class Table(BaseModel):
    """Base of a recipe's tables: frozen, strict, without unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
