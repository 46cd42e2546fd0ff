"""The tiny bases' tokenizer: one token a word in capitals, one a character otherwise, and a chat template.

A space belongs to the token after it ("LEGS 2 CAT" is LEGS, ▁2, ▁CAT), so that decoding gives the text back exactly.

The template is as short as one can be, because a tiny model pays for every token:

    <bos>SUM 3+4-2=<think>3+4=7;7-2=5</think>5<eos>      a reply that reasons
    <bos>SUM 3+4-2=<think></think>5<eos>                 a reply that answers at once

The generation prompt ends in <think>, as in many reasoning models; an assistant message without a thought gets an empty
one. So the same conversations train any model with a chat template of its own.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
THINK, END_THINK = "<think>", "</think>"
SPACE: Final = "▁"
PIECE: Final = f"{SPACE}?[A-Z]+|{SPACE}?[^A-Z{SPACE}]|{SPACE}"

CHAT_TEMPLATE: Final = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}"
    "{{- '<think>' -}}{%- generation -%}"
    "{%- if '</think>' in message.content -%}"
    "{{- message.content.split('<think>')[-1] -}}"
    "{%- else -%}{{- '</think>' + message.content -}}{%- endif -%}"
    "{{- eos_token -}}{%- endgeneration -%}"
    "{%- else -%}{{- message.content -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<think>' -}}{%- endif -%}"
)


def reply(trace: str | None, target: str) -> str:
    """Returns an assistant message: the thought in tags, then the answer; the answer alone where there is no trace."""
    return target if trace is None else f"{THINK}{trace}{END_THINK}{target}"


def build_tokenizer(texts: Iterable[str]) -> Any:
    """Returns a `PreTrainedTokenizerFast` that knows every piece of `texts` and all ASCII letters, digits and signs."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = _model({})
    split = tokenizer.pre_tokenizer
    pieces = set(string.ascii_letters + string.digits + "+-*/=<>;,.:?!'()")
    for text in set(texts):
        pieces.update(piece for piece, _ in split.pre_tokenize_str(text.replace(" ", SPACE)))
    words = [PAD, BOS, EOS, UNKNOWN, THINK, END_THINK, *sorted(pieces)]
    tokenizer = _model({word: i for i, word in enumerate(words)})
    tokenizer.add_special_tokens([PAD, BOS, EOS, UNKNOWN])
    tokenizer.add_tokens([THINK, END_THINK])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _model(words: dict[str, int]) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse()])
    return tokenizer
