"""What every table of a recipe is made of: the frozen, strict base, and the kinds of values that fields share."""

from __future__ import annotations

import os
from typing import Annotated, Literal

# Before the import: looking for plugins of pydantic reads the metadata of every installed package, 30 ms for nothing.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
# Names become folders, file names and make targets.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$")]
Scalar = bool | int | float | str
Option = Scalar | tuple[Scalar, ...]

Family = Literal["lora", "locon", "loha", "lokr", "dylora", "glora", "full", "diag-oft", "boft"]


class Table(BaseModel):
    """Base of every table of a recipe: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
