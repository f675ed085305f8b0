"One image through the encoder: segment-anything's code in float32, transformers' model of the same size, and the options of `FastEncoder`."
import torch

from medsam_prompts.all import EncodeOptions, FastEncoder, cosine, phantom
from .common import backbone, extra_mib, in_turns, row

options = {'float32': EncodeOptions(), 'float32 sdpa': EncodeOptions(sdpa=True), 'bfloat16': EncodeOptions('bfloat16'), 'bfloat16 sdpa': EncodeOptions('bfloat16', True)}


def transformers_encoder(quick):
    from transformers import SamVisionConfig, SamVisionModel
    small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=128, global_attn_indexes=[1], window_size=4) if quick else {}
    return SamVisionModel(SamVisionConfig(**small)).eval()


@torch.no_grad()
def rows(quick):
    for name, threads in (('lite_medsam', 1), ('lite_medsam', 2), ('sam_vit_b', 2)):
        torch.set_num_threads(threads)
        seg = backbone(name, quick)
        x = seg.preprocess(phantom('chest_xray', 0))
        eager = lambda: seg.image_encoder(x)
        ways = [eager, *(lambda f=FastEncoder(seg, o): f(x) for o in options.values())]
        if name == 'sam_vit_b': ways.append(lambda m=transformers_encoder(quick): m(x).last_hidden_state)
        times, mib, want = in_turns(*ways, budget=60), [extra_mib(f) for f in ways], eager()
        for i, o in enumerate(options, 1):
            peers = {'segment-anything, float32': 0, **{'transformers, float32': -1}*(len(ways) > len(options) + 1)}
            for peer, j in peers.items(): yield row(f'{name}, {o}', x.shape[-1], peer, times[j], times[i], threads=threads, mib=(mib[j], mib[i]), note=f'cosine {cosine(ways[i](), want):.5f}')
