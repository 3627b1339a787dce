"""Topics that are known by heart: their last message was good numbers of a known device, in usual units.

The next one most likely is, too, and then goes from its bytes to its rows in one call (`v1.numbers`), past
everything that looks for what may be wrong with a message. What is unusual in any way goes the whole way.
"""

from __future__ import annotations

from caudal.registry.directory import Directory
from caudal.registry.entries import DeviceEntry

TOPICS_MAX = 50_000
TOPIC_LONGEST = 512
"""A topic may have 65,535 bytes; the bound has to be one of bytes, too."""


class Shortcut:
    """The devices that topics name, for as long as nothing of the registry changes."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._generation = directory.generation
        self._devices: dict[str, DeviceEntry] = {}

    @property
    def devices(self) -> dict[str, DeviceEntry]:
        """By topic; to be asked for anew for each chunk of messages."""
        if self._generation != self._directory.generation:
            self._generation = self._directory.generation
            self._devices.clear()
        return self._devices

    def learn(self, topic: str, device: DeviceEntry, format_: str) -> None:
        """A message on `topic` was of the usual kind."""
        if format_ != "v1" or device.format not in (None, "v1") or len(topic) > TOPIC_LONGEST:
            return
        devices = self.devices
        if len(devices) >= TOPICS_MAX:
            devices.clear()
        devices[topic] = device

    def forget(self, topic: str) -> None:
        """A message on `topic` was not of the usual kind: the next is read carefully at once."""
        self._devices.pop(topic, None)
