"""Storage under a prefix of an S3 bucket, by s3fs.

Credentials, region and endpoint come from where every AWS tool looks: the environment (AWS_ACCESS_KEY_ID, AWS_REGION,
AWS_ENDPOINT_URL, …), the profile files, the instance. Nothing here retries: s3fs alone multiplies its own five tries with
botocore's five (25 requests, 36 s before it gave up on a 503), so both are switched off:
`sweeps.storage.retry` has the one budget.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from sweeps.errors import (
    CredentialsExpired,
    InputError,
    NoBucket,
    NoCredentials,
    NotFound,
    StorageDenied,
    StorageError,
    StorageFull,
    Unreachable,
)
from sweeps.storage.base import (
    AWAY,
    FULL,
    MANY_FILES,
    Entry,
    Store,
    checked,
    folder,
    join,
    storage_error,
    url_fault,
)

ANSWER_S: Final = 30.0  # without a byte from the server for this long, a request has failed
PART_BYTES: Final = 16 * 2**20  # files above twice this go up in parts; a part is what is sent again after a fault
_PASSING: Final = frozenset({"SlowDown", "RequestTimeout", "OperationAborted", "BadDigest", "XAmzContentSHA256Mismatch",
                             "IncompleteBody", "TooManyRequests", "ConditionalRequestConflict", "NoSuchUpload",
                             "InvalidPart"})  # fmt: skip
_FULL: Final = frozenset({"QuotaExceeded", "StorageCapExceeded", "InsufficientStorage", "XMinioStorageFull",
                          "XMinioStorageQuotaExceeded", "XMinioAdminBucketQuotaExceeded"})  # fmt: skip
"""How servers other than AWS's say that there is no room: Ceph, Backblaze, MinIO."""
_KEYS_WRONG: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity", "InvalidToken"})
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_REGION: Final = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
)

T = TypeVar("T")


class S3Store(Store):
    """`s3://bucket/prefix`. The client is made at the first call, in each process anew; stores share it.

    Args:
        url: the address. answer_s: seconds without an answer after which a request counts as failed.
    """

    def __init__(self, url: str, answer_s: float = ANSWER_S) -> None:
        if fault := url_fault(url):
            raise InputError(fault)
        self.root = url.rstrip("/")
        self.bucket, _, self.prefix = self.root.removeprefix("s3://").partition("/")
        self.answer_s = answer_s

    def __reduce__(self) -> tuple[Any, ...]:
        return (S3Store, (self.root, self.answer_s))

    def read(self, key: str) -> bytes:
        path = self._path(key)
        return bytes(self._call(key, lambda fs: fs.cat_file(path)))

    def write(self, key: str, data: bytes) -> None:
        path = self._path(key)
        self._call(key, lambda fs: fs.pipe_file(path, data, chunksize=PART_BYTES))

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        try:
            self._call(key, lambda fs: fs.pipe_file(path, data, chunksize=PART_BYTES, mode="create"))
        except _Taken:  # maybe by ourselves: a lost answer is asked for again, by us, and by aiohttp without a word
            with contextlib.suppress(NotFound):
                return self.read(key) == data
            return False
        return True

    def list(self, prefix: str = "") -> builtins.list[Entry]:
        cut = len(self.prefix) + 1 if self.prefix else 0
        found = [
            Entry(o["Key"][cut:], int(o["Size"])) for page in self._pages(prefix) for o in page.get("Contents", [])
        ]
        return sorted(e for e in found if not e.key.endswith("/"))  # some tools leave markers for folders

    def folders(self, prefix: str = "") -> builtins.list[str]:
        pages = self._pages(prefix, Delimiter="/")
        return sorted(
            p["Prefix"].rstrip("/").rpartition("/")[2] for page in pages for p in page.get("CommonPrefixes", [])
        )

    def delete(self, key: str) -> None:
        full = self._key(key)
        self._call(key, lambda fs: fs.call_s3("delete_object", Bucket=self.bucket, Key=full))

    def delete_tree(self, prefix: str) -> None:
        keys = [self._key(e.key) for e in self.list(checked(prefix.rstrip("/")))]
        for start in range(0, len(keys), 1000):
            self._delete_some(prefix, keys[start : start + 1000])

    def _delete_some(self, prefix: str, keys: builtins.list[str]) -> None:
        asked = {"Objects": [{"Key": k} for k in keys], "Quiet": True}
        answer = self._call(prefix, lambda fs: fs.call_s3("delete_objects", Bucket=self.bucket, Delete=asked))
        for error in answer.get("Errors", []):
            kind = StorageDenied if error.get("Code") == "AccessDenied" else Unreachable
            raise kind(f"s3://{self.bucket}/{error.get('Key')} could not be removed ({error.get('Code')})")

    def upload(self, source: Path, key: str) -> None:
        path = self._path(key)
        self._call(key, lambda fs: fs.put_file(str(source), path, chunksize=PART_BYTES))

    def download(self, key: str, target: Path) -> None:
        path = self._path(key)
        self._call(key, lambda fs: fs.get_file(path, str(target), chunksize=PART_BYTES))

    def exists(self, key: str) -> bool:
        full = self._key(key)  # by a listing: a HEAD cannot tell a missing key from a missing bucket
        found = self._call(key, lambda fs: fs.call_s3("list_objects_v2", Bucket=self.bucket, Prefix=full, MaxKeys=1))
        return any(o["Key"] == full for o in found.get("Contents", []))

    def leftovers(self) -> builtins.list[Entry]:
        """Unfinished multipart uploads, keyed `<key>?<upload id>`; their size is unknown, so it is 0."""
        inside = f"{self.prefix}/" if self.prefix else ""
        marker: dict[str, str] = {}
        out: builtins.list[Entry] = []
        while True:
            asked = {"Bucket": self.bucket, **marker}
            page = self._call("", lambda fs, a=asked: fs.call_s3("list_multipart_uploads", **a))
            for u in page.get("Uploads", []):
                if u["Key"].startswith(inside):
                    out.append(Entry(f"{u['Key'][len(inside) :]}?{u['UploadId']}", 0))
            if not page.get("IsTruncated") or not page.get("NextKeyMarker"):
                return sorted(out)
            marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page.get("NextUploadIdMarker", "")}

    def drop_leftover(self, key: str) -> None:
        name, _, upload = key.rpartition("?")
        full = self._key(name)

        def abort(fs: Any) -> None:
            try:
                fs.call_s3("abort_multipart_upload", Bucket=self.bucket, Key=full, UploadId=upload)
            except Exception as e:
                if _code(e)[0] != "NoSuchUpload":  # it has ended meanwhile, or an answer that was lost said so
                    raise

        self._call(key, abort)

    def __truediv__(self, part: str) -> S3Store:
        return S3Store(join(self.root, checked(part)), self.answer_s)

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _key(self, key: str) -> str:
        return join(self.prefix, checked(key)) if self.prefix else checked(key)

    def _path(self, key: str) -> str:
        return f"{self.bucket}/{self._key(key)}"

    def _pages(self, prefix: str, **more: Any) -> Iterator[dict[str, Any]]:
        top = folder(prefix)
        full = "/".join(p for p in (self.prefix, top) if p)
        asked = {"Bucket": self.bucket, "Prefix": full + "/" if full else "", **more}
        while True:
            page = self._call(prefix, lambda fs, a=dict(asked): fs.call_s3("list_objects_v2", **a))
            yield page
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _call(self, key: str, call: Callable[..., Any]) -> Any:
        try:
            return call(self._fs())
        except StorageError:
            raise
        except Exception as e:
            error = explain(e, self.root if not key else join(self.root, key), self.bucket)
            if isinstance(error, CredentialsExpired):
                forget_client(self.answer_s)  # the next one reads profile files anew
            raise error from e

    def _fs(self) -> Any:
        return client(self.answer_s)


_CLIENTS: dict[tuple[Any, ...], Any] = {}
_MAKING = threading.Lock()


def forget_client(answer_s: float = ANSWER_S) -> None:
    """Lets the next call make a new client."""
    with _MAKING:
        _CLIENTS.pop(_client_key(answer_s), None)


def client(answer_s: float = ANSWER_S) -> Any:
    """Returns this process's s3fs file system, without caches and without retries of its own.

    Making one reads botocore's models and costs a second of CPU, so there is one for all stores of a process, until the
    environment changes. A client does not survive a fork.
    """
    key = _client_key(answer_s)
    with _MAKING:
        if key not in _CLIENTS:
            _CLIENTS[key] = _make_client(answer_s)
        return _CLIENTS[key]


def _client_key(answer_s: float) -> tuple[Any, ...]:
    settings = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))
    return os.getpid(), answer_s, settings


def _make_client(answer_s: float) -> Any:
    import s3fs

    once = {"retries": {"total_max_attempts": 1, "mode": "standard"}}
    config = {**once, "connect_timeout": min(5.0, answer_s), "read_timeout": answer_s, "max_pool_connections": 16}
    fs = s3fs.S3FileSystem(config_kwargs=config, use_listings_cache=False, skip_instance_cache=True)
    fs.retries = 1
    return fs


class _Taken(StorageError):
    """The key of a conditional put exists."""


def explain(e: BaseException, where: str, bucket: str) -> StorageError:
    """Returns what an error of s3fs, botocore or the network means for the user; no message carries a credential."""
    from botocore import exceptions as boto

    code, status = _code(e)
    if code in ("PreconditionFailed", "412") or status == 412 or isinstance(e, FileExistsError):
        return _Taken(where)
    if code in _EXPIRED or isinstance(e, boto.CredentialRetrievalError | boto.MetadataRetrievalError | boto.SSOError):
        return CredentialsExpired(
            f"{where}: these S3 credentials have expired and could not be renewed ({code or type(e).__name__}); renew them where "
            "this machine has them from, such as its profile file; those of a process's environment stay as they are: stop the "
            "sweep and resume it with new ones"
        )
    if isinstance(e, boto.NoCredentialsError | boto.PartialCredentialsError):
        return NoCredentials(
            f"{where}: no S3 credentials on this machine; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in "
            "its environment, or give the machine a role"
        )
    if code == "NoSuchBucket":
        return NoBucket(f"{where}: there is no bucket '{bucket}'; make it, or correct `storage`")
    if code in _KEYS_WRONG:
        return StorageDenied(
            f"{where}: the storage refuses these credentials ({code}); check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
        )
    if code == "RequestTimeTooSkewed":
        return Unreachable(  # of one that was suspended it is set right by itself soon
            f"{where}: this machine's clock is off by more than the storage accepts; set it"
        )
    if code in _REGION or status == 301:
        return StorageError(f"{where}: bucket '{bucket}' lies in another region; set AWS_REGION to it")
    if code in _FULL or status == 507:
        return StorageFull(
            f"{where}: no room is left in the bucket, or its quota ({code or status}); free some, or raise it"
        )
    if status >= 500 or status == 429 or code in _PASSING:
        return Unreachable(f"{where}: the storage answers {code or status}")
    if status == 403 or isinstance(e, PermissionError):
        return StorageDenied(
            f"{where}: access denied (403); these credentials need to read, write, list and delete there"
        )
    if status == 404 or isinstance(e, FileNotFoundError):
        return NotFound(f"{where} does not exist")
    if _network(e):
        return Unreachable(f"{where}: the storage cannot be reached ({type(e).__name__})")
    if isinstance(e, OSError) and not status and e.errno in FULL | AWAY | MANY_FILES:  # the local side of a download
        return storage_error(Path(str(e.filename or "this disk")), e)
    return StorageError(f"{where}: {type(e).__name__} {code}: {str(e)[:200]}")


def _code(e: BaseException) -> tuple[str, int]:
    """Returns the S3 error code and HTTP status behind an error; s3fs hides them in its cause."""
    for error in (e, e.__cause__):
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return str(response.get("Error", {}).get("Code", "")), int(status or 0)
    return "", 0


def _network(e: BaseException) -> bool:
    from botocore import exceptions as boto

    kinds = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, ConnectionError, TimeoutError,
             asyncio.TimeoutError, asyncio.IncompleteReadError)  # fmt: skip
    return isinstance(e, kinds) or type(e).__name__ in ("ClientPayloadError", "FSTimeoutError", "ResponseParserError",
                                                        "IncompleteRead", "ClientConnectorError", "ClientOSError",
                                                        "ServerDisconnectedError")  # fmt: skip
