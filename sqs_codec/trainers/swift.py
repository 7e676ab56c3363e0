"""A file of a teacher's distributions in ms-swift 4.6, as a plugin of its GKD.

``swift rlhf --rlhf_type gkd --external_plugins .../sqs_codec/trainers/swift.py
--teacher_model_server teacher.parquet --gkd_logits_topk 50 --beta 0 --lmbda 0``, and
``--temperature`` as the file's. Rows are found by the trainer's tokens. The student's
softmax is over its vocabulary, where ms-swift takes it over the list.
"""

from functools import cache
from typing import Any

from swift.rlhf_trainers import gkd_trainer, rollout_mixin
from swift.rlhf_trainers.gkd_loss import extract_active
from swift.version import __version__

from sqs_codec import distill
from sqs_codec.trainers._lists import stored_lists

if not __version__.startswith("4.6."):
    raise ImportError(f"it changes ms-swift 4.6 inside, and this is {__version__}")


@cache
def _opened(path: str) -> tuple[distill.Lookup, distill.Header]:
    data = distill.open(path)
    return distill.Lookup(data), data.header


def fetch(self: Any, chunks: list[dict[str, Any]]) -> None:
    """Give each micro-batch the lists of its tokens, [B, T, K]; a miss is an error."""
    lookup, header = _opened(self.teacher_configs[0].url)
    if header.tail or self.temperature != header.temperature:
        raise ValueError(
            f"temperature must be {header.temperature:g} and the file without a tail, "
            f"got {self.temperature:g} and a file with tail={header.tail}"
        )
    for chunk in chunks:
        inputs, k = chunk["teacher_model_inputs"], self.gkd_logits_topk
        tokens, filled = inputs["input_ids"], inputs["attention_mask"]
        wanted = inputs["labels"].roll(-1, 1) != -100
        fits = "the answers must be those of the file's texts"
        ids, logprobs = stored_lists(lookup, tokens, filled, wanted, k, fits)
        batch = chunk["gkd_batch"]
        batch.teacher_topk_indices, batch.teacher_topk_logprobs = ids, logprobs


def loss(
    logits: Any, teacher: Any, labels: Any, beta: float, temperature: float
) -> Any:
    """Return the sum of the forward KL divergences, and of how many rows."""
    if beta:
        raise ValueError(f"beta must be 0, got {beta:g}: only forward KL is linear")
    student, lists, count = extract_active(logits, teacher, labels)
    x, log_q = student.float() / temperature, lists.topk_logprobs
    log_p = x.gather(-1, lists.topk_indices) - x.logsumexp(-1, keepdim=True)
    return (log_q.exp() * (log_q - log_p)).sum(), count


gkd_trainer.gkd_loss = loss
gkd_trainer.GKDTrainer._fetch_and_assemble_teacher_logprobs = fetch
rollout_mixin.VLLMInferClient = lambda base_urls: None  # there is no server
