"""Settings of files."""

from __future__ import annotations

from typing import Annotated

import msgspec

from caudal.core.settings import setting


class FileSettings(msgspec.Struct, frozen=True):
    """Where files lie, how large they may be, how long links and half-finished uploads live."""

    files_url: Annotated[
        str, setting("Where files lie: a directory, or s3://bucket/prefix for S3 and what speaks it")
    ] = "data/files"
    files_public_url: Annotated[
        str, setting("How clients reach the object store: its host in presigned links; as FILES_S3_ENDPOINT")
    ] = ""
    files_s3_endpoint: Annotated[str, setting("URL of an S3-compatible server; Amazon's when left out")] = ""
    files_s3_region: Annotated[str, setting("Region of the bucket")] = "us-east-1"
    files_s3_access_key: Annotated[
        str, setting("Access key of the bucket; what AWS's own variables and roles say when left out")
    ] = ""
    files_s3_secret_key: Annotated[str, setting("Secret that goes with FILES_S3_ACCESS_KEY")] = ""
    file_max_bytes: Annotated[int, setting("Largest file in bytes", ge=1)] = 2 * 1024**3
    files_link_seconds: Annotated[
        int, setting("Seconds for which a download link holds", ge=1, le=604_800)
    ] = 3600
    files_concurrent: Annotated[
        int, setting("Uploads that a process takes at once; beyond, 503. Each may hold 16 MiB", ge=1)
    ] = 16
    files_idle_seconds: Annotated[
        float, setting("Seconds without a byte after which an upload is cut off", gt=0)
    ] = 60.0
    files_upload_hours: Annotated[
        float, setting("Hours that an unfinished upload is kept, and any upload may take", gt=0)
    ] = 24.0
