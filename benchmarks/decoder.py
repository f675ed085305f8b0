"""Mask decoder at SAM's sizes with frozen random weights, one box and one predicted dense map per image: segment-anything's `MaskDecoder` against `Segmenter.decode`.

Both run in one process, in turns, with one thread and with two; medians and their ratio go to decoder.csv.
"""
import csv
import platform
import statistics
import time
import warnings
from itertools import product
from pathlib import Path

import torch
from torch import nn

from medsam_prompts.all import Segmenter, build_decoder, set_quiet

warnings.filterwarnings('ignore')
set_quiet()


def peer(seg, emb, sparse, dense):
    "The official module takes one image and many prompts: an image of zeros, and the images in the dense prompts, make it a batch."
    return seg.mask_decoder(torch.zeros_like(emb[:1]), seg.prompt_encoder.get_dense_pe(), sparse[:, 0], emb + dense[:, 0], False)[0]


def ours(seg, emb, sparse, dense): return seg.decode(emb, (sparse, dense))[0][:, 0]


def forward(f, *inputs):
    with torch.no_grad(): return f(*inputs)


def backward(f, seg, emb, *prompts):
    prompts = [p.clone().requires_grad_() for p in prompts]
    f(seg, emb, *prompts).sum().backward()
    return torch.cat([p.grad.flatten() for p in prompts])


def medians(way, *inputs, repeat=7):
    "Seconds of the official module and ours, taken in turns."
    a, b = (way(f, *inputs) for f in (peer, ours))
    assert (a - b).abs().max() < 1e-4*a.abs().max()
    times = [], []
    for _ in range(repeat):
        for f, ts in zip((peer, ours), times):
            t = time.perf_counter()
            way(f, *inputs)
            ts.append(time.perf_counter() - t)
    return [statistics.median(ts) for ts in times]


def main():
    torch.manual_seed(0)
    seg, rows = Segmenter(nn.Identity(), *build_decoder(1024, 64)), []
    for threads, n in product((1, 2), (1, 4, 8)):
        torch.set_num_threads(threads)
        inputs = seg, torch.randn(n, 256, 64, 64), torch.randn(n, 1, 2, 256), torch.randn(n, 1, 256, 64, 64)
        for name, way in dict(forward=forward, forward_backward=backward).items():
            peer_s, ours_s = medians(way, *inputs)
            rows.append(dict(batch=n, measured=name, peer_seconds=f'{peer_s:.4f}', ours_seconds=f'{ours_s:.4f}', speed_ratio=f'{peer_s/ours_s:.2f}',
                             machine=f'{platform.machine()} {threads} threads', torch=torch.__version__))
            print(*rows[-1].values(), sep='  ')
    with (Path(__file__).parent/'decoder.csv').open('w', newline='') as f:
        w = csv.DictWriter(f, rows[0])
        w.writeheader()
        w.writerows(rows)


if __name__ == '__main__': main()
