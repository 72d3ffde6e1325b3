"""Named classes: what `--set`, checkpoints and releases call by a name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T", bound=type)


class Registry(Generic[T]):
    """Classes by name. Every module of `package` is imported before the first look-up, so that a new class needs no
    more than its own module there, with `@REGISTRY.register("name")` above it."""

    def __init__(self, noun: str, package: str) -> None:
        """`noun` names what is looked up, for messages: "network", "weight generator"."""
        self.noun, self.package = noun, package
        self._classes: dict[str, T] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that enters a class under `name`, and tells it its name. It raises a ValueError for a name that
        another class has taken."""

        def enter(cls: T) -> T:
            taken = self._classes.get(name)
            origin = lambda one: (one.__module__, one.__qualname__)  # the same where a module is read again
            if taken is not None and origin(taken) != origin(cls):
                raise ValueError(f"{self.noun} {name!r}: {'.'.join(origin(taken))} has that name already")
            cls.name = name
            self._classes[name] = cls
            return cls

        return enter

    def __getitem__(self, name: str) -> T:
        """The class called `name`; a ValueError lists the known ones."""
        if name not in self.names():
            raise ValueError(f"{self.noun} {name!r}; allowed: {', '.join(self.names())}")
        return self._classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def names(self) -> tuple[str, ...]:
        """All names, in alphabetical order."""
        if not self._complete:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.package}.{module.name}")
            self._complete = True
        return tuple(sorted(self._classes))
