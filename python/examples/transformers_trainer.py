"""A catlip feed as the data of Hugging Face's Trainer, for a small ViT with several labels.

    python transformers_trainer.py 'shards/train-{000..099}.tar' --steps 1000 --out runs/first
    torchrun --nproc-per-node 2 transformers_trainer.py data/train --steps 1000 --out runs/first

Each checkpoint of the Trainer has the feed's state beside it; ``--resume`` goes on behind it.
"""

import argparse
import json
import os

import torch
from transformers import (
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from catlip.torch import IterableFeed


def collate(batch):
    return {
        "pixel_values": torch.from_dlpack(batch.images).float() / 255,
        "labels": torch.from_dlpack(batch.targets()),
    }


class FeedTrainer(Trainer):
    """The batches come whole and each rank's own, so nothing is to be collated or shared out."""

    def get_train_dataloader(self):
        return torch.utils.data.DataLoader(self.train_dataset, batch_size=None)


class SaveFeed(TrainerCallback):
    """Saves where the feed is with each checkpoint."""

    def __init__(self, images):
        self.images = images

    def on_save(self, args, state, control, **named):
        if state.is_world_process_zero:
            folder = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")
            with open(os.path.join(folder, "feed.json"), "w", encoding="utf-8") as file:
                json.dump(self.images.state_dict(), file)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="+", help="data sets or shards")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--image-px", type=int, default=224)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--out", default="transformers_run")
    parser.add_argument("--resume", help="a checkpoint's folder")
    args = parser.parse_args()

    settings = [*args.settings, f"train.image_px={args.image_px}"]
    training = TrainingArguments(
        output_dir=args.out,
        max_steps=args.steps,
        save_steps=args.save_every,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        # The feed goes on by its own state; nothing is to be read and thrown away.
        ignore_data_skip=True,
    )
    images = IterableFeed(args.data, settings=settings, collate=collate)
    if args.resume:
        with open(os.path.join(args.resume, "feed.json"), encoding="utf-8") as file:
            images.load_state_dict(json.load(file))
    if args.resume:
        # The Trainer of Transformers 5.24 does not know the names that it saved weights under.
        model = ViTForImageClassification.from_pretrained(args.resume)
    else:
        model = ViTForImageClassification(ViTConfig(
            image_size=args.image_px,
            patch_size=16,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_labels=images.feed.num_labels,
            problem_type="multi_label_classification",
        ))
    trainer = FeedTrainer(
        model=model,
        args=training,
        train_dataset=images,
        callbacks=[SaveFeed(images)],
    )
    trainer.train(resume_from_checkpoint=args.resume)


if __name__ == "__main__":
    main()
