"""Generation by vLLM where it is installed, on a GPU or a CPU: one engine per process, weights swapped in place.

Starting vLLM takes a minute or more (memory profile, graphs), loading weights seconds; checkpoints of one sweep differ in
their weights alone. So an evaluator keeps its engine and loads the next checkpoint into it, as long as what `config.json`
says of the architecture stays the same. An engine that raised is replaced, since most of what it raises is its own death.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from evaluators.decoding import Decoding, Reply
from evaluators.engines.base import stop_token_ids, think_tags, within_context
from evaluators.engines.generate import BATCH_TOKENS
from evaluators.engines.huggingface import placement
from evaluators.engines.vllm_worker import EVALUATOR
from sweeps.checkpoints.manifest import STATE
from sweeps.errors import InputError

log = logging.getLogger(__name__)
WORKER: Final = "evaluators.engines.vllm_worker.EndsWithEvaluator"
NO_ARCHITECTURE: Final = frozenset(
    [
        "transformers_version",
        "_name_or_path",
        "torch_dtype",
        "dtype",
        "use_cache",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    ]
)
"""Keys of config.json that differ between checkpoints of one architecture."""

ENVIRONMENT: Final = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # several evaluators would all bind to the same cores
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",  # of 1024: kernels for each shape of batch, 25 MiB more an evaluation
}
"""What the engine's processes find in their environment unless the user has set it."""

CPU_HEAD_SIZES: Final = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Sizes of attention heads that vLLM has kernels for on a CPU (its `CPUAttentionBackend`); other models do not start there."""

GPU_SHARE: Final = "DIPSWEEP_GPU_SHARE"
"""Environment variable with the share of a device that an evaluator reserved, where it is less than a whole one."""
MEMORY: Final = 0.9
"""Share of a whole device's memory that vLLM takes for itself."""

LOOK_S: Final = 1.0  # how often a call looks whether the engine lives
GRACE_S: Final = 5.0  # how long vLLM may take to say itself that it does not

_engine: VllmEngine | None = None


class EngineDied(RuntimeError):
    """A process of the engine was killed."""


def distribution(*, gpu: bool | None = None) -> str:
    """Returns the name under which the vLLM that runs on this machine, or on one with or without a GPU, is installed; empty
    where none is."""
    name = "vllm" if (on_gpu() if gpu is None else gpu) else "vllm-cpu"
    try:
        version(name)
    except PackageNotFoundError:
        return ""
    return name


def on_gpu() -> bool:
    """True where vLLM runs on a GPU."""
    import torch

    return torch.cuda.is_available()


def engine_for(folder: Path, *, judge: str = "") -> VllmEngine:
    """Returns this process's engine with a checkpoint's weights in it.

    Another architecture gets a new engine, and so does a checkpoint whose weights the engine does not take.

    Args:
        judge: folder of a model that answers beside it, on the same device; "" for none.

    Raises:
        InputError: the folder holds no weights, or the judge leaves no room.
    """
    global _engine
    if not any(folder.glob("model*.safetensors")):
        raise InputError(f"{folder} holds no model*.safetensors")
    if _engine is not None and _engine.takes(folder):
        try:
            _engine.load(folder)
        except Exception as e:
            log.warning("vLLM is started anew, since its engine did not take %s: %s: %s", folder, type(e).__name__, e)
        else:
            return _engine
    close()  # before the next one asks for memory
    _engine = VllmEngine(folder, **_memory(judge))
    return _engine


def close() -> None:
    """Ends this process's engine, if there is one."""
    global _engine
    if _engine is not None:
        engine, _engine = _engine, None
        engine.shut_down()


def _memory(judge: str) -> dict[str, float]:
    """Returns vLLM's setting of how much of the device it takes, where it cannot have all of it: that is its default.

    Raises:
        InputError: a judge leaves less than a tenth of what was reserved.
    """
    share = float(os.environ.get(GPU_SHARE, 1.0))
    if not on_gpu() or (share == 1.0 and not judge):
        return {}
    left = MEMORY * share - (judge_bytes(Path(judge)) / _device_bytes() if judge else 0.0)
    if left < MEMORY * share / 10:
        raise InputError(
            f"judge {judge} leaves vLLM {max(0.0, left):.0%} of the device; expected a smaller judge, or a larger "
            "evaluation.gpus_per_worker"
        )
    return {"gpu_memory_utilization": round(left, 3)}


def _device_bytes() -> int:
    import torch

    return int(torch.cuda.mem_get_info()[1])


def judge_bytes(folder: Path) -> float:
    """Returns what a model needs that transformers asks beside vLLM: weights and a full batch of keys and values, in 16 bits."""
    from trainers.model.files.folder import checked_folder
    from trainers.model.load import model_without_weights

    model = model_without_weights(checked_folder(folder))
    text = model.config.get_text_config()  # by transformers' names: each kind has its own in config.json
    heads = int(text.num_attention_heads)
    size = int(getattr(text, "head_dim", None) or int(text.hidden_size) // heads)
    a_token = 2 * int(text.num_hidden_layers) * int(getattr(text, "num_key_value_heads", None) or heads) * size
    return 2.0 * (int(model.num_parameters()) + BATCH_TOKENS * a_token)


def architecture(folder: Path) -> dict[str, Any]:
    """Returns what config.json says that a running engine depends on."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {key: value for key, value in config.items() if key not in NO_ARCHITECTURE}


class VllmEngine:
    """One vLLM engine and the tokenizer of the checkpoint that is in it.

    Args:
        folder: the first checkpoint. settings: further arguments of `vllm.LLM`.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        os.environ[EVALUATOR] = str(os.getpid())
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.vllm: Any = import_module("vllm")
        self.architecture = architecture(folder)
        self.broken = False
        given = {"dtype": placement()["dtype"], "seed": 0, "disable_log_stats": True, "worker_extension_cls": WORKER}
        given |= {} if on_gpu() else {"enforce_eager": True}  # compiling for a CPU takes minutes
        before = set(multiprocessing.active_children())
        with _model_alone(folder) as model:
            self.llm = self.vllm.LLM(model=model, **(given | settings))
        self.processes = set(multiprocessing.active_children()) - before
        self.longest = int(self.llm.llm_engine.model_config.max_model_len)
        self._look_up(folder)

    def takes(self, folder: Path) -> bool:
        """True when the engine runs, and can run a checkpoint's weights.

        On a CPU vLLM packs the output layer; where that is the embedding too it keeps the old one when weights are
        reloaded (0.32: replies changed in 12 of 140), so such a model gets a new engine for each checkpoint.
        """
        stale = self.architecture.get("tie_word_embeddings", False) and not on_gpu()
        return not self.broken and not stale and architecture(folder) == self.architecture

    def load(self, folder: Path) -> None:
        """Puts a checkpoint's weights in the place of those that are there; what was cached of them is forgotten."""
        self.broken = True  # half of the weights are no model
        with _model_alone(folder) as model:
            self._call(self.llm.collective_rpc, "reload_weights", kwargs={"weights_path": model})
        self.llm.reset_prefix_cache()
        self._look_up(folder)
        self.broken = False

    def shut_down(self) -> None:
        """Ends the engine's processes and frees its memory."""
        with contextlib.suppress(Exception):  # it may be dead already
            self.llm.llm_engine.engine_core.shutdown()
        del self.llm

    def _look_up(self, folder: Path) -> None:
        from transformers import GenerationConfig

        from trainers.model.load import load_tokenizer

        self.tokenizer = load_tokenizer(folder)
        named = GenerationConfig.from_pretrained(folder).eos_token_id if _has_generation(folder) else None
        self.stop = sorted(stop_token_ids(self.tokenizer, named))

    def generate(self, prompts: Sequence[Sequence[int]], caps: Sequence[int], decoding: Decoding) -> list[Reply]:
        """Returns one reply per prompt; a thought over `decoding.think_cap` is closed and answered in a second pass.

        Raises:
            InputError: thoughts are to be closed, and the tokenizer has no token for that.
        """
        think = decoding.think_cap
        first = caps if think is None else [min(cap, think) for cap in caps]
        replies = self._draw(prompts, first, decoding)
        if think is None:
            return replies
        tags = think_tags(self.tokenizer)
        open_ = [i for i, reply in enumerate(replies) if reply.truncated and caps[i] > think]
        said = {
            i: [*replies[i].ids, *([tags.end] if tags.leave_open([*prompts[i], *replies[i].ids]) else [])]
            for i in open_
        }
        rest = self._draw(
            [[*prompts[i], *said[i]] for i in open_], [caps[i] - len(said[i]) or 1 for i in open_], decoding
        )
        for i, more in zip(open_, rest, strict=True):
            ids = [*said[i], *more.ids]
            replies[i] = Reply(ids[: caps[i]], more.truncated or len(ids) > caps[i])
        return replies

    def _draw(self, prompts: Sequence[Sequence[int]], caps: Sequence[int], how: Decoding) -> list[Reply]:
        """Draws a reply to each prompt; those that leave no room in the context get none, cut off at once."""
        room = within_context(prompts, caps, self.longest)
        settings = [
            self.vllm.SamplingParams(
                temperature=how.temperature,
                top_p=how.top_p if how.temperature else 1.0,
                max_tokens=cap,
                seed=how.seed * 1_000_003 + i,
                stop_token_ids=self.stop,
                detokenize=False,
            )
            for i, cap in room.items()
        ]
        asked = [{"prompt_token_ids": list(prompts[i])} for i in room]
        replies = [Reply([], truncated=True) for _ in prompts]
        for i, one in zip(room, self._ask(asked, settings), strict=True):
            replies[i] = self._reply(one.outputs[0])
        return replies

    def _ask(self, asked: list[dict[str, list[int]]], settings: list[Any]) -> list[Any]:
        if not asked:
            return []
        try:
            return list(self._call(self.llm.generate, asked, settings, use_tqdm=False))
        except BaseException:
            self.broken = True
            raise

    def _call(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Calls the engine, beside this thread: vLLM 0.32 waits for ever for an engine process that is killed meanwhile.

        Raises:
            EngineDied: a process of the engine has died, and vLLM has not said so itself.
        """
        outcome: queue.Queue[Callable[[], Any]] = queue.Queue()

        def call() -> None:
            try:
                result = method(*arguments, **keywords)
            except BaseException as e:
                outcome.put(partial(_raise, e))
            else:
                outcome.put(lambda: result)

        threading.Thread(target=call, daemon=True, name="vllm").start()
        while True:
            died = not all(process.is_alive() for process in self.processes)
            try:
                return outcome.get(timeout=GRACE_S if died else LOOK_S)()
            except queue.Empty:
                if died:
                    raise EngineDied("vLLM's engine process has died; out of memory?") from None

    def _reply(self, output: Any) -> Reply:
        ids = list(output.token_ids)
        if ids and ids[-1] in self.stop:
            return Reply(ids[:-1], truncated=False)
        return Reply(ids, truncated=output.finish_reason == "length")


@contextlib.contextmanager
def _model_alone(folder: Path) -> Iterator[str]:
    """Gives a folder of links to a checkpoint without its trainer's state: vLLM takes every `*.safetensors` for weights."""
    with tempfile.TemporaryDirectory(prefix="dipsweep-vllm-") as links:
        for path in folder.iterdir():
            if path.name != STATE:
                (Path(links) / path.name).symlink_to(path.resolve())
        yield links


def _raise(error: BaseException) -> None:
    raise error


def _has_generation(folder: Path) -> bool:
    return (folder / "generation_config.json").is_file()
