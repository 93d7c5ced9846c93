"""How to train a grown model: learning rates by tensor, and an optimizer's state that grows along.

    model = AutoModelForCausalLM.from_pretrained("wide")
    optimizer = torch.optim.AdamW(param_groups(model, "wide"))
    trainer = Trainer(model, arguments, train_dataset=data, optimizers=(optimizer, None))
    trainer.train(resume_from_checkpoint="wide")

A Trainer by itself makes two groups, and refuses a state with more. Without a Trainer, load "optimizer.pt" (and
"scheduler.pt" into a scheduler of that optimizer) with torch.load(..., weights_only=True).
"""

from modelsurgeon.training.trainer import param_groups

__all__ = ["param_groups"]
