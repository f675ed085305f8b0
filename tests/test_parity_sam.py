"SAM's encoder, prompts and logits against outputs of the official code, on weights from a formula."
import json

import numpy as np
import pytest
import torch
from conftest import formula_weights, image, parity

from medsam_prompts.all import Case, Prompts, backbones, load_segmenter

keys, root = parity('checkpoint_keys'), parity('sam_vit_b')
pytestmark = pytest.mark.skipif(keys is None or root is None, reason='no parity data here')


@pytest.mark.parametrize('name, file', [('sam_vit_b', 'sam_vit_b'), ('sam_vit_l', 'sam_vit_l'), ('sam_vit_h', 'sam_vit_h'), ('medsam_vit_b', 'medsam_vit_b')])
def test_keys(name, file):
    with torch.device('meta'): state = backbones[name]['build']().state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == {k: list(s) for k, s, _ in json.loads((keys/f'{file}.json').read_text())}


@pytest.fixture(scope='module')
def sam(): return formula_weights(load_segmenter('sam_vit_b', checkpoint=False))


@pytest.fixture(scope='module')
def spec(): return json.loads((root/'inputs.json').read_text())


def prompts(spec):
    box, point = torch.tensor([[spec['box']]]), torch.tensor([[[spec['pt']]]])
    mask = 4*np.random.Generator(np.random.PCG64(spec['mask'])).standard_normal((32, 32)).astype(np.float32).repeat(8, 0).repeat(8, 1)
    mask, one = torch.from_numpy(mask)[None, None], torch.ones(1, 1, 1)
    return dict(box=Prompts(boxes=box), point=Prompts(points=point, labels=one), point_box=Prompts(points=point, labels=one, boxes=box), mask=Prompts(masks=mask),
                posneg_points=Prompts(points=torch.tensor([[spec['pts2']]]), labels=torch.tensor([[[1., 0]]])), box_mask=Prompts(boxes=box, masks=mask))


@pytest.mark.slow
@pytest.mark.parametrize('how', ['direct', 'preprocessed'])
@torch.no_grad()
def test_embedding_and_logits(sam, spec, how):
    h, w = spec['inp']
    case = Case(np.floor(image(spec['u8'])*255)[:, :h, :w].transpose(1, 2, 0).astype(np.uint8), 'u8', axes='yxc')
    x = torch.from_numpy(image(spec['img']))[None] if how == 'direct' else sam.preprocess(case)
    emb, want = sam.encode(x), np.load(root/f'embedding_{how}.npz')
    np.testing.assert_allclose(emb[0, ::16, ::8, ::8], want['slice_f32'], atol=1e-4)
    np.testing.assert_allclose(emb[0, :, 31], want['row_f32'], atol=1e-4)
    enc, logits = np.load(root/'prompts.npz'), np.load(root/f'low_res_logits_{how}.npz')
    compared = 0
    for name, p in prompts(spec).items():
        sparse, dense = sam.encode_prompts(p)
        np.testing.assert_allclose(sparse[0], enc[f'{name}_sparse'], atol=1e-5)
        np.testing.assert_allclose(dense[0, 0, ::8, ::16, ::16], enc[f'{name}_dense_slice'].squeeze(), atol=1e-5)
        for kind in ('single', 'multi'):
            if f'{how}_{name}_{kind}_iou' not in enc: continue
            low, iou = sam.decode(emb, p, multimask=kind == 'multi')
            np.testing.assert_allclose(iou[0, 0], enc[f'{how}_{name}_{kind}_iou'], atol=1e-5)
            np.testing.assert_allclose(low[0, 0, :, ::8, ::8], logits[f'{how}_{name}_{kind}_slice_f32'], atol=2e-6)
            compared += 1
    assert compared == dict(direct=12, preprocessed=4)[how]


def test_positional_encoding(sam):
    pe, enc = sam.image_pe(), np.load(root/'prompts.npz')
    np.testing.assert_allclose(pe[0, ::4, ::8, ::8], enc['dense_pe_slice'], atol=1e-5)
    np.testing.assert_allclose(pe[0, :, 20], enc['dense_pe_row'], atol=1e-5)
