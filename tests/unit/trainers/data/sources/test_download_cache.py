"""What lies elsewhere is fetched once, whole, and shared."""

import errno
import json
import os
import threading
from hashlib import sha256

import fsspec
import pytest
import s3fs

from sweeps.config.trial import ModelSource, TierSource
from sweeps.errors import InputError
from sweeps.storage.factory import open_store
from tests.support.models.tiny_sft import write_base
from trainers.data.sources import download_cache
from trainers.data.sources.download_cache import fetched, listing
from trainers.data.sources.user_files import read
from trainers.model.files.folder import check_model
from trainers.model.load import load_model, model_folder


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A file system of its own, in memory; `memory://` addresses lead there."""
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path / "cache"))
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    return fs


@pytest.fixture
def no_clients_left():
    """s3fs keeps clients with the credentials of when they were made."""
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


def put(fs, path, data):
    fs.pipe_file(path, data if isinstance(data, bytes) else data.encode())


def test_a_path_is_returned_as_it_is(tmp_path):
    assert fetched(str(tmp_path)) == tmp_path


def test_a_model_folder_is_fetched_without_what_nobody_loads(remote, tmp_path):
    base = write_base(tmp_path / "base")
    for file in base.iterdir():
        put(remote, f"/models/tiny/{file.name}", file.read_bytes())
    put(remote, "/models/tiny/pytorch_model.bin", b"pickled")
    put(remote, "/models/tiny/original/weights.pth", b"pickled")
    folder = model_folder("tiny", ModelSource("memory://models/tiny"))
    assert load_model(folder).num_parameters() > 10_000
    assert {p.name for p in folder.iterdir()} == {p.name for p in base.iterdir()}


def test_it_is_fetched_once_for_trials_that_ask_at_the_same_time(remote, monkeypatch):
    put(remote, "/data/ours.jsonl", "{}\n" * 1000)
    fetches = []
    whole = download_cache._fetch
    monkeypatch.setattr(download_cache, "_fetch", lambda *a: fetches.append(1) or whole(*a))
    places = []
    trials = [threading.Thread(target=lambda: places.append(fetched("memory://data/ours.jsonl"))) for _ in range(8)]
    for trial in trials:
        trial.start()
    for trial in trials:
        trial.join()
    assert len(set(places)) == 1
    assert len(places) == 8
    assert len(fetches) == 1
    assert places[0].read_text() == "{}\n" * 1000


def test_a_source_that_changed_is_fetched_anew(remote):
    put(remote, "/data/ours.jsonl", "1")
    first = fetched("memory://data/ours.jsonl")
    put(remote, "/data/ours.jsonl", "2")
    second = fetched("memory://data/ours.jsonl")
    assert (first.read_text(), second.read_text()) == ("1", "2")


def test_a_fetch_that_died_half_way_is_not_taken_for_whole(remote, monkeypatch):
    put(remote, "/data/ours.jsonl", "all of it")

    def dies(url, files, home):
        aside = home.with_name(f".{home.name}")
        aside.mkdir()
        (aside / "ours.jsonl").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download_cache, "_fetch", dies)
        with pytest.raises(KeyboardInterrupt):
            fetched("memory://data/ours.jsonl")
    assert fetched("memory://data/ours.jsonl").read_text() == "all of it"


@pytest.mark.parametrize("damage", ["", "half", None], ids=["empty", "half", "gone"])
def test_a_copy_that_is_no_longer_whole_is_fetched_anew(remote, damage):
    """As a power cut leaves it."""
    put(remote, "/m/config.json", "{}")
    put(remote, "/m/model.safetensors", "all of it")
    copy = fetched("memory://m") / "model.safetensors"
    if damage is None:
        copy.unlink()
    else:
        copy.write_text(damage)
    assert (fetched("memory://m") / "model.safetensors").read_text() == "all of it"


def edited(file):
    file.write_text("not of it")


def edited_with_the_time_as_it_was(file):
    state = file.stat()
    file.write_text("not of it")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def put_another_there(file):
    other = file.with_name("other")
    other.write_text("not of it")
    other.replace(file)


def added_a_file(file):
    file.with_name("chat_template.jinja").write_text("{{ 1 }}")


@pytest.mark.parametrize("does", [edited, edited_with_the_time_as_it_was, put_another_there, added_a_file])
def test_a_copy_that_somebody_changed_is_fetched_anew_and_said(remote, caplog, does):
    """What stands there has as many bytes as before."""
    put(remote, "/m/config.json", "{}")
    put(remote, "/m/model.safetensors", "all of it")
    copy = fetched("memory://m")
    does(copy / "model.safetensors")
    assert fetched("memory://m") == copy
    assert (copy / "model.safetensors").read_text() == "all of it"
    assert {file.name for file in copy.iterdir()} == {"config.json", "model.safetensors"}
    assert "not what was fetched; fetched anew" in caplog.text


def test_a_copy_is_read_anew_only_where_somebody_touched_it(remote, monkeypatch):
    put(remote, "/m/model.safetensors", "all of it")
    read, whole = [], download_cache.sha256
    monkeypatch.setattr(download_cache, "sha256", lambda file: read.append(file.name) or whole(file))
    copy = fetched("memory://m") / "model.safetensors"
    assert read == ["model.safetensors"]
    for _ in range(3):
        fetched("memory://m")
    assert read == ["model.safetensors"]
    copy.touch()
    monkeypatch.setattr(download_cache, "_fetch", lambda *a: pytest.fail("it is what was fetched"))
    for _ in range(3):
        fetched("memory://m")
        monkeypatch.setattr(download_cache, "_READ", {})  # as in another process
    assert read == ["model.safetensors"] * 2


def test_a_copy_that_says_nothing_of_its_files_is_fetched_anew(remote):
    """One of a version that wrote no digests, or a record that is damaged."""
    put(remote, "/data/ours.jsonl", "all of it")
    for damage in (
        lambda record: record.unlink(),
        lambda record: record.write_text("{"),
        lambda record: record.write_text("{}"),
    ):
        copy = fetched("memory://data/ours.jsonl")
        copy.write_text("not of it")
        damage(download_cache.record_of(copy.parent))
        assert fetched("memory://data/ours.jsonl").read_text() == "all of it"


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        (lambda copy: None, True),
        (lambda copy: (copy / "model.safetensors").write_text("none of it, and longer"), False),
        (lambda copy: (copy / "config.json").unlink(), False),
        (lambda copy: (copy / "chat_template.jinja").write_text("{{ 1 }}"), False),
    ],
    ids=["as it was", "other sizes", "one is missing", "one too many"],
)
def test_a_copy_without_digests_in_a_read_only_cache_is_used_where_it_has_the_sizes(
    remote, monkeypatch, caplog, change, fits
):
    """It was filled by a version that wrote none, or copied without hidden files."""
    put(remote, "/m/config.json", "{}")
    put(remote, "/m/model.safetensors", "all of it")
    copy = fetched("memory://m")
    download_cache.record_of(copy).unlink()
    change(copy)

    def read_only(*given):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    monkeypatch.setattr(download_cache, "_fetch", read_only)
    if fits:
        assert fetched("memory://m") == copy
        assert "the cache is read-only; used by names and sizes alone" in caplog.text
    else:
        with pytest.raises(OSError, match="Read-only"):
            fetched("memory://m")


def test_a_record_that_cannot_be_written_leaves_nothing_behind(remote, monkeypatch, tmp_path):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        download_cache._write(tmp_path / "record", "{}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_link_to_a_model_is_no_file_of_that_model(remote, tmp_path):
    """An editor that writes a file anew leaves one where a link was."""
    base = write_base(tmp_path / "base")
    source = ModelSource(str(base), chat_template="chatml")
    folder = model_folder("own", source)
    config = (folder / "config.json").read_text()
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(config.replace("}", " }"))
    assert model_folder("own", source) == folder
    assert (folder / "config.json").is_symlink()
    assert (folder / "config.json").read_text() == config
    (folder / "tokenizer.model").write_text("added")
    assert not (model_folder("own", source) / "tokenizer.model").exists()


def test_what_does_not_arrive_whole_is_refused(remote, monkeypatch):
    put(remote, "/data/ours.jsonl", "all of it")
    monkeypatch.setattr(type(remote), "get_file", lambda self, source, target, **_: open(target, "w").close())
    with pytest.raises(InputError, match=r"ours\.jsonl did not arrive as the source has it"):
        fetched("memory://data/ours.jsonl")


def test_a_file_that_differs_from_the_manifest_beside_it_is_refused(remote):
    digest = sha256(b"right").hexdigest()
    put(remote, "/m/manifest.json", json.dumps({"files": {"model.safetensors": {"size": 5, "sha256": digest}}}))
    put(remote, "/m/model.safetensors", b"right")
    assert fetched("memory://m").is_dir()
    put(remote, "/m/model.safetensors", b"wrong")
    with pytest.raises(InputError, match=r"model\.safetensors did not arrive"):
        fetched("memory://m")


def test_data_is_read_from_an_address_as_from_a_path(remote):
    put(remote, "/data/ours.jsonl", json.dumps({"prompt": "2+2?", "response": "4"}) + "\n{")
    assert len(read(TierSource("memory://data/ours.jsonl", max_bad_rows=0.5)).primary) == 1
    with pytest.raises(InputError, match=r"memory://data/ours\.jsonl:2: not JSON"):
        read(TierSource("memory://data/ours.jsonl"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://data/nowhere.jsonl", "nowhere.jsonl cannot be read: FileNotFoundError"),
        ("gopher://data/x.jsonl", "gopher"),
        ("s3://key:secret@bucket/x.jsonl", "credentials or a port inside"),
    ],
)
def test_what_is_not_there_or_not_known_is_one_sentence(remote, url, message):
    with pytest.raises(InputError, match=message):
        listing(url)


def test_model_and_data_come_from_a_real_s3_server_with_credentials_from_the_environment(
    s3_url, tmp_path, monkeypatch, no_clients_left
):
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path / "cache"))
    store = open_store(s3_url)
    base = write_base(tmp_path / "base")
    for file in base.iterdir():
        store.upload(file, f"tiny/{file.name}")
    store.write("ours.jsonl", json.dumps({"prompt": "2+2?", "response": "4"}).encode())
    check_model(f"{s3_url}/tiny")
    assert load_model(model_folder("tiny", ModelSource(f"{s3_url}/tiny"))).num_parameters() > 10_000
    assert len(read(TierSource(f"{s3_url}/ours.jsonl")).primary) == 1
    with pytest.raises(InputError, match="does not exist"):
        fetched(f"{s3_url}/nowhere")
    store.delete("tiny/config.json")
    with pytest.raises(InputError, match=r"tiny has no config\.json"):
        check_model(f"{s3_url}/tiny")


def test_an_outage_makes_a_trial_wait_for_its_model_and_a_command_say_so(
    s3_url, tmp_path, monkeypatch, no_clients_left
):
    monkeypatch.setenv("DIPSWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sweeps.storage.retry.FIRST_S", 0.01)
    open_store(s3_url).write("ours.jsonl", b"{}")
    looks, fails, found = [], 3, download_cache._found

    def now_and_then(fs, path):
        looks.append(path)
        if len(looks) <= fails:
            raise ConnectionError("connection reset by peer")
        return found(fs, path)

    monkeypatch.setattr(download_cache, "_found", now_and_then)
    with pytest.raises(InputError, match="cannot be reached"):
        listing(f"{s3_url}/ours.jsonl")
    assert fetched(f"{s3_url}/ours.jsonl").read_bytes() == b"{}"
    assert len(looks) == fails + 1


def test_s3_without_a_right_secret_is_refused_without_showing_it(s3_url, monkeypatch, no_clients_left):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "WrongSecretWrongSecret")
    with pytest.raises(InputError) as caught:
        listing(f"{s3_url}/ours.jsonl")
    assert "WrongSecret" not in str(caught.value)
    assert "AWS_SECRET_ACCESS_KEY" in str(caught.value) or "access denied" in str(caught.value)
