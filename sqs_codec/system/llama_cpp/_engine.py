"""The engine of a GGUF file."""

import threading
from concurrent.futures import Future

from sqs_codec.system._base.kinds import LLAMA_CPP
from sqs_codec.system.engine import BatchEngine, EngineConfig
from sqs_codec.system.llama_cpp._cloud import Cloud
from sqs_codec.system.llama_cpp._options import Options


def make_engine(config: EngineConfig) -> BatchEngine:
    # In a thread, so that signals don't wait for llama.cpp to load.
    loaded: Future[BatchEngine] = Future()

    def load() -> None:
        try:
            loaded.set_result(_load(config))
        except BaseException as error:
            loaded.set_exception(error)

    threading.Thread(target=load, daemon=True).start()
    return loaded.result()


def _load(config: EngineConfig) -> BatchEngine:
    if config.target is None:
        raise ValueError("llama.cpp's engine needs a GGUF file as its target")
    for name in "device", "dtype", "revision":
        if getattr(config, name) not in (None, "auto"):
            raise ValueError(f"{name} is for models of transformers: {LLAMA_CPP.why}")
    options = Options.from_config(config.options)
    cloud = Cloud(config.target, max_memory=config.max_memory << 20, options=options)
    return BatchEngine(
        cloud,
        summary=cloud.summary,
        tokenizer=cloud.fingerprint,
        target_ms=config.target_ms,
    )
