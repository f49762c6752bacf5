"""Makes torch.json: what PyTorch gives for our model, loss and optimiser on small fixed numbers.

Needs torch 2.11 (any build) and numpy:   python trainer/golden/make_torch.py
Weights and images are sines of their index, so that Rust can make the same without a file.
"""

import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

WIDTH, DEPTH, HEADS, LABELS, POSITIONS = 64, 2, 2, 10, 4
SIZES = [(32, 32), (48, 48), (32, 64)]
TARGETS = [[0, 3, 9], []]
STEPS = 6
LESSON_STEPS, LESSON_ROWS = 200, 8

torch.set_num_threads(1)


def sines(numel, phase):
    return np.sin(0.7 * np.arange(numel, dtype=np.float64) + 1.3 * phase)


class ConvNorm(nn.Module):
    def __init__(self, c_in, c_out, kernel, stride, padding, last=False):
        super().__init__()
        self.block = nn.Sequential()
        self.block.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=last)
        if not last:
            self.block.norm = nn.BatchNorm2d(c_out)
        self.last = last

    def forward(self, x):
        x = self.block.conv(x)
        return x if self.last else F.gelu(self.block.norm(x))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv_proj = nn.Linear(WIDTH, 3 * WIDTH)
        self.out_proj_attn = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv_proj(x).view(b, t, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj_attn(y.transpose(1, 2).reshape(b, t, d))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.pre_norm_mha = nn.Sequential(nn.LayerNorm(WIDTH, eps=1e-6), Attention())
        self.pre_norm_ffn = nn.Sequential(
            nn.LayerNorm(WIDTH, eps=1e-6),
            nn.Linear(WIDTH, 4 * WIDTH),
            nn.GELU(),
            nn.Identity(),
            nn.Linear(4 * WIDTH, WIDTH),
        )

    def forward(self, x):
        x = x + self.pre_norm_mha(x)
        return x + self.pre_norm_ffn(x)


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Module()
        self.pos_embed.pos_embed = nn.Parameter(torch.zeros(1, 1, POSITIONS, WIDTH))

    def forward(self, n):
        p = self.pos_embed.pos_embed
        if n != POSITIONS:
            p = F.interpolate(p, size=(n, WIDTH), mode="bilinear", align_corners=False)
        return p[0]


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        stem = max(32, WIDTH // 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = Positions()
        self.patch_emb = nn.Sequential(
            ConvNorm(3, stem, 4, 4, 1),
            ConvNorm(stem, stem, 2, 2, 0),
            ConvNorm(stem, WIDTH, 2, 2, 0, last=True),
        )
        self.transformer = nn.Sequential(*[Block() for _ in range(DEPTH)])
        self.post_transformer_norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.classifier = nn.Linear(WIDTH, LABELS)
        self.fill()

    def fill(self):
        state = self.state_dict()
        names = [n for n in state if not n.endswith("num_batches_tracked")]
        for phase, name in enumerate(names):
            around = 1.0 if name.endswith("norm.weight") or name.endswith(".0.weight") else 0.0
            around = 1.0 if name.endswith("running_var") else around
            values = around + 0.1 * sines(state[name].numel(), phase)
            state[name].copy_(torch.from_numpy(values.astype(np.float32)).view(state[name].shape))
        self.names = names

    def forward(self, x):
        x = self.patch_emb(x).flatten(2).transpose(1, 2)
        x = x + self.pos_embed(x.shape[1])
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1)
        return self.classifier(self.post_transformer_norm(self.transformer(x))[:, 0])


def images(height, width):
    values = 0.5 + 0.5 * np.sin(0.013 * np.arange(2 * 3 * height * width, dtype=np.float64))
    return torch.from_numpy(values.astype(np.float32)).view(2, 3, height, width)


def targets():
    dense = torch.zeros(2, LABELS)
    for row, labels in enumerate(TARGETS):
        dense[row, labels] = 1.0
    return dense


def lesson(at):
    """Waves whose lengths tell their labels: something to be learned."""
    classes = (7 * at + 3 * np.arange(LESSON_ROWS)) % LABELS
    phases = np.outer(0.01 + 0.004 * classes, np.arange(3 * 32 * 32, dtype=np.float64)) + at
    values = torch.from_numpy((0.5 + 0.5 * np.sin(phases)).astype(np.float32))
    dense = torch.zeros(LESSON_ROWS, LABELS)
    for row, label in enumerate(classes):
        dense[row, [label, (label + 1) % LABELS]] = 1.0
    return values.view(-1, 3, 32, 32), dense


def loss_of(model, x, dense=None):
    dense = targets() if dense is None else dense
    return F.binary_cross_entropy_with_logits(model(x), dense, reduction="sum") / x.shape[0]


def adamw_of(params):
    groups = [
        {"params": [p for p in params if p.dim() != 1], "weight_decay": 0.2},
        {"params": [p for p in params if p.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)


def noise(numel, phase):
    """Numbers that look drawn: with the sines above, 200 steps end elsewhere by rounding alone."""
    values = np.sin(12.9898 * np.arange(numel, dtype=np.float64) + 78.233 * phase) * 43758.5453
    return values - np.floor(values) - 0.5


def long_curve():
    """The losses of LESSON_STEPS such steps on images that differ from step to step."""
    model = Vit().train()
    params = list(model.parameters())
    with torch.no_grad():
        for phase, (name, param) in enumerate(model.named_parameters()):
            is_scale = param.dim() == 1 and name.endswith("weight")
            values = np.ones(param.numel()) if is_scale else 0.07 * noise(param.numel(), phase)
            param.copy_(torch.from_numpy(values.astype(np.float32)).view_as(param))
    optim, losses = adamw_of(params), []
    for at in range(LESSON_STEPS):
        for group in optim.param_groups:
            group["lr"] = 1e-3 * min(1.0, (at + 1) / 20)
        optim.zero_grad()
        loss = loss_of(model, *lesson(at))
        loss.backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optim.step()
        losses.append(loss.item())
    return losses


def sum_of(name, tensor):
    """What its numbers add up to, but for the biases of keys: no softmax sees them, so AdamW makes
    steps of the rounding of their gradients."""
    if name.endswith("qkv_proj.bias"):
        query, _, value = tensor.chunk(3)
        tensor = torch.cat([query, value])
    return tensor.double().abs().sum().item()


def curve():
    """STEPS steps of AdamW with clipping, the reference's decay groups and an EMA."""
    model = Vit().train()
    params = [p for _, p in model.named_parameters()]
    optim = adamw_of(params)
    ema = {n: t.clone() for n, t in model.state_dict().items()}
    losses, norms = [], []
    for at in range(STEPS):
        for group in optim.param_groups:
            group["lr"] = 1e-3 * (at + 1)
        optim.zero_grad()
        loss = loss_of(model, images(32, 32))
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(params, 1.0).item())
        optim.step()
        losses.append(loss.item())
        for name, tensor in model.state_dict().items():
            if tensor.dtype == torch.float32:
                ema[name].mul_(1 - 0.0005).add_(tensor, alpha=0.0005)
    sums = {n: sum_of(n, t) for n, t in model.state_dict().items()}
    ema_sums = {n: sum_of(n, t) for n, t in ema.items()}
    for table in (sums, ema_sums):
        for name in [n for n in table if n.endswith("num_batches_tracked")]:
            del table[name]
    return {"losses": losses, "norms": norms, "sums": sums, "ema_sums": ema_sums}


def adamw():
    """Five steps of one flat tensor whose first half is decayed."""
    value = torch.tensor(sines(8, 0), dtype=torch.float32)
    params = [value[:4].clone().requires_grad_(), value[4:].clone().requires_grad_()]
    optim = torch.optim.AdamW(
        [
            {"params": [params[0]], "weight_decay": 0.2},
            {"params": [params[1]], "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    rows = []
    for at in range(5):
        gradient = torch.tensor(sines(8, at + 1) * 10.0 ** (at - 2), dtype=torch.float32)
        params[0].grad, params[1].grad = gradient[:4].clone(), gradient[4:].clone()
        optim.step()
        rows.append(torch.cat(params).tolist())
    return rows


def main():
    model = Vit().eval()
    golden = {"names": model.names, "logits": {}, "adamw": adamw(), "curve": curve()}
    golden["long_curve"] = long_curve()
    for height, width in SIZES:
        golden["logits"][f"{height}x{width}"] = model(images(height, width)).tolist()
    model.train()
    loss = loss_of(model, images(32, 32))
    loss.backward()
    golden["loss"] = loss.item()
    golden["gradient_norms"] = {n: p.grad.norm().item() for n, p in model.named_parameters()}
    state = model.state_dict()
    golden["running_var"] = state["patch_emb.1.block.norm.running_var"].tolist()
    assert math.isfinite(golden["loss"])
    path = pathlib.Path(__file__).with_name("torch.json")
    path.write_text(json.dumps(golden, indent=1) + "\n")


main()
