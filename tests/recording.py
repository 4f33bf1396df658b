"""A config that remembers which of its keys were read."""

from typing import Any

from ml_collections import ConfigDict


class Recording:
    """Reads `config`, and adds each key that is read to `read`."""

    def __init__(self, config: ConfigDict, read: set[str], prefix: str = ""):
        self._config, self._read, self._prefix = config, read, prefix

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._config, name)
        if name == "to_dict":
            return value
        if isinstance(value, ConfigDict):
            return Recording(value, self._read, f"{self._prefix}{name}.")
        self._read.add(self._prefix + name)
        return value

    def __contains__(self, name: str) -> bool:
        return name in self._config

    def __iter__(self):
        return iter(self._config)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name) if name in self else default
