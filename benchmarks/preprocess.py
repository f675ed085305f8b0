"From pixels to the encoder's input: segment-anything's transform and normalisation, transformers' processor, and `Segmenter.preprocess`."
import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import nn

from medsam_prompts.all import Case, Segmenter, build_decoder
from .common import compare, installed


def rows(quick):
    from transformers import SamImageProcessor
    size = 128 if quick else 1024
    encoder = nn.Identity()
    encoder.img_size = size
    seg = Segmenter(encoder, *build_decoder(size, size//16), interpolation='bilinear')
    sam, resize, processor = Sam(encoder, seg.prompt_encoder, seg.mask_decoder), ResizeLongestSide(size), SamImageProcessor(size=dict(longest_edge=size), pad_size=dict(height=size, width=size))
    for side in (size//2, 2*size):
        image = np.random.default_rng(0).integers(0, 256, (side, side*3//4, 3), dtype=np.uint8)
        ways = {'ResizeLongestSide, Sam.preprocess': lambda: sam.preprocess(torch.as_tensor(resize.apply_image(image)).permute(2, 0, 1)[None].float()),
                'SamImageProcessor': lambda: processor(image, return_tensors='pt')['pixel_values']}
        ours = lambda: seg.preprocess(Case(image, 'random', 'yxc', grey_range=(0, 255)))
        for peer, f in ways.items(): yield compare('preprocess', f'{side} to {size}', peer, installed(f), ours, note=f'largest difference {(f() - ours()).abs().max():.4f}')
