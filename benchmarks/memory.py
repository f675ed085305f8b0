"Peak memory does not grow with the number of images or slices: embeddings into the cache against a list of them, a volume slice by slice against one batch."
from tempfile import TemporaryDirectory

import numpy as np
import torch

from medsam_prompts.all import Case, EmbeddingCache, PromptGenerator, Prompts, load_segmenter, segment_volume
from .common import compare


class Everywhere(PromptGenerator):
    "The same box in every slice."
    def __call__(self, segmenter, encoded): return Prompts(boxes=torch.tensor([[[20., 20, 90, 90]]]).expand(len(encoded), 1, 4), frame='original')


class Pictures:
    "Synthetic images, made when they are asked for."
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i): return Case(np.random.default_rng(i).integers(0, 256, (128, 128), dtype=np.uint8), f'p{i}')


@torch.no_grad()
def rows(quick):
    seg = load_segmenter('sam_toy')
    with TemporaryDirectory() as d:
        for n in (4, 8) if quick else (100, 1000, 10000):
            cases = Pictures(n)
            def fill():
                with TemporaryDirectory(dir=d) as e: EmbeddingCache(seg, folder=e).fill(cases)
            yield compare('embed', n, 'all in one batch', lambda: seg.encode(torch.cat([seg.preprocess(cases[i]) for i in range(n)])), fill)
        for n in (4, 8) if quick else (64, 256, 512):
            volume = Case(np.random.default_rng(0).integers(0, 256, (n, 128, 128), dtype=np.uint8), 'v', 'zyx')
            def batch():
                emb = seg.encode(torch.cat([seg.preprocess(c) for c in volume.slices()]))
                return seg.decode(emb, Prompts(boxes=torch.tensor([[[20., 20, 90, 90]]]).expand(n, 1, 4)))[0] > 0
            def slices():
                with TemporaryDirectory(dir=d) as e: return segment_volume(seg, Everywhere(), volume, EmbeddingCache(seg, folder=e))
            yield compare('volume, slices', n, 'all slices in one batch', batch, slices)
