"""Dense CRF: exact sums in torch beside pydensecrf's lattice, on a grey and a colour image of 128 and 256 pixels a side, after 1, 5 and 10 steps (256 in colour: 1 step, others take minutes).

    python benchmarks/crf.py

Ratios are of times in one run, ways taken in turn; the median of several repeats, one where a call takes seconds. Rows go to crf.csv.
"""
import csv
import platform
import statistics
import time
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy import ndimage as ndi

from medsam_prompts.data.phantoms import phantom
from medsam_prompts.prompts.crf import dense_crf


def scene(size, colour):
    "A chest phantom, tinted if need be, and a blurred map of its lungs."
    case = phantom('chest_xray', 3)
    image = cv2.resize(case.image, (size, size), interpolation=cv2.INTER_AREA)
    saliency = cv2.resize(ndi.gaussian_filter(np.isin(case.labels, (1, 2)).astype(np.float32), 12), (size, size))
    tint = ndi.gaussian_filter(np.random.default_rng(0).normal(size=(size, size, 3)), (size/16, size/16, 0))
    return (np.clip(image[..., None] + 40*tint/tint.std(), 0, 255).astype(np.uint8) if colour else image), saliency


def medians(image, saliency, steps):
    "Seconds of pydensecrf and torch in turn, and both results."
    times, out = ([], []), [None, None]
    while not times[1] or len(times[1]) < 3 and sum(times[1]) < 5:
        for i, backend in enumerate(('pydensecrf', 'torch')):
            t = time.perf_counter()
            out[i] = dense_crf(image, saliency, steps=steps, backend=backend)
            times[i].append(time.perf_counter() - t)
    return *map(statistics.median, times), *out


def main():
    rows = []
    dense_crf(*scene(32, False), backend='torch')
    for colour, size, steps in product((False, True), (128, 256), (1, 5, 10)):
        if colour and size == 256 and steps > 1: continue
        lattice_s, exact_s, a, b = medians(*scene(size, colour), steps)
        rows.append(dict(image='colour' if colour else 'grey', size=size, steps=steps, pydensecrf_seconds=f'{lattice_s:.4f}', torch_seconds=f'{exact_s:.3f}', torch_over_pydensecrf=f'{exact_s/lattice_s:.1f}',
                         mean_difference=f'{np.abs(a - b).mean():.5f}', other_label=f'{((a > .5) != (b > .5)).mean():.5f}', machine=f'{platform.machine()} {torch.get_num_threads()} threads', torch=torch.__version__))
        print(*rows[-1].values(), sep='  ', flush=True)
    with (Path(__file__).parent/'crf.csv').open('w', newline='') as f:
        out = csv.DictWriter(f, rows[0])
        out.writeheader()
        out.writerows(rows)


if __name__ == '__main__': main()
