"""Going on with a grown model's training: the param groups that its optimizer's state was written for.

    model = AutoModelForCausalLM.from_pretrained("wide")
    optimizer = torch.optim.AdamW(param_groups(model, "wide"))
    trainer = Trainer(model, arguments, train_dataset=data, optimizers=(optimizer, None))
    trainer.train(resume_from_checkpoint="wide")

A Trainer left alone makes two groups, and would refuse the state of more. Without a Trainer, load "optimizer.pt" (and
"scheduler.pt" into a scheduler made on that optimizer) with torch.load(..., weights_only=True).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelsurgeon.errors import SourceError

OPTIMIZER = "optimizer.pt"
WRITTEN = ("params", "param_names", "initial_lr")  # by torch itself


def param_groups(model: Any, folder: str | Path) -> list[dict[str, Any]]:
    """What to build torch.optim.AdamW with, so that it can load the folder's optimizer.pt.

    model  the one that the folder holds, as `transformers` loads it
    Raises SourceError where the folder has no grown state, or one of another model.
    """
    from modelsurgeon.training.optimizer import read_state

    path = Path(folder) / OPTIMIZER
    state, parameters = read_state(path), dict(model.named_parameters())
    groups = []
    for group in state.get("param_groups", ()):
        if "param_names" not in group:
            raise SourceError(f"{path}: its groups name no parameters; expected a state that widen --optimizer wrote")
        options = {key: value for key, value in group.items() if key not in WRITTEN}
        unknown = [name for name in group["param_names"] if name not in parameters]
        if unknown:
            raise SourceError(f"{path}: the model has no parameter {unknown[0]!r}; is it the state of another one?")
        named = [(name, parameters.pop(name)) for name in group["param_names"]]
        groups.append({**options, "lr": group.get("initial_lr", group["lr"]), "params": named})
    trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
    if trained or not groups:
        raise SourceError(f"{path}: no group has the model's {trained[0]!r}" if trained else f"{path}: no param groups")
    return groups
