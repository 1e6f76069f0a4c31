"""BlumNet's network, in plain PyTorch on transformers' Swin and deformable attention.

Modules have the names of the published checkpoints, but for the Swin backbone, whose names
`checkpoint.rename_swin` changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DeformableDetrConfig, SwinBackbone, SwinConfig
from transformers.models.deformable_detr.modeling_deformable_detr import (
    DeformableDetrMultiscaleDeformableAttention as DeformableAttention,
)

NUM_CLASSES = 2
"""A line, or nothing."""
NUM_POINT_CLASSES = 3
"""An end, a junction, or nothing."""

STRIDE = 32
"""Pixels along a side of the coarsest map's cells."""


@dataclass(frozen=True)
class SwinSizes:
    """embed_dim: channels of the first stage. depths, num_heads: blocks and heads of the four stages."""

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int


@dataclass(frozen=True)
class BlumNetConfig:
    """What a checkpoint's tensors say of it; see `checkpoint.config_of`.

    backbone: the sizes of a Swin, or a VGG's layers: the channels of each convolution, 0 for pooling.
    curve_points: points to each line. points: how many of the queries are for key points; they come first.
    graph_ids: whether lines and points tell which of several skeletons they belong to.
    """

    backbone: SwinSizes | tuple[int, ...]
    hidden_size: int = 256
    num_heads: int = 8
    ffn_dim: int = 1024
    encoder_layers: int = 6
    decoder_layers: int = 6
    levels: int = 3
    encoder_points: int = 8
    decoder_points: int = 8
    queries: int = 1152
    points: int = 128
    curve_points: int = 2
    graph_ids: bool = True


@dataclass(frozen=True, eq=False)
class BlumNetOutput:
    """lines [B, Q, curve_points, 2] and points [B, P, 2]: (x, y) as fractions of width and height.
    line_logits [B, Q, 2], point_logits [B, P, 3]; the last class is nothing. line_graphs [B, Q] and
    point_graphs [B, P] are the same number for what belongs to one skeleton; None where it was not
    trained."""

    lines: Tensor
    line_logits: Tensor
    points: Tensor
    point_logits: Tensor
    line_graphs: Tensor | None
    point_graphs: Tensor | None


class BlumNet(nn.Module):
    def __init__(self, config: BlumNetConfig):
        super().__init__()
        self.config = config
        size, layers = config.hidden_size, config.decoder_layers
        if isinstance(config.backbone, SwinSizes):
            body: nn.Module = _Swin(config.backbone)
            channels = [config.backbone.embed_dim * 2**stage for stage in (1, 2, 3)]
        else:
            body, channels = _Vgg(config.backbone), _channels_before_pooling(config.backbone)[-2:]
        # The checkpoints' names have these levels: a joiner of backbone and position code, around the body.
        self.backbone = nn.ModuleList([nn.ModuleDict({"body": body})])
        projections = [nn.Conv2d(each, size, 1) for each in channels]
        for level in range(len(channels), config.levels):
            before = channels[-1] if level == len(channels) else size
            projections.append(nn.Conv2d(before, size, 3, stride=2, padding=1))
        self.input_proj = nn.ModuleList(nn.Sequential(each, nn.GroupNorm(32, size)) for each in projections)
        self.transformer = _Transformer(config)
        self.query_embed = nn.Embedding(config.queries, 2 * size)
        # Every layer has the same heads; the checkpoints name them once for each.
        self.class_embed = nn.ModuleList([nn.Linear(size, NUM_CLASSES)] * layers)
        self.bbox_embed = nn.ModuleList([_Head(size, 2 * config.curve_points)] * layers)
        self.gid_embed = nn.ModuleList([nn.Linear(size, 1)] * layers) if config.graph_ids else None
        if config.points:
            self.class_pt_embed = nn.ModuleList([nn.Linear(size, NUM_POINT_CLASSES)] * layers)
            self.pt_embed = nn.ModuleList([_Head(size, 2)] * layers)

    def forward(self, images: Tensor) -> BlumNetOutput:
        """images: [B, 3, H, W], normalised as ImageNet's, of any size: they are filled up to whole cells of
        the coarsest map, and what fills them is not looked at."""
        height, width = images.shape[2:]
        images = functional.pad(images, (0, -width % STRIDE, 0, -height % STRIDE))
        maps = list(self.backbone[0]["body"](images))
        sources = [project(each) for project, each in zip(self.input_proj, maps)]
        for project in self.input_proj[len(maps) :]:
            sources.append(project(maps[-1] if len(sources) == len(maps) else sources[-1]))
        inside = images.new_ones(1, 1, height, width)
        inside = functional.pad(inside, (0, -width % STRIDE, 0, -height % STRIDE))
        masks = [functional.interpolate(inside, each.shape[2:])[0, 0] > 0 for each in sources]
        states, references = self.transformer(sources, masks, self.query_embed.weight)
        count = self.config.points
        at_points, at_lines = references[:, :count], references[:, count:]
        of_points, of_lines = states[:, :count], states[:, count:]
        batch, num_lines = of_lines.shape[:2]
        offsets = self.bbox_embed[-1](of_lines).view(batch, num_lines, self.config.curve_points, 2)
        lines = (offsets + _logit(at_lines)[:, :, None]).sigmoid()
        if count:
            points = (self.pt_embed[-1](of_points) + _logit(at_points)).sigmoid()
            point_logits = self.class_pt_embed[-1](of_points)
        else:
            points, point_logits = lines.new_zeros(batch, 0, 2), lines.new_zeros(batch, 0, NUM_POINT_CLASSES)
        graph_of = None if self.gid_embed is None else self.gid_embed[-1]
        return BlumNetOutput(
            lines,
            self.class_embed[-1](of_lines),
            points,
            point_logits,
            None if graph_of is None else graph_of(of_lines)[..., 0],
            None if graph_of is None else graph_of(of_points)[..., 0],
        )


class _Swin(nn.Module):
    """Feature maps at strides 8, 16 and 32."""

    def __init__(self, sizes: SwinSizes):
        super().__init__()
        self.swin = SwinBackbone(
            SwinConfig(
                embed_dim=sizes.embed_dim,
                depths=list(sizes.depths),
                num_heads=list(sizes.num_heads),
                window_size=sizes.window_size,
                drop_path_rate=0.0,
                out_features=["stage2", "stage3", "stage4"],
            )
        )
        self.swin.swin.layernorm = nn.Identity()  # normalises what a classifier takes, which there is none of

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.swin(images).feature_maps


class _Vgg(nn.Module):
    """Feature maps at strides 8 and 16: what the last two poolings would take."""

    def __init__(self, layers: tuple[int, ...]):
        super().__init__()
        self.features, channels = nn.ModuleList(), 3
        for width in layers:
            if width:
                self.features += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            else:
                self.features.append(nn.MaxPool2d(2, 2, ceil_mode=True))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(images)
            images = layer(images)
        return maps[-2:]


def _channels_before_pooling(layers: tuple[int, ...]) -> list[int]:
    return [before for before, layer in zip(layers, layers[1:]) if not layer]


class _Head(nn.Module):
    def __init__(self, size: int, out: int):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, out)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


class _Transformer(nn.Module):
    """Deformable DETR (Zhu et al., 2021) without box refinement: queries keep their reference points."""

    def __init__(self, config: BlumNetConfig):
        super().__init__()
        size = config.hidden_size
        attention = DeformableDetrConfig(d_model=size, num_feature_levels=config.levels)
        self.encoder = _layers(_EncoderLayer, config.encoder_layers, config, attention)
        self.decoder = _layers(_DecoderLayer, config.decoder_layers, config, attention)
        self.level_embed = nn.Parameter(torch.zeros(config.levels, size))
        self.reference_points = nn.Linear(size, 2)

    def forward(self, sources: list[Tensor], masks: list[Tensor], queries: Tensor) -> tuple[Tensor, Tensor]:
        """The queries' states [B, Q, C] and reference points [B, Q, 2]. `masks` [H, W] are true inside the
        picture."""
        batch, size = len(sources[0]), queries.shape[1] // 2
        shapes = [(each.shape[2], each.shape[3]) for each in sources]
        tensor = torch.tensor(shapes, device=queries.device)
        areas = tensor.prod(1)
        known = torch.cat([mask.flatten() for mask in masks])[None].expand(batch, -1)
        where = {
            "spatial_shapes": tensor,
            "spatial_shapes_list": shapes,
            "level_start_index": torch.cat([areas.new_zeros(1), areas.cumsum(0)[:-1]]),
            "attention_mask": known,
        }
        memory = torch.cat([each.flatten(2).transpose(1, 2) for each in sources], dim=1)
        places = torch.cat(
            [_position_code(mask, size, memory) + code for mask, code in zip(masks, self.level_embed)]
        )
        # The picture's share of each map, (x, y): references are fractions of the picture, not of the map.
        filled = torch.stack([torch.stack([mask[0].sum(), mask[:, 0].sum()]) for mask in masks])
        ratios = (filled / tensor.flip(1)).to(memory.dtype)
        centres = torch.cat([_centres(shape, memory) / ratio for shape, ratio in zip(shapes, ratios)])
        centres = (centres[:, None] * ratios)[None].expand(batch, -1, -1, -1)
        for layer in self.encoder["layers"]:
            memory = layer(memory, places, centres, where)
        places, states = (each[None].expand(batch, -1, -1) for each in queries.split(size, dim=1))
        reference = self.reference_points(places).sigmoid()
        for layer in self.decoder["layers"]:
            states = layer(states, places, reference[:, :, None] * ratios, memory, where)
        return states, reference


def _layers(kind: type[nn.Module], count: int, *arguments) -> nn.ModuleDict:
    return nn.ModuleDict({"layers": nn.ModuleList(kind(*arguments) for _ in range(count))})


class _EncoderLayer(nn.Module):
    def __init__(self, config: BlumNetConfig, attention: DeformableDetrConfig):
        super().__init__()
        size = config.hidden_size
        self.self_attn = DeformableAttention(attention, config.num_heads, config.encoder_points)
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.linear1, self.linear2 = nn.Linear(size, config.ffn_dim), nn.Linear(config.ffn_dim, size)

    def forward(self, x: Tensor, places: Tensor, reference: Tensor, where: dict) -> Tensor:
        attended, _ = self.self_attn(
            x, encoder_hidden_states=x, position_embeddings=places, reference_points=reference, **where
        )
        x = self.norm1(x + attended)
        return self.norm2(x + self.linear2(functional.relu(self.linear1(x))))


class _DecoderLayer(nn.Module):
    def __init__(self, config: BlumNetConfig, attention: DeformableDetrConfig):
        super().__init__()
        size = config.hidden_size
        self.cross_attn = DeformableAttention(attention, config.num_heads, config.decoder_points)
        self.self_attn = nn.MultiheadAttention(size, config.num_heads, batch_first=True)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(size) for _ in range(3))
        self.linear1, self.linear2 = nn.Linear(size, config.ffn_dim), nn.Linear(config.ffn_dim, size)

    def forward(self, x: Tensor, places: Tensor, reference: Tensor, memory: Tensor, where: dict) -> Tensor:
        query = x + places
        x = self.norm2(x + self.self_attn(query, query, x, need_weights=False)[0])
        attended, _ = self.cross_attn(
            x, encoder_hidden_states=memory, position_embeddings=places, reference_points=reference, **where
        )
        x = self.norm1(x + attended)
        return self.norm3(x + self.linear2(functional.relu(self.linear1(x))))


def _centres(shape: tuple[int, int], like: Tensor) -> Tensor:
    """[H * W, 2] the middles (x, y) of a map's cells, as fractions."""
    y, x = (((torch.arange(n, device=like.device) + 0.5) / n).to(like.dtype) for n in shape)
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).flatten(0, 1)


def _position_code(mask: Tensor, size: int, like: Tensor) -> Tensor:
    """[H * W, size] sines and cosines of the cells' rows, then of their columns, counted inside the
    picture."""
    half = size // 2
    wave = 10000 ** (2 * torch.arange(half // 2, device=like.device) / half)
    codes = []
    for axis in (0, 1):
        count = mask.cumsum(axis, dtype=torch.float32)
        last = count.select(axis, -1).unsqueeze(axis)
        angle = ((count - 0.5) / (last + 1e-6) * 2 * math.pi)[..., None] / wave
        codes.append(torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(2))
    return torch.cat(codes, dim=-1).flatten(0, 1).to(like.dtype)


def _logit(share: Tensor) -> Tensor:
    return torch.logit(share.clamp(0, 1), eps=1e-5)
