"Prompt evolution: a step against a bare forward and backward, and against encoding at each step; 16 images at once against one by one; a heat map in batches."
import torch

from medsam_prompts.all import PredictedDice, Prompts, SegmentationRegressor, evolve_prompt, point_map, predicted_iou
from .common import backbone, in_turns, row


def rows(quick):
    torch.manual_seed(0)
    seg, net, n, steps, nodes = backbone('lite_medsam', quick), SegmentationRegressor().eval(), 2 if quick else 16, 1 if quick else 5, 4 if quick else 16
    s = seg.input_size
    emb, images, x, points = torch.randn(n, 256, *(seg.embed_size,)*2), torch.rand(n, 1, *(seg.lowres_size,)*2), torch.rand(1, 3, s, s), s*torch.rand(n, 1, 1, 2)

    def evolve(k, first=0): evolve_prompt(seg, emb[first:first + k], Prompts(points=points[first:first + k]), PredictedDice(net, images[first:first + k]), steps)

    def bare(encode=False):
        score = PredictedDice(net, images[:1])
        for _ in range(steps + 1):
            logits, iou = seg.decode(seg.encode(x) if encode else emb[:1], Prompts(points=points[:1].clone().requires_grad_()))
            score(logits[:, :, 0], iou[:, :, 0]).sum().backward()

    def grid(batch): return lambda: point_map(seg, emb[:1], predicted_iou, (s, s), nodes, batch)

    for what, size, peer, theirs, ours in (('steps for one image', steps, 'bare forward + backward', bare, lambda: evolve(1)),
                                           ('steps for one image', steps, 'encoding the image at each step', lambda: bare(True), lambda: evolve(1)),
                                           (f'steps for {n} images', steps, 'one image after another', lambda: [evolve(1, i) for i in range(n)], lambda: evolve(n)),
                                           ('heat map', f'{nodes} x {nodes}', 'one point after another', grid(1), grid(16))):
        t = in_turns(theirs, ours, budget=16)
        yield row(what, size, peer, *t, note='' if what == 'heat map' else f'{t[1][0]/(steps + 1):.3f} s a step, so 50 steps take {51*t[1][0]/(steps + 1):.0f} s')
