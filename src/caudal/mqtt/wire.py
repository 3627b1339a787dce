"""The data types of MQTT (section 1.5): strict to read, strict to write."""

from __future__ import annotations

from .codes import malformed

MAX_VARINT = 268_435_455


class Reader:
    """Walks over one packet's body; every read past its end is a malformed packet."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end

    def take(self, size: int) -> bytes:
        at = self.at
        if at + size > self.end:
            raise malformed("packet ends inside a field")
        self.at = at + size
        return self.data[at : at + size]

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                # 1.5.5-1: the shortest form is the only form
                if byte == 0 and shift:
                    raise malformed("variable byte integer is not in its shortest form")
                return value
            shift += 7
            if shift > 21:
                raise malformed("variable byte integer is longer than four bytes")

    def binary(self) -> bytes:
        return self.take(self.u16())

    def text(self) -> str:
        return utf8(self.binary())

    def rest(self) -> bytes:
        return self.take(self.end - self.at)

    @property
    def left(self) -> int:
        return self.end - self.at

    def finish(self) -> None:
        if self.at != self.end:
            raise malformed("bytes are left over at the packet's end")


def utf8(raw: bytes) -> str:
    """An UTF-8 string as section 1.5.4 wants it: no surrogates, no U+0000."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise malformed("string is not UTF-8") from error
    if "\0" in text:
        raise malformed("string contains U+0000")
    return text


def varint(value: int) -> bytes:
    """`value` as a variable byte integer. ValueError above 268,435,455."""
    if value < 0x80:
        return bytes((value,))
    if value > MAX_VARINT:
        raise ValueError("too large for a variable byte integer")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def binary(value: bytes) -> bytes:
    """Binary data with its length. ValueError above 65,535 bytes."""
    if len(value) > 0xFFFF:
        raise ValueError("more than 65,535 bytes in a string or binary field")
    return len(value).to_bytes(2, "big") + value


def text(value: str) -> bytes:
    """An UTF-8 string with its length. ValueError for U+0000, surrogates or more than 65,535 bytes."""
    if "\0" in value:
        raise ValueError("U+0000 in a string")
    return binary(value.encode())


def packet(head: int, *parts: bytes) -> bytes:
    """A whole packet: first byte, remaining length, body."""
    body = b"".join(parts)
    return bytes((head,)) + varint(len(body)) + body
