"Losses on 4 x 640 x 640, forward and backward: bands as sums of rows and columns against explicit band masks; Dice plus cross entropy against MONAI's."
import torch

from medsam_prompts.losses.box import log_barrier, tightness_loss
from medsam_prompts.losses.overlap import MaskLoss
from .common import compare, installed

threads = 1, 2


def band_masks(box, size, width=5):
    "Float masks (bands,size,size) and the pixels each band asks for, as the released code builds them."
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


def explicit_tightness(probs, boxes):
    total = 0.
    for p, box in zip(probs[:, 0], boxes):
        masks, need = band_masks(box, p.shape[-1])
        total = total + log_barrier(need - (masks*p).sum((1, 2)), 5.).sum()
    return total/len(probs)


def trained(loss, maps, target):
    "Loss and gradient."
    maps = maps.clone().requires_grad_()
    value = loss(maps, target)
    value.backward()
    return torch.cat([value.detach().view(1), maps.grad.flatten()])


def rows(quick):
    from monai.losses import DiceCELoss
    size = 64 if quick else 640
    boxes = (torch.tensor([[.03, .05, .95, .94], [0, 0, .998, .998], [.16, .08, .78, .97], [.02, .47, .98, .98]])*size).round().clamp(max=size - 1)
    maps, target = torch.rand(4, 1, size, size)*.2, (torch.rand(4, 1, size, size) > .7).float()
    monai = DiceCELoss(sigmoid=True, smooth_nr=1., smooth_dr=1.)
    for what, peer, theirs, ours, given in (('tightness, forward + backward', 'explicit band masks', explicit_tightness, tightness_loss, boxes),
                                            ('Dice + cross entropy, forward + backward', "MONAI's DiceCELoss", monai, MaskLoss(), target)):
        torch.testing.assert_close(trained(theirs, maps, given), trained(ours, maps, given), atol=1e-5, rtol=1e-3)
        yield compare(what, f'4 x {size}²', peer, installed(lambda: trained(theirs, maps, given)), lambda: trained(ours, maps, given))
