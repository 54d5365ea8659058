"""A tokenizer that is real and small, and a model folder around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MAX_MODEL_LEN = 64
_TEXT = "你好世界，并行处理器的线程束与共享内存。Hello world, the kernel runs 32 threads of a warp. "
_VOCABULARY = 360  # the 256 bytes, the special tokens, and some merges: most characters take several tokens


def build_tokenizer() -> Any:
    """Return a ``PreTrainedTokenizerFast`` trained on a few words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    bpe.train_from_iterator([_TEXT] * 10, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHATML
    return tokenizer


def write_model_folder(folder: Path, **config: Any) -> Path:
    """Write ``config.json`` and the tokenizer's files, and return the folder."""
    defaults = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": MAX_MODEL_LEN}
    build_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(defaults | config), encoding="utf-8")
    return folder
