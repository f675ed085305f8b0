"gScoreCAM on a vision transformer of BiomedCLIP's size against outputs of the public code, on weights from a formula."
import json
from math import log

import numpy as np
import pytest
import torch
from conftest import formula_weights, image, parity

from medsam_prompts.backbones.clip import ClipTower
from medsam_prompts.core import InputError
from medsam_prompts.prompts.saliency import channel_importance, channel_scores, channel_weights, gscorecam, resize_cam

root = parity('gscorecam')
pytestmark = pytest.mark.skipif(root is None, reason='no parity data here')
cases = [(f, k) for f, ks in dict(gscorecam=['blocks11_norm1_k77', 'blocks11_norm1_k77_negtext', 'blocks11_norm1_k300', 'blocks10_norm1_k77', 'blocks10_norm1_k77_negtext', 'blocks10_norm1_k300'],
                                  gscorecam_neartext=['blocks11_norm1_k77']).items() for k in ks]


@pytest.fixture(scope='module')
def tower():
    from open_clip.model import CustomTextCLIP
    vision = dict(timm_model_name='vit_base_patch16_224', timm_pool='token', timm_proj='', image_size=224)
    model = CustomTextCLIP(512, vision, dict(context_length=8, vocab_size=8, width=16, heads=1, layers=1), init_logit_scale=log(100))
    model.visual.preprocess_cfg = dict(size=224)
    formula_weights(model.visual.trunk)
    return ClipTower(model, None, 'formula')


@pytest.fixture(scope='module')
def x(): return torch.from_numpy((image(json.loads((root/'gscorecam.json').read_text())['image_seed'], 56, 4) - .5)/.25)[None]


def stored(file, key):
    "The arrays of a key, its layer, its text and the number of channels."
    data, block = np.load(root/f'{file}.npz'), key.split('_')[0].removeprefix('blocks')
    text = torch.from_numpy(data['text_feature'])[0]*(-1 if key.endswith('negtext') else 1)
    return {k.removeprefix(f'{key}_'): data[k] for k in data if k.startswith(f'{key}_')}, f'blocks.{block}.norm1', text, int(key.split('_k')[1].split('_')[0])


def close(got, want, atol): np.testing.assert_allclose(np.asarray(got), want, 0, atol)


def check_map(found, raw, want):
    close(raw, want['cam14_raw'], 1e-4)
    close(found[0], want['cam14_normalised'], 1e-4)
    full = resize_cam(found, 224)[0]
    close(full[::7, ::7], want['cam224_slice_f32'], 1e-4)
    close(full, want['cam224_f16'], 1e-3)


@pytest.mark.parametrize('file,key', cases, ids=[f'{f}-{k}' for f, k in cases])
def test_channels_scores_and_map(tower, x, file, key):
    want, layer, text, k = stored(file, key)
    importance, acts = channel_importance(tower, x, text, layer)
    close(importance[0], want['importance'], 2e-9)
    channels = importance.topk(k).indices
    assert channels[0].tolist() == want['channels'].tolist()
    some = [0, k//2, k - 1]
    close(channel_scores(tower, x, acts[:, channels[0, some]], text)[0], want['scores'][some], 1e-4)
    weights = channel_weights(channels, torch.from_numpy(want['scores'])[None], 768)
    close(weights[0], want['weights'], 1e-6)
    raw = torch.einsum('bc,bchw->bhw', weights, acts)
    grid = raw.relu() - raw.relu().min()
    check_map(grid/(1e-8 + grid.max()), raw[0], want)


@pytest.mark.parametrize('file,key', cases[:1] + cases[-1:], ids=['low logits', 'real logits'])
@pytest.mark.slow
def test_all_in_one(tower, x, file, key):
    want, layer, text, k = stored(file, key)
    found = gscorecam(tower, x, text, layer, k)
    assert found.channels[0].tolist() == want['channels'].tolist()
    for name, atol in dict(importance=2e-9, scores=1e-4, weights=1e-4).items(): close(getattr(found, name)[0], want[name], atol)
    check_map(found.cam_grid, found.raw[0], want)


def test_the_layer_of_the_public_code_has_no_gradient(tower, x):
    trap = json.loads((root/'gscorecam.json').read_text())['blocks11_norm2_grad']
    assert trap['patch_abs_max'] == 0 and 'blocks.11.norm2' not in tower.layers() and tower.layers()[-1] == 'blocks.11.norm1'
    with pytest.raises(InputError, match='no gradient at the patches'): gscorecam(tower, x, stored(*cases[0])[2], 'blocks.11.norm2')
