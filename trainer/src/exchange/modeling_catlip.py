"""The ViT of CatLIP's reference. With transformers, or with timm and DIR in sys.path:
AutoModelForImageClassification.from_pretrained(DIR, trust_remote_code=True)
import modeling_catlip; timm.create_model("catlip", config=DIR + "/config.json",
checkpoint_path=DIR + "/model.safetensors")"""
import json
import torch
import torch.nn.functional as F
from torch import nn

try:
    from timm.models import register_model
except ImportError:
    register_model = lambda function: function
try:
    from transformers import PretrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import ImageClassifierOutput
except ImportError:
    PretrainedConfig = PreTrainedModel = object

class Conv(nn.Module):
    def __init__(self, c_in, c_out, kernel, stride, padding=0, last=False):
        super().__init__()
        norm = {} if last else {"norm": nn.BatchNorm2d(c_out)}
        conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=last)
        self.block = nn.ModuleDict({"conv": conv, **norm})

    def forward(self, x):
        x = self.block["conv"](x)
        return F.gelu(self.block["norm"](x)) if "norm" in self.block else x

class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.out_proj_attn = nn.Linear(width, width)

    def forward(self, x):
        b, t, d = x.shape
        qkv = self.qkv_proj(x).view(b, t, 3, self.heads, d // self.heads)
        x = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        return self.out_proj_attn(x.transpose(1, 2).reshape(b, t, d))

class Block(nn.Module):
    def __init__(self, width, heads, hidden):
        super().__init__()
        ffn = nn.Linear(width, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, width)
        self.pre_norm_mha = nn.Sequential(nn.LayerNorm(width, eps=1e-6), Attention(width, heads))
        self.pre_norm_ffn = nn.Sequential(nn.LayerNorm(width, eps=1e-6), *ffn)

    def forward(self, x):
        x = x + self.pre_norm_mha(x)
        return x + self.pre_norm_ffn(x)

class Trunk:
    def build(self, width, depth, heads, hidden, positions, patch_size, num_classes):
        stem, pos_embed = max(32, width // 4), nn.Module()
        pos_embed.pos_embed = nn.Module()
        pos_embed.pos_embed.pos_embed = nn.Parameter(torch.zeros(1, 1, positions, width))
        self.pos_embed, self.cls_token = pos_embed, nn.Parameter(torch.zeros(1, 1, width))
        first, second = Conv(3, stem, 4, patch_size // 4, 1), Conv(stem, stem, 2, 2)
        self.patch_emb = nn.Sequential(first, second, Conv(stem, width, 2, 2, last=True))
        self.transformer = nn.Sequential(*[Block(width, heads, hidden) for _ in range(depth)])
        self.post_transformer_norm = nn.LayerNorm(width, eps=1e-6)
        self.classifier = nn.Linear(width, num_classes)

    def logits(self, x):
        positions = self.pos_embed.pos_embed.pos_embed
        x = self.patch_emb(x).flatten(2).transpose(1, 2)
        if positions.shape[2] != x.shape[1]:  # Along the sequence, as the reference does.
            positions = F.interpolate(positions, size=x.shape[1:], mode="bilinear")
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x + positions[:, 0]], 1)
        return self.classifier(self.post_transformer_norm(self.transformer(x))[:, 0])

KEYS = "width", "depth", "heads", "hidden", "positions", "patch_size"

class Catlip(nn.Module, Trunk):
    def __init__(self, config):
        super().__init__()
        self.build(*[config[key] for key in KEYS], len(config["id2label"]))
    forward = Trunk.logits

@register_model
def catlip(pretrained=False, pretrained_cfg=None, pretrained_cfg_overlay=None, config=None, **_):
    with open(config, encoding="utf-8") as file:
        return Catlip(json.load(file))

class CatlipConfig(PretrainedConfig):
    model_type = "catlip"

class CatlipForImageClassification(PreTrainedModel, Trunk):
    config_class, main_input_name = CatlipConfig, "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.build(*[getattr(config, key) for key in KEYS], config.num_labels)
        self.post_init()

    def forward(self, pixel_values, **_):
        return ImageClassifierOutput(logits=self.logits(pixel_values))
