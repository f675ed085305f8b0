"One image through the encoder: segment-anything's code in float32, transformers' model of the same size, and the options of `FastEncoder`."
from itertools import product

import torch

from medsam_prompts.all import EncodeOptions, FastEncoder, cosine, phantom
from .common import backbone, in_turns, installed, row

threads = 1, 2

options = {'float32 prepared': EncodeOptions(prepared=True), 'bfloat16 sdpa': EncodeOptions('bfloat16', True), 'bfloat16 prepared': EncodeOptions('bfloat16', prepared=True)}


def transformers_encoder(quick):
    from transformers import SamVisionConfig, SamVisionModel
    small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=128, global_attn_indexes=[1], window_size=4) if quick else {}
    return SamVisionModel(SamVisionConfig(**small)).eval()


@torch.no_grad()
def rows(quick):
    for name in ('lite_medsam', 'sam_vit_b'):
        seg = backbone(name, quick)
        x = seg.preprocess(phantom('chest_xray', 0))
        ways = [installed(lambda: seg.image_encoder(x)), *(lambda f=FastEncoder(seg, o): f(x) for o in options.values())]
        if name == 'sam_vit_b': ways.append(installed(lambda m=transformers_encoder(quick): m(x).last_hidden_state))
        peers = dict(zip((0, len(options) + 1)[:len(ways) - len(options)], ('segment-anything, float32', 'transformers, float32')))
        times, want = in_turns(*ways, budget=20), ways[0]()
        for (j, peer), (i, o) in product(peers.items(), enumerate(options, 1)):
            yield row(f'{name}, {o}', x.shape[-1], peer, times[j], times[i], '3, aim 5' if o == 'bfloat16 prepared' else '', note=f'cosine {cosine(ways[i](), want):.5f}')
