"Mask decoder at SAM's sizes, one predicted dense map for each image, forward and backward: segment-anything's `MaskDecoder` against `Segmenter.decode`."
from itertools import product

import torch
from torch import nn

from medsam_prompts.all import Segmenter, build_decoder
from .common import compare, installed

threads = 1, 2


def peer(seg, emb, sparse, dense):
    "The official module takes one image and many prompts: an image of zeros, and the images in the dense prompts, make it a batch."
    return seg.mask_decoder(torch.zeros_like(emb[:1]), seg.prompt_encoder.get_dense_pe(), sparse[:, 0], emb + dense[:, 0], False)[0]


def ours(seg, emb, sparse, dense): return seg.decode(emb, (sparse, dense))[0][:, 0]


def forward(f, *inputs):
    with torch.no_grad(): return f(*inputs)


def forward_backward(f, seg, emb, *prompts):
    prompts = [p.clone().requires_grad_() for p in prompts]
    f(seg, emb, *prompts).sum().backward()
    return torch.cat([p.grad.flatten() for p in prompts])


def rows(quick):
    torch.manual_seed(0)
    size, cells = (128, 8) if quick else (1024, 64)
    seg = Segmenter(nn.Identity(), *build_decoder(size, cells))
    for n, way in product((1, 4, 8), (forward, forward_backward)):
        inputs = seg, torch.randn(n, 256, cells, cells), torch.randn(n, 1, 2, 256), torch.randn(n, 1, 256, cells, cells)
        a, b = (way(f, *inputs) for f in (peer, ours))
        assert (a - b).abs().max() < 1e-4*a.abs().max()
        yield compare(way.__name__.replace('_', ' + '), n, "segment-anything's MaskDecoder", installed(lambda: way(peer, *inputs)), lambda: way(ours, *inputs))
