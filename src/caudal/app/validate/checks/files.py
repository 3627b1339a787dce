"""A file goes up and comes down byte for byte, in ranges too, and to nobody outside its conversation."""

from __future__ import annotations

import hashlib
import os
from typing import Final

from caudal.app.validate.context import Context
from caudal.app.validate.report import Area, Finding

AREA: Final[Area] = "messaging"
NUMBER = 19
TITLE = "Files"
SIZE = 64 << 10


async def run(context: Context, finding: Finding) -> None:
    _, headers = await context.signed_in()
    content = os.urandom(SIZE)
    url = f"{context.target.http}/v1/files"
    up = await context.http.post(
        url, headers=headers, data={"conversation_id": context.conversation("files")},
        files={"file": ("validate.bin", content)},
    )  # fmt: skip
    if up.status_code in (404, 405):
        finding.absent("This API serves no files at /v1/files.")
        return
    if not finding.equal("Answer to the upload", up.status_code, 201):
        return
    made = up.json()
    finding.equal("Checksum", made["checksum"], "sha256:" + hashlib.sha256(content).hexdigest())
    finding.equal("Size", made["size_bytes"], SIZE)
    where = f"{url}/{made['file_id']}/content"
    down = await context.http.get(where, headers=headers)
    finding.expect(down.content == content, "What came down is not what went up.")
    part = await context.http.get(where, headers={**headers, "Range": "bytes=100-199"})
    finding.equal("Answer to a range", part.status_code, 206)
    finding.expect(part.content == content[100:200], "A range is not that part of the file.")
    _, other = await context.signed_in("three")
    finding.equal("Answer to a stranger", (await context.http.get(where, headers=other)).status_code, 403)
    finding.measured["bytes"] = SIZE
    finding.sentence = f"{SIZE >> 10} KiB up and down, whole and in part; 403 for a stranger."
