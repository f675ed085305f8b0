"B images x P prompts, from embeddings to masks on the pixels of the image: one `Segmenter.decode` against segment-anything's `SamPredictor`, image after image."
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch import nn

from medsam_prompts.all import Prompts, Segmenter, build_decoder, make_frames
from .common import compare, installed

threads = 1, 2


@torch.no_grad()
def rows(quick):
    size, cells = (128, 8) if quick else (1024, 64)
    seg, frames = Segmenter(nn.Identity(), *build_decoder(size, cells)), make_frames((size//2, size//2), size, 4*cells)
    seg.image_encoder.img_size = size
    predictor = SamPredictor(Sam(seg.image_encoder, seg.prompt_encoder, seg.mask_decoder))
    predictor.original_size, predictor.input_size, predictor.is_image_set = frames.original, frames.resized, True

    def theirs(emb, boxes):
        for predictor.features, b in zip(emb.split(1), boxes): yield predictor.predict_torch(None, None, b, multimask_output=False)[0][:, 0]

    def ours(emb, boxes): return [frames.masks(l, 'lowres', 'original') > 0 for l in seg.decode(emb, Prompts(boxes=boxes))[0][:, :, 0]]

    for images, prompts in ((1, 1), (1, 8), (4, 4), (16, 8)):
        emb, corners = torch.randn(images, 256, cells, cells), torch.rand(images, prompts, 2, 2)*size
        args = emb, torch.cat([corners.amin(2), corners.amax(2)], -1)
        same = [(a == b).float().mean() for a, b in zip(theirs(emb[:1], args[1]), ours(*(a[:1] for a in args)))]
        yield compare('box prompts to masks', f'{images} x {prompts}', 'SamPredictor', installed(lambda: list(theirs(*args))), lambda: ours(*args), note=f'{same[0]:.5f} of the pixels equal')
