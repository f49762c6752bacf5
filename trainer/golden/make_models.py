"""Makes models.json: what PyTorch, timm and Hugging Face give for our models and augmentation.

Needs torch 2.11, timm 1.0, transformers 4.57, numpy:   python trainer/golden/make_models.py
Every weight is a function of its name in our state dict and its index, images are sines, so that
Rust can make the same without a file. The reference's model is written here from its description,
with functions only: nothing of it is shared with our own.
"""

import importlib.util
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from transformers import ViTConfig, ViTForImageClassification

torch.set_num_threads(1)
MASK = (1 << 64) - 1
HERE = pathlib.Path(__file__).parent


def unit(name, numel):
    """Numbers in −1…1: SplitMix64's finaliser over FNV-1a of the name plus the index."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & MASK
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(numel, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1.0


def weight(name, shape):
    """Scales and variances around 1, other vectors around 0, matrices of unit gain."""
    values = unit(name, math.prod(shape))
    if name.endswith("running_var"):
        values = 1.0 + 0.5 * values
    elif len(shape) <= 1:
        values = (1.0 if name.endswith("weight") and "norm" in name.split(".")[-2]
                  or name.endswith(".0.weight") else 0.0) + 0.2 * values
    else:
        values = values * math.sqrt(3.0 / math.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32)).view(shape)


def images(height, width):
    values = 0.5 + 0.5 * np.sin(0.37 * np.arange(2 * 3 * height * width, dtype=np.float64))
    return torch.from_numpy(values.astype(np.float32)).view(2, 3, height, width)


# --- the reference's model, from its description ------------------------------------------------


def corenet_names(width, depth, positions, labels):
    stem = max(32, width // 4)
    shapes = {"cls_token": [1, 1, width], "pos_embed.pos_embed.pos_embed": [1, 1, positions, width]}
    for at, (c_in, kernel) in enumerate([(3, 4), (stem, 2)]):
        shapes[f"patch_emb.{at}.block.conv.weight"] = [stem, c_in, kernel, kernel]
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"patch_emb.{at}.block.norm.{part}"] = [stem]
    shapes["patch_emb.2.block.conv.weight"] = [width, stem, 2, 2]
    shapes["patch_emb.2.block.conv.bias"] = [width]
    for at in range(depth):
        for layer, (out, inner) in {
            "pre_norm_mha.0": (width, None),
            "pre_norm_mha.1.qkv_proj": (3 * width, width),
            "pre_norm_mha.1.out_proj_attn": (width, width),
            "pre_norm_ffn.0": (width, None),
            "pre_norm_ffn.1": (4 * width, width),
            "pre_norm_ffn.4": (width, 4 * width),
        }.items():
            shape = [out] if inner is None else [out, inner]
            shapes[f"transformer.{at}.{layer}.weight"] = shape
            shapes[f"transformer.{at}.{layer}.bias"] = [out]
    shapes["post_transformer_norm.weight"] = shapes["post_transformer_norm.bias"] = [width]
    shapes["classifier.weight"], shapes["classifier.bias"] = [labels, width], [labels]
    return shapes


def corenet_logits(w, x, depth, heads):
    width = w["cls_token"].shape[-1]
    for at, (stride, padding) in enumerate([(4, 1), (2, 0)]):
        name = f"patch_emb.{at}.block"
        x = F.conv2d(x, w[f"{name}.conv.weight"], stride=stride, padding=padding)
        mean, var = w[f"{name}.norm.running_mean"], w[f"{name}.norm.running_var"]
        scale = w[f"{name}.norm.weight"] / torch.sqrt(var + 1e-5)
        x = (x - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
        x = x + w[f"{name}.norm.bias"].view(1, -1, 1, 1)
        x = x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))
    name = "patch_emb.2.block.conv"
    x = F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=2)
    x = x.reshape(x.shape[0], width, -1).transpose(1, 2)
    positions, n = w["pos_embed.pos_embed.pos_embed"], x.shape[1]
    if positions.shape[2] != n:
        positions = F.interpolate(
            positions, size=(n, width), mode="bilinear", align_corners=False
        )
    x = x + positions[:, 0]
    x = torch.cat([w["cls_token"].expand(x.shape[0], 1, width), x], dim=1)

    def norm(x, name):
        mean = x.mean(-1, keepdim=True)
        var = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(var + 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    for at in range(depth):
        mha, ffn = f"transformer.{at}.pre_norm_mha", f"transformer.{at}.pre_norm_ffn"
        b, t, d = x.shape
        qkv = linear(norm(x, f"{mha}.0"), f"{mha}.1.qkv_proj")
        q, k, v = qkv.view(b, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        share = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(d // heads), dim=-1)
        mixed = (share @ v).transpose(1, 2).reshape(b, t, d)
        x = x + linear(mixed, f"{mha}.1.out_proj_attn")
        hidden = linear(norm(x, f"{ffn}.0"), f"{ffn}.1")
        hidden = hidden * 0.5 * (1.0 + torch.erf(hidden / math.sqrt(2.0)))
        x = x + linear(hidden, f"{ffn}.4")
    return linear(norm(x, "post_transformer_norm")[:, 0], "classifier")


def corenet_cases():
    cases = []
    for shape, labels in (((192, 12, 3), 5), ((128, 3, 2), 7)):
        width, depth, heads = shape
        names = corenet_names(width, depth, 196, labels)
        w = {name: weight(name, size).double() for name, size in names.items()}
        logits = {
            f"{h}x{h}": corenet_logits(w, images(h, h).double(), depth, heads).tolist()
            for h in (224, 160, 320)
        }
        cases.append({"shape": shape, "labels": labels, "logits": logits})
    return cases


# --- timm and Hugging Face ----------------------------------------------------------------------

TIMM = {
    "patch_embed.proj": "patch_emb.proj",
    "norm1": "pre_norm_mha.0",
    "attn.qkv": "pre_norm_mha.1.qkv_proj",
    "attn.q_norm": "pre_norm_mha.1.q_norm",
    "attn.k_norm": "pre_norm_mha.1.k_norm",
    "attn.proj": "pre_norm_mha.1.out_proj_attn",
    "norm2": "pre_norm_ffn.0",
    "mlp.fc1": "pre_norm_ffn.1",
    "mlp.fc2": "pre_norm_ffn.4",
    "norm": "post_transformer_norm",
    "head": "classifier",
}


def ours(name):
    """Our name of one of timm's."""
    if name in ("cls_token", "reg_token"):
        return name
    if name == "pos_embed":
        return "pos_embed.pos_embed.pos_embed"
    if name.startswith("attn_pool."):
        return "pool." + name[len("attn_pool."):]
    layer, part = name.rsplit(".", 1)
    if layer.startswith("blocks."):
        _, at, layer = layer.split(".", 2)
        return f"transformer.{at}.{TIMM[layer]}.{part}"
    return f"{TIMM[layer]}.{part}"


CASES = {
    "summary": {},
    "mean": {"global_pool": "avg", "fc_norm": False, "class_token": False},
    "attention": {"global_pool": "map", "class_token": False},
    "registers": {"reg_tokens": 3, "no_embed_class": True, "qk_norm": True,
                  "mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU, "mlp_ratio": 5.5},
}
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}


def timm_model(options):
    model = VisionTransformer(num_classes=10, dynamic_img_size=True, **SMALL, **options).eval()
    state = model.state_dict()
    for name, tensor in state.items():
        shape = list(tensor.shape)
        if name == "pos_embed":
            has_class = shape[1] == 17
            grid = weight(ours(name), [1, 1, 16, 64])[0]
            zero = torch.zeros(1, 1, 64)
            tensor.copy_(torch.cat([zero, grid], 1) if has_class else grid)
        else:
            tensor.copy_(weight(ours(name), shape))
    return model


def linear_cases():
    cases = {}
    for case, options in CASES.items():
        model = timm_model(options).double()
        cases[case] = {
            "timm": {name: list(t.shape) for name, t in model.state_dict().items()},
            "logits": {
                f"{h}x{w}": model(images(h, w).double()).tolist()
                for h, w in ((32, 32), (48, 48), (24, 56))
            },
        }
    config = ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256,
        image_size=32, patch_size=8, num_labels=10, layer_norm_eps=1e-6,
    )
    hf = ViTForImageClassification(config).eval()
    cases["summary"]["hf"] = {name: list(t.shape) for name, t in hf.state_dict().items()}
    return cases


# --- RangeAugment -------------------------------------------------------------------------------


def range_case(order, applied, units, psnr):
    limits = [((0.1, 0.9), (1.1, 10.0)), ((0.1, 0.9), (1.1, 10.0)), ((0.0, 5e-5), (1e-4, 1.0))]
    raw = [torch.tensor(v, requires_grad=True) for v in (0.5, 1.5, 0.5, 1.5, 0.0, 0.1)]
    size = (4, 3, 6, 5)
    x = 0.5 + 0.5 * np.sin(0.37 * np.arange(math.prod(size), dtype=np.float64))
    x = torch.from_numpy(x.astype(np.float32)).view(size)
    numel = math.prod(size[1:])
    noise = np.sin(0.9 * np.arange(numel)[None, :] + np.arange(4)[:, None])
    noise = torch.from_numpy(noise.astype(np.float32)).view(size)
    y = x
    for op in order:
        low, high = (
            torch.sigmoid(raw[2 * op + end]) * (to - start) + start
            for end, (start, to) in enumerate(limits[op])
        )
        rows = [row for row, hit in enumerate(applied[op]) if hit]
        m = low + torch.tensor(units[op])[rows] * (high - low)
        m, before = m.view(-1, 1, 1, 1), y[rows]
        if op == 0:
            after = before * m
        elif op == 1:
            after = (1.0 - m) * before.mean((2, 3), keepdim=True) + m * before
        else:
            after = before + m * noise[rows]
        y = y.clone()
        y[rows] = after
    y = y.clamp(0.0, 1.0)
    mse = ((255.0 * (y - x)) ** 2).mean((1, 2, 3))
    target = 10 ** ((20 * math.log10(255.0) - psnr) / 10)
    loss = 100.0 / 65025.0 * F.smooth_l1_loss(mse, torch.full_like(mse, target))
    loss.backward()
    return {
        "order": order, "applied": applied, "units": units, "target_mse": target,
        "augmented": y.flatten().tolist(), "loss": loss.item(),
        "gradients": [r.grad.item() if r.grad is not None else 0.0 for r in raw],
    }


def range_augment():
    low, high = (10 ** ((20 * math.log10(255.0) - psnr) / 10) for psnr in (20, 40))
    steps = 11
    curriculum = [
        low + 0.5 * (high - low) * (1 + math.cos(math.pi * t / steps)) for t in range(steps)
    ]
    units = [[0.02, 0.03, 0.01, 0.04], [0.05, 0.9, 0.02, 0.3], [0.5, 0.1, 0.7, 0.2]]
    halves = [[True, False, True, False], [False, True, True, False], [True, True, False, False]]
    cases = [range_case([0, 1, 2], halves, units, 40.0), range_case([2, 0, 1], halves, units, 20.0)]
    return {"curriculum": curriculum, "cases": cases}


# --- 200 steps of training ----------------------------------------------------------------------


def step_batch(step):
    """16 images of 32 px whose colour says their first label; every other one has a second."""
    rows = np.arange(16)
    first = (step * 16 + rows) % 10
    colour = np.cos(first[:, None] + np.arange(3)[None, :])[:, :, None, None]
    noise = unit(f"images {step}", 16 * 3 * 32 * 32).reshape(16, 3, 32, 32)
    labels = [[f] if row % 2 == 0 else sorted({f, (3 * f + 1) % 10}) for row, f in enumerate(first)]
    images = torch.from_numpy((0.5 + 0.25 * colour + 0.25 * noise).astype(np.float32))
    return images, labels


def curve():
    """Loss and norm of each step, by the twin of benches/peers."""
    spec = importlib.util.spec_from_file_location("vit", HERE.parents[1] / "benches/peers/vit.py")
    twin = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(twin)
    shapes = corenet_names(64, 2, 4, 10)
    state = {name: weight(name, shape) for name, shape in shapes.items()}
    for at in range(2):
        state[f"patch_emb.{at}.block.norm.num_batches_tracked"] = torch.tensor(0)
    model = twin.Vit(state, 2, 16).train()
    params = list(model.parameters())
    optim = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.2}
    adamw = twin.adamw_of(params, optim)
    lines = []
    for step in range(200):
        images, labels = step_batch(step)
        target = torch.zeros(16, 10)
        for row, of_row in enumerate(labels):
            target[row, of_row] = 1.0
        for group in adamw.param_groups:
            group["lr"] = 3e-4 * min(1.0, (step + 1) / 20)
        adamw.zero_grad()
        logits = model(images)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / 16
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
        adamw.step()
        lines.append([loss.item(), norm.item()])
    return lines


# --- a file of torch.save -----------------------------------------------------------------------


def save_states(folder):
    """Kinds, strides, shared storages, parameters and counters, as a wrapped model has them."""
    base = torch.arange(24, dtype=torch.float32).view(4, 6) / 8
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(base.clone())
    module.register_buffer("f16", base.half())
    module.register_buffer("bf16", base.bfloat16())
    module.register_buffer("f64", base.double())
    module.register_buffer("count", torch.tensor(7))
    state = module.state_dict()
    state["transposed"], state["row"] = base.T, base[1]
    state["parameter"] = torch.nn.Parameter(base[:2])
    torch.save({"epoch": 3, "model_state_dict": state}, folder / "state.pt")


def main():
    with torch.no_grad():
        golden = {"corenet": corenet_cases(), "linear": linear_cases()}
    golden["range_augment"] = range_augment()
    golden["curve"] = curve()
    save_states(HERE)
    (HERE / "models.json").write_text(json.dumps(golden) + "\n")


main()
