"""Tries `catlip-train import`, `logits`, `export` on real files of PyTorch, timm, Hugging Face.

    python trainer/golden/check_exchange.py target/release/catlip-train

Needs torch, timm, transformers, safetensors, numpy. Everything random is drawn here; the model of
the reference is that of make_models.py, written from its description. Prints the largest difference
of each comparison; fails above 1e-4 in float32, and unless a round trip gives the same bits.
"""

import importlib.util
import pathlib
import subprocess
import sys
import tempfile

import timm
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, ViTForImageClassification

HERE = pathlib.Path(__file__).parent
PROGRAM = sys.argv[1]
LIMIT = 1e-4


def functions():
    spec = importlib.util.spec_from_file_location("make_models", HERE / "make_models.py")
    module = importlib.util.module_from_spec(spec)
    source = (HERE / "make_models.py").read_text().replace("\nmain()\n", "\n")
    exec(compile(source, "make_models.py", "exec"), module.__dict__)
    return module


def run(*arguments):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{arguments}: exit {done.returncode}\n{done.stderr}")


def logits(weights, images, folder):
    file, output = folder / "images.safetensors", folder / "logits.safetensors"
    save_file({"images": images}, file)
    run("logits", "--weights", weights, "--images", file, "--output", output)
    return load_file(output)["logits"]


def compare(what, found, expected):
    off = (found.double() - expected.double()).abs().max().item()
    print(f"{what}: {off:.2e}, of logits up to {expected.abs().max().item():.1f}")
    if not off < LIMIT:
        raise SystemExit(f"{what} is off by {off}")


def corenet(make, folder):
    """A file of the reference, imported; then exported and loaded where each program can."""
    torch.manual_seed(0)
    width, depth, heads, labels = 192, 12, 3, 30
    names = make.corenet_names(width, depth, 196, labels)
    state = {name: make.weight(name, shape) for name, shape in names.items()}
    scalars = "brightness contrast noise".split()
    for name in [f"neural_augmentor.{s}.{end}" for s in scalars for end in ("_low", "_high")]:
        state[name] = torch.tensor(0.5)
    for at in range(2):
        state[f"patch_emb.{at}.block.norm.num_batches_tracked"] = torch.tensor(5)
    no_flash = {name.replace("out_proj_attn", "out_proj"): t for name, t in state.items()}
    wrapped = {f"module.{name}": tensor for name, tensor in no_flash.items()}
    torch.save(state, folder / "plain.pt")
    torch.save({"model_state_dict": wrapped, "iteration": 9}, folder / "wrapped.pt")
    save_file(state, folder / "plain.safetensors")
    for file in ("plain.pt", "wrapped.pt", "plain.safetensors"):
        model = folder / f"{file}.model"
        run("import", "--weights", folder / file, "--model", "vit_ti16", "--out", model)
        bits = load_file(model / "model.safetensors")
        assert all(torch.equal(bits[name], state[name]) for name in names), file
    for size in (224, 160, 320):
        images = torch.rand(3, 3, size, size)
        double = {name: tensor.double() for name, tensor in state.items()}
        expected = make.corenet_logits(double, images.double(), depth, heads)
        compare(f"corenet at {size} px", logits(model, images, folder), expected)
    for target in ("timm", "hf"):
        run("export", "--weights", model, "--to", target, "--out", folder / f"corenet-{target}")
    images = torch.rand(2, 3, 192, 240)
    expected = logits(model, images, folder)
    hf = AutoModelForImageClassification.from_pretrained(
        folder / "corenet-hf", trust_remote_code=True
    )
    compare("corenet in transformers", hf.eval()(images).logits, expected)
    sys.path.insert(0, str(folder / "corenet-timm"))
    import modeling_catlip  # noqa: F401, from the export

    config, file = (str(folder / "corenet-timm" / n) for n in ("config.json", "model.safetensors"))
    model = timm.create_model("catlip", config=config, checkpoint_path=file)
    compare("corenet in timm", model.eval()(images), expected)


def linear(folder):
    """A model of timm, imported; then exported to timm and Hugging Face."""
    kinds = {
        "plain": {},
        "mean": {"global_pool": "avg", "fc_norm": False, "class_token": False},
        "attention": {"global_pool": "map", "class_token": False},
        "registers": {"reg_tokens": 4, "no_embed_class": True, "qk_norm": True},
        "swiglu": {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU,
                   "mlp_ratio": 16 / 3},
    }
    for kind, options in kinds.items():
        torch.manual_seed(1)
        name = "vit_tiny_patch16_224"
        theirs = timm.create_model(name, num_classes=50, dynamic_img_size=True, **options).eval()
        for parameter in theirs.parameters():
            if parameter.dim() != 1:
                torch.nn.init.normal_(parameter, std=0.05)
        torch.save(theirs.state_dict(), folder / f"{kind}.pt")
        model = folder / kind
        run("import", "--weights", folder / f"{kind}.pt", "--model", "vit_ti16", "--out", model)
        images = torch.rand(2, 3, 224, 224)
        compare(f"timm {kind}", logits(model, images, folder), theirs(images))
        wide = torch.rand(2, 3, 192, 320)
        compare(f"timm {kind}, 192 × 320 px", logits(model, wide, folder), theirs(wide))
        run("export", "--weights", model, "--to", "timm", "--out", folder / f"{kind}-timm")
        classes = {key: options[key] for key in ("mlp_layer", "act_layer") if key in options}
        back = timm.create_model(f"local-dir:{folder / f'{kind}-timm'}", pretrained=True, **classes)
        compare(f"timm {kind}, exported", back.eval()(images), theirs(images))
        if kind == "plain":
            run("export", "--weights", model, "--to", "hf", "--out", folder / "plain-hf")
            hf = ViTForImageClassification.from_pretrained(folder / "plain-hf").eval()
            compare("Hugging Face, exported", hf(images).logits, theirs(images))
            file = folder / "plain-timm" / "model.safetensors"
            as_is = timm.create_model(name, num_classes=50, checkpoint_path=str(file)).eval()
            compare("timm by its own name", as_is(images), theirs(images))
            run("import", "--weights", folder / "plain-hf" / "model.safetensors", "--model",
                "vit_ti16", "--out", folder / "again")
            first, again = (load_file(f / "model.safetensors") for f in (model, folder / "again"))
            assert all(torch.equal(first[n], again[n]) for n in first), "round trip by Hugging Face"
            print("round trip by Hugging Face: the same bits")


def main():
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        corenet(functions(), pathlib.Path(folder))
        linear(pathlib.Path(folder))


main()
