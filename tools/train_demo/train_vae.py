"""The autoencoder that both checkpoints share: 128-pixel pictures to 16x16 latents and back."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from models import Autoencoder, VaeConfig
from optim import Average, Clock, MuonAdamW, Schedule


@dataclass(frozen=True)
class VaeStage:
    crop: int  # pixels; crops are cheaper, whole pictures are what the group norms see in the end
    batch: int
    schedule: Schedule
    muon_rate: float
    adam_rate: float
    average: float
    decoder_only: bool = False


CROPS = VaeStage(64, 16, Schedule(9, floor=0.3), muon_rate=2e-3, adam_rate=2e-3, average=0.995)
WHOLE = VaeStage(128, 4, Schedule(7, warmup=0.03), muon_rate=1.6e-3, adam_rate=1.6e-3, average=0.99)
DECODER = VaeStage(128, 6, Schedule(10, warmup=0.05), 4e-4, 4e-4, average=0.995, decoder_only=True)

LATENT_NOISE = 0.05  # of their deviation. Makes the decoder forgiving of what a small denoiser gets wrong.
PRIOR_WEIGHT = 3e-4
LOG_VARIANCE = -6.0


def to_tensor(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def save_pictures(pictures: Tensor, columns: int, path: Path) -> None:
    """Pictures (-1..1) as a sheet."""
    rows = -(-len(pictures) // columns)
    side = pictures.shape[-1]
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    arrays = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    for index, array in enumerate(arrays):
        sheet.paste(Image.fromarray(array), (index % columns * side, index // columns * side))
    sheet.save(path)


def psnr(a: Tensor, b: Tensor) -> float:
    """In dB, for pictures in -1..1."""
    return float(10 * torch.log10(4 / F.mse_loss(a.clamp(-1, 1), b)))


def picture_loss(output: Tensor, target: Tensor) -> Tensor:
    """Smooth L1, of the pixels and of large areas; and L1 of the gradients.

    The gradients keep outlines sharp without a perceptual network, the areas keep colours right: without them the
    latents spend themselves on edges, and green came out grey for a long time.
    """
    loss = F.smooth_l1_loss(output, target, beta=0.05)
    loss = loss + 3.0 * F.smooth_l1_loss(F.avg_pool2d(output, 8), F.avg_pool2d(target, 8), beta=0.05)
    for axis in (2, 3):
        loss = loss + 0.6 * F.l1_loss(output.diff(dim=axis), target.diff(dim=axis))
    return loss


def draw_batch(pictures: np.ndarray, stage: VaeStage, rng: np.random.Generator) -> Tensor:
    chosen = pictures[rng.integers(len(pictures), size=stage.batch)]
    room = pictures.shape[1] - stage.crop
    if room:
        corners = rng.integers(room + 1, size=(stage.batch, 2))
        crops = zip(chosen, corners, strict=True)
        chosen = np.stack([picture[y : y + stage.crop, x : x + stage.crop] for picture, (y, x) in crops])
    return to_tensor(chosen).contiguous(memory_format=torch.channels_last)


def train_vae(pictures: np.ndarray, stage: VaeStage, start: Path | None, output: Path) -> None:
    """Train on uint8 pictures (n, side, side, 3); writes weights and sheets while it runs."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    examples = to_tensor(pictures[:: len(pictures) // 24][:24])
    vae = Autoencoder(VaeConfig())
    if start is not None:
        vae.load_state_dict(torch.load(start))
    vae.to(memory_format=torch.channels_last)
    trained = (vae.decoder, vae.post_quant_conv) if stage.decoder_only else (vae,)
    names = [item for module in trained for item in module.named_parameters()]
    optimiser = MuonAdamW(names, stage.muon_rate, stage.adam_rate)
    average = Average(vae, stage.average)
    encode, decode = (torch.compile(part, dynamic=False) for part in (vae.encode, vae.decode))
    clock, last_sheet = Clock(stage.schedule.minutes), 0.0
    bar = tqdm(mininterval=20)
    while clock.progress < 1:
        batch = draw_batch(pictures, stage, rng)
        with torch.autocast("cpu", torch.bfloat16):
            if stage.decoder_only:
                with torch.no_grad():
                    mean = encode(batch).float()
            else:
                mean = encode(batch).float()
            noise = LATENT_NOISE * mean.detach().std() * torch.randn_like(mean)
            rebuilt = decode(mean + noise).float()
        loss = picture_loss(rebuilt, batch) + PRIOR_WEIGHT * mean.square().mean()
        loss.backward()
        optimiser.step(stage.schedule.factor(clock.progress))
        average.update()
        bar.update()
        if bar.n == 1:
            clock = Clock(stage.schedule.minutes)  # Compiling, in the first step, does not count.
        bar.set_postfix(loss=f"{loss.item():.4f}", deviation=f"{mean.std().item():.2f}", refresh=False)
        if clock.progress - last_sheet > 0.15 or clock.progress >= 1:
            last_sheet = clock.progress
            trainee = {name: value.clone() for name, value in vae.state_dict().items()}
            vae.load_state_dict(average.shadow)
            with torch.no_grad():
                decoded = vae.decode(vae.encode(examples))
            bar.write(f"{clock.progress:.2f} psnr {psnr(decoded, examples):.2f} dB")
            save_pictures(torch.stack([examples, decoded], 1).flatten(0, 1), 8, output.with_suffix(".png"))
            torch.save(average.shadow, output)
            if clock.progress < 1:
                vae.load_state_dict(trainee)
    bar.close()


@torch.no_grad()
def whiten(pictures: np.ndarray, folder: Path) -> None:
    """Scale the trained autoencoder's latents to deviation 1 / 0.18215 x 0.18215: what SD's scale factor expects."""
    vae = load_vae(folder / "vae.pt")
    latents = encode_all(vae, pictures[:: len(pictures) // 500])
    # Stable Diffusion multiplies latents by 0.18215 before it adds noise; they shall have unit deviation then.
    deviation = latents.std(dim=(0, 2, 3)) * 0.18215
    vae.whiten(latents.mean(dim=(0, 2, 3)), deviation, LOG_VARIANCE)
    torch.save(vae.state_dict(), folder / "vae_white.pt")


def load_vae(path: Path) -> Autoencoder:
    vae = Autoencoder(VaeConfig())
    vae.load_state_dict(torch.load(path))
    return vae.to(memory_format=torch.channels_last).eval().requires_grad_(False)


@torch.no_grad()
def encode_all(vae: Autoencoder, pictures: np.ndarray, batch: int = 16) -> Tensor:
    parts = []
    with torch.autocast("cpu", torch.bfloat16):
        for start in tqdm(range(0, len(pictures), batch), desc="encoding", mininterval=20):
            part = to_tensor(pictures[start : start + batch]).contiguous(memory_format=torch.channels_last)
            parts.append(vae.encode(part).float().contiguous())
    return torch.cat(parts)
