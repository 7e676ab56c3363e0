"""The tokenizer of a GGUF file."""

import ctypes
import json
from collections.abc import Mapping, Sequence

import llama_cpp as llama
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from sqs_codec.system._base import chat
from sqs_codec.system.llama_cpp._model import USER_DEFINED, Model

SAMPLING = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
"""Names of the fields of `sqs_codec.Sampling` in GGUF files."""

CONTROL = llama.LLAMA_TOKEN_ATTR_CONTROL
"""Control tokens. Some of `USER_DEFINED` are reserved, too."""


class Tokenizer(chat.Tokenizer):
    """The tokenizer, chat template and stop tokens of a GGUF file.

    Its `fingerprint` and `vocabulary` are those of the Hugging Face tokenizer that the
    file was made from, without padding.
    """

    def __init__(self, model: Model) -> None:
        self._model, self.vocab_size = model, model.vocab_size
        self.fingerprint, self.vocabulary = model.fingerprint, model.vocabulary
        # llama.cpp has more stop tokens, chosen by spelling. It would include ``</s>``,
        # which some models write as HTML.
        ends = llama.llama_vocab_eos(model.vocab), llama.llama_vocab_eot(model.vocab)
        self.stop = frozenset(token for token in ends if token >= 0)
        template = llama.llama_model_chat_template(model.pointer, None)
        self.has_template = template is not None
        self._template = template.decode() if template else ""
        self.sampling = _sampling(model)
        bos = llama.llama_vocab_bos(model.vocab)
        self.bos = bos if llama.llama_vocab_get_add_bos(model.vocab) else None
        self._found = {
            i: word
            for word, i in self.vocabulary.items()
            if (kind := model.attributes(i)) & CONTROL
            or (kind & USER_DEFINED and chat.writes(self._template, word))
        }

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Tokenize a text without a template; with `special`, parse special tokens."""
        return self._model.tokenize(text, ends=True, spells=special)

    def _tokenize(self, text: str, *, ends: bool) -> list[int]:
        return self._model.tokenize(text, ends=ends, spells=True)

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        model = self._model
        formatter = Jinja2ChatFormatter(
            self._template,
            bos_token=model.word(llama.llama_vocab_bos(model.vocab)),
            eos_token=model.word(llama.llama_vocab_eos(model.vocab)),
        )
        return str(formatter(messages=list(messages)).prompt)

    def _reserved(self) -> dict[int, str]:
        return self._found

    def _decode(self, ids: Sequence[int], **_: bool) -> str:
        return b"".join(map(self._piece, ids)).decode(errors="replace")

    def _spell(self, token: int) -> object:
        return ""  # no token counts as a byte token: `_decode` handles bytes

    def _piece(self, token: int) -> bytes:
        """Return a token's UTF-8 bytes, perhaps not whole; none if it is special."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama.llama_token_to_piece(
                self._model.vocab, token, buffer, size, 0, False
            )
            if count >= 0:
                return buffer.raw[:count]
            size = -count


def _sampling(model: Model) -> dict[str, float]:
    """Return the file's fields of `sqs_codec.Sampling`."""
    found, buffer = {}, ctypes.create_string_buffer(64)
    for name, key in SAMPLING.items():
        path = f"general.sampling.{key}".encode()
        if llama.llama_model_meta_val_str(model.pointer, path, buffer, 64) > 0:
            found[name] = json.loads(buffer.value)
    return found
