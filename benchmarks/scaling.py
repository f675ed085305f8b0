"How the cost of a call grows: points, and the slope of the line through their logarithms. The peer is the smallest point, as often as the size is larger: a ratio of 1 is growth in proportion."
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from medsam_prompts.all import Case, EmbeddingCache, Prompts, WeakRecipe, case_metrics, fit_weak, load_segmenter, weak_learner
from .common import in_turns, row
from .memory import Pictures

toy = load_segmenter('sam_toy')


def embed(n):
    with TemporaryDirectory() as d: EmbeddingCache(toy, folder=d).fill(Pictures(n))


def preprocess(n):
    side = int(n**.5)
    toy.preprocess(Case(np.zeros((side, side), np.uint8), 'zeros', grey_range=(0, 255)))


def metrics(n):
    n = int(n**.5)
    m = np.zeros((n, n), bool)
    m[n//4:n//2, n//4:3*n//4] = True
    case_metrics(m, np.roll(m, 3, 0))


@torch.no_grad()
def decode(n): toy.decode(torch.ones(1, 256, 8, 8), Prompts(boxes=torch.ones(1, n, 4)))


def train(shots, classes):
    boxes = torch.tensor([20., 20, 90, 90]).repeat(shots, classes, 1, 1)
    learn = weak_learner(toy, torch.ones(shots, 256, 8, 8), boxes, WeakRecipe(epochs=2), targets=tuple(range(1, classes + 1)))
    with TemporaryDirectory() as d: fit_weak(learn, WeakRecipe(epochs=2), Path(d)/'state')


curves = {'cases: embed': (embed, (25, 50, 100, 200)), 'pixels: preprocess': (preprocess, (256**2, 512**2, 1024**2, 2048**2)), 'pixels: metrics': (metrics, (256**2, 512**2, 1024**2, 2048**2)),
          'prompts: decode': (decode, (8, 16, 32, 64)), 'shots: train': (lambda n: train(n, 1), (10, 20, 40, 80)), 'classes: train': (lambda n: train(10, n), (1, 2, 4, 8))}


def rows(quick):
    for what, (f, sizes) in curves.items():
        sizes = sizes[:2] if quick else sizes
        points = in_turns(*(lambda n=n: f(n) for n in sizes))
        slope = np.polyfit(np.log(sizes), np.log([t for t, *_ in points]), 1)[0]
        for n, p in zip(sizes, points): yield row(what, n, f'{sizes[0]}, in proportion', (*(v*n/sizes[0] for v in points[0][:2]), np.nan), p, note=f'exponent {slope:.2f}')
