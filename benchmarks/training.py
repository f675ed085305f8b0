"An epoch of ten-shot training: on cached embeddings against a plain loop with the encoder in it, segment-anything's decoder, image after image, and explicit band masks."
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F

from medsam_prompts.all import WeakRecipe, emptiness_loss, fit_weak, size_loss, weak_learner
from .common import backbone, compare, in_turns, installed, row
from .decoder import peer as official_decoder
from .losses import explicit_tightness

threads = 1, 2


def plain_epoch(seg, module, images, boxes, batch=4):
    "What one would write first; of the losses only the bands are explicit."
    opt = torch.optim.Adam(module.parameters(), 1e-3, weight_decay=1e-4)
    for x, b in zip(images.split(batch), boxes.split(batch)):
        with torch.no_grad(): emb = seg.image_encoder(x)
        logits = torch.cat([official_decoder(seg, e[None], sparse[None, None], dense[None, None]) for e, sparse, dense in zip(emb, *module(emb))])
        probs = F.interpolate(logits, (seg.lowres_size,)*2).sigmoid()
        loss = emptiness_loss(probs, b) + 1e-4*explicit_tightness(probs, b[:, 0]) + 1e-2*size_loss(probs, b)
        opt.zero_grad()
        loss.backward()
        opt.step()


def rows(quick):
    torch.manual_seed(0)
    seg, big, n = backbone('lite_medsam', quick), backbone('sam_vit_b', quick), 10
    images, x, emb = torch.rand(n, 3, *(seg.input_size,)*2), torch.rand(1, 3, *(big.input_size,)*2), torch.randn(n, 256, *(seg.embed_size,)*2)
    boxes = (torch.tensor([.23, .27, .58, .62])*seg.input_size).round().repeat(n, 1, 1, 1)
    recipe = WeakRecipe(epochs=1)
    learn = weak_learner(seg, emb, boxes, recipe)
    module, scaled = learn.model.prompters[0], boxes[:, 0]*seg.lowres_size/seg.input_size

    def networks():
        "Module and decoder alone, forward and backward."
        for e in emb.split(4): learn.model(e).sum().backward()

    with torch.no_grad(): (one, one_cpu, _), (big_one, big_cpu, big_mib) = in_turns(installed(lambda: seg.encode(images[:1])), installed(lambda: big.encode(x)), budget=10)
    with TemporaryDirectory() as d:
        epoch = lambda: fit_weak(learn, recipe, Path(d)/'state')
        first = compare('epoch, lite_medsam', '10 shots', 'plain loop, encoder in it', installed(lambda: plain_epoch(seg, module, images, scaled)), epoch, budget=20)
        yield {**first, 'note': f'embeddings once before, {n*one:.0f} s, not counted'}
        t, cpu = first['peer_seconds'] + n*(big_one - one), first['peer_cpu_seconds'] + n*(big_cpu - one_cpu)
        ours = first['ours_seconds'], first['ours_cpu_seconds'], first['ours_mib']
        yield row('epoch, sam_vit_b', '10 shots', 'plain loop, encoder in it', (t, cpu, max(big_mib, first['peer_mib'])), ours, note=f'computed: the encoder of one image took {big_one:.1f} s; embeddings once before, {n*big_one:.0f} s, not counted')
        share = compare('share of the networks', '10 shots', 'module and decoder alone', networks, epoch)
        yield {**share, 'note': f'{100*(1 - share["ratio"]):.0f} % of the epoch is spent elsewhere'}
