"""The values of options that are more than words."""

import argparse
import math

from hostdev_core.model.address import quoted
from hostdev_core.model.device import is_uuid


def uuid(text: str) -> str:
    """A UUID, as it was written."""
    if not is_uuid(text):
        raise argparse.ArgumentTypeError(
            f"{quoted(text)} is no UUID; wanted 32 hex digits, like 5ca1ab1e-0000-4000-8000-000000000001"
        )
    return text


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 1e6:  # False for nan, too
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no number of seconds above 0")
    return number
