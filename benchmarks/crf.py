"Dense CRF: exact sums in torch against pydensecrf's lattice, which is the default."
from itertools import product

import cv2
import numpy as np
from scipy import ndimage as ndi

from medsam_prompts.all import dense_crf, phantom
from .common import compare


def scene(size, colour):
    "A chest phantom, tinted if need be, and a blurred map of its lungs."
    case = phantom('chest_xray', 3)
    image = cv2.resize(case.image, (size, size), interpolation=cv2.INTER_AREA)
    saliency = cv2.resize(ndi.gaussian_filter(np.isin(case.labels, (1, 2)).astype(np.float32), 12), (size, size))
    tint = ndi.gaussian_filter(np.random.default_rng(0).normal(size=(size, size, 3)), (size/16, size/16, 0))
    return (np.clip(image[..., None] + 40*tint/tint.std(), 0, 255).astype(np.uint8) if colour else image), saliency


def rows(quick):
    for colour, size, steps in [(False, 32, 1)] if quick else product((False, True), (128, 256), (1, 5)):
        if colour and size == 256: continue  # minutes
        image, saliency = scene(size, colour)
        out = {}
        theirs, ours = (lambda k=k: out.update({k: dense_crf(image, saliency, steps=steps, backend=k)}) for k in ('pydensecrf', 'torch'))
        r = compare(f'exact sums in torch, {"colour" if colour else "grey"}, {steps} steps', f'{size}²', "pydensecrf, the package's default", theirs, ours)
        a, b = out.values()
        yield {**r, 'note': f'mean difference {np.abs(a - b).mean():.5f}, other label {((a > .5) != (b > .5)).mean():.5f}'}
