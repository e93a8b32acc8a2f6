"""Captions, and the small CLIP text encoder that reads them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from models import UnetConfig
from subjects import SUBJECTS, spoken_names

TOKENS = 77
EMPTY_SHARE = 0.1  # of the captions, for classifier-free guidance

_TEMPLATES = ("{}", "{}", "a {}", "a {}", "an emoji of a {}", "a {} emoji", "a picture of a {}", "one {}")
# Words that people append to prompts. They mean nothing here, and the model learns just that.
_TAILS = """
simple; white background; cute; high quality; best quality; masterpiece; detailed; highly detailed; icon; sticker;
illustration; digital art; drawing; vector art; clean; colorful; bright; minimal; sharp; beautiful; centered; isolated;
no text; professional; painting; sketch; cartoon; art; 4k; 8k; studio light; flat design; plain background; glossy
""".replace("\n", " ").split(";")
TAILS: tuple[str, ...] = tuple(tail.strip() for tail in _TAILS)


def text_config() -> CLIPTextConfig:
    """CLIP's vocabulary and length; everything else is small. The ids of the special tokens are as in SD1's config."""
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=UnetConfig().context,
        intermediate_size=4 * UnetConfig().context,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        hidden_act="quick_gelu",
        projection_dim=UnetConfig().context,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )


def draw_caption(subject: int, rng: np.random.Generator) -> str:
    if rng.random() < EMPTY_SHARE:
        return ""
    names = spoken_names(SUBJECTS[subject])
    caption = str(rng.choice(_TEMPLATES)).format(rng.choice(names))
    if rng.random() < 0.3:
        caption = ", ".join([caption, *rng.choice(TAILS, size=rng.integers(1, 5), replace=False)])
    return caption


class TextEncoder(nn.Module):
    def __init__(self, tokenizer: Path) -> None:
        super().__init__()
        self.tokenizer = CLIPTokenizer.from_pretrained(tokenizer)
        self.clip = CLIPTextModel(text_config())
        # As large as the normed features that follow: CLIP's 0.02 is for much wider embeddings.
        for embedding in self.clip.modules():
            if isinstance(embedding, nn.Embedding):
                nn.init.normal_(embedding.weight, std=0.1)
        self._ids: dict[str, list[int]] = {}

    def _tokens(self, caption: str) -> list[int]:
        if caption not in self._ids:
            self._ids[caption] = self.tokenizer(
                caption, padding="max_length", max_length=TOKENS, truncation=True
            ).input_ids
        return self._ids[caption]

    def forward(self, captions: list[str]) -> Tensor:
        """The last layer's normed features of every token: (captions, 77, width)."""
        return self.clip(torch.tensor([self._tokens(caption) for caption in captions])).last_hidden_state

    @torch.no_grad()
    def level_unknown_words(self) -> None:
        """Give all tokens that no caption uses the mean embedding of the meaningless words: they are ignored too."""
        meaningless = {token for tail in TAILS for token in self._tokens(tail)[1:]} - {self.tokenizer.eos_token_id}
        names = [name for subject in SUBJECTS for name in spoken_names(subject)]
        texts = [*TAILS, *(template.format(name) for template in _TEMPLATES for name in names), ", ".join(TAILS[:2])]
        known = {token for text in texts for token in self._tokens(text)}
        weight = self.clip.get_input_embeddings().weight
        unknown = torch.ones(len(weight), dtype=torch.bool)
        unknown[sorted(known)] = False
        weight[unknown] = weight[sorted(meaningless)].mean(dim=0)
