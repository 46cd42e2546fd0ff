"""What a sweep asks of its checkpoints, put together with the models that are to answer and with what generates their replies.

An evaluation that cannot be carried out fails when the first checkpoint waits for it, hours after the sweep began, and
training goes on without scores; one that measures the same twice costs its time for nothing. Both are found here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from cluster.evals.interpreter import not_in_process, vllm_of
from cluster.preflight.cost import model_shape
from evaluators.engines.vllm import CPU_HEAD_SIZES
from evaluators.readiness import ENTROPY
from evaluators.suites.measured import measured
from evaluators.suites.registry import load_suite
from evaluators.test_time import Variant, parse_variant
from sweeps.config.names import TRAINER_METRICS
from sweeps.config.schema import Sweep
from sweeps.errors import Fault, InputError, nearest
from sweeps.plugins import SFT
from trainers.data.chat.template import ChatTemplate
from trainers.data.sources.download_cache import is_remote
from trainers.model.files.folder import check_model, checked_folder
from trainers.model.files.weights import check_weights
from trainers.model.recurrent.recurrence import is_recurrent

OF_TRAINER: Final = ("train", "perf")
"""Roles of metrics that the training loop reports."""


def evaluation_faults(sweep: Sweep, *, reach: bool, in_process: bool = False) -> Iterator[Fault]:
    """Yields everything of a sweep's evaluation that could not be carried out, or would measure nothing new.

    Args:
        reach: also look at models elsewhere, by the headers of their files. in_process: one process trains and scores.
    """
    try:
        known = measured(sweep.evaluation.spec)
    except InputError as e:
        yield Fault("evaluation.suite", str(e))
    else:
        yield from _metrics(sweep, known)
        yield from _variants(sweep)
    if in_process and sweep.evaluation.python is not None:
        yield Fault("evaluation.python", not_in_process(sweep.evaluation.python))
    shapes = _shapes(sweep, reach)
    yield from _recurrences(sweep, shapes)
    if not _by_transformers(sweep, in_process):
        yield from _engine(sweep, shapes)
    if (judge := sweep.evaluation.judge) is not None:
        try:
            _check_judge(judge)
        except InputError as e:
            yield Fault("evaluation.judge", str(e))


def evaluation_notes(sweep: Sweep, *, in_process: bool = False) -> Iterator[str]:
    """Yields what is good to know of a sweep's evaluation, a line each."""
    if _by_transformers(sweep, in_process) and _has_vllm(sweep):
        yield (
            "vLLM is installed here, and checkpoints are scored with transformers all the same: in one process they share the "
            "device that trains, and vLLM takes nine tenths of a device; on Ray evaluators have one of their own"
        )
    python = sweep.evaluation.python
    if python is None or in_process or (engine := _has_vllm(sweep)):
        return
    if engine is not None:
        yield f"evaluation.python: {python} has no vLLM for these devices; transformers answers there"
        return
    entropy = any(_is_entropy(metric) for _, metric in _goals(sweep))
    refused = f", and {ENTROPY} is refused when the sweep begins if it is, since vLLM does not measure it"
    yield (
        f"evaluation.python: {python} cannot be run on this machine, so whether vLLM is installed there is not known; `dipsweep "
        f"plan` takes it that it is{refused if entropy else ''}"
    )


def _goals(sweep: Sweep) -> list[tuple[str, str]]:
    """Returns the metrics that a sweep decides by, each with its place in the file."""
    goal = [("objective.metric", sweep.objective.metric)]
    return goal + [(f"constraints[{i}].metric", c.metric) for i, c in enumerate(sweep.constraints)]


def _is_entropy(metric: str) -> bool:
    return metric.partition(",")[0] == ENTROPY


def _metrics(sweep: Sweep, known: frozenset[str]) -> Iterator[Fault]:
    """Yields metrics that nothing measures: neither the suite nor, of `train/…` and `perf/…`, the training loop that ships."""
    for where, metric in _goals(sweep):
        if metric.partition("/")[0] not in OF_TRAINER:
            if metric not in known:
                yield Fault(
                    where,
                    f"'{metric}' is not measured by suite {sweep.evaluation.suite}{nearest(metric, known)}; "
                    f"measured: {', '.join(sorted(known))}",
                )
        elif sweep.trainer.loop != SFT:
            continue  # a loop of a package's own reports what it likes
        elif metric not in TRAINER_METRICS:
            listed = ", ".join(TRAINER_METRICS)
            yield Fault(where, f"got {metric!r}{nearest(metric, TRAINER_METRICS)}; expected one of {listed}")
        elif metric == "perf/mfu" and not sweep.trains_on_gpus:
            yield Fault(where, "got 'perf/mfu', which is measured on GPUs alone; expected perf/tokens_per_s")


def _variants(sweep: Sweep) -> Iterator[Fault]:
    """Yields settings of test time that ask what is asked already."""
    if not sweep.evaluation.test_time:
        return
    suite = load_suite(replace(sweep.evaluation.spec, items=1))
    seen: dict[Variant, str] = {}
    for i, text in enumerate(sweep.evaluation.test_time):
        variant, where = parse_variant(text), f"evaluation.test_time[{i}]"
        if variant in seen:
            yield Fault(where, f"got {text!r} beside {seen[variant]!r}, which is the same; expected each once")
        elif why := variant.fault(suite):
            yield Fault(where, f"got {text!r}, {why}")
        seen.setdefault(variant, text)


def _shapes(sweep: Sweep, reach: bool) -> dict[str, Mapping[str, Any]]:
    """Returns the config.json of every model that can be looked at from here, by name."""
    found = dict[str, Mapping[str, Any]]()
    for name in map(str, sweep.axis_values("model", sweep.default_model)):
        source = sweep.model_source(name)
        if reach or not is_remote(source.path):
            with contextlib.suppress(InputError):  # told already, as is one that is no object
                shape = model_shape(name, source)
                found |= {name: shape} if isinstance(shape, Mapping) else {}
    return found


def _recurrences(sweep: Sweep, shapes: Mapping[str, Mapping[str, Any]]) -> Iterator[Fault]:
    """Yields settings of test time that ask for recurrences, where a model has none to choose."""
    try:
        asked = [i for i, text in enumerate(sweep.evaluation.test_time) if parse_variant(text).r is not None]
    except InputError:
        return  # told by the suite
    for name, shape in shapes.items() if asked else ():
        if not is_recurrent(shape):
            kind = shape.get("model_type", "unknown")
            why = f"models.{name} (type {kind}) runs each layer once; expected models of recurrent depth alone"
            yield from (
                Fault(f"evaluation.test_time[{i}]", f"got {sweep.evaluation.test_time[i]!r}, but {why}") for i in asked
            )


def _engine(sweep: Sweep, shapes: Mapping[str, Mapping[str, Any]]) -> Iterator[Fault]:
    """Yields what vLLM cannot do, where it will generate; models of recurrent depth, and lm-eval's suites, never use it."""
    engine = _has_vllm(sweep)
    answered = {name: shape for name, shape in shapes.items() if not is_recurrent(shape)}
    if not engine or not answered or sweep.evaluation.suite.startswith("lm-eval:"):
        return
    place = f"in {sweep.evaluation.python}" if sweep.evaluation.python else "installed here"
    for where, metric in _goals(sweep):
        if _is_entropy(metric):
            yield Fault(
                where,
                f"got {metric!r}, but {engine} ({place}) answers for models.{next(iter(answered))} and does not say how likely "
                "other tokens were; expected ready/distinct or ready/self_bleu, or an environment without vLLM",
            )
    if engine == "vllm-cpu":
        for name, shape in answered.items():
            if (size := _head_size(shape)) not in (0, *CPU_HEAD_SIZES):
                yield Fault(
                    f"models.{name}",
                    f"has attention heads of {size}, and {engine} ({place}), which answers for it, takes "
                    f"{', '.join(map(str, CPU_HEAD_SIZES))}; expected such a model, or an environment without vLLM",
                )
    if engine == "vllm" and sweep.trains_on_gpus and not sweep.evaluation.gpus_per_worker:
        yield Fault(
            "evaluation.gpus_per_worker",
            f"got 0, but {engine} ({place}) takes the memory of a whole device, also of one that trains; expected 1, or a share "
            "of a device that evaluators have to themselves (run --in-process scores with transformers instead)",
        )


def _has_vllm(sweep: Sweep) -> str | None:
    """Returns as what vLLM is installed where evaluators run, empty where it is not, None where that cannot be seen from here."""
    evaluation = sweep.evaluation
    # An evaluator that reserves no GPU sees those of its machine all the same (`cluster.connect.environment`).
    gpu = True if evaluation.gpus_per_worker or sweep.trains_on_gpus else None
    return vllm_of(evaluation.python, gpu=gpu)


def _by_transformers(sweep: Sweep, in_process: bool) -> bool:
    """True where transformers answers, whatever is installed: one process trains and scores on the same GPU."""
    return in_process and sweep.trains_on_gpus


def _head_size(shape: Mapping[str, Any]) -> int:
    """Returns the size of an attention head by config.json; 0 where it does not say."""
    text = shape.get("text_config") or shape
    try:
        return int(text.get("head_dim") or int(text["hidden_size"]) // int(text["num_attention_heads"]))
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return 0


def _check_judge(folder: str) -> None:
    """Makes sure that a judge can be loaded and asked: it answers behind every checkpoint, the base model's first.

    Raises:
        InputError: it lies elsewhere, must not be loaded, its weights do not fit, or its chat template takes no question.
    """
    from trainers.model.load import load_tokenizer, model_without_weights

    if is_remote(folder):
        raise InputError(f"got {folder}; expected a folder that every node sees at this path")
    check_model(folder)
    found = checked_folder(folder)
    check_weights(found, model_without_weights(found))
    ChatTemplate(load_tokenizer(found)).render([{"role": "user", "content": "Is this a refusal?"}], prompt=True)
