"""A Ray to run on: joined or started, with errors in one sentence."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.connect.address import check_ray
from cluster.connect.environment import JOB_CONFIG, NAMESPACE, SETTINGS, prepare
from sweeps.errors import InputError

prepare()

import ray  # noqa: E402 - Ray reads its settings when it is imported

from cluster.connect.ray_logging import quiet_ray, wants_ray_logs  # noqa: E402


@contextmanager
def local_ray(
    cpus: int | None = None, *, gpus: int | None = None, dashboard: bool = False, address: str | None = None
) -> Iterator[None]:
    """Connects to the cluster at `address` (or RAY_ADDRESS), else starts a Ray on this machine for the time of the block.

    A Ray of our own has a token that only its processes know (`cluster.connect.environment`).

    Raises:
        InputError: there is no Ray at the address, it asks for no token or does not accept ours.
    """
    if ray.is_initialized():
        yield
        return
    where: dict[str, Any] = {"address": address or os.environ.get("RAY_ADDRESS")}
    if not where["address"]:
        where = {"num_cpus": cpus, "num_gpus": gpus, "include_dashboard": dashboard, "address": "local"}
    quiet_ray()
    with translate_connection_errors(where["address"]), _children_ignore_sighup(where["address"] == "local"):
        ray.init(
            **where,
            namespace=NAMESPACE,
            log_to_driver=wants_ray_logs(),
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {k: os.environ[k] for k in SETTINGS}},
        )
    quiet_ray()  # once more: init sets the level of Ray's logger
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _children_ignore_sighup(ours: bool) -> Iterator[None]:
    """Around starting a Ray of our own: a terminal that is closed ends the driver, which lets trials save; were Ray's own
    processes ended by the same signal, nothing could be saved any more."""
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@contextmanager
def translate_connection_errors(address: str) -> Iterator[None]:
    """Around `ray.init`: checks a running Ray first, and says in one sentence why it does not accept this driver."""
    if address not in ("auto", "local") and JOB_CONFIG not in os.environ:
        check_ray(address)
    try:
        yield
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as e:
        if address == "local":
            raise
        why = str(e).strip().splitlines()[0]
        raise InputError(
            f"--address: Ray at '{address}' does not let this driver in: {why}; RAY_AUTH_TOKEN_PATH names the file with its token"
        ) from e
