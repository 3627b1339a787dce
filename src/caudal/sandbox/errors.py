"""Graph API errors, as the providers document them: HTTP status, code, title, details."""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """One documented error."""

    status: int
    title: str
    details: str
    subcode: int | None = None
    transient: bool = False
    type: str = "OAuthException"


WHATSAPP = {
    4: Kind(429, "Application request limit reached", "The app has reached its API call rate limit."),
    100: Kind(400, "Invalid parameter", "The request has an unsupported or misspelled parameter."),
    131000: Kind(500, "Something went wrong", "Message failed to send because of an unknown error."),
    131009: Kind(400, "Parameter value is not valid", "One or more parameter values are invalid."),
    131016: Kind(503, "Service unavailable", "A service is temporarily unavailable."),
    131026: Kind(400, "Message undeliverable", "Message undeliverable."),
    131047: Kind(
        400,
        "Re-engagement message",
        "Message failed to send because more than 24 hours have passed since the customer last replied.",
    ),
    131051: Kind(400, "Unsupported message type", "Message type is not currently supported."),
    131053: Kind(400, "Media upload error", "The media file is of an unsupported type or too large."),
    130429: Kind(
        429, "Rate limit hit", "Message failed to send because there were too many messages in a short time."
    ),
    131056: Kind(
        429,
        "(Business Account, Consumer Account) pair rate limit hit",
        "Message failed to send because there were too many messages from this sender to this recipient.",
    ),
    132001: Kind(
        404, "Template name does not exist in the translation", "The template is unknown in that language."
    ),
    190: Kind(401, "Access token has expired", "The access token is invalid or has expired."),
    368: Kind(403, "Temporarily blocked for policies violations", "The account has been restricted."),
}

INSTAGRAM = {
    2: Kind(500, "Service temporarily unavailable", "Try again later.", transient=True),
    4: Kind(429, "Application request limit reached", "Try again later.", transient=True),
    10: Kind(
        400, "This message is sent outside of allowed window.", "The person has to write first.", 2534022
    ),
    100: Kind(400, "No matching user found", "The recipient does not exist.", 2534014),
    190: Kind(401, "Invalid OAuth access token", "The access token is invalid or has expired."),
    551: Kind(400, "This person isn't available right now.", "The recipient cannot be reached.", 1545041),
    613: Kind(429, "Calls to this api have exceeded the rate limit.", "Try again later.", transient=True),
}


class GraphError(Exception):
    """Answered as the Graph API answers it."""

    def __init__(self, channel: str, code: int, details: str | None = None) -> None:
        table = WHATSAPP if channel == "whatsapp" else INSTAGRAM
        self.kind = table.get(code, Kind(400, "Unknown error", "Unknown error."))
        super().__init__(self.kind.title)
        self.channel = channel
        self.code = code
        self.details = details or self.kind.details

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        error: dict[str, Any] = {
            "message": f"(#{self.code}) {self.kind.title}",
            "type": self.kind.type,
            "code": self.code,
            "fbtrace_id": "A" + secrets.token_urlsafe(16),
        }
        if self.channel == "whatsapp":
            error["error_data"] = {"messaging_product": "whatsapp", "details": self.details}
        else:
            error["is_transient"] = self.kind.transient
            if self.kind.subcode is not None:
                error["error_subcode"] = self.kind.subcode
        return {"error": error}

    def receipt(self) -> dict[str, Any]:
        """The same error as a `failed` status reports it."""
        return {
            "code": self.code,
            "title": self.kind.title,
            "message": self.kind.title,
            "error_data": {"details": self.details},
            "href": "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
        }
