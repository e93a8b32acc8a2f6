"""The networks of a Stable Diffusion 1 checkpoint at toy size, with the parameter names of the original (LDM) layout.

Written out here so that a state dict is saved as it is: no conversion of names stands between training and file.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class VaeConfig:
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 1, 2, 4)
    res_blocks: int = 1
    latent_channels: int = 4


@dataclass(frozen=True)
class UnetConfig:
    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 3)
    res_blocks: int = 1
    attention_at: tuple[int, ...] = (2,)  # downsampling factors; the middle block has attention anyway
    heads: int = 4
    context: int = 64
    latent_channels: int = 4


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


def doubled(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling. Compiled for the CPU, torch 2.13's own has a gradient of zero (channels last)."""
    n, c, h, w = x.shape
    return x[:, :, :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)


# --- autoencoder -----------------------------------------------------------------------------------------------------


class VaeResnet(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        if inputs != outputs:
            self.nin_shortcut = nn.Conv2d(inputs, outputs, 1)
        self.has_shortcut = inputs != outputs

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if self.has_shortcut else x)


class VaeAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (part(h).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class VaeDownsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # the original's asymmetric padding


class VaeUpsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(doubled(x))


class VaeMiddle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = VaeResnet(channels, channels)
        self.attn_1 = VaeAttention(channels)
        self.block_2 = VaeResnet(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class VaeLevel(nn.Module):
    """The blocks of one resolution and the change to the next, named `downsample` or `upsample`."""

    def __init__(self, widths: list[tuple[int, int]], change: str | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(VaeResnet(inputs, outputs) for inputs, outputs in widths)
        self.change = change
        if change == "downsample":
            self.downsample = VaeDownsample(widths[-1][1])
        elif change == "upsample":
            self.upsample = VaeUpsample(widths[-1][1])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return getattr(self, self.change)(x) if self.change else x


class Encoder(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        width = config.channels
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        levels = []
        for index, multiplier in enumerate(config.multipliers):
            outputs = config.channels * multiplier
            widths = [(width, outputs)] + [(outputs, outputs)] * (config.res_blocks - 1)
            levels.append(VaeLevel(widths, "downsample" if index < len(config.multipliers) - 1 else None))
            width = outputs
        self.down = nn.ModuleList(levels)
        self.mid = VaeMiddle(width)
        self.norm_out = norm(width)
        self.conv_out = nn.Conv2d(width, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        width = config.channels * config.multipliers[-1]
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.mid = VaeMiddle(width)
        levels = []
        for index in reversed(range(len(config.multipliers))):
            outputs = config.channels * config.multipliers[index]
            widths = [(width, outputs)] + [(outputs, outputs)] * config.res_blocks
            levels.insert(0, VaeLevel(widths, "upsample" if index > 0 else None))
            width = outputs
        self.up = nn.ModuleList(levels)
        self.norm_out = norm(width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Autoencoder(nn.Module):
    """AutoencoderKL; only the mean of its posterior is trained."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.latent_channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    def encode(self, pictures: Tensor) -> Tensor:
        return self.quant_conv(self.encoder(pictures))[:, : self.latent_channels]

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latents))

    @torch.no_grad()
    def whiten(self, mean: Tensor, deviation: Tensor, log_variance: float) -> None:
        """Give latents of that mean and deviation zero mean and unit deviation without changing what is decoded."""
        n = self.latent_channels
        self.quant_conv.weight[:n] /= deviation[:, None, None, None]
        self.quant_conv.bias[:n] = (self.quant_conv.bias[:n] - mean) / deviation
        self.quant_conv.weight[n:] = 0.0
        self.quant_conv.bias[n:] = log_variance
        weight = self.post_quant_conv.weight
        self.post_quant_conv.bias += (weight * mean[None, :, None, None]).sum(dim=(1, 2, 3))
        self.post_quant_conv.weight.copy_(weight * deviation[None, :, None, None])


# --- denoiser --------------------------------------------------------------------------------------------------------


class ResBlock(nn.Module):
    def __init__(self, inputs: int, embedding: int, outputs: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, outputs))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, outputs), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(embedding)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Attention(nn.Module):
    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context, channels, bias=False)
        self.to_v = nn.Linear(context, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, 2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(channels, 4 * channels), nn.Dropout(0.0), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.attn1 = Attention(channels, channels, heads)
        self.ff = FeedForward(channels)
        self.attn2 = Attention(channels, context, heads)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, context, heads)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            h = block(h, context)
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(doubled(x))


class Stage(nn.Sequential):
    """Layers in a row, each given what it needs besides the features."""

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor) -> Tensor:
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, embedding)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


class Unet(nn.Module):
    def __init__(self, config: UnetConfig) -> None:
        super().__init__()
        self.channels = config.channels
        embedding = 4 * config.channels
        self.time_embed = nn.Sequential(
            nn.Linear(config.channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        width = config.channels
        inputs = [Stage(nn.Conv2d(config.latent_channels, width, 3, padding=1))]
        skips = [width]
        factor = 1
        for index, multiplier in enumerate(config.multipliers):
            for _ in range(config.res_blocks):
                outputs = config.channels * multiplier
                layers: list[nn.Module] = [ResBlock(width, embedding, outputs)]
                width = outputs
                if factor in config.attention_at:
                    layers.append(SpatialTransformer(width, config.context, config.heads))
                inputs.append(Stage(*layers))
                skips.append(width)
            if index < len(config.multipliers) - 1:
                inputs.append(Stage(Downsample(width)))
                skips.append(width)
                factor *= 2
        self.input_blocks = nn.ModuleList(inputs)
        self.middle_block = Stage(
            ResBlock(width, embedding, width),
            SpatialTransformer(width, config.context, config.heads),
            ResBlock(width, embedding, width),
        )
        stages = []
        for index in reversed(range(len(config.multipliers))):
            for block in range(config.res_blocks + 1):
                outputs = config.channels * config.multipliers[index]
                layers = [ResBlock(width + skips.pop(), embedding, outputs)]
                width = outputs
                if factor in config.attention_at:
                    layers.append(SpatialTransformer(width, config.context, config.heads))
                if index > 0 and block == config.res_blocks:
                    layers.append(Upsample(width))
                    factor //= 2
                stages.append(Stage(*layers))
        self.output_blocks = nn.ModuleList(stages)
        self.out = nn.Sequential(
            nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, config.latent_channels, 3, padding=1)
        )

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, style: Tensor | float = 0.0) -> Tensor:
        """`style` is added to the embedding of the time; `settle` makes one style a part of the weights."""
        half = self.channels // 2
        frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, device=x.device))
        angles = timesteps[:, None].float() * frequencies
        embedding = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=-1)) + style
        skips = []
        for stage in self.input_blocks:
            x = stage(x, embedding, context)
            skips.append(x)
        x = self.middle_block(x, embedding, context)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), embedding, context)
        return self.out(x)

    @torch.no_grad()
    def settle(self, style: Tensor) -> None:
        self.time_embed[-1].bias += style
