"gScoreCAM of one image on BiomedCLIP's image tower with random weights: against all 768 masked images made at once and asked, and against one channel at a time."
import time

import torch
import torch.nn.functional as F

from medsam_prompts.backbones.clip import ClipTower
from medsam_prompts.prompts.saliency import channel_importance, channel_scores, channel_weights, gscorecam
from .common import installed, row, settle, with_peak

passes = 6  # through the tower; the others count as much as the mean of those after the first


def build(quick):
    from open_clip.model import CustomTextCLIP
    torch.manual_seed(0)
    vision = dict(timm_model_name=f'vit_{"tiny" if quick else "base"}_patch16_224', timm_pool='', timm_proj='linear', image_size=224)
    return ClipTower(CustomTextCLIP(512, vision, dict(context_length=8, vocab_size=8, width=16, heads=1, layers=1)), None, 'random')


@installed
@torch.no_grad()
def all_at_once(tower, x, text):
    "Every masked image exists before the first is asked."
    _, acts = channel_importance(tower, x, text, tower.layers()[-1])
    masks = F.interpolate(acts, x.shape[2:], mode='bilinear', align_corners=True)[0]
    low, high = masks.amin((1, 2), keepdim=True), masks.amax((1, 2), keepdim=True)
    masked = x*((masks - low)/(high - low + 1e-6))[:, None]
    return torch.cat([tower.logits(m, text) for m in masked.split(4)])


@installed
@torch.no_grad()
def one_by_one(tower, x, text):
    importance, acts = channel_importance(tower, x, text, tower.layers()[-1])
    chosen = importance.topk(min(300, importance.shape[1])).indices[0]
    scores = torch.cat([channel_scores(tower, x, acts[:, c:c + 1], text, 1)[0] for c in chosen])
    return torch.einsum('c,chw->hw', channel_weights(chosen[None], scores[None], importance.shape[1])[0], acts[0])


def ours(tower, x, text): return gscorecam(tower, x, text).cam


def measured(way, tower, x, text):
    "Seconds, processor seconds and peak MiB of the whole from the first passes."
    took, skipped, inside = [], [0], tower.encode_image

    def timed(x):
        if torch.is_grad_enabled(): return inside(x)
        if len(took) >= passes: skipped[0] += len(x); return torch.ones(len(x), 512)
        t, res = time.perf_counter(), inside(x)
        took.append((time.perf_counter() - t)/len(x))
        return res

    tower.encode_image = timed
    settle(way)
    s, cpu, mib = with_peak(lambda: way(tower, x, text))
    tower.encode_image, rest = inside, skipped[0]*sum(took[1:])/(len(took) - 1)
    return s + rest, cpu + rest, mib


def rows(quick):
    tower, x, text = build(quick), torch.randn(1, 3, 224, 224), F.normalize(torch.randn(512), dim=0)
    channel_importance(tower, x, text, tower.layers()[-1])  # libraries take what they take once
    found = {way: measured(way, tower, x, text) for way in (all_at_once, one_by_one, ours)}
    for way, peer in ((all_at_once, 'all masked images at once, all asked'), (one_by_one, 'one channel at a time')):
        yield row('gScoreCAM', '224²', peer, found[way], found[ours], note=f'from {passes} passes of each way')
