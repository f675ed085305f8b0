"Dice, HD95 and NSD of 1,000 masks, against MONAI's functions."
import numpy as np
import torch

from medsam_prompts.all import case_metrics, dice_score, phantom
from .common import compare, installed


def rows(quick):
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
    n = 4 if quick else 1000
    truth = np.stack([phantom('fetal_head', i % 50).labels[:256, :384] > 0 for i in range(n)])
    pred = np.roll(truth, (4, 7), (1, 2))
    a, b = (torch.from_numpy(m)[:, None] for m in (pred, truth))
    theirs = dict(dice=lambda: compute_dice(a, b), hd95=lambda: compute_hausdorff_distance(a, b, include_background=True, percentile=95), nsd=lambda: compute_surface_dice(a, b, [2.], include_background=True))
    ours = lambda: [case_metrics(p, t) for p, t in zip(pred, truth)]
    one = case_metrics(pred[0], truth[0])
    apart = ', '.join(f'{k} differs by {abs(one[k] - float(f()[0])):.1e}' for k, f in theirs.items())
    yield compare('Dice', n, 'monai.metrics', installed(theirs['dice']), lambda: [dice_score(p, t) for p, t in zip(pred, truth)])
    yield compare('Dice, IoU, HD95 and NSD', n, 'monai.metrics', installed(lambda: [f() for f in theirs.values()]), ours, note=apart)
