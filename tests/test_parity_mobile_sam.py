"MobileSAM's encoder, stage by stage, and its masks against outputs of the official code, on weights from a formula."
import json

import numpy as np
import pytest
import torch
from conftest import formula_weights, image, parity

from medsam_prompts.all import Case, Prompts, backbones, load_segmenter

keys, root = parity('checkpoint_keys'), parity('mobile_sam')
pytestmark = pytest.mark.skipif(keys is None or root is None, reason='no parity data here')


def test_keys():
    with torch.device('meta'): state = backbones['mobile_sam']['build']().state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == {k: list(s) for k, s, _ in json.loads((keys/'mobile_sam_vit_t.json').read_text())}


@pytest.fixture(scope='module')
def mobile(): return formula_weights(load_segmenter('mobile_sam', checkpoint=False), variance_kept=True)


@pytest.fixture(scope='module')
def spec(): return json.loads((root/'inputs.json').read_text())


def close(got, want, atol=1e-4, rtol=1e-7): np.testing.assert_allclose(got, want, rtol, atol)


@torch.no_grad()
def test_stages(mobile, spec):
    x, want, enc = torch.from_numpy(image(spec['img']))[None], np.load(root/'B_stages.npz'), mobile.image_encoder
    x = enc.patch_embed(x)
    close(x[0, ::8, ::32, ::32], want['patch_embed'])
    for i, layer in enumerate(enc.layers):
        x = layer(x)
        tokens = x.flatten(2).transpose(1, 2)
        close(tokens[0, ::512 if i == 0 else 256, ::8], want[f'layer{i}'], 1e-3, 1e-5) # activations of several hundred


@pytest.mark.parametrize('how', ['direct', 'preprocessed'])
@torch.no_grad()
def test_embedding_and_masks(mobile, spec, how):
    h, w = spec['inp']
    case = Case(np.floor(image(spec['u8'])*255)[:, :h, :w].transpose(1, 2, 0).astype(np.uint8), 'u8', axes='yxc')
    emb = mobile.encode(torch.from_numpy(image(spec['img']))[None] if how == 'direct' else mobile.preprocess(case))
    masks, direct = np.load(root/'B_box_masks.npz'), np.load(root/'B_embedding_direct.npz')
    if how == 'direct':
        close(emb[0, ::16, ::8, ::8], direct['slice_f32'])
        close(emb[0, :, 31], direct['row_f32'])
        assert np.abs(emb[0, ::16, ::8, ::8].numpy() - direct['stale_ab_slice_f32']).max() > .03
    else: close(emb[0, ::16, ::8, ::8], masks['embedding_preprocessed_slice_f32'].squeeze())
    box = Prompts(boxes=torch.tensor([[spec['box']]]))
    close(mobile.encode_prompts(box)[0][0].squeeze(), masks['box_sparse'].squeeze(), 1e-5)
    for kind in ('single', 'multi'):
        low, iou = mobile.decode(emb, box, multimask=kind == 'multi')
        close(low[0, 0, :, ::8, ::8], masks[f'{how}_box_{kind}_slice_f32'].reshape(-1, 32, 32), 2e-4)
        close(iou[0, 0], masks[f'{how}_box_{kind}_iou'].squeeze(), 1e-4)
