"""One epoch of ten-shot training on cached embeddings (lite_medsam), and where its time goes."""
import csv
import platform
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from medsam_prompts.all import *

warnings.filterwarnings('ignore')
set_quiet()


def seconds(f, repeat=3):
    f()
    t = time.perf_counter()
    for _ in range(repeat): f()
    return (time.perf_counter() - t)/repeat


def main():
    torch.manual_seed(0)
    seg, emb = load_segmenter('lite_medsam'), torch.randn(10, 256, 64, 64)
    boxes = torch.tensor([[[60., 70, 150, 160]]]).repeat(10, 1, 1)
    recipe = WeakRecipe(epochs=3)
    learn = weak_learner(seg, emb, boxes, recipe)
    net, batches = learn.model, [slice(0, 4), slice(4, 8), slice(8, 10)]

    def decoder():
        for b in batches:
            sparse, dense = (o.detach().unsqueeze(1).requires_grad_() for o in net.module(emb[b]))
            seg.decode(emb[b], (sparse, dense))[0].sum().backward()

    def module():
        for b in batches: sum(o.sum() for o in net.module(emb[b])).backward()

    def loss():
        for b in batches: learn.loss_func(torch.zeros(len(emb[b]), 1, 256, 256, requires_grad=True), boxes[b]).backward()

    with TemporaryDirectory() as d: epoch = seconds(lambda: fit_weak(learn, recipe, Path(d)/'state'), 1)/recipe.epochs
    parts = dict(decoder=seconds(decoder), module=seconds(module), loss=seconds(loss))
    rest = epoch - sum(parts.values())
    row = dict(benchmark='ten-shot epoch, lite_medsam, cached embeddings', epoch_seconds=f'{epoch:.3f}', **{f'{k}_seconds': f'{v:.3f}' for k, v in parts.items()}, rest_seconds=f'{rest:.3f}',
               share_outside_networks=f'{(parts["loss"] + rest)/epoch:.3f}', share_outside_decoder=f'{1 - parts["decoder"]/epoch:.3f}', machine=f'{platform.machine()} {torch.get_num_threads()} threads', torch=torch.__version__)
    with (Path(__file__).parent/'training.csv').open('w', newline='') as f:
        w = csv.DictWriter(f, row)
        w.writeheader()
        w.writerow(row)
    for k, v in row.items(): print(f'{k:24} {v}')


if __name__ == '__main__': main()
