"""The status line of a running job. Ray itself writes a job's message only before its driver starts and after it ends."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any


def set_job_message(job: str, message: str) -> bool:
    """Writes a message, also as `progress` of the metadata, into the record of a job; False when it has none or has ended."""
    from ray._private.ray_constants import KV_NAMESPACE_JOB
    from ray.dashboard.modules.job.common import JobInfo, JobInfoStorageClient
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

    key = JobInfoStorageClient.JOB_DATA_KEY.format(job_id=job).encode()
    found = _internal_kv_get(key, namespace=KV_NAMESPACE_JOB)
    if not found:
        return False
    info: Any = JobInfo.from_json(json.loads(found))
    if info.status.is_terminal():
        return False
    info = replace(info, message=message, metadata={**(info.metadata or {}), "progress": message})
    _internal_kv_put(key, json.dumps(info.to_json()).encode(), overwrite=True, namespace=KV_NAMESPACE_JOB)
    return True
