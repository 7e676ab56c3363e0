"""openai, litellm, langchain-openai and lm-eval; clients.mjs has JavaScript's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import litellm
import openai
import pytest
from langchain_openai import ChatOpenAI

from tests.clients.conftest import KEY, ROOT

pytestmark = pytest.mark.smoke
MESSAGES: Any = [{"role": "user", "content": "Why is the sea salty?"}]
CLOCK: Any = {"type": "function", "function": {"name": "clock", "parameters": {}}}
SHORT: Any = {"max_tokens": 12, "seed": 7}
TASK = """\
task: asked
output_type: generate_until
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
generation_kwargs: {{max_gen_toks: 12}}
doc_to_text: "{{{{ask}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: exact_match}}]
"""


def test_litellm(proxy):
    given = {"api_base": proxy, "api_key": KEY, "messages": MESSAGES, **SHORT}
    whole = litellm.completion("openai/sqs", **given, tools=[CLOCK])
    chunks = litellm.completion("openai/sqs", **given, stream=True)
    streamed = "".join(one.choices[0].delta.content or "" for one in chunks)
    assert streamed == whole.choices[0].message.content != ""
    assert whole.usage.completion_tokens
    with pytest.raises(litellm.NotFoundError, match="unknown model 'gpt-5'"):
        litellm.completion("openai/gpt-5", **given)
    with pytest.raises(litellm.BadRequestError, match="presence_penalty"):
        litellm.completion("openai/sqs", **given, presence_penalty=1)


def test_langchain(proxy):
    model = ChatOpenAI(model="sqs", base_url=proxy, api_key=KEY, **SHORT)
    said = model.bind_tools([CLOCK]).invoke(MESSAGES)
    assert said.text == "".join(piece.text for piece in model.stream(MESSAGES)) != ""
    assert said.usage_metadata["output_tokens"]
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        model.bind_tools([CLOCK], tool_choice="any").invoke(MESSAGES)
    form = {"title": "said", "type": "object", "properties": {}}
    with pytest.raises(openai.BadRequestError, match="response_format"):
        model.with_structured_output(form).invoke(MESSAGES)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("local-chat-completions", ["/chat/completions", "--apply_chat_template"]),
        (
            "local-completions",
            [
                "/completions,tokenizer_backend=None,tokenized_requests=False",
                *("--batch_size", "2"),
            ],
        ),
    ],
)
def test_lm_eval(proxy, tmp_path, model, options):
    """With a task of two questions."""
    data = tmp_path / "data.jsonl"
    asked = [{"ask": ask, "answer": "salty"} for ask in ("The sea is", "Salt is")]
    data.write_text("\n".join(map(json.dumps, asked)))
    (tmp_path / "task.yaml").write_text(TASK.format(data=data))
    path, *more = options
    command = [sys.executable, "-m", "lm_eval", "--model", model, "--tasks", "asked"]
    command += ["--model_args", f"model=sqs,max_retries=1,base_url={proxy}{path}"]
    done = subprocess.run(
        [*command, "--include_path", str(tmp_path), *more],
        env=os.environ | {"OPENAI_API_KEY": KEY, "HF_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert "|exact_match|" in done.stdout, done.stdout


def test_javascript(proxy):
    program = Path(__file__).with_name("clients.mjs").read_text("utf-8")
    packages = ROOT / "build" / "clients"
    node = str(packages / "node_modules" / ".bin" / "node")
    command = [node, "--input-type=module", "-", proxy, KEY]
    done = subprocess.run(command, cwd=packages, input=program, text=True)
    assert done.returncode == 0
