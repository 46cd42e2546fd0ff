"""What the network and the server may do to a request, and what the caller sees of it: the table of promises."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweeps.errors import NoBucket, NoCredentials, StorageDenied, StorageFull, StorageUnavailable, Unreachable
from sweeps.storage.base import FOREVER, Store
from sweeps.storage.factory import open_store
from sweeps.storage.memory import MemoryStore
from sweeps.storage.probe import storage_fault, verify_marker, write_marker
from sweeps.storage.retry import RetryingStore
from sweeps.storage.s3 import S3Store, explain
from tests.support.machines.s3 import FaultProxy, S3Server


@pytest.fixture
def proxy(s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    proxy = FaultProxy(s3_server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    yield proxy
    proxy.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pause between two tries is short, for tests that need hundreds of them."""
    monkeypatch.setattr("sweeps.storage.retry.FIRST_S", 0.02)


def patient(url: str, seconds: float = 200.0, answer_s: float = 30.0) -> RetryingStore:
    return RetryingStore(S3Store(url, answer_s), seconds, lambda line: None)


PASSING = {
    "two 503": ("status", 503), "two 500": ("status", 500), "two 429": ("status", 429),
    "two of credentials that have expired": ("status", 400, "ExpiredToken"),
    "two of a clock that is off": ("status", 403, "RequestTimeTooSkewed"), "two resets": ("reset",),
    "a stall beyond the answer time": ("stall", 3.0), "two lost replies": ("drop_reply",),
    "two requests cut in the middle": ("cut", 20), "two truncated replies": ("truncate", 5), "a slow line": ("rate", 4000),
}  # fmt: skip


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_a_passing_fault_is_not_noticed(s3_url: str, proxy: FaultProxy, tmp_path: Path, fault: tuple):
    store = patient(s3_url, answer_s=2.0 if fault[0] == "stall" else 30.0)
    data = bytes(range(256)) * 8
    (tmp_path / "up").write_bytes(data)
    for number, call in enumerate((
        lambda: store.write("written", data), lambda: store.read("written"), lambda: store.create("created", data),
        lambda: store.upload(tmp_path / "up", "file"), lambda: store.download("file", tmp_path / "down"),
        lambda: store.list(), lambda: store.exists("file"), lambda: store.folders(),
    )):  # fmt: skip
        before = len(proxy.seen)
        proxy.first(1 if fault[0] == "stall" else 2, *fault)
        got = call()
        # a slow line is no fault, a busy client may miss the end of a stall, and some answers have no body to cut
        harmless = fault[0] in ("rate", "stall") or (fault[0] == "truncate" and number in (0, 2, 3))
        assert len(proxy.seen) - before >= (1 if harmless else 2), f"call {number} met the fault"
        if number == 1:
            assert got == data
        elif number == 2:
            assert got is True, "a lost answer to our own create is not somebody else's win"
    proxy.calm()
    assert (tmp_path / "down").read_bytes() == store.read("created") == data
    assert [e.key for e in store.list()] == ["created", "file", "written"]
    assert store.create("created", b"other") is False


@pytest.mark.parametrize("fault", [("status", 503), ("reset",), ("drop_reply",), ("cut", 10)], ids=lambda f: f[0])
def test_a_lasting_fault_ends_when_patience_does_and_says_how_long_it_tried(s3_url: str, proxy: FaultProxy, fault):
    patient(s3_url).list()  # the first call makes the client, which takes its time
    proxy.seen.clear()
    proxy.always(*fault)
    with pytest.raises(Unreachable, match=r"(answers|cannot be reached).*tried \d+ times in \d+ s"):
        patient(s3_url, 2.0).write("a", b"x")
    assert 2 <= len(proxy.seen) <= 20, "bounded tries, ours alone"


def test_a_truncated_download_never_passes_for_a_whole_one(s3_url: str, proxy: FaultProxy, tmp_path: Path):
    patient(s3_url).write("a", b"x" * 100_000)
    proxy.always("truncate", 50_000)
    for call in (lambda s: s.read("a"), lambda s: s.download("a", tmp_path / "down")):
        with pytest.raises(Unreachable):
            call(patient(s3_url, 0.5))


def test_a_file_in_parts_survives_faults_and_leaves_nothing_behind(
    s3_url: str, proxy: FaultProxy, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("sweeps.storage.s3.PART_BYTES", 5 * 2**20)
    data = bytes(range(256)) * (12 * 2**20 // 256)
    (tmp_path / "up").write_bytes(data)
    proxy.first(3, "reset", only="PUT")
    store = patient(s3_url)
    store.upload(tmp_path / "up", "big")
    proxy.calm()
    store.download("big", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == data
    assert store.leftovers() == []


def test_an_unfinished_upload_is_invisible_and_can_be_dropped(s3_url: str):
    store = S3Store(s3_url)
    key = store._key("trials/t-1/attempt-1/step-1/weights")
    store._call("", lambda fs: fs.call_s3("create_multipart_upload", Bucket=store.bucket, Key=key))
    assert store.list() == []
    assert [e.key.split("?")[0] for e in store.leftovers()] == ["trials/t-1/attempt-1/step-1/weights"]
    store.drop_leftover(store.leftovers()[0].key)
    assert store.leftovers() == []


def test_the_server_is_killed_and_back_and_only_time_was_lost(s3_url: str, s3_server: S3Server):
    store, said = RetryingStore(S3Store(s3_url), FOREVER, print), list[object]()
    store.write("before", b"1")
    s3_server.kill()

    def working() -> None:
        said.append(store.create("during", b"2"))
        said.append(store.read("before"))

    worker = threading.Thread(target=working)
    worker.start()
    time.sleep(0.5)
    assert not said
    s3_server.start()
    worker.join(60)
    assert said == [True, b"1"]


def test_credentials_that_were_renewed_in_a_profile_file_are_taken_up(
    s3_url: str, proxy: FaultProxy, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def profile(secret: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {s3_server.key}\naws_secret_access_key = {secret}\n")

    file, said = tmp_path / "credentials", list[str]()
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    profile("that-of-yesterday")
    proxy.first(2, "status", 400, "ExpiredToken")
    clock = iter(range(0, 10**6, 10))

    def renew(seconds: float) -> None:
        profile(s3_server.secret)

    store = RetryingStore(S3Store(s3_url), FOREVER, said.append, lambda: float(next(clock)), renew)
    store.write("a", b"x")
    assert store.read("a") == b"x"
    assert "these S3 credentials have expired and could not be renewed (ExpiredToken)" in said[0]
    assert "resume it with new ones" in said[0]


PERMANENT = {
    "wrong secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "", StorageDenied, "refuses these credentials (SignatureDoesNotMatch)"),
    "unknown key": ({"AWS_ACCESS_KEY_ID": "nobody"}, "", StorageDenied, "refuses these credentials (InvalidAccessKeyId)"),
    "no credentials": ({"AWS_ACCESS_KEY_ID": None}, "", NoCredentials, "no S3 credentials on this machine"),
    "no bucket": ({}, "s3://nobody-has-this/x", NoBucket, "there is no bucket 'nobody-has-this'"),
}  # fmt: skip


@pytest.mark.parametrize("case", PERMANENT)
def test_what_waiting_cannot_cure_fails_at_once_and_says_what_would_do(s3_url: str, monkeypatch, case: str):
    change, url, error, message = PERMANENT[case]
    for name, value in change.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    if case == "no credentials":
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = RetryingStore(S3Store(url or s3_url), FOREVER, sleep=lambda s: pytest.fail("nothing to wait for"))
    with pytest.raises(error) as e:
        store.list()
    assert message in str(e.value)
    assert message in storage_fault(url or s3_url)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "QuotaExceeded", StorageFull),
        (507, "XMinioStorageFull", StorageFull),
        (400, "XMinioAdminBucketQuotaExceeded", StorageFull),
        (404, "NoSuchUpload", Unreachable),  # somebody, or a rule of the bucket, ended it: it begins anew
        (400, "InvalidPart", Unreachable),
        (409, "ConditionalRequestConflict", Unreachable),
        (400, "RequestTimeout", Unreachable),
    ],
)
def test_what_a_server_says_of_its_own_trouble_is_worth_waiting_for(status: int, code: str, kind: type):
    error = Exception("refused")
    error.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}  # type: ignore[attr-defined]
    assert type(explain(error, "s3://b/x", "b")) is kind


def test_an_upload_that_has_ended_already_is_dropped(monkeypatch: pytest.MonkeyPatch):
    """As after an answer that was lost; to wait for it would be to wait for ever."""

    def refuse(method: str, **how: object) -> None:
        error = Exception("refused")
        error.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 404}}  # type: ignore[attr-defined]
        raise error

    store, code = S3Store("s3://bucket/sweeps"), "NoSuchUpload"
    monkeypatch.setattr(store, "_fs", lambda: SimpleNamespace(call_s3=refuse))
    store.drop_leftover("a/b?upload")
    code = "NoSuchBucket"
    with pytest.raises(NoBucket):
        store.drop_leftover("a/b?upload")


def test_no_server_is_told_apart_too(s3_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("sweeps.storage.probe.PROBE_S", 0.5)
    assert "the storage cannot be reached" in storage_fault(s3_url)


def test_a_storage_that_can_keep_a_sweep_has_no_fault_and_nothing_is_left_of_the_probe(s3_url: str, tmp_path: Path):
    for where in (s3_url, tmp_path, MemoryStore()):
        assert storage_fault(where) == ""
        assert open_store(where).list() == []


def test_a_folder_that_cannot_be_written_has_one(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert "give a folder" in storage_fault(tmp_path / "file" / "runs")


class Careless(MemoryStore):
    """Some servers take a conditional put and overwrite all the same."""

    def create(self, key: str, data: bytes) -> bool:
        self.write(key, data)
        return True


def test_a_server_that_ignores_conditional_writes_is_refused():
    assert "ignores conditional writes" in storage_fault(Careless())


def test_a_node_that_does_not_see_the_folder_is_named(tmp_path: Path):
    home = open_store(tmp_path / "shared")
    token = write_marker(home)
    verify_marker(home, token)
    for elsewhere in (tmp_path / "not mounted", tmp_path / "shared"):
        if elsewhere.name == "shared":
            write_marker(home)  # a folder of the same path that another driver wrote to
        with pytest.raises(StorageUnavailable, match=r"node \S+ does not see .* as the driver does"):
            verify_marker(elsewhere, token)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Away(MemoryStore):
    """Out of reach until a moment."""

    def __init__(self, clock: Clock, back_at: float) -> None:
        super().__init__()
        self.clock, self.back_at = clock, back_at

    def write(self, key: str, data: bytes) -> None:
        if self.clock() < self.back_at:
            raise Unreachable("s3://b: the storage answers 503")
        super().write(key, data)


def waited(back_at: float, patience_s: float) -> tuple[list[str], float]:
    clock, said = Clock(), list[str]()
    store: Store = RetryingStore(Away(clock, back_at), patience_s, said.append, clock, clock.sleep)
    store.write("a", b"x")
    assert store.read("a") == b"x"
    return said, clock.now


def test_a_short_trouble_is_not_worth_a_sentence():
    assert waited(3.0, 600.0)[0] == []


def test_an_outage_is_told_once_a_minute_and_called_a_pause_after_ten():
    said, now = waited(1500.0, FOREVER)
    assert 1500 <= now < 1525
    assert 20 <= len(said) <= 26
    assert said[0].startswith("s3://b: the storage answers 503; trying again, for")
    paused = [line for line in said if line.startswith("paused: ")]
    assert 13 <= len(paused) <= 16
    assert "everything goes on by itself when that is over" in paused[0]


def test_patience_is_a_budget_of_time_not_of_tries():
    clock = Clock()
    store = RetryingStore(Away(clock, 1e9), 600.0, lambda line: None, clock, clock.sleep)
    with pytest.raises(Unreachable, match="tried"):
        store.write("a", b"")
    assert 570 <= clock.now <= 600
