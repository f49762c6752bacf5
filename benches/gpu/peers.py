"""The peer: timm's ViT of the same shape, head, optimizer, loss and precision, in its fastest form.

    python benches/gpu/peers.py --shape 768,12,12 --batch 1024 --setting NAME [--labels 24320] ...

Says what it is in one line of JSON, then answers each line `SECS` of standard input by one line:
the seconds of each step, memory, loss. Between them it gives back what memory it can. `--list`
prints the names of the settings. A setting is MODE/PRECISION/BACKEND:

- MODE: eager, or a mode of torch.compile over model and loss, or aot_eager: torch.compile without
  a compiler of kernels, which costs a minute a model on a CPU;
- PRECISION: autocast (float32 weights) or bf16 (weights, moments and gradients in bfloat16: less
  exact than ours, whose weights are float32, and faster);
- BACKEND of attention: cudnn, flash, efficient, or any (as torch chooses).

Every form takes AdamW fused, gradients clipped by their norm, and the sparse form of the loss:
softplus of all logits, less the logits of the labels; a dense target is never built.
"""

import argparse
import gc
import json
import os
import sys
import time

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch.nn.attention import SDPBackend, sdpa_kernel

EAGER = "eager/autocast/any"
# Those that are likeliest to win come first: a search may end before all were tried.
SETTINGS = [
    "default/bf16/cudnn",
    "default/autocast/cudnn",
    "default/bf16/flash",
    "max-autotune-no-cudagraphs/bf16/cudnn",
    "default/autocast/flash",
    "max-autotune-no-cudagraphs/autocast/cudnn",
    "default/bf16/efficient",
    "max-autotune/bf16/cudnn",
]
SETTINGS_CPU = ["aot_eager/autocast/any", "default/bf16/any"]
BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
WARM_UP_STEPS = 3
# As of `catlip-train bench`: the host is at most so many steps ahead.
STEPS_AHEAD = 2
LABELS_PER_ROW = 4
CLIP_NORM = 1.0
ADAMW = {"lr": 1e-5, "betas": (0.9, 0.999), "eps": 1e-8, "fused": True}
WEIGHT_DECAY = 0.2


class Peer:
    """A model with its optimizer and a batch on the device."""

    def __init__(self, args):
        self.mode, self.precision, self.backend = args.setting.split("/")
        self.device = args.device
        width, depth, heads = map(int, args.shape.split(","))
        torch.manual_seed(0)
        kind = torch.bfloat16 if self.precision == "bf16" else torch.float32
        with torch.device(self.device):
            self.model = VisionTransformer(
                img_size=args.side, patch_size=args.patch, embed_dim=width, depth=depth,
                num_heads=heads, num_classes=args.labels, class_token=True, global_pool="token",
            ).to(kind)
            images = (0.5 + 0.25 * torch.randn(args.batch, 3, args.side, args.side)).clamp_(0, 1)
            count = torch.arange(args.batch * LABELS_PER_ROW)
            self.places = count // LABELS_PER_ROW * args.labels + count * 7 % args.labels
        self.images, self.batch = images.to(kind), args.batch
        self.params = list(self.model.parameters())
        groups = [
            {"params": [p for p in self.params if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in self.params if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, **ADAMW)
        self.loss = self.loss_of
        if self.mode != "eager":
            how = {"backend": self.mode} if self.mode == "aot_eager" else {"mode": self.mode}
            self.loss = torch.compile(self.loss_of, fullgraph=True, dynamic=False, **how)

    def loss_of(self, images, places):
        logits = self.model(images).float()
        positives = logits.flatten()[places].sum()
        return (F.softplus(logits).sum() - positives) / self.batch

    def step(self):
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "autocast"):
            loss = self.loss(self.images, self.places)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, CLIP_NORM, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def run(self, secs):
        """Steps for so long; what was measured."""
        if self.backend == "any":
            return self.timed(secs)
        with sdpa_kernel([BACKENDS[self.backend]]):
            return self.timed(secs)

    def timed(self, secs):
        on_cuda = self.device == "cuda"
        if on_cuda:
            torch.cuda.reset_peak_memory_stats()
        begun = time.perf_counter()
        for _ in range(WARM_UP_STEPS):
            loss = self.step()
        loss.item()
        warm_up_secs = time.perf_counter() - begun
        clock = Clock(on_cuda)
        begun = time.perf_counter()
        while len(clock.ends) < 2 or time.perf_counter() - begun < secs:
            loss = self.step()
            clock.note()
        told = {
            "step_secs": clock.secs(),
            "loss": loss.item(),
            "warm_up_secs": warm_up_secs,
            "peak_bytes": torch.cuda.max_memory_allocated() if on_cuda else None,
            "peak_held_bytes": torch.cuda.max_memory_reserved() if on_cuda else None,
        }
        gc.collect()
        if on_cuda:
            torch.cuda.empty_cache()
            told["resting_bytes"] = torch.cuda.memory_reserved()
        return told


class Clock:
    """When steps end, by the card's own clock."""

    def __init__(self, on_cuda):
        self.on_cuda, self.ends = on_cuda, []
        self.note()

    def note(self):
        if not self.on_cuda:
            self.ends.append(time.perf_counter())
            return
        end = torch.cuda.Event(enable_timing=True)
        end.record()
        self.ends.append(end)
        if len(self.ends) > STEPS_AHEAD:
            self.ends[-1 - STEPS_AHEAD].synchronize()

    def secs(self):
        pairs = list(zip(self.ends, self.ends[1:]))
        if not self.on_cuda:
            return [end - start for start, end in pairs]
        self.ends[-1].synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in pairs]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="768,12,12", help="width, blocks, heads")
    parser.add_argument("--labels", type=int, default=24320)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--setting", default=EAGER)
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list:
        settings = SETTINGS_CPU if args.device == "cpu" else SETTINGS
        print(json.dumps({"eager": EAGER, "settings": settings}))
        return
    # What is said on standard output is JSON; compilers and libraries of C write there too.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    say = lambda told: print(json.dumps(told), file=answers, flush=True)
    peer = Peer(args)
    num_params = sum(p.numel() for p in peer.params)
    say({"torch": torch.__version__, "timm": timm.__version__, "num_params": num_params})
    for line in sys.stdin:
        say(peer.run(float(line)))


if __name__ == "__main__":
    main()
