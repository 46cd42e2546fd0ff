"""Training and evaluation functions that a caller hands in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sweeps.errors import code_name, naming


@dataclass(frozen=True)
class OwnFunction:
    """A function of a caller's own, whose errors say that they come from it, and from which line.

    Attributes:
        what: what it does. function: the function, or an object that can be called.
    """

    what: str
    function: Callable[..., Any]

    @property
    def reuse(self) -> bool:
        """Whether its process may run another attempt afterwards: what the function itself says."""
        return bool(getattr(self.function, "reuse", False))

    @property
    def holds(self) -> Callable[[bytes], bool] | None:
        """What says that a checkpoint's tensors are in memory: the function's own."""
        found: Callable[[bytes], bool] | None = getattr(self.function, "holds", None)
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with naming(f"{self.what} {code_name(self.function)}", getattr(self.function, "__module__", "")):
            return self.function(*args, **kwargs)
