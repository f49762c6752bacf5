"""A catlip feed as the data of Lightning.

    python lightning_module.py 'shards/train-{000..099}.tar' --epochs 2 --out runs/first

Lightning starts the processes; each takes its share. A checkpoint holds where the feed is, so
``trainer.fit(..., ckpt_path=...)`` goes on in the middle of an epoch.
"""

import argparse

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from catlip.torch import IterableFeed, tensors


def with_targets(batch):
    return {**tensors(batch), "targets": torch.from_dlpack(batch.targets())}


class CaptionedImages(lightning.LightningDataModule):
    """The feed; Lightning saves and loads what `state_dict` gives with its checkpoints."""

    def __init__(self, data, settings=()):
        super().__init__()
        self.train = IterableFeed(data, settings=settings, collate=with_targets)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.train, batch_size=None)

    def state_dict(self):
        return self.train.state_dict()

    def load_state_dict(self, state):
        self.train.load_state_dict(state)


class Classifier(lightning.LightningModule):
    def __init__(self, num_labels):
        super().__init__()
        self.model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 8, stride=8),
            torch.nn.GELU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(16, num_labels),
        )

    def training_step(self, batch, _):
        scores = self.model(batch["images"].float() / 255)
        of_images = torch.nn.functional.binary_cross_entropy_with_logits(
            scores, batch["targets"], reduction="none").sum(1)
        weights = batch["weights"]
        loss = (of_images * weights).sum() / weights.sum().clamp(min=1)
        print(f"step {self.global_step} ids {','.join(batch['ids'])} loss {loss.item():.4f}")
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="+", help="data sets or shards")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=-1, help="end after so many")
    parser.add_argument("--out", default="lightning_run")
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--resume", help="a checkpoint")
    args = parser.parse_args()

    images = CaptionedImages(args.data, args.settings)
    trainer = lightning.Trainer(
        default_root_dir=args.out,
        max_epochs=args.epochs,
        max_steps=args.steps,
        logger=False,
        enable_progress_bar=False,
        # Saved between two steps: what Lightning saves behind its last step begins a new epoch.
        callbacks=[ModelCheckpoint(
            dirpath=args.out,
            filename="last",
            every_n_train_steps=args.save_every,
            enable_version_counter=False,
        )],
    )
    trainer.fit(Classifier(images.train.feed.num_labels), images, ckpt_path=args.resume)


if __name__ == "__main__":
    main()
