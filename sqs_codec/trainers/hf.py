"""A file of a teacher's distributions in Hugging Face's ``Trainer``.

Its loss is `sqs_codec.torch.distillation_loss`. Needs the extra ``[trainers]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

try:
    import torch
    from transformers import Trainer
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.trainers.hf", error, "trainers") from error

from sqs_codec._base import checks
from sqs_codec.torch import TeacherBatch, distillation_loss

__all__ = ["DistillationTrainer"]


class DistillationTrainer(Trainer):
    """A ``Trainer`` of a student, whose loss is against stored distributions.

    Data sets are files, as `sqs_codec.distill.open` opens them, or parts of them, with
    ``data_collator=sqs_codec.distill.collate``. The loss of a step is the mean over all
    its distributions, however they are spread over its batches and processes, and
    ``evaluate()`` gives the mean over all of the data set. It has no part of the texts
    themselves, so arguments for labels, as ``label_smoothing_factor``, do nothing. With
    a subclass of ``Trainer`` of yours, ``class Mine(DistillationTrainer, Yours)`` is
    both.

    Parameters
    ----------
    temperature : float
        The student's, as in `sqs_codec.torch.distillation_loss`.
    *args, **kwargs
        Those of the trainer.

    Raises
    ------
    ValueError
        In training, where the student has fewer tokens than the file, and what
        `sqs_codec.torch.distillation_loss` raises.
    TypeError
        There, where batches aren't those of ``collate``.
    """

    def __init__(self, *args: Any, temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.temperature = temperature
        # How a Trainer is told not to divide by the number of batches again.
        self.model_accepts_loss_kwargs = True

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Return the batches of a step, and how many distributions they have."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        rows = torch.tensor(sum(map(_rows_of, batches)), device=device)
        if self.args.average_tokens_across_devices:
            rows = self.accelerator.reduce(rows)
        return batches, rows

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch: its mean, or its part of that of a step."""
        rows = _rows_of(inputs)
        tokens = inputs.vocab_size - inputs.tail
        student: Any = self.model
        own = student.get_input_embeddings().num_embeddings
        if own < tokens:
            raise ValueError(
                f"the student has {own} tokens and the file has {tokens}: if both are "
                f"of one tokenizer, model.resize_token_embeddings({tokens}) makes room"
            )
        outputs = model(**inputs)
        loss = distillation_loss(outputs.logits, inputs, temperature=self.temperature)
        if num_items_in_batch is not None:
            loss = loss * rows / num_items_in_batch
            if self.args.average_tokens_across_devices:  # of which gradients are means
                loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: Any,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        """Return loss and logits of a batch, which has no labels."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        rows = _rows_of(inputs)
        self._evaluated[0] += loss.item() * rows
        self._evaluated[1] += rows
        return loss, None if prediction_loss_only else outputs.logits, None

    def evaluation_loop(
        self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> Any:
        """Evaluate; a Trainer alone would take the mean of the batches' losses."""
        self._evaluated = [0.0, 0.0]  # the sum of losses, and how many rows
        kwargs["metric_key_prefix"] = metric_key_prefix
        output: Any = super().evaluation_loop(*args, **kwargs)
        sums = torch.tensor(self._evaluated, device=self.args.device)
        loss, rows = self.accelerator.reduce(sums).tolist()
        output.metrics[f"{metric_key_prefix}_loss"] = loss / rows
        return output


def _rows_of(batch: Any) -> int:
    expected = "what data_collator=distill.collate makes, a TeacherBatch"
    checks.instance("a batch", batch, TeacherBatch, expected)
    return len(batch.places)
