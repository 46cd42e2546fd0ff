"""What changes while training: weights and optimizer; one update, one save, one load."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sweeps.config.blocks import TrialSettings
from sweeps.config.trial import Saved
from sweeps.errors import StorageError
from trainers import checkpoint
from trainers.data.batching.packing import Pack
from trainers.model import attention, cpu_bfloat16, lora, parallel
from trainers.model.loss import Objective
from trainers.model.recurrent.recurrence import decoder_layers, drawn_recurrences, is_recurrent, set_recurrences
from trainers.schedule import lr_factor
from trainers.snapshot import Snapshot
from trainers.throughput import ThroughputMeter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Learner:
    """A model, its optimizer and what updates them, on one worker of `world`; as `Learner` in RLlib and fastai.

    Args:
        config: the run's settings.
        network: a causal LM of transformers with the packed attention (`models.load_model`): fp32 weights, or in the
            compute type where adapters are trained beside them.
        device: where to compute; fp32 master weights live there too.
        world: number of workers; `torch.distributed` is initialised when it is above 1.
        sharded: use FSDP2; by default with several workers only. One CUDA device may want it too: it then computes
            in bf16 throughout, where autocast keeps the residual stream in fp32.
    """

    def __init__(
        self, config: TrialSettings, network: Any, device: torch.device, world: int, *, sharded: bool | None = None
    ) -> None:
        self.config, self.device, self.world = config, device, world
        bf16 = config.precision == "bf16"
        self.choice = attention.choose_kernel(device, torch.bfloat16 if bf16 else torch.float32)
        if config.lora_rank:
            lora.attach(network, config)
        self.network = network.to(device).train()
        if config.gradient_checkpointing:
            recompute_activations(self.network)
        self.objective = Objective(self.network, self.choice)
        sharded = world > 1 if sharded is None else sharded
        if sharded:
            parallel.shard(self.objective, decoder_layers(self.network), world, device, bf16)
        self.trainable = dict(lora.trainable(self.network))
        self.optimizer = torch.optim.AdamW(
            self.trainable.values(),
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._shape = network.config.to_dict()
        self._recurrent = is_recurrent(self._shape)
        self._tokenizer_files: dict[Path, bytes] = {}
        self._autocast = bf16 and not (device.type == "cuda" and sharded)
        self._widens = bf16 and device.type == "cpu" and not cpu_bfloat16.has_instructions()

    def update(self, step: int, packs: Sequence[Pack], divisor: float, meter: ThroughputMeter) -> Tensor:
        """Takes one optimizer step.

        Args:
            step: its number, from 1.
            packs: this worker's share of the step.
            divisor: of the losses of all workers: label tokens of the whole step, or 1 where labels have weights.

        Returns:
            float32 [2] on the device: this worker's share of the mean loss, and the global gradient norm before
            clipping. Nothing waits for the device here.
        """
        if self._recurrent:
            set_recurrences(self.network, drawn_recurrences(self._shape, self.config.seed, step))
        loss = torch.zeros((), device=self.device)
        for pack in packs:
            on_device = pack.to(self.device)
            with meter.phase("forward"), self._compute(), self._products():
                share = self.objective(on_device) / divisor
            with meter.phase("backward"), self._products():
                share.backward()
            loss += share.detach()
        with meter.phase("optimizer"):
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * lr_factor(step, self.config)
            bound = self.config.max_grad_norm or float("inf")
            norm = parallel.whole(torch.nn.utils.clip_grad_norm_(self.trainable.values(), bound))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return torch.stack([loss, norm.to(loss)])

    def _compute(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self._autocast else contextlib.nullcontext()

    def _products(self) -> AbstractContextManager[Any]:
        return cpu_bfloat16.ProductsInFloat32() if self._widens else contextlib.nullcontext()

    def snapshot(self, step: int, facts: Mapping[str, Any], rank: int, *, own: bool) -> Snapshot | None:
        """Returns what a checkpoint of this step holds; every worker must call, rank 0 alone gets one.

        Args:
            facts: of the run beside its tensors. own: its tensors are copies, so that training may go on.
        """

        def host(tensor: Tensor) -> Tensor:
            return parallel.whole(tensor.detach()).to("cpu", copy=own)

        weights = {n: host(t) for n, t in self._persistent()}
        moments = {n: host(t) for n, t in self._moments()}
        if rank != 0:
            return None
        adapters = {f"lora/{n}": weights[n] for n in self.trainable} if self.config.lora_rank else {}
        state = {**moments, **adapters, **checkpoint.random_states()}
        return Snapshot(
            step, lora.merged(weights, self.config), state, checkpoint.facts_as_read({"step": step, **facts})
        )

    def host_bytes(self) -> int:
        """Returns what copies of weights and optimizer state take on the CPU, on this worker: 12 bytes a parameter in fp32."""
        tensors = [t for named in (self._persistent(), self._moments()) for _, t in named]
        return sum(t.numel() * t.element_size() for t in tensors)

    def write(
        self,
        snapshot: Snapshot,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        give_up: Callable[[], bool] = lambda: False,
        waiting: Callable[[str], None] = lambda reason: None,
    ) -> Saved:
        """Writes a whole checkpoint into an attempt's folder; training may go on meanwhile.

        Args:
            give_up: ends the waiting for a disk without room. waiting: is told what that needs.

        Raises:
            StorageUnavailable: the disk did not take it (`trainers.checkpoint.write_patiently`).
        """
        target = checkpoint.step_folder(folder, snapshot.step)

        def write() -> Saved:
            checkpoint.fresh(target)
            self.network.save_pretrained(target, state_dict=dict(snapshot.weights))
            _name_dtype(target, snapshot.weights)
            self._write_tokenizer(tokenizer, target)
            checkpoint.write_state(target, snapshot.state, snapshot.facts)
            return checkpoint.seal(target, snapshot.step)

        return checkpoint.write_patiently(target, write, give_up, waiting)

    def _write_tokenizer(self, tokenizer: PreTrainedTokenizerBase, target: Path) -> None:
        """Writes the tokenizer's files; it never changes, and making its JSON anew takes a tenth of a second and more."""
        if not self._tokenizer_files:
            written = map(Path, tokenizer.save_pretrained(target))
            self._tokenizer_files = {f.relative_to(target): f.read_bytes() for f in written if f.is_file()}
            return
        for file, data in self._tokenizer_files.items():
            (target / file).parent.mkdir(exist_ok=True)
            (target / file).write_bytes(data)

    def load(self, path: str | Path, kept: Snapshot | None = None) -> Mapping[str, Any]:
        """Takes up optimizer and random states of a checkpoint, and its adapters; returns facts.

        All other weights came with the constructor.

        Args:
            path: the checkpoint. kept: what it holds, where that is in memory; it stays as it is.

        Raises:
            StorageError: the checkpoint's optimizer does not fit this model.
        """
        if kept is None:
            tensors, facts = checkpoint.read_state(path)
        else:
            tensors, facts = {name: tensor.clone() for name, tensor in kept.state.items()}, dict(kept.facts)
        for name, parameter in self.trainable.items():
            state = {key: tensors.get(f"adam/{name}/{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if any(t is None for t in state.values()) or tensors[f"adam/{name}/exp_avg"].shape != parameter.shape:
                raise StorageError(
                    f"checkpoint {path} has no optimizer state for {name} of shape {tuple(parameter.shape)}: "
                    "it is of another model, or of other lora settings"
                )
            if self.config.lora_rank:
                with torch.no_grad():
                    parameter.copy_(parallel.like(tensors[f"lora/{name}"], parameter))
            self.optimizer.state[parameter] = {
                key: tensor.to(self.device) if key == "step" else parallel.like(tensor, parameter)
                for key, tensor in state.items()
                if tensor is not None
            }
        checkpoint.restore_random_states(tensors)
        return facts

    def _persistent(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters (tied ones once) and those buffers that belong into a state dict."""
        parameters = dict(self.network.named_parameters())
        yield from parameters.items()
        tied = {n for n, _ in self.network.named_parameters(remove_duplicate=False)}
        yield from ((n, t) for n, t in self.network.state_dict().items() if n not in tied)

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.trainable.items():
            for key, tensor in self.optimizer.state[parameter].items():
                yield f"adam/{name}/{key}", tensor


def _name_dtype(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Has config.json name the type of the stored weights, in which transformers loads them unless told otherwise.

    It names the network's own: bf16 with adapters, whose merged weights are fp32.
    """
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    stored = str(next(t.dtype for t in weights.values() if t.is_floating_point())).removeprefix("torch.")
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    if any(part.get("dtype", stored) != stored for part in parts):
        for part in parts:
            part |= {"dtype": stored} if "dtype" in part else {}
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def recompute_activations(network: Any) -> None:
    """Turns activation checkpointing on; transformers 5.2x renamed the switch and warns of the old name."""
    enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
    enable({"use_reentrant": False})
