"""The callback in Lightning's own Trainer, where Lightning is installed (extra ``lightning``)."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.callbacks.loops import LABELS, Net, X, same

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed: pip install 'zeroloss[lightning]'")
from zeroloss.callbacks import LightningRecorder  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and the like


class Model(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, index):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def fit(tmp_path, callbacks, steps=10, checkpoint=None, seed=3):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    lightning.seed_everything(seed, verbose=False)
    model = Model()
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    loader = DataLoader(TensorDataset(X, LABELS), batch_size=8, shuffle=True)
    trainer.fit(model, loader, ckpt_path=checkpoint, weights_only=False)
    return trainer, model, torch.get_rng_state()


def recorder(**options):
    return LightningRecorder((X, LABELS), 2, loss="cross_entropy", rows=10, **options)


def test_training_is_untouched_and_recorded(tmp_path):
    _, plain, drawn = fit(tmp_path, [])
    callback = recorder()
    _, model, also = fit(tmp_path, [callback])
    assert same(dict(model.state_dict()), dict(plain.state_dict()))
    assert torch.equal(drawn, also)
    assert [probe.step for probe in callback.recorder.probes] == [0, 2, 4, 6, 8, 10]
    assert callback.recorder.probes[-1].gram_drift > 0
    assert next(iter(callback.recorder.probes[0].weight_drift)) == "net.first.weight"
    picked = recorder(module=lambda each: each.net)
    fit(tmp_path, [picked])
    ends = [(probe.loss, probe.smallest, probe.largest) for probe in callback.recorder.probes]
    assert [(probe.loss, probe.smallest, probe.largest) for probe in picked.recorder.probes] == ends


def test_a_checkpoint_carries_the_recording(tmp_path):
    callback = recorder()
    trainer, *_ = fit(tmp_path, [callback], steps=5)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    again = recorder()
    fit(tmp_path, [again], steps=10, checkpoint=tmp_path / "half.ckpt", seed=4)
    assert [probe.step for probe in again.recorder.probes] == [0, 2, 4, 6, 8, 10]
    assert again.recorder.probes[:3] == callback.recorder.probes[:3]
    assert again.recorder.probes[-1].gram_drift > again.recorder.probes[1].gram_drift > 0
