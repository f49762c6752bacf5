"""A plain training loop over a catlip feed: one process, or several under torchrun.

    python torch_loop.py 'shards/train-{000..099}.tar' --checkpoint run.pt
    torchrun --nproc-per-node 2 torch_loop.py data/train --epochs 3 --checkpoint run.pt

Started again, it goes on behind the last step that was saved, with any number of processes.
"""

import argparse
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import catlip
from catlip.torch import tensors, to_device


def small_model(num_labels):
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 8, stride=8),
        torch.nn.GELU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, num_labels),
    )


def with_targets(batch):
    return {**tensors(batch), "targets": torch.from_dlpack(batch.targets())}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="+", help="data sets or shards")
    parser.add_argument("--recipe")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=None, help="end after so many")
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--checkpoint", default="run.pt")
    args = parser.parse_args()

    is_group = "WORLD_SIZE" in os.environ
    device = "cpu"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        device = torch.device("cuda", torch.cuda.current_device())
    if is_group:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")

    # Rank and world size are those of torchrun.
    feed = catlip.Feed(args.data, args.recipe, args.settings, page_lock=torch.cuda.is_available())
    torch.manual_seed(0)
    model = small_model(feed.num_labels).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    if os.path.exists(args.checkpoint):
        saved = torch.load(args.checkpoint, map_location=device)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        feed.load_state_dict(saved["feed"])
    trained = DistributedDataParallel(model) if is_group else model

    steps = 0
    # An epoch that was begun before is finished first.
    for epoch in range(feed.epoch, args.epochs):
        for batch in to_device(feed, device, with_targets):
            pixels = batch["images"].float() / 255
            scores = trained(pixels)
            of_images = torch.nn.functional.binary_cross_entropy_with_logits(
                scores, batch["targets"], reduction="none").sum(1)
            # The mean over the step's images, padding and rotten ones apart. Ranks may have a few
            # more or fewer, and DDP takes the mean over ranks, so each gives its part of the sum.
            images = batch["weights"].sum()
            world_size = 1
            if is_group:
                dist.all_reduce(images)
                world_size = dist.get_world_size()
            loss = (of_images * batch["weights"]).sum() * world_size / images.clamp(min=1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

            steps += 1
            is_last = args.steps is not None and steps == args.steps
            step = batch["step"] + 1
            print(f"epoch {epoch} step {step} rank {feed.rank} images {len(pixels)} "
                  f"loss {loss.item():.4f}", flush=True)
            if (is_last or step % args.save_every == 0) and feed.rank == 0:
                save(args.checkpoint, model, optimizer, feed)
            if is_last:
                break
        else:
            continue
        break
    else:
        if feed.rank == 0:
            save(args.checkpoint, model, optimizer, feed)
    if is_group:
        dist.destroy_process_group()


def save(path, model, optimizer, feed):
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "feed": feed.state_dict(),
    }
    torch.save(state, path + ".tmp")
    os.replace(path + ".tmp", path)


if __name__ == "__main__":
    main()
