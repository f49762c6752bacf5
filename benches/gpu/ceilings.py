"""What the card itself reaches: large bf16 products, a copy, attention. Prints one line of JSON.

    python benches/gpu/ceilings.py --device cuda [--tiny]

Operands are normal draws. A product of m × k and k × n takes 2 m k n operations; attention forth
and back 14 b a t t k (two products forth, five back, of 2 b a t t k each), as FlashAttention counts
where it computes the scores again; the model's operations (MFU) count four of the five.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
# Rows of a product: images of a batch × tokens.
MODELS = {"B": (768, 12, 1024), "L": (1024, 16, 512), "H": (1280, 20, 256)}
TOKENS = 197


def measured(work, device, secs):
    """Median seconds of `work`, by the card's own clock: ten times in a row on a GPU, so that the
    start of a short one hides behind the one before."""
    for _ in range(3):
        work()
    times, begun = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begun < secs:
        if device == "cuda":
            ends = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            ends[0].record()
            for _ in range(10):
                work()
            ends[1].record()
            ends[1].synchronize()
            times.append(ends[0].elapsed_time(ends[1]) / 1e4)
        else:
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        if len(times) >= 1000:
            break
    return sorted(times)[len(times) // 2]


def shapes(is_tiny):
    """Name, m, k, n of each product: a large cube, then the matrices of the models forth, for the
    gradient of what came in, and for that of the weights."""
    if is_tiny:
        yield from [("cube", 64, 64, 64), *[(f"{n} toy", n, 32, 48) for n in [16, 24, 32, 40]]]
        return
    yield ("8192 cube", 8192, 8192, 8192)
    yield ("16384 cube", 16384, 16384, 16384)
    for name, (d, _, batch) in MODELS.items():
        rows = batch * TOKENS
        for layer, k, n in [("qkv", d, 3 * d), ("out", d, d), ("fc1", d, 4 * d), ("fc2", 4 * d, d)]:
            yield (f"{name} {layer} forth", rows, k, n)
            yield (f"{name} {layer} to input", rows, n, k)
            yield (f"{name} {layer} to weight", n, rows, k)


def products(device, is_tiny, secs):
    made = []
    for name, m, k, n in shapes(is_tiny):
        a = torch.randn(m, k, device=device, dtype=torch.bfloat16)
        b = torch.randn(k, n, device=device, dtype=torch.bfloat16)
        # The weights' gradient has its first operand transposed in memory, as in training.
        if name.endswith("to weight"):
            a = torch.randn(k, m, device=device, dtype=torch.bfloat16).t()
        out = torch.empty(m, n, device=device, dtype=torch.bfloat16)
        taken = measured(lambda: torch.mm(a, b, out=out), device, secs)
        tflops = 2 * m * k * n / taken / 1e12
        made.append({"name": f"{name} {m}×{k}×{n}", "tflops": tflops, "micros": 1e6 * taken})
    return made


def copy(device, is_tiny, secs):
    """TB/s of a copy on the device, read and written."""
    count = 1 << (16 if is_tiny else 32)
    source = torch.randint(0, 255, (count,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * count / measured(lambda: target.copy_(source), device, secs) / 1e12


def attention(device, is_tiny, secs):
    made = []
    models = {"toy": (32, 2, 3)} if is_tiny else MODELS
    for name, (d, heads, batch) in models.items():
        tokens, width = (17, 16) if is_tiny else (TOKENS, d // heads)
        size = (batch, tokens, 3, heads, width)
        parts = torch.randn(size, device=device, dtype=torch.bfloat16)
        parts = parts.permute(2, 0, 3, 1, 4).unbind(0)
        query, key, value = [part.detach().requires_grad_() for part in parts]
        gradient = torch.randn(batch, tokens, heads, width, device=device, dtype=torch.bfloat16)
        gradient = gradient.transpose(1, 2)

        def work(query=query, key=key, value=value, gradient=gradient):
            out = F.scaled_dot_product_attention(query, key, value)
            torch.autograd.grad(out, (query, key, value), gradient)

        for backend, choice in BACKENDS.items():
            row = {"name": f"{name} {backend} [{batch}, {heads}, {tokens}, {width}]"}
            if backend == "math" and not is_tiny:
                continue
            try:
                with sdpa_kernel([choice]):
                    taken = measured(work, device, secs)
                flops = 14 * batch * heads * tokens * tokens * width
                row.update(tflops=flops / taken / 1e12, micros=1e6 * taken)
            except RuntimeError as error:
                why = str(error).strip().splitlines() or [type(error).__name__]
                row.update(tflops=None, micros=None, skipped=f"skipped: {why[0][:100]}")
            made.append(row)
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--secs", type=float, default=0.5)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    made = {
        "products": products(args.device, args.tiny, args.secs),
        "copy_tb_s": copy(args.device, args.tiny, args.secs),
        "attention": attention(args.device, args.tiny, args.secs),
    }
    print(json.dumps(made))


if __name__ == "__main__":
    main()
