"""The twin of `catlip-train fit` in plain PyTorch: same weights, batches, rates; its own code.

    catlip-train batches --recipe R --data DIR --out RUN         writes weights and batches
    python benches/peers/vit.py RUN [--threads 2] [--time]       prints the loss of each step

Needs torch, numpy, safetensors. Reads RUN/config.toml for what is trained; knows the corenet stem,
binary and softmax cross-entropy, AdamW with the reference's groups, clipping, EMA and bfloat16.
With --scores FILE it writes its average, and the logits of that for `images` of FILE (float32).
"""

import argparse
import json
import pathlib
import time
import tomllib

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn


class ConvNorm(nn.Module):
    def __init__(self, c_in, c_out, kernel, stride, padding=0, norm=True):
        super().__init__()
        self.block = nn.Module()
        self.block.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=not norm)
        self.norm = norm
        if norm:
            self.block.norm = nn.BatchNorm2d(c_out)

    def forward(self, x):
        x = self.block.conv(x)
        return F.gelu(self.block.norm(x.float())) if self.norm else x


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.out_proj_attn = nn.Linear(width, width)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv_proj(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj_attn(x.transpose(1, 2).reshape(b, t, d))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        norm = lambda: nn.LayerNorm(width, eps=1e-6)
        ffn = nn.Linear(width, 4 * width), nn.GELU(), nn.Identity(), nn.Linear(4 * width, width)
        self.pre_norm_mha = nn.Sequential(norm(), Attention(width, heads))
        self.pre_norm_ffn = nn.Sequential(norm(), *ffn)

    def forward(self, x):
        x = x + self.pre_norm_mha(x)
        return x + self.pre_norm_ffn(x)


class Vit(nn.Module):
    def __init__(self, state, heads, patch):
        super().__init__()
        labels, width = state["classifier.weight"].shape
        positions = state["pos_embed.pos_embed.pos_embed"].shape[2]
        depth = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("transformer."))
        stem = max(32, width // 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Module()
        self.pos_embed.pos_embed = nn.Module()
        self.pos_embed.pos_embed.pos_embed = nn.Parameter(torch.zeros(1, 1, positions, width))
        self.patch_emb = nn.Sequential(
            ConvNorm(3, stem, 4, patch // 4, 1),
            ConvNorm(stem, stem, 2, 2),
            ConvNorm(stem, width, 2, 2, norm=False),
        )
        self.transformer = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.post_transformer_norm = nn.LayerNorm(width, eps=1e-6)
        self.classifier = nn.Linear(width, labels)
        self.load_state_dict(state)

    def forward(self, x):
        x = self.patch_emb(x).flatten(2).transpose(1, 2)
        positions = self.pos_embed.pos_embed.pos_embed
        if positions.shape[2] != x.shape[1]:
            positions = F.interpolate(positions, size=x.shape[1:], mode="bilinear")
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x + positions[:, 0]], 1)
        return self.classifier(self.post_transformer_norm(self.transformer(x))[:, 0])


def loss_of(logits, batch, config):
    """Sum over rows ÷ sum of their weights, from a dense target."""
    logits, weights = logits.float(), batch["weights"]
    target = torch.zeros_like(logits)
    offsets = batch["offsets"].tolist()
    for row, (start, end) in enumerate(zip(offsets, offsets[1:])):
        target[row, batch["labels"][start:end]] = 1.0
    if config["kind"] == "bce":
        target = target * (1.0 - config["smoothing"])
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)
    else:
        total = target.sum(1, keepdim=True)
        each = F.cross_entropy(
            logits, target / total.clamp_min(1e-30), reduction="none",
            label_smoothing=config["smoothing"],
        ) * (total[:, 0] > 0)
    return (each * weights).sum() / weights.sum()


def adamw_of(params, optim):
    groups = [
        {"params": [p for p in params if p.dim() != 1], "weight_decay": optim["weight_decay"]},
        {"params": [p for p in params if p.dim() == 1], "weight_decay": 0.0},
    ]
    betas = optim["beta1"], optim["beta2"]
    return torch.optim.AdamW(groups, betas=betas, eps=optim["eps"], fused=True)


def train(run, threads, show_time):
    torch.set_num_threads(threads)
    config = tomllib.loads((run / "config.toml").read_text())
    heads = config["model"]["heads"] or {"tiny": 3, "small": 6}[config["model"]["size"]]
    model = Vit(load_file(run / "initial.safetensors"), heads, config["model"]["patch_px"]).train()
    optim, params = config["optim"], list(model.parameters())
    adamw = adamw_of(params, optim)
    average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bf16 = config["train"]["precision"] == "bfloat16"
    spent, images = 0.0, 0
    for at, path in enumerate(sorted((run / "batches").iterdir())):
        batch = load_file(path)
        begin = time.perf_counter()
        x = batch["images"].permute(0, 3, 1, 2).float().div_(255.0)
        for group in adamw.param_groups:
            group["lr"] = batch["lr"].item()
        adamw.zero_grad(set_to_none=False)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(x)
        loss = loss_of(logits, batch, config["loss"])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(params, optim["clip_norm"] or float("inf"), foreach=True)
        adamw.step()
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if tensor.is_floating_point():
                    average[name].lerp_(tensor, optim["ema_momentum"])
                else:
                    average[name].copy_(tensor)
        line = {"step": at + 1, "loss": loss.item(), "gradient_norm": norm.item()}
        if at >= 3:
            spent, images = spent + time.perf_counter() - begin, images + len(x)
        print(json.dumps(line), flush=True)
    if show_time and images:
        print(json.dumps({"images_per_sec": images / spent}))
    model.load_state_dict(average)
    return model.eval()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--scores", type=pathlib.Path)
    arguments = parser.parse_args()
    model = train(arguments.run, arguments.threads, arguments.time)
    if arguments.scores:
        images = load_file(arguments.scores)["images"]
        with torch.no_grad():
            logits = torch.cat([model(part) for part in images.split(64)])
        save_file({"logits": logits.contiguous()}, arguments.run / "twin-logits.safetensors")
        save_file(model.state_dict(), arguments.run / "twin-average.safetensors")


if __name__ == "__main__":
    main()
