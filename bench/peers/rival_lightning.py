"""Lightning's learning-rate finder with its defaults; it takes no step size, so that of a case is only its start."""

from __future__ import annotations

import logging
import tempfile
import warnings

import lightning.pytorch as pl
import torch
from lightning.pytorch.tuner import Tuner
from rival_task import serve
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Model(pl.LightningModule):
    """Plain gradient descent on the mean squared error."""

    def __init__(self, net: nn.Module, lr: float) -> None:
        super().__init__()
        self.net, self.lr = net, lr

    def training_step(self, batch, index):  # noqa: ARG002
        """The loss of all rows."""
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        """Without momentum."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def answer(net: nn.Sequential, x: torch.Tensor, y: torch.Tensor, step: float) -> dict:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        options = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
        trainer = pl.Trainer(max_epochs=1000, default_root_dir=folder, enable_checkpointing=True, **options)
        loader = DataLoader(TensorDataset(x, y), batch_size=len(x))
        found = Tuner(trainer).lr_find(Model(net, step), train_dataloaders=loader)
        suggested = found.suggestion()
    if suggested is None:
        return {"said": "no suggestion"}
    return {"said": f"suggests lr = {suggested:.3g}", "suggested": suggested}


if __name__ == "__main__":
    serve(answer, lambda: {"lightning": pl.__version__})
