"""Addresses as a person or a program types them in."""

from __future__ import annotations


def address(scheme: str, host: str, port: int, path: str = "") -> str:
    """`scheme://host:port/path`; an IPv6 address goes into brackets."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"
