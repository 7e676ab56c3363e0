"""The command ``sqs proxy``: a local endpoint for chat clients."""

import argparse

from sqs_codec.cli import drafting, listening, options

DESCRIPTION = """\
Runs an endpoint on this machine for clients with the OpenAI API. Like sqs generate,
it drafts here and decodes with sqs serve. Its page at / shows which tokens the draft
predicted, the speed and the bytes.

Without --draft, the draft is a small model that comes with the package, for the
default target of sqs serve. To serve other machines, it needs a certificate and an
API key, with SQS_API_KEY or --api-key.
"""

EXAMPLES = """\
examples:
  sqs proxy --server localhost:8743 --insecure
  SQS_TOKEN=... sqs proxy --server llm.example.org:8743 --cert server.pem \\
      --draft Qwen2.5-0.5B-Instruct-Q4_0.gguf
  SQS_API_KEY=$(openssl rand -hex 16) sqs proxy --server llm.example.org:8743 \\
      --listen 0.0.0.0:8080 --tls-cert cert.pem --tls-key key.pem
"""

CONTEXT = 4096
"""Context length of a draft in llama.cpp, per client."""


def fill(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("clients").add_argument
    listening.add_clients(add, "127.0.0.1:8080", "sqs")
    said = "maximum number of simultaneous completions"
    add("--clients", **options.number(int, 1, 1024), default=8, help=said)
    drafting.add_server(parser.add_argument_group("server").add_argument)
    add = parser.add_argument_group("defaults for requests").add_argument
    options.add_sampling(add, "temperature of the target")
    kept = options.number(int, 1, metavar="K")
    add("--top-k", **kept, help="sample from the K most probable tokens")
    add = parser.add_argument_group("what is sent").add_argument
    drafting.add_mode(add)
    options.add_prior(add)
    drafting.add_model(parser.add_argument_group("model").add_argument)
    parser.set_defaults(kept=None, alpha=None)


def run(args: argparse.Namespace) -> int:
    listening.check(args)
    return drafting.carry_out(args, _serve, "proxy")


def _serve(args: argparse.Namespace) -> None:
    drafting.connect(args).close()  # fails before the model is loaded

    from sqs_codec.system.proxy import Completer, make_app

    draft, tokenizer = drafting.load(args, CONTEXT)
    completer = Completer(
        draft,
        tokenizer,
        lambda: drafting.connect(args),
        server=args.server,
        clients=args.clients,
        settings=drafting.settings(args, draft.vocab_size, tokenizer),
        modes=drafting.modes(args),
        prefer=args.prefer,
    )
    completer.check()
    app = make_app(
        completer,
        names=args.model_name,
        sampling=drafting.sampling(args, tokenizer),
        api_key=args.api_key,
        hosts=args.allow_host,
        origins=args.allow_origin,
    )
    said = f"Proxy for {args.server}: API at {{url}}/v1, page at {{url}}."
    listening.run(app, args, said, clients=args.clients)
