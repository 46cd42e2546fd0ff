"""What verl makes of an exported run.sh, by its own code: `python verl_program.py WORDS...`, with an interpreter that has verl.

WORDS are those behind `python3 -m` in run.sh. Its configuration is composed and checked, its data set read, its reward manager
asked, and a step's rows are cut into micro-batches as its workers cut them; generation, training and Ray do not run.
Prints one JSON object in its last line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any


def composed(words: list[str]) -> Any:
    """Returns the configuration with which its training would begin, checked."""
    import verl
    from hydra import compose, initialize_config_dir
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    with initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
        config = compose("ppo_trainer", overrides=words)
    validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    return config


def rewards(config: Any, tokenizer: Any, row: dict[str, Any]) -> list[float]:
    """Returns what its reward manager gives to a right and to a wrong reply."""
    import numpy as np
    import torch
    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager

    answer = row["reward_model"]["ground_truth"]
    out = []
    for said in (f"</think>{answer}", f"</think>{answer}{answer}"):
        ids = tokenizer(said, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        names = ("data_source", "reward_model", "extra_info")
        values = {name: np.array([row[name]], dtype=object) for name in names}
        data = DataProto.from_dict(
            tensors={"responses": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)},
            non_tensors=values,
        )

        async def asked(data: Any = data) -> Any:
            return await load_reward_manager(config, tokenizer).run_single(data)

        out.append(asyncio.run(asked())["reward_score"])
    return out


def micro_batches(config: Any) -> int:
    """Returns into how many parts a worker cuts its rows of a step."""
    import torch
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu
    from verl.workers.engine.utils import prepare_micro_batches

    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    rows = actor.ppo_mini_batch_size * rollout.n
    assert rows % gpus == 0  # as its workers assert
    data = TensorDict({"x": torch.zeros(rows // gpus, 1)}, batch_size=rows // gpus)
    tu.assign_non_tensor(data, use_dynamic_bsz=False, micro_batch_size_per_gpu=actor.ppo_micro_batch_size_per_gpu)
    return len(prepare_micro_batches(data)[0])


def main(*words: str) -> None:
    """See the module."""
    import verl
    from verl.utils.config import omega_conf_to_dataclass
    from verl.utils.dataset.rl_dataset import RLHFDataset
    from verl.workers.rollout.utils import get_max_position_embeddings

    config = composed(list(words[1:]))
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    assert gpus % (rollout.tensor_model_parallel_size * rollout.data_parallel_size) == 0  # as its workers assert
    model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    dataset = RLHFDataset(config.data.train_files, model.tokenizer, config.data)
    passes = len(dataset) // config.data.train_batch_size
    found = {
        "verl": verl.__version__,
        "rows": len(dataset),
        "prompt": dataset[0]["raw_prompt"],
        "rewards": rewards(config, model.tokenizer, dataset[0]),
        "tokens": rollout.max_model_len,  # beyond the context its rollout server does not start
        "context": get_max_position_embeddings(model.hf_config),
        "micro_batches": micro_batches(config),
        "steps": min(passes * config.trainer.total_epochs, config.trainer.total_training_steps),
        "saves": config.trainer.save_freq,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
