"""Reading fields out of a model's configuration, which is untrusted: each is checked for type and range once."""

import math
from collections.abc import Mapping

from headrace.core.errors import HeadraceError


class Fields:
    """The fields of one configuration; `source` is what messages call it, for example "config.json"."""

    def __init__(self, values: Mapping[str, object], source: str) -> None:
        self._values = values
        self.source = source

    def get(self, name: str) -> object:
        """The raw value, None if it is absent or null."""
        return self._values.get(name)

    def has(self, name: str) -> bool:
        """Whether the field is there, be it null."""
        return name in self._values

    def require(self, *names: str) -> None:
        """Raise an error that names all of `names` that are absent or null."""
        missing = [name for name in names if self._values.get(name) is None]
        if missing:
            raise HeadraceError(
                f"{self.source} has no {', '.join(missing)}",
                rule="The model cannot be built without",
                fix="Download the model again, or complete the file from the original model",
                param="model",
            )

    def size(self, name: str, default: int | None = None) -> int:
        """A positive integer; `default` if it is absent or null. Without a default it is required."""
        value = self._values.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            self.require(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise self.bad(name, "a positive integer")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive finite number; `default` if it is absent or null. Without a default it is required."""
        value = self._values.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            self.require(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise self.bad(name, "a positive number")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """A positive finite number, or None if it is absent or null."""
        return None if self._values.get(name) is None else self.number(name)

    def flag(self, name: str, default: bool) -> bool:
        """A boolean; `default` if it is absent or null."""
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.bad(name, "true or false")
        return value

    def token_ids(self, name: str) -> tuple[int, ...]:
        """A token id or a list of them, as a tuple; empty if it is absent or null."""
        value = self._values.get(name)
        ids = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in ids):
            raise self.bad(name, "a token id or a list of token ids")
        return tuple(ids)

    def layers(self, name: str) -> tuple[int, ...]:
        """A list of layer numbers; empty if it is absent or null."""
        value = self._values.get(name)
        numbers = [] if value is None else value
        if not isinstance(numbers, list) or not all(isinstance(each, int) and each >= 0 for each in numbers):
            raise self.bad(name, "a list of layer numbers")
        return tuple(numbers)

    def bad(self, name: str, rule: str) -> HeadraceError:
        """The error for a field whose value is not what `rule` says."""
        return HeadraceError(
            f"{name} in {self.source} is {self._values.get(name)!r}",
            rule=f"It must be {rule}",
            fix="Download the model again, or repair the file",
            param="model",
        )
