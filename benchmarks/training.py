"""One epoch of ten-shot training on cached embeddings (lite_medsam), where its time goes, and the same forward and backward passes under bfloat16 autocast.

Medians with one thread and with two; processor seconds beside seconds, since other programs do not lengthen them (those of all threads are added up).
"""
import csv
import platform
import statistics
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from medsam_prompts.all import *

warnings.filterwarnings('ignore')
set_quiet()


def medians(repeat=5, **ways):
    "Seconds and processor seconds of each way, measured in turns."
    times = {k: [] for k in ways}
    for f in ways.values(): f()
    for _ in range(repeat):
        for k, f in ways.items():
            t = time.perf_counter(), time.process_time()
            f()
            times[k].append((time.perf_counter() - t[0], time.process_time() - t[1]))
    return {k: [statistics.median(t) for t in zip(*ts)] for k, ts in times.items()}


def main():
    torch.manual_seed(0)
    seg, emb, rows = load_segmenter('lite_medsam'), torch.randn(10, 256, 64, 64), []
    boxes = torch.tensor([[[[60., 70, 150, 160]]]]).repeat(10, 1, 1, 1)
    recipe = WeakRecipe(epochs=1)
    learn = weak_learner(seg, emb, boxes, recipe)
    net, batches = learn.model, [slice(0, 4), slice(4, 8), slice(8, 10)]
    module = net.prompters[0]

    def decoder():
        for b in batches:
            sparse, dense = (o.detach().unsqueeze(1).requires_grad_() for o in prompts[b.start])
            seg.decode(emb[b], (sparse, dense))[0].sum().backward()

    def prompting():
        for b in batches: sum(o.sum() for o in module(emb[b])).backward()

    def loss():
        for b in batches: learn.loss_func(torch.zeros(len(emb[b]), 1, 256, 256, requires_grad=True), boxes[b]).backward()

    def networks(bf16=False):
        for b in batches:
            with torch.autocast('cpu', torch.bfloat16, bf16): out = net(emb[b])
            out.float().sum().backward()

    def epoch(): fit_weak(learn, recipe, folder/'state')

    with torch.no_grad(): prompts = {b.start: module(emb[b]) for b in batches}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with TemporaryDirectory() as d:
            folder = Path(d)
            t = medians(epoch=epoch, decoder=decoder, module=prompting, loss=loss, networks=networks, networks_bf16=lambda: networks(True))
        outside = [1 - (t['decoder'][i] + t['module'][i])/t['epoch'][i] for i in range(2)]
        rows.append(dict(benchmark='ten-shot epoch, lite_medsam, cached embeddings', **{f'{k}_seconds': f'{v[0]:.3f}' for k, v in t.items()}, **{f'{k}_cpu_seconds': f'{v[1]:.3f}' for k, v in t.items()},
                         share_outside_networks=f'{outside[1]:.3f}', share_outside_decoder=f'{1 - t["decoder"][1]/t["epoch"][1]:.3f}', machine=f'{platform.machine()} {threads} threads', torch=torch.__version__))
        for k, v in rows[-1].items(): print(f'{k:28} {v}')
    with (Path(__file__).parent/'training.csv').open('w', newline='') as f:
        w = csv.DictWriter(f, rows[0])
        w.writeheader()
        w.writerows(rows)


if __name__ == '__main__': main()
