"""Files."""

from __future__ import annotations

from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "POST /v1/files": {
        "body": {"$multipart": {"data": {"conversation_id": "{conversation_id}"},
                                "files": {"file": "hello"}}}},
    "GET /v1/files/{file_id}/download": {},
    "GET /v1/files/{file_id}/content": {"own": (200, 206)},
}  # fmt: skip


async def plant(world: Any, tenant: str) -> dict[str, Any]:
    """A file in a conversation of the owner's."""
    answer = await world.api.client.post(
        "/v1/files", data={"conversation_id": f"files-{tenant}"},
        files={"file": (f"{tenant}.txt", f"{tenant} secret")}, headers=world.headers[tenant],
    )  # fmt: skip
    assert answer.status_code == 201, answer.text
    return {"file_id": answer.json()["file_id"]}
