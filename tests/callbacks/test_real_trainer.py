"""The callback in Hugging Face's own Trainer on a small BERT, where transformers is installed (extra ``transformers``)."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from tests.callbacks.loops import same

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'zeroloss[transformers]'")
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install 'zeroloss[transformers]'")
from zeroloss.callbacks import TrainerRecorder  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, on pinned memory and the like
os.environ.setdefault("HF_HUB_OFFLINE", "1")

GENERATOR = torch.Generator().manual_seed(2)
IDS = torch.randint(5, 60, (24, 8), generator=GENERATOR)
MASK = (torch.arange(8) < torch.randint(3, 9, (24, 1), generator=GENERATOR)).long()
LABELS = torch.randint(3, (24,), generator=GENERATOR)
DATA = ({"input_ids": IDS, "attention_mask": MASK}, LABELS)


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return len(IDS)

    def __getitem__(self, index):
        return {"input_ids": IDS[index], "attention_mask": MASK[index], "labels": LABELS[index]}


def small_bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=8,
        num_labels=3,
    )
    return transformers.BertForSequenceClassification(config)


def train(folder, callbacks, steps=6, resume=False, **options):
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="steps",
        save_steps=3,
        logging_strategy="no",
        seed=1,
        **options,
    )
    model = small_bert()
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Rows(), callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return model, torch.get_rng_state()


def recorder(**options):
    return TrainerRecorder(DATA, 2, rows=6, **options)


def test_training_is_untouched_and_recorded(tmp_path):
    plain, drawn = train(tmp_path / "a", [])
    callback = recorder(path=tmp_path / "probes")
    model, also = train(tmp_path / "b", [callback])
    assert same(dict(model.state_dict()), dict(plain.state_dict()))
    assert torch.equal(drawn, also)
    probes = callback.recorder.probes
    assert [probe.step for probe in probes] == [0, 2, 4, 6]
    assert probes[-1].gram_drift > 0
    assert (tmp_path / "probes").exists()
    chosen = torch.linspace(0, 23, 6).round().long()
    model.double().eval()
    logits = model(input_ids=IDS[chosen], attention_mask=MASK[chosen]).logits
    assert probes[-1].loss == pytest.approx(float(nn.functional.cross_entropy(logits, LABELS[chosen], reduction="sum")), rel=1e-9)
    trained = [p for p in model.parameters() if p.requires_grad]
    rows = [torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True) for value in logits.reshape(-1)]
    jacobian = torch.stack(
        [
            torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in zip(row, trained, strict=True)])
            for row in rows
        ]
    )
    assert probes[-1].largest == pytest.approx(float(torch.linalg.eigvalsh(jacobian @ jacobian.T)[-1]), rel=1e-9)


def test_a_resumed_training_goes_on_recording(tmp_path):
    whole = recorder()
    model, _ = train(tmp_path, [whole])
    again = recorder()
    resumed, _ = train(tmp_path, [again], resume=str(tmp_path / "checkpoint-3"))
    assert same(dict(resumed.state_dict()), dict(model.state_dict()))
    assert again.recorder.probes == whole.recorder.probes
