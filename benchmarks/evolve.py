"""Prompt evolution: a step against a bare forward and backward of decoder and scorer, against encoding the image at each step, and 16 images at once against one by one; a heat map in batches.

    python benchmarks/evolve.py

Ratios are of times in one run, ways taken in turn; the median of several repeats. Rows go to evolve.csv.
"""
import csv
import platform
import statistics
import time
import warnings
from pathlib import Path

import torch

from medsam_prompts.all import (PredictedDice, Prompts, SegmentationRegressor, evolve_prompt, load_segmenter, point_map, predicted_iou, set_quiet)

warnings.filterwarnings('ignore')
set_quiet()
steps, repeats = 5, 3


def in_turn(ways):
    "Median seconds of each way."
    times = {k: [] for k in ways}
    for _ in range(repeats):
        for k, f in ways.items():
            t = time.perf_counter()
            f()
            times[k].append(time.perf_counter() - t)
    return {k: statistics.median(t) for k, t in times.items()}


def main():
    torch.manual_seed(0)
    seg, net = load_segmenter('lite_medsam'), SegmentationRegressor().eval() # times do not depend on the weights; MobileSAM's decoder is the same
    emb, images, x = torch.randn(16, 256, 64, 64), torch.rand(16, 1, 256, 256), torch.rand(1, 3, 256, 256)
    points = 256*torch.rand(16, 1, 1, 2)

    def evolve(n, first=0): evolve_prompt(seg, emb[first:first + n], Prompts(points=points[first:first + n]), PredictedDice(net, images[first:first + n]), steps)

    def bare(encode=False):
        score = PredictedDice(net, images[:1])
        for _ in range(steps + 1):
            xy = points[:1].clone().requires_grad_()
            e = seg.encode(x) if encode else emb[:1]
            logits, iou = seg.decode(e, Prompts(points=xy))
            score(logits[:, :, 0], iou[:, :, 0]).sum().backward()

    def grid(batch): return lambda: point_map(seg, emb[:1], predicted_iou, (256, 256), 16, batch)

    evolve(1)
    t = in_turn(dict(evolve=lambda: evolve(1), bare=bare, encoding=lambda: bare(True), sixteen=lambda: evolve(16), one_by_one=lambda: [evolve(1, i) for i in range(16)], map=grid(16), map_one_by_one=grid(1)))
    rows = [('a step of evolve_prompt over a bare forward and backward', t['evolve']/t['bare']), ('encoding the image at each step over evolve_prompt', t['encoding']/t['evolve']),
            ('16 images one by one over 16 in a batch', t['one_by_one']/t['sixteen']), ('heat map of 16 x 16 one by one over batches of 16', t['map_one_by_one']/t['map'])]
    machine = f'{platform.machine()} {torch.get_num_threads()} threads, torch {torch.__version__}'
    with (Path(__file__).parent/'evolve.csv').open('w', newline='') as f:
        out = csv.writer(f)
        out.writerow(['what', 'ratio', 'seconds a step', 'machine'])
        for what, ratio in rows:
            out.writerow([what, f'{ratio:.2f}', f'{t["evolve"]/(steps + 1):.3f}', machine])
            print(f'{what:60} {ratio:.2f}')


if __name__ == '__main__': main()
