"""A teacher file in the Hugging Face ``Trainer``."""

from typing import Any

import torch
from transformers import Trainer

from sqs_codec import distill
from sqs_codec.torch import distillation_loss

__all__ = ["DistillationTrainer"]


class DistillationTrainer(Trainer):
    """A ``Trainer`` that minimizes `sqs_codec.torch.distillation_loss`.

    The loss of a step is the mean over all its distributions, across batches and
    processes; ``evaluate()`` returns the mean over the data set's. Texts that fill the
    last batches of several processes count again. There are no labels, so settings for
    labels, such as ``label_smoothing_factor`` and ``compute_metrics``, have no effect.
    Combine it with your own subclass as ``class Mine(DistillationTrainer, Yours)``.

    Parameters
    ----------
    *args, **kwargs
        Arguments of ``Trainer``. Data sets are results of `sqs_codec.distill.load`, or
        parts of them; the default ``data_collator`` is `sqs_codec.distill.collate`.
    temperature : float
        The student's temperature in `sqs_codec.torch.distillation_loss`.
    """

    def __init__(self, *args: Any, temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **{"data_collator": distill.collate, **kwargs})
        self.temperature = temperature
        # Otherwise, a Trainer would divide by the number of batches again.
        self.model_accepts_loss_kwargs = True

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Return the batches of a step, and their number of distributions."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        found = sum(len(batch.places) for batch in batches)
        rows = torch.tensor(found, device=self.args.device)
        if self.args.average_tokens_across_devices:
            rows = self.accelerator.reduce(rows)
        return batches, rows

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return a batch's share of a step's loss; outside a step, the batch's mean."""
        tokens: int = inputs.vocab_size - inputs.tail
        student: Any = self.model
        own = student.get_input_embeddings().num_embeddings
        if own < tokens:  # a model on an accelerator wouldn't explain its error
            raise ValueError(
                f"the student has {own} tokens, but the file has {tokens}: if both use "
                f"the same tokenizer, call model.resize_token_embeddings({tokens})"
            )
        outputs = model(**inputs)
        loss = distillation_loss(outputs.logits, inputs, temperature=self.temperature)
        if num_items_in_batch is not None:
            loss = loss * len(inputs.places) / num_items_in_batch
            if self.args.average_tokens_across_devices:  # gradients are averaged
                loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, *_: Any, **__: Any
    ) -> tuple[Any, Any, None]:
        """Return a batch's loss and logits."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        rows = len(inputs.places)
        self._evaluated += torch.tensor([loss.item() * rows, rows])
        return loss, None if prediction_loss_only else outputs.logits, None

    def evaluation_loop(
        self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> Any:
        """Evaluate with the mean over rows instead of over batches."""
        self._evaluated = torch.zeros(2, dtype=torch.float64)  # sum, number of rows
        kwargs["metric_key_prefix"] = metric_key_prefix
        output: Any = super().evaluation_loop(*args, **kwargs)
        sums = self.accelerator.reduce(self._evaluated.float().to(self.args.device))
        output.metrics[f"{metric_key_prefix}_loss"] = (sums[0] / sums[1]).item()
        return output
