"""Files."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "POST /v1/files": {
        "body": {"$multipart": {"data": {"conversation_id": "{conversation_id}"},
                                "files": {"file": "hello"}}}},
    "GET /v1/files/{file_id}/download": {},
    "GET /v1/files/{file_id}/content": {"own": (200, 206)},
    # Their headers are part of the protocol; without them 400, and what they do is under test by itself.
    "POST /v1/uploads": {"own": (400,)},
    "PATCH /v1/uploads/{upload_id}": {"own": (400,)},
    "DELETE /v1/uploads/{upload_id}": {"own": (400,)},
}  # fmt: skip


async def plant(world: Any, tenant: str) -> dict[str, Any]:
    """A file in a conversation of the owner's."""
    answer = await world.api.client.post(
        "/v1/files", data={"conversation_id": f"files-{tenant}"},
        files={"file": (f"{tenant}.txt", f"{tenant} secret")}, headers=world.headers[tenant],
    )  # fmt: skip
    assert answer.status_code == 201, answer.text
    about = ",".join(
        f"{name} {b64encode(value.encode()).decode()}"
        for name, value in (("conversation_id", f"files-{tenant}"), ("filename", f"{tenant}.txt"))
    )
    begun = await world.api.client.post(
        "/v1/uploads",
        headers={**world.headers[tenant], "Tus-Resumable": "1.0.0", "Upload-Length": "5",
                 "Upload-Metadata": about},
    )  # fmt: skip
    assert begun.status_code == 201, begun.text
    return {"file_id": answer.json()["file_id"], "upload_id": begun.headers["location"].rsplit("/", 1)[1]}
