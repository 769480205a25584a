"""Temperatures that were fitted on labelled texts, in a file beside their checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workers.errors import Misconfigured

FILE = "calibration.json"

Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Calibration(BaseModel):
    """The divisors of the log-probabilities of each question. Above 1, the probabilities come closer together.

    A temperature changes the probabilities, and never the most likely answer. The file may contain further fields, such
    as the data of the fit.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    severity: Temperature = 1.0
    categories: Temperature = 1.0
    refusal: Temperature = 1.0


def read_calibration(folder: Path) -> Calibration:
    """Read a checkpoint's calibration.json. Without the file, every temperature is 1.

    Raises:
        Misconfigured: the file is broken.
    """
    path = folder / FILE
    if not path.exists():
        return Calibration()
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise Misconfigured(f"guard.model: {path} holds no temperatures above 0: {error}") from error
