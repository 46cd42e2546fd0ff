"""Puts model folder, weights, tokenizer, chat template and data together, as a trial would, before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from evaluators.engines.base import rendered, think_tags
from evaluators.tasks import text_of
from evaluators.test_time import parse_variant
from sweeps.config.blocks import TrialSettings
from sweeps.config.plan import Plan
from sweeps.config.schema import Sweep
from sweeps.config.space import sampled
from sweeps.errors import Fault, InputError
from sweeps.journal.rows import TierRow
from sweeps.plugins import SFT
from trainers.data.chat.template import ChatTemplate
from trainers.data.inspection.contamination import Overlap
from trainers.data.sources.datasets import load
from trainers.data.sources.download_cache import is_remote, listing
from trainers.data.sources.user_files import CHECKED_BYTES
from trainers.data.types import TierData
from trainers.model.files.folder import checked_folder
from trainers.model.files.weights import check_finite, check_weights, stored_tensors
from trainers.model.generation import context_of
from trainers.model.packable import attention_window, check_packable

if TYPE_CHECKING:
    from trainers.data.inspection.card import TierCard

READ_BYTES: Final = 2 * 2**30
"""Weights up to here are read for numbers that are not finite; of larger models that is looked at when they are loaded."""


class Pair(NamedTuple):
    """A model and a tier that meet in some trial, with the settings that decide what is trained on."""

    model: str
    tier: str
    config: Any


def pairs(sweep: Sweep) -> Iterator[Pair]:
    """Yields each model with each tier that it is trained on, once for each length policy."""
    plan, seen = Plan(sweep), set[tuple[object, ...]]()
    for cell in plan.cells:
        config = TrialSettings.from_config(plan.config(cell, {}, 0))
        way = (config.model, config.data, config.row_limit, config.long_rows, config.replay > 0, config.replay < 1)
        if way not in seen:
            seen.add(way)
            yield Pair(config.model, config.data, config)


class Checked(NamedTuple):
    """What is wrong, what is good to know (lines for the terminal), and what each tier is for each model."""

    faults: list[Fault]
    notes: list[str]
    tiers: list[TierRow]


class KnownModel(NamedTuple):
    """A model's tokenizer, the rows of its embedding, the tokens of its context, and the tokens back that its layers see
    (0: its config does not say, all)."""

    tokenizer: Any
    embedding: int
    context: int
    window: int


class ReadTier(NamedTuple):
    """A tier that was read, and what it holds of the evaluation's prompts."""

    data: TierData
    evaluation: Overlap | None


def check_models_with_data(
    sweep: Sweep,
    *,
    builtin: bool = False,
    reach: bool = True,
    scores: bool = True,
    read: Mapping[str, TierData] | None = None,
) -> Checked:
    """Loads no weights; renders every row and counts its tokens, which trials then find in the cache.

    Args:
        builtin: look at built-in tiers with built-in models too, which were made for each other.
        reach: look at models and data elsewhere too: of models all but the numbers, of data what is not too large.
        scores: put them together with the sweep's evaluation too.
        read: tiers that were read already, by name.
    """
    faults: list[Fault] = []
    notes: list[str] = []
    rows: list[TierRow] = []
    tokenizers: dict[str, KnownModel | None] = {}
    tiers: dict[str, ReadTier] = {}
    for pair in pairs(sweep):
        model, tier = sweep.model_source(pair.model), sweep.tier_source(pair.tier)
        if model.path == tier.path == "builtin" and pair.config.row_limit >= 256 and not builtin:
            continue
        elsewhere = [source.path for source in (model, tier) if is_remote(source.path)]
        if elsewhere and not reach:
            notes.append(
                f"{pair.model} with {pair.tier}: not put together, nor compared with the evaluation's prompts, since "
                f"{elsewhere[0]} is not on this machine; --storage looks there"
            )
            continue
        try:
            if pair.model not in tokenizers:
                tokenizers[pair.model] = None
                tokenizers[pair.model] = _model(sweep, pair.model, notes, scores=scores)
        except InputError as e:
            faults.append(Fault(f"models.{pair.model}", str(e)))
        if (known := tokenizers[pair.model]) is None:
            continue
        try:
            said, row = _tier(sweep, pair, known, tiers, read or {}, scores=scores)
            notes += said
            rows += [row] if row is not None else []
        except InputError as e:
            faults.append(Fault(f"tiers.{pair.tier}", f"with model {pair.model}: {e}"))
    return Checked(faults, list(dict.fromkeys(notes)), rows)


def _model(sweep: Sweep, name: str, notes: list[str], *, scores: bool) -> KnownModel:
    """Returns what rows are compared with, once a model's weights are known to fit, and its layers the adapters of its trials.

    Raises:
        InputError: it cannot be trained, or its thoughts cannot be closed as `evaluation.test_time` asks.
    """
    from trainers.model.files.outline import model_outline
    from trainers.model.load import load_tokenizer, model_folder, model_without_weights
    from trainers.model.lora import target_layers

    source = sweep.model_source(name)
    elsewhere = is_remote(source.path)
    if elsewhere:
        source = replace(source, path=str(model_outline(source.path)))
    folder = checked_folder(model_folder(name, source))
    model = model_without_weights(folder)
    try:
        check_packable(model)
        for config in _with_adapters(sweep, name):
            target_layers(model, config)
    except InputError as e:
        notes.append(f"model {name}: {_left_to_the_loop(sweep, str(e))}")
    if unseen := check_weights(folder, model):
        notes.append(f"model {name}: {unseen}")
    if not elsewhere and sum(file.stat().st_size for file in folder.glob("*.safetensors")) <= READ_BYTES:
        check_finite(folder, stored_tensors(folder))
    else:
        notes.append(f"model {name}: whether all weights are finite is looked at when they are loaded")
    tokenizer = load_tokenizer(folder)
    if scores and any(parse_variant(text).think is not None for text in sweep.evaluation.test_time):
        think_tags(tokenizer)
    template = ChatTemplate(tokenizer)
    if scores:
        notes += _notes_on_prompts(sweep, name, template, context_of(model.config))
        if not template.parts_thoughts:
            notes.append(
                f"warning: model {name}: its chat template ends thoughts without </think>, at which evaluation parts thought and "
                "answer: a reply's thought will be judged as part of its answer"
            )
    end, eos = template.end, tokenizer.eos_token
    if end.appended:
        notes.append(
            f"model {name}: its chat template ends replies with no token of their own; {eos!r} is put behind them"
        )
    elif tokenizer.decode([end.token]) != eos:
        notes.append(
            f"model {name}: replies end with {tokenizer.decode([end.token])!r}, as its chat template writes them, "
            f"and not with the tokenizer's {eos!r}; generation stops at both"
        )
    embeddings = int(model.get_input_embeddings().num_embeddings)
    return KnownModel(tokenizer, embeddings, context_of(model.config), attention_window(model))


def _notes_on_prompts(sweep: Sweep, model: str, template: ChatTemplate, context: int) -> Iterator[str]:
    """Yields what there is to say of the evaluation's prompts under a model's template.

    Args:
        context: tokens that the model can see.

    Raises:
        InputError: the template refuses one, or drops a message of it.
    """
    from cluster.preflight.contamination import evaluation_tasks

    parted: Counter[str] = Counter()
    full = 0
    try:
        tasks = evaluation_tasks(sweep)
    except InputError:  # told with the evaluation
        return
    for task in tasks:
        for i, prompt in enumerate(task.prompts):
            try:
                full += len(template.encode(rendered(template, prompt))) >= context
            except InputError as e:
                raise InputError(f"item {i} of {task.role}/{task.name} cannot be asked: {e}") from e
            parted.update(token for token in template.control_tokens if token in text_of(prompt))
    for token, count in sorted(parted.items()):
        yield (
            f"warning: model {model}: {count} of the evaluation's prompts hold {token!r}, by which its chat template parts "
            "messages"
        )
    if full:
        yield (
            f"warning: model {model}: {full} of the evaluation's prompts fill its context of {context} tokens and leave no room "
            "for a reply: they count as wrong"
        )


def _left_to_the_loop(sweep: Sweep, fault: str) -> str:
    """Returns what to say of something that the loop that ships cannot train, where another one trains.

    Raises:
        InputError: it is the loop that ships.
    """
    if sweep.trainer.loop == SFT:
        raise InputError(fault)
    return f"{fault}; that is the loop that ships, and whether {sweep.trainer.loop} can is not looked at"


def _with_adapters(sweep: Sweep, model: str) -> list[TrialSettings]:
    """Returns the settings of a model's trials that train adapters, one of each kind of layers."""
    plan, free, found = Plan(sweep), sampled(sweep.space), dict[str, TrialSettings]()
    for cell in plan.cells:
        config = TrialSettings.from_config(plan.config(cell, {}, 0))
        ranks, targets = (
            free[name].samples() if name in free else (getattr(config, name),)
            for name in ("lora_rank", "lora_target_modules")
        )
        models = free["model"].samples() if "model" in free else (config.model,)
        if model in models and (rank := max(map(int, ranks))):
            for target in map(str, targets):
                found[target] = config.model_copy(update={"lora_rank": rank, "lora_target_modules": target})
    return list(found.values())


def _tier(
    sweep: Sweep,
    pair: Pair,
    model: KnownModel,
    tiers: dict[str, ReadTier],
    known: Mapping[str, TierData],
    *,
    scores: bool,
) -> tuple[list[str], TierRow | None]:
    """Returns what there is to say of a tier under a model's template, and its numbers; no numbers where it was not read.

    Raises:
        InputError: it cannot be trained on.
    """
    from cluster.preflight.contamination import warning
    from trainers.data.inspection.card import measure_tier

    source = sweep.tier_source(pair.tier)
    size = _size(source.path)
    if size is None:
        return [], None  # told already
    if size > CHECKED_BYTES:
        return [f"tier {pair.tier}: not looked at as a whole, since {source.path} has {size / 1e9:.1f} GB"], None
    if pair.tier not in tiers:
        tiers[pair.tier] = read_tier(sweep, pair, known.get(pair.tier), scores=scores)
    read = tiers[pair.tier]
    tokenizer, embedding = model.tokenizer, model.embedding
    if pair.config.replay > 0 and not read.data.replay:
        raise InputError(
            f"replay is {pair.config.replay}, but the tier has no replay rows; set replay to 0, or mark rows with `replay: true`"
        )
    card, largest = measure_tier(tokenizer, read.data, pair.config, evaluation=read.evaluation)
    if largest >= embedding:
        raise InputError(
            f"its rows hold token {largest} ({tokenizer.decode([largest])!r}), but the embedding has {embedding} rows: "
            "resize_token_embeddings was not called after a token was added"
        )
    if not card.rows:
        lost = card.long.sentence(pair.config.long_rows) if card.long.rows else "none has anything to learn"
        raise InputError(f"no row is left to train on: {lost}")
    notes = [f"tier {pair.tier}: {note}" for note in card.notes]
    knows_windows = sweep.model_source(pair.model).gpus_per_worker and pair.config.precision == "bf16"
    window = 0 if knows_windows else model.window
    if 0 < window < card.longest:
        fault = (
            f"rows of {card.longest} tokens exceed the model's attention window of {window}, which attention on a CPU or in fp32 "
            f"does not know; set trainer.max_length to {window} or less, or train in bf16 on a GPU (trainer.precision, "
            f"models.{pair.model}.gpus_per_worker)"
        )
        notes.append(f"tier {pair.tier} with model {pair.model}: {_left_to_the_loop(sweep, fault)}")
    notes += _notes_on_rows(pair, card, model)
    if read.evaluation is not None and read.evaluation.seen:
        notes.append(warning(sweep, pair.tier, read.data, read.evaluation))
    how = {"long_rows": pair.config.long_rows, "replay": pair.config.replay > 0}
    return notes, TierRow(sweep.id, model=pair.model, tier=pair.tier, **how, **card.to_json())


def _size(path: str) -> int | None:
    """Returns the bytes of a tier's files, 0 for one that ships; None where there is no such file."""
    if path == "builtin":
        return 0
    if is_remote(path):
        return sum(file.size for file in listing(path).values())
    file = Path(path).expanduser()
    return file.stat().st_size if file.is_file() else None


def _notes_on_rows(pair: Pair, card: TierCard, model: KnownModel) -> Iterator[str]:
    """Yields what there is to say of a tier's rows under a model's template."""
    which = f"tier {pair.tier} with model {pair.model}"
    if card.measured < card.conversations:
        yield f"{which}: all rows were rendered, {card.measured} of {card.conversations} of them tokenised"
    if card.long.rows:
        yield f"{which}: {card.long.sentence(pair.config.long_rows)}"
    if model.context < card.longest:
        yield (
            f"warning: {which}: rows of up to {card.longest} tokens, but its context is {model.context} "
            "(max_position_embeddings, or what YaRN makes of it)"
        )
    if card.refused:
        first = card.refused[0]
        yield (
            f"{which}: {len(card.refused)} rows are left out, since the chat template refuses them; the first: "
            f"{first.where}: {first.reason}"
        )
    if card.unknown:
        yield (
            f"warning: {which}: {card.unknown} of {card.tokens} tokens are {model.tokenizer.unk_token!r}, which stands for "
            "text that the tokenizer cannot write: it is lost to the model"
        )


def read_tier(sweep: Sweep, pair: Pair, data: TierData | None = None, *, scores: bool = True) -> ReadTier:
    """Reads a tier, unless that was done, and with `scores` looks for the evaluation's prompts in it.

    Raises:
        InputError: it cannot be read.
    """
    from cluster.preflight.contamination import evaluation_prompts, tier_overlap

    source = sweep.tier_source(pair.tier)
    data = data or load(pair.tier, source, seed=pair.config.seed)
    prompts = evaluation_prompts(sweep) if scores and source.path != "builtin" else ()
    return ReadTier(data, tier_overlap(data, prompts))
