"""Tightness loss, forward and backward, on 4 x 640 x 640: bands as sums of rows and columns against explicit band masks.

Each variant runs in a process of its own, so that its peak memory can be read off. Ratios of one call go to results.csv.
"""
import csv
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from medsam_prompts.losses.box import log_barrier, tightness_loss

size, n = 640, 4
boxes = torch.tensor([[20., 30, 610, 600], [0, 0, 639, 639], [100, 50, 500, 620], [10, 300, 630, 630]])


def band_masks(box, width=5):
    "Float masks (bands,H,W) and the pixels each band asks for, as the released code builds them."
    x0, y0, x1, y1 = box.long().tolist()
    masks, need = [], []
    for start, stop, along in ((y0, y1, 0), (x0, x1, 1)):
        for s in range(start, stop + 1, width):
            e = min(s + width, stop + 1)
            m = torch.zeros(size, size)
            if along == 0: m[s:e, x0:x1 + 1] = 1
            else: m[y0:y1 + 1, s:e] = 1
            masks.append(m)
            need.append(e - s)
    return torch.stack(masks), torch.tensor(need, dtype=torch.float32)


def explicit(probs):
    total = 0.
    for p, box in zip(probs[:, 0], boxes):
        masks, need = band_masks(box)
        total = total + log_barrier(need - (masks*p).sum((1, 2)), 5.).sum()
    return total/n


def measure(name):
    f = dict(ours=lambda p: tightness_loss(p, boxes), explicit=explicit)[name]
    probs = torch.rand(n, 1, size, size).mul_(.2).requires_grad_()
    (probs*2).sum().backward()  # what any loss on these maps needs
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(20 if name == 'ours' else 3):
        probs.grad, t = None, time.perf_counter()
        loss = f(probs)
        loss.backward()
        times.append(time.perf_counter() - t)
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(min(times), max(extra, 1), loss.item())


def main():
    out = {k: [float(v) for v in subprocess.run([sys.executable, __file__, k], capture_output=True, text=True, check=True).stdout.split()] for k in ('explicit', 'ours')}
    (t0, m0, l0), (t1, m1, l1) = out['explicit'], out['ours']
    assert abs(l0 - l1) < 1e-3*abs(l0), (l0, l1)
    row = dict(benchmark='tightness loss 4x640x640, forward+backward', peer='explicit band masks', peer_seconds=f'{t0:.4f}', ours_seconds=f'{t1:.4f}', speed_ratio=f'{t0/t1:.1f}',
               peer_extra_mib=f'{m0/1024:.1f}', ours_extra_mib=f'{m1/1024:.1f}', memory_ratio=f'{m0/m1:.0f}', machine=f'{platform.machine()} {torch.get_num_threads()} threads', torch=torch.__version__)
    path = Path(__file__).parent/'results.csv'
    with path.open('w', newline='') as f:
        w = csv.DictWriter(f, row)
        w.writeheader()
        w.writerow(row)
    for k, v in row.items(): print(f'{k:16} {v}')


if __name__ == '__main__': measure(sys.argv[1]) if len(sys.argv) > 1 else main()
