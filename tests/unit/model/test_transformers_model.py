"""Loading a model folder: what is served, and the one line for each thing that may be wrong with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM

from llm_model.engines.transformers_memory import batch_limits, check_weights_fit
from llm_model.engines.transformers_model import LoadedModel, TransformersConfig, load_model
from llm_model.engines.transformers_row import EndTokens
from llm_model.errors import StartupError

Dtype = Literal["auto", "float16", "bfloat16", "float32"]
CPU = torch.device("cpu")
SHAPE = LlamaConfig(
    vocab_size=32,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=64,
    bos_token_id=1,
    eos_token_id=[2, 3],
)


@pytest.fixture(scope="module")
def complete_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 30 kB with float16 weights, and a tokenizer whose end token is 2."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    LlamaForCausalLM(SHAPE).half().save_pretrained(folder)
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, "<end>": 3, **{f"w{number}": number for number in range(4, 32)}}
    Tokenizer(WordLevel(words, unk_token="<unk>")).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def folder(complete_folder: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return Path(shutil.copytree(complete_folder, tmp_path / "model"))


def load(folder: Path, dtype: Dtype = "auto", **fields: Any) -> LoadedModel:
    return load_model(TransformersConfig(str(folder), dtype, **{"max_model_len": 64, "device": "cpu", **fields}))


def test_float16_checkpoint_is_computed_in_float32_on_a_cpu(complete_folder: Path) -> None:
    assert load(complete_folder).dtype == "float32"


def test_named_dtype_is_obeyed(complete_folder: Path) -> None:
    assert load(complete_folder, "bfloat16").dtype == "bfloat16"


def test_end_tokens_come_from_tokenizer_and_generation_config(complete_folder: Path) -> None:
    model = load(complete_folder)
    assert model.ends == EndTokens(primary=2, others=frozenset((3,)))
    assert model.vocab_size == 32
    assert model.limits.rows == 32


def test_decoding_skips_special_tokens_when_asked(complete_folder: Path) -> None:
    model = load(complete_folder)
    assert "w5" in model.decode([5, 2], True)
    assert "</s>" not in model.decode([5, 2], True)
    assert "</s>" in model.decode([5, 2], False)


def truncate_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def drop_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def pickle_the_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def name_unknown_architecture(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": ["NoSuchModel"], "model_type": "no_such"}))


def break_the_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def remove_the_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (shutil.rmtree, "does not exist"),
        (truncate_weights, "load the weights in .*(?i:header)"),
        (drop_a_tensor, r"lack 1 tensors, model\.layers\.1\.mlp\.up_proj\.weight"),
        (pickle_the_weights, "safetensors"),
        (name_unknown_architecture, "no_such"),
        (break_the_config, "read the configuration"),
        (remove_the_tokenizer, "load the tokenizer"),
    ],
)
def test_broken_folder_stops_the_start_with_one_line(folder: Path, damage: Callable[[Path], None], cause: str) -> None:
    damage(folder)
    with pytest.raises(StartupError, match=cause) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_cuda_that_is_not_there_stops_the_start(complete_folder: Path) -> None:
    if torch.cuda.is_available():
        assert load(complete_folder, device="cuda").device.type == "cuda"
        return
    with pytest.raises(StartupError, match="cuda"):
        load(complete_folder, device="cuda")


def test_key_value_cache_of_one_prompt_must_fit(complete_folder: Path) -> None:
    with pytest.raises(StartupError, match="too little memory: MAX_MODEL_LEN=1000000000000 needs"):
        load(complete_folder, max_model_len=10**12)


def test_weights_must_fit_in_the_type_they_are_computed_in(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as sparse:
        sparse.truncate(2**42)
    config = SimpleNamespace(dtype="float16")
    with pytest.raises(StartupError, match=r"too little memory: .* need 8192\.0 GiB as float32"):
        check_weights_fit(tmp_path, config, torch.float32, CPU)


def test_small_weights_fit(complete_folder: Path) -> None:
    check_weights_fit(complete_folder, SHAPE, torch.float32, CPU)


def test_cache_room_is_counted_in_tokens() -> None:
    per_token = 2 * 1 * 8 * 2 * 4  # layers, key-value heads, head size, keys and values, bytes
    wide, narrow = (batch_limits(SHAPE, dtype, CPU, 8, 64) for dtype in (torch.float16, torch.float32))
    assert wide.cache_tokens == pytest.approx(2 * narrow.cache_tokens, rel=0.2)
    assert 0 < narrow.cache_tokens * per_token < 2**42
