"""Leave out what isn't installed here: `make test-llama`, `-ray` and `-vllm` run it."""

from importlib.util import find_spec

collect_ignore = [
    place
    for package in ("llama_cpp", "ray", "vllm")
    if find_spec(package) is None
    for place in (
        f"sqs_codec/{package}",
        f"sqs_codec/{package}.py",
        f"tests/{package}",
    )
]
