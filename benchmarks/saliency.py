"""gScoreCAM of one image on BiomedCLIP's image tower with random weights: against all 768 masked images made at once and asked, and against one channel at a time.

    python benchmarks/saliency.py [--passes N]

Each way runs in a process of its own, with one thread, so that its peak memory above the loaded tower can be read off. Seconds are those of the processor, since other programs do not
lengthen them. With --passes only the first N passes through the tower are run; the others count as much as those after the first. Rows go to saliency.csv. Needs Linux.
"""
import argparse
import csv
import json
import platform
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F

from medsam_prompts.backbones.clip import ClipTower
from medsam_prompts.prompts.saliency import channel_importance, channel_scores, channel_weights, gscorecam

warnings.filterwarnings('ignore')


def build():
    from open_clip.model import CustomTextCLIP
    torch.manual_seed(0)
    vision = dict(timm_model_name='vit_base_patch16_224', timm_pool='', timm_proj='linear', image_size=224)
    return ClipTower(CustomTextCLIP(512, vision, dict(context_length=8, vocab_size=8, width=16, heads=1, layers=1)), None, 'random')


@torch.no_grad()
def all_at_once(tower, x, text, batch):
    "Every masked image exists before the first is asked."
    _, acts = channel_importance(tower, x, text, tower.layers()[-1])
    masks = F.interpolate(acts, x.shape[2:], mode='bilinear', align_corners=True)[0]
    low, high = masks.amin((1, 2), keepdim=True), masks.amax((1, 2), keepdim=True)
    masked = x*((masks - low)/(high - low + 1e-6))[:, None]
    return torch.cat([tower.logits(m, text) for m in masked.split(batch)])


@torch.no_grad()
def one_by_one(tower, x, text, batch):
    importance, acts = channel_importance(tower, x, text, tower.layers()[-1])
    chosen = importance.topk(300).indices[0]
    scores = torch.cat([channel_scores(tower, x, acts[:, c:c + 1], text, 1)[0] for c in chosen])
    return torch.einsum('c,chw->hw', channel_weights(chosen[None], scores[None], 768)[0], acts[0])


def ours(tower, x, text, batch): return gscorecam(tower, x, text, batch=batch).cam


def status(key): return next(int(line.split()[1])/1024 for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(key))


def measure(way, batch, limit):
    torch.set_num_threads(1)
    tower, x, text, took = build(), torch.randn(1, 3, 224, 224), F.normalize(torch.randn(512), dim=0), []
    inside, skipped = tower.encode_image, []

    def timed(x):
        if torch.is_grad_enabled(): return inside(x)
        if limit and len(took) >= limit: return skipped.append(len(x)) or torch.ones(len(x), 512)
        t = time.process_time()
        res = inside(x)
        took.append((time.process_time() - t)/len(x))
        return res

    tower.encode_image = timed
    channel_importance(tower, x, text, tower.layers()[-1])  # libraries take what they take once
    Path('/proc/self/clear_refs').write_text('5')  # the peak counts from here
    before, t = status('VmRSS'), time.process_time()
    globals()[way](tower, x, text, batch)
    seconds, later = time.process_time() - t, took[1:] or took
    print(json.dumps(dict(seconds=seconds + sum(skipped)*sum(later)/len(later), mib=status('VmHWM') - before, measured=len(took)*batch)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--passes', type=int, default=0)
    parser.add_argument('--way', nargs=2)
    a = parser.parse_args()
    if a.way: return measure(a.way[0], int(a.way[1]), a.passes)
    rows, runs = [], [('all_at_once', 4), ('one_by_one', 1), ('ours', 4), ('all_at_once', 32), ('ours', 32)]

    def run(way, batch):
        out = subprocess.run([sys.executable, __file__, '--way', way, str(batch), '--passes', str(a.passes)], capture_output=True, text=True, check=True).stdout
        return json.loads(out.splitlines()[-1])

    found = {r: run(*r) for r in runs}
    for (way, batch), r in found.items():
        ref = found['ours', max(batch, 4)]
        rows.append(dict(way=way, batch=batch, cpu_seconds=f'{r["seconds"]:.1f}', time_over_ours=f'{r["seconds"]/ref["seconds"]:.2f}', extra_mib=f'{r["mib"]:.0f}', memory_over_ours=f'{r["mib"]/ref["mib"]:.1f}',
                         masked_images_run=r['measured'], machine=f'{platform.machine()} 1 threads', torch=torch.__version__, timm=version('timm'), open_clip=version('open_clip_torch')))
        print(*rows[-1].values(), sep='  ')
    with (Path(__file__).parent/'saliency.csv').open('w', newline='') as f:
        w = csv.DictWriter(f, rows[0])
        w.writeheader()
        w.writerows(rows)


if __name__ == '__main__': main()
