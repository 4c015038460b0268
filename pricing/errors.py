"""What can be wrong with prices; the texts name the file, the line, the key and what to do next."""

from typing import ClassVar


class PricingError(Exception):
    """A price file that cannot be used, or a model it does not price."""

    exit_code: ClassVar[int] = 2
