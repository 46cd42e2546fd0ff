"""Settings that Ray reads once, when it is imported. So this runs before the first `import ray`."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys

from sweeps.checkpoints.scratch import scratch
from sweeps.errors import InputError

# Poll workers often; keep Tune's own files, callbacks and signal handler out of the way; one thread per worker.
SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a banner even when told to be silent
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",  # its state of all trials: a cache beside the journal, and it grows
    "TUNE_MAX_PENDING_TRIALS_PG": "4",  # attempts on their way up at once; each was admitted because it fits
    "TUNE_RESULT_DELIM": "/",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "600",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}

NAMESPACE = "dipsweep"  # of all our actors with a name
# Ray sets it for a job's driver, which has address and token from its own node.
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def prepare(address: str | None = None) -> None:
    """Sets what Ray should find, without overriding what the user has set.

    A Ray of our own gets a fresh token through the environment of its processes: Ray 2.60 would otherwise write one to
    ~/.ray/auth_token, readable by everybody (mode 0644). A cluster at `address` or RAY_ADDRESS has its own token.

    Raises:
        InputError: the cluster is beyond this machine, and there is no token for it.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    where = address or ("" if JOB_CONFIG in os.environ else os.environ.get("RAY_ADDRESS", ""))
    if where not in ("", "local") and not where.startswith(("http://", "https://")):
        _bring_token(where)
    theirs = (
        address
        or os.environ.get("RAY_ADDRESS")
        or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"} & set(os.environ)
    )
    if not theirs and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _bring_token(address: str) -> None:
    """Ray beyond this machine (host:port): our token goes along; without one nothing is said to it. On this machine
    (auto, 127.0.0.1:6379) the token that `dipsweep token` made is used unless the environment names another."""
    from cluster.connect.address import NEED_TOKEN, is_loopback
    from cluster.connect.tokens import default_path, find_token, read_token

    if address == "auto" or is_loopback(address):
        if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"} & set(os.environ) or not default_path().exists():
            return
        token: str | None = read_token(default_path())
    else:
        token = find_token()
    if token is None:
        raise InputError(f"{address}: {NEED_TOKEN}")
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = token


def cache_folder(storage: str, sweep: str) -> str:
    """Returns where Ray Tune and Train may keep files of their own, on each machine; nothing there is ever read back.

    Not in the sweep's storage: Tune ends when it cannot write there, and a sweep waits for a disk that is full.
    """
    return str(scratch("ray", f"{sweep}-{hashlib.sha256(storage.encode()).hexdigest()[:8]}"))
