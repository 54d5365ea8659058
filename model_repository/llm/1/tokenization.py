"""Text to token ids and back, whole batches at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from .chat_template import ChatTemplate, Message
from .errors import InvalidArgument, StartupError, first_line
from .logs import logger
from .segments import Segmenter, segmenter

# Incomplete UTF-8 at the end of a decoded text shows as this; vLLM's own detokenizer holds it back likewise.
_REPLACEMENT = "\ufffd"
_CHARACTER_TOKENS = 4  # the most tokens that one UTF-8 character can be spread over


class Tokenization:
    """The model's tokenizer and chat template.

    Works on the Rust tokenizer's batch calls, which use several cores and release the interpreter's lock. A tokenizer
    without a Rust implementation is used through its Python interface.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        self._segmenter: Segmenter | None = None
        if self._backend is not None:
            self._backend.no_truncation()
            self._backend.no_padding()
            self._segmenter = segmenter(self._backend.to_str(), partial(self._encode_batch, add_special_tokens=False))
        source = getattr(tokenizer, "chat_template", None)
        self._template = ChatTemplate(self._render_in_full, source if isinstance(source, str) else None)
        self._has_template = bool(source)
        self._added = dict(tokenizer.get_added_vocab())

    @staticmethod
    def load(model_dir: str, trust_remote_code: bool) -> Tokenization:
        """Load the tokenizer of a model folder. Raises :class:`StartupError`."""
        from transformers import AutoTokenizer  # takes seconds to import; the echo engine does without

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                model_dir, trust_remote_code=trust_remote_code, local_files_only=True
            )
        except Exception as exc:  # the library raises anything from KeyError to OSError here
            raise StartupError(f"the tokenizer in {model_dir} cannot be loaded: {first_line(exc)}") from exc
        if not getattr(tokenizer, "chat_template", None):
            logger.warning("the model has no chat template: messages are joined by blank lines")
        return Tokenization(tokenizer)

    @property
    def vocab_size(self) -> int:
        """Token ids the tokenizer knows, added tokens included."""
        return len(self._tokenizer)

    @cached_property
    def needs_context(self) -> bool:
        """Whether a token's text depends on those before it, as a word's first space does with SentencePiece's.

        Then an answer's text is not that of its tokens alone, but the engine's, which knows the prompt.
        """
        return type(getattr(self._backend, "decoder", None)).__name__ != "ByteLevel"

    @cached_property
    def most_characters_a_token(self) -> float:
        """No token stands for more characters than this. Infinite where that cannot be told.

        With tokens of bytes it is the longest of the vocabulary; Unicode's composed form can be a quarter as long.
        """
        if self.needs_context:  # an unknown word of any length may be one token
            return math.inf
        return 4 * max(map(len, self._tokenizer.get_vocab()))

    @cached_property
    def opens_think(self) -> bool:
        """Whether a rendered chat ends within a think block, so that completions begin with the model's thoughts."""
        try:
            text = self.render_chat([{"role": "user", "content": "?"}])
        except InvalidArgument:  # a template that wants more than a question
            return False
        return text.rfind("<think>") > text.rfind("</think>")

    def special_token_id(self, text: str) -> int | None:
        """The id of an added token (``<|im_end|>``) that is spelled ``text``, else ``None``."""
        return self._added.get(text)

    def render_chat(self, messages: Sequence[Message]) -> str:
        """Apply the chat template. Raises :class:`InvalidArgument` when the template refuses the conversation."""
        try:
            return self._template.render(messages)
        except Exception as exc:  # templates call raise_exception() and run any Jinja expression
            raise InvalidArgument(f"messages: the chat template refuses them: {first_line(exc)}") from exc

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Tokenize N texts in one call. Lone surrogates, which have no UTF-8 form, raise :class:`InvalidArgument`."""
        try:
            if self._backend is None:
                encoded: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=add_special_tokens).input_ids
                return encoded
            if self._segmenter is not None and not add_special_tokens:
                return self._segmenter.encode(texts)
            return self._encode_batch(texts, add_special_tokens=add_special_tokens)
        except (UnicodeEncodeError, TypeError) as exc:
            raise InvalidArgument(f"the text cannot be encoded as UTF-8: {first_line(exc)}") from exc

    def _encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        assert self._backend is not None
        encode_batch = getattr(self._backend, "encode_batch_fast", self._backend.encode_batch)
        return [encoding.ids for encoding in encode_batch(list(texts), add_special_tokens=add_special_tokens)]

    def decode(self, sequences: Sequence[Sequence[int]], *, skip_special_tokens: bool) -> list[str]:
        """Decode N sequences of token ids in one call; characters cut off at the end are left out."""
        texts = self._decode_batch(sequences, skip_special_tokens)
        for row, text in enumerate(texts):
            if text.endswith(_REPLACEMENT):
                texts[row] = self._decode_complete(sequences[row], text, skip_special_tokens)
        return texts

    def _decode_complete(self, ids: Sequence[int], text: str, skip_special_tokens: bool) -> str:
        """Decode the longest beginning that does not end within a character.

        Where going back by one character's tokens finds none, the end is no text at all and is cut from ``text``:
        going on would cost seconds for thousands of such tokens.
        """
        for end in range(len(ids) - 1, max(len(ids) - _CHARACTER_TOKENS, 0) - 1, -1):
            (beginning,) = self._decode_batch([ids[:end]], skip_special_tokens)
            if not beginning.endswith(_REPLACEMENT):
                return beginning
        return text.rstrip(_REPLACEMENT)

    def _decode_batch(self, sequences: Sequence[Sequence[int]], skip_special_tokens: bool) -> list[str]:
        if self._backend is not None:
            decoded: list[str] = self._backend.decode_batch(
                [list(ids) for ids in sequences], skip_special_tokens=skip_special_tokens
            )
        else:
            decoded = self._tokenizer.batch_decode(sequences, skip_special_tokens=skip_special_tokens)
        return decoded

    def _render_in_full(self, messages: Sequence[Message]) -> str:
        if not self._has_template:
            return "\n\n".join(str(message["content"]) for message in messages)
        text: str = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return text


def model_max_length(model_dir: str, cap: int) -> int:
    """The model's own context length from its ``config.json``, at most ``cap`` tokens. Raises :class:`StartupError`."""
    config = json.loads(Path(model_dir, "config.json").read_text(encoding="utf-8"))
    text_config = config.get("text_config") or config
    try:
        own = int(text_config.get("max_position_embeddings") or cap)
    except (AttributeError, TypeError, ValueError) as exc:
        raise StartupError(f"{model_dir}/config.json: max_position_embeddings is no number") from exc
    return min(own, cap)
