"""Errors that carry their policy: may it be retried, whose fault is it, what does the person see."""

from __future__ import annotations


class CaudalError(Exception):
    """Base of every error we raise on purpose.

    `code` is machine-readable and stable; `status` is the HTTP status it maps to; `retryable` says whether
    the same call may succeed later; the message is one sentence for a person, saying what to do next.
    """

    code = "internal"
    status = 500
    retryable = False

    def __init__(self, sentence: str, *, code: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        if code is not None:
            self.code = code


class InvalidInput(CaudalError):
    """The caller sent something that cannot be understood or accepted."""

    code, status = "invalid", 400


class Unauthenticated(CaudalError):
    """The caller did not prove who they are."""

    code, status = "unauthenticated", 401


class Forbidden(CaudalError):
    """The caller is known, and may not."""

    code, status = "forbidden", 403


class NotFound(CaudalError):
    """There is no such thing, or none that the caller may know of."""

    code, status = "not_found", 404


class Conflict(CaudalError):
    """What is asked contradicts what is there."""

    code, status = "conflict", 409


class TooLarge(CaudalError):
    """A body, a batch or a count exceeds its limit."""

    code, status = "too_large", 413


class RateLimited(CaudalError):
    """Too much in too short a time; `retry_after` is in seconds, `closing` ends the connection too."""

    code, status, retryable = "rate_limited", 429, True

    def __init__(self, sentence: str, *, retry_after: float = 1.0, closing: bool = False) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after
        self.closing = closing


class Unavailable(CaudalError):
    """A part we depend on does not answer; trying later may work."""

    code, status, retryable = "unavailable", 503, True


class SettingsError(CaudalError):
    """A setting is missing or makes no sense; the process must not start."""

    code = "settings"
