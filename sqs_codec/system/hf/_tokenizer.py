"""Tokenizers from Hugging Face."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqs_codec import vocabulary_fingerprint
from sqs_codec.system._base import chat
from sqs_codec.system.hf._models import HFModel, HFTokenizer, stop_tokens, vocab_size
from sqs_codec.system.session import Sampling


class Tokenizer(chat.Tokenizer):
    """A tokenizer of transformers, with its chat template and stop tokens.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        With None nothing can be encoded.
    model : transformers.PreTrainedModel, optional
        Its ``generation_config`` has stop tokens, and what `sampling` says.
    """

    def __init__(
        self, tokenizer: HFTokenizer | None, model: HFModel | None = None
    ) -> None:
        own: HFTokenizer = tokenizer
        self._own, size, given = own, None, {}
        if model is not None:
            size = vocab_size(model, own)
            given = model.generation_config.to_diff_dict()
        self.fingerprint = b""
        if own is not None:
            self.fingerprint = vocabulary_fingerprint(own.get_vocab(), size)
        self.stop = stop_tokens(model, own)
        self.has_template = getattr(own, "chat_template", None) is not None
        self.sampling = known_sampling(given)

    def _tokenize(self, text: str, *, ends: bool) -> list[int]:
        return list(self._own.encode(text, add_special_tokens=ends))

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        fill = self._own.apply_chat_template
        return str(fill(messages, add_generation_prompt=True, tokenize=False))

    def _reserved(self) -> dict[int, str]:
        unknown = self._tokenize(chat.OPEN, ends=False)
        added, template = self._own.added_tokens_decoder, str(self._own.chat_template)
        return chat.reserved(added, template, unknown)

    def _decode(self, ids: Sequence[int], **options: bool) -> str:
        # Cleaning up would drop spaces of the text.
        return str(self._own.decode(ids, clean_up_tokenization_spaces=False, **options))

    def _spell(self, token: int) -> object:
        return self._own.convert_ids_to_tokens(token)


def known_sampling(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a generation config has for `Sampling`."""
    known = Sampling().config()
    return {name: config[name] for name in known if config.get(name) is not None}
