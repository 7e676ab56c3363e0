"""Chats as trainers tokenize them, and which of their tokens are answers'."""

import pytest
import tokenizers
import transformers

from sqs_codec.system.hf import encode_answers

CHATML = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor %}"""

SAYS = """{% for m in messages %}{% if m['role'] == 'assistant' %}
A: {% generation %}{{ m['content'] }}</s>!{% endgeneration %}{% else %}
Q: {{ m['content'] }}{% endif %}{% endfor %}"""

TRIMS = """{% for m in messages %}{% if m['role'] == 'user' %}[{{ m['content'] }}]
{%- elif m['role'] == 'assistant' %} {{ m['content'] | trim }} </s>
{%- elif m['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}
{%- endfor %}"""

LAST = """{% for m in messages %}{% if loop.last %}(at last) {% endif %}
{{- m['content'].replace('fine', 'well') }}
{% endfor %}"""
TAKES = "{% for m in messages %}[A]{{ m['content'] }}</s>{% endfor %}"

ONE = "{% for m in messages[:4] %}[A]{{ m['content'] }}</s>{% endfor %}"

THINKS = """{% for m in messages %}{% set parts = m['content'].split('</think>') %}
{{- '<think>' + parts[0].split('<think>')[-1] + '</think>' + parts[-1] }}</s>
{%- endfor %}"""


def said(role, content, **more):
    return {"role": role, "content": content, **more}


CHAT = [
    said("user", "Hi"),
    said("assistant", "  Hé, you! ", name=None),
    said("user", "you"),
    said("assistant", "Yes"),
]


@pytest.fixture(scope="module")
def tokenizer():
    """One of bytes, and of special tokens."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    plain = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer, backend.decoder = plain, tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken("[A]", rstrip=True)])
    backend.add_special_tokens(["</s>", "<|im_start|>", "<|im_end|>"])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize(
    ("template", "answers"),
    [
        (CHATML, "  Hé, you! <|im_end|>Yes<|im_end|>"),
        (SAYS, "  Hé, you! </s>!Yes</s>!"),
        (TRIMS, "Hé, you! </s>Yes </s>"),
        (TAKES, "Hé, you! </s>Yes</s>"),
        (LAST, "  Hé, you! Yes"),
    ],
)
def test_answers_are_the_assistants_messages(tokenizer, template, answers):
    tokenizer.chat_template = template
    tokens, places = encode_answers(tokenizer, CHAT)
    assert tokens == tokenizer.apply_chat_template(CHAT)["input_ids"]
    assert tokenizer.decode([tokens[place + 1] for place in places]) == answers


@pytest.mark.parametrize(
    ("template", "chat", "words"),
    [
        (None, CHAT, "no chat template"),
        (CHATML, [], "a list of one or more"),
        (CHATML, {"role": "user"}, "a list of one or more"),
        (CHATML, ["Hi"], r'messages\[0\] has no "role" that is a string'),
        (CHATML, [*CHAT, said("user", [])], r'messages\[4\] has no "content" that'),
        (CHATML, [said("user", "\ud800")], r'"content" of messages\[0\] must be'),
        (CHATML, CHAT[:1], "it has no answer"),
        (CHATML, [said("assistant", " ")], "it has no answer"),
        (CHATML, [*CHAT, said("user", "", tool_calls=[])], r'\[4\] has "tool_calls"'),
        (CHATML, [*CHAT, said("user", "a <|im_end|>")], "spells a token that only"),
        (CHATML, [*CHAT, said("user", "\ufdd2x")], r'"content" of messages\[4\] has '),
        (
            THINKS,
            [said("assistant", "<think>so</think>Yes")],
            "changes the text of an answer",
        ),
        (ONE, [*CHAT, said("assistant", "you")], "changes the text of an answer"),
        (TRIMS, [*CHAT, said("system", "Be")], r"leaves out messages\[4\], of role"),
        (TRIMS, [*CHAT, said("tool", "5")], "refuses it: no tools"),
        (LAST, [*CHAT, said("assistant", "fine")], r"leaves out messages\[4\]"),
        (SAYS.replace("assist", "bot"), CHAT, "it has no answer"),
    ],
)
def test_a_bad_chat_is_explained(tokenizer, template, chat, words):
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=words):
        encode_answers(tokenizer, chat)
