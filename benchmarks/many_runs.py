"""Nine ten-shot runs (3 subsets x 3 seeds) on cached embeddings: all at once (`join_learners`) against one after another.

Each way runs in a process of its own, so that its peak memory can be read off. After the first five steps both must have the same modules. One row goes to many_runs.csv.
Few epochs by default, which compares speed and steps; `--epochs 100` trains to the end.
"""
import argparse
import csv
import platform
import resource
import subprocess
import sys
import time
import warnings
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from fastai.basics import Callback

from medsam_prompts.all import *

warnings.filterwarnings('ignore')
set_quiet()
steps, tolerance, seeds = 5, 1e-4, [(subset, seed) for subset, seed in product(range(3), range(3))]


class AfterSteps(Callback):
    "The modules after the first steps, and what they answer to a fixed batch."
    def __init__(self, emb): self.emb = emb
    def after_batch(self):
        if self.train_iter == steps: self.learn.early = [(weights(m), logits(self.model.segmenter, m, self.emb)) for m in self.model.prompters]


def weights(module): return torch.cat([p.detach().flatten() for p in module.parameters()]).cpu()


def logits(segmenter, module, emb):
    with torch.no_grad(): return segmenter.decode(emb, tuple(o.unsqueeze(1) for o in module(emb)))[0].cpu()


def fitted(learn, recipe, folder):
    modules, _ = fit_weak(learn, recipe, folder/'state')
    return learn.early, [m for members in modules.values() for m in members]


def one_after_another(learners, recipe, folder): return [sum(o, []) for o in zip(*(fitted(make(), recipe, folder) for make in learners))]


def at_once(learners, recipe, folder):
    alone = [make() for make in learners]
    joined = join_learners(alone, recipe, [seed for _, seed in seeds])
    joined.add_cbs([cb for cb in alone[0].cbs if isinstance(cb, AfterSteps)])
    return fitted(joined, recipe, folder)


def peak_mib(device):
    if device.type == 'cuda': return torch.cuda.max_memory_allocated(device)/2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024


def measure(way, a, out):
    "Train all nine and write what came out."
    device, recipe = pick_device(a.device), weak_recipe(a.recipe, epochs=a.epochs)
    seg, parts = load_segmenter(a.backbone, device=device), load_task(a.task)
    cache, test, sets = EmbeddingCache(seg), parts['test'][:a.test], {}
    for subset in range(3):
        few = few_shots(a.task, parts['train'], 10, subset)
        sets[subset] = weak_training_set(seg, cache, few, tight_boxes(few), recipe.views)
    cache.fill(test)
    def learner(subset, seed):
        learn = weak_learner(seg, *sets[subset], recipe, seed)
        learn.add_cb(AfterSteps(sets[0][0][:4].to(device)))
        return learn
    with TemporaryDirectory() as d:
        wall, cpu = time.perf_counter(), time.process_time()
        early, modules = dict(one_after_another=one_after_another, at_once=at_once)[way]([lambda r=r: learner(*r) for r in seeds], recipe, Path(d))
        wall, cpu, peak = time.perf_counter() - wall, time.process_time() - cpu, peak_mib(device)
    dice = [np.mean([dice_score(o.labels > 0, o.case.labels > 0) for o in segment(seg, LearnedPrompts({1: [m]}), test, cache)]) for m in modules]
    machine = torch.cuda.get_device_name(device) if device.type == 'cuda' else f'{platform.machine()} {torch.get_num_threads()} threads'
    torch.save(dict(early=early, seconds=wall, cpu_seconds=cpu, peak_mib=peak, dice=float(np.mean(dice)), machine=machine), out)


def compare(alone, joined, a):
    differ = [max((x - y).abs().max().item() for x, y in zip(*(([e[i] for e in o['early']]) for o in (alone, joined)), strict=True)) for i in range(2)]
    assert differ[0] <= tolerance, f'after {steps} steps the modules differ by {differ[0]:.1e}'
    ways, ratio = dict(alone=alone, joined=joined), lambda k: f'{alone[k]/joined[k]:.2f}'
    return dict(benchmark=f'{len(seeds)} ten-shot runs, cached embeddings', backbone=a.backbone, task=a.task, recipe=a.recipe, epochs=a.epochs, test_images=a.test,
                **{f'{w}_seconds': f'{o["seconds"]:.1f}' for w, o in ways.items()}, speed_ratio=ratio('seconds'),
                **{f'{w}_cpu_seconds': f'{o["cpu_seconds"]:.1f}' for w, o in ways.items()}, cpu_ratio=ratio('cpu_seconds'),
                **{f'{w}_peak_mib': f'{o["peak_mib"]:.0f}' for w, o in ways.items()}, memory_ratio=ratio('peak_mib'),
                **{f'{w}_mean_test_dice': f'{o["dice"]:.4f}' for w, o in ways.items()}, dice_points_apart=f'{100*abs(alone["dice"] - joined["dice"]):.3f}',
                module_difference=f'{differ[0]:.1e}', logit_difference=f'{differ[1]:.1e}', machine=joined['machine'], torch=torch.__version__)


def options():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--epochs', type=int, default=2, help='at least 2, which are 6 steps')
    p.add_argument('--test', type=int, default=8, help='how many test images')
    p.add_argument('--task', default='hc18' if datasets['hc18'].state() == 'present' else 'phantom_left_lung')
    p.add_argument('--recipe', default='paper')
    p.add_argument('--backbone', default='lite_medsam', help='sam_toy only tries the script')
    p.add_argument('--device', default='cpu')
    p.add_argument('--way', help=argparse.SUPPRESS)
    p.add_argument('--out', help=argparse.SUPPRESS)
    return p.parse_args()


def main():
    a = options()
    if a.way: return measure(a.way, a, a.out)
    with TemporaryDirectory() as d:
        for way in ('one_after_another', 'at_once'):
            subprocess.run([sys.executable, __file__, *sys.argv[1:], '--way', way, '--out', f'{d}/{way}'], check=True)
        row = compare(*(torch.load(f'{d}/{way}', weights_only=True) for way in ('one_after_another', 'at_once')), a)
    if a.epochs < 20: print(f'{a.epochs} epochs compare steps and speed; the Dice of finished trainings needs --epochs 100')
    if float(row['dice_points_apart']) > .5: print('the mean test Dice differs by more than half a point')
    with (Path(__file__).parent/'many_runs.csv').open('w', newline='') as f:
        w = csv.DictWriter(f, row)
        w.writeheader()
        w.writerow(row)
    for k, v in row.items(): print(f'{k:24} {v}')


if __name__ == '__main__': main()
