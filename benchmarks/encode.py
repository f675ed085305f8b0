"One image through the encoder: segment-anything's code in float32, transformers' model of the same size, and the options of `FastEncoder`."
from copy import deepcopy
from itertools import product

import torch
from torch.utils.flop_counter import FlopCounterMode

from medsam_prompts.all import EncodeOptions, FastEncoder, cosine, phantom
from .common import backbone, clocked, in_turns, installed, row

threads = 1, 2

options = {'float32 prepared': EncodeOptions(prepared=True), 'bfloat16 sdpa': EncodeOptions('bfloat16', True), 'bfloat16 prepared': EncodeOptions('bfloat16', prepared=True)}
best = [*options][-1]


def transformers_encoder(quick):
    from transformers import SamVisionConfig, SamVisionModel
    small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=128, global_attn_indexes=[1], window_size=4) if quick else {}
    return SamVisionModel(SamVisionConfig(**small)).eval()


def operations(encoder, x):
    "Multiplications and additions of one image."
    with FlopCounterMode(display=False) as count: deepcopy(encoder).to('meta')(x.to('meta'))
    return count.get_total_flops()


def peak(dtype, n):
    "Multiplications and additions per second in the product of two square matrices: the best of many."
    a = torch.randn(n, n).to(dtype)
    return 2*n**3/min(clocked(lambda: a @ a)[0] for _ in range(20))


@torch.no_grad()
def rows(quick):
    fastest = {d: peak(d, 128 if quick else 2048) for d in (torch.float32, torch.bfloat16)}
    for name in ('lite_medsam', 'sam_vit_b'):
        seg, used, out = backbone(name, quick), options if name == 'lite_medsam' else {best: options[best]}, {}
        x = seg.preprocess(phantom('chest_xray', 0))
        ways = {'segment-anything, float32': seg.image_encoder, **{o: FastEncoder(seg, v) for o, v in used.items()}}
        if name == 'sam_vit_b': ways['transformers, float32'] = lambda x, m=transformers_encoder(quick): m(x).last_hidden_state
        calls = [(lambda k=k: out.update({k: ways[k](x)})) for k in ways]
        times = dict(zip(ways, in_turns(*(f if k in used else installed(f) for k, f in zip(ways, calls)), budget=20)))
        work = operations(seg.image_encoder, x)
        for peer, o in product([k for k in ways if k not in used], used):
            share, like = work/times[o][0]/fastest[getattr(torch, o.split()[0])], cosine(out[o], out['segment-anything, float32'])
            yield row(f'{name}, {o}', x.shape[-1], peer, times[peer], times[o], '3, aim 5' if o == best else '', f'cosine to float32 {like:.5f}; {share:.0%} of what a product of matrices reaches in {o.split()[0]}')
