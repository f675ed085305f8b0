"Nine ten-shot runs, an epoch each, on cached embeddings: at once (`join_learners`) against one after another."
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from medsam_prompts.all import WeakRecipe, fit_weak, join_learners, weak_learner
from .common import backbone, compare


def rows(quick):
    torch.manual_seed(0)
    seg, recipe, seeds = backbone('lite_medsam', quick), WeakRecipe(epochs=1), range(2 if quick else 9)
    emb, boxes = torch.randn(10, 256, *(seg.embed_size,)*2), (torch.tensor([.23, .27, .58, .62])*seg.input_size).round().repeat(10, 1, 1, 1)
    learners = lambda: [weak_learner(seg, emb, boxes, recipe, seed) for seed in seeds]
    with TemporaryDirectory() as d:
        one_by_one = lambda: [fit_weak(learn, recipe, Path(d)/'state') for learn in learners()]
        at_once = lambda: fit_weak(join_learners(learners(), recipe, list(seeds)), recipe, Path(d)/'state')
        yield compare(f'{len(seeds)} trainings', '10 shots', 'one after another', one_by_one, at_once, budget=20)
