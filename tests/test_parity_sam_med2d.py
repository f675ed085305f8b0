"SAM-Med2D's embedding, prompts and logits against outputs of the official code, on weights from a formula."
import json

import numpy as np
import pytest
import torch
from conftest import formula_weights, image, parity

from medsam_prompts.all import Case, Prompts, load_segmenter, sha256_file
from medsam_prompts.backbones.sammed2d import sam_med2d_b, trainable_parts

keys, root = parity('checkpoint_keys'), parity('sam_med2d_b')
pytestmark = pytest.mark.skipif(keys is None or root is None, reason='no parity data here')


def test_keys():
    with torch.device('meta'): state, plain = sam_med2d_b().state_dict(), sam_med2d_b(adapters=False).state_dict()
    want = {k: list(s) for k, s, _ in json.loads((keys/'sam_med2d_vit_b_256_adapter.json').read_text())}
    assert {k: list(v.shape) for k, v in state.items()} == want
    assert {k: list(v.shape) for k, v in plain.items()} == {k: s for k, s in want.items() if '.Adapter.' not in k}


@pytest.fixture(scope='module')
def med2d(): return formula_weights(load_segmenter('sam_med2d_b', checkpoint=False))


@pytest.fixture(scope='module')
def spec(): return json.loads((root/'inputs.json').read_text())


@pytest.fixture(scope='module')
@torch.no_grad()
def embeddings(med2d, spec):
    case = Case(np.floor(image(spec['u8'], 64, 4)*255).transpose(1, 2, 0).astype(np.uint8), 'u8', axes='yxc')
    return dict(direct=med2d.encode(torch.from_numpy(image(spec['img'], 64, 4))[None]), preprocessed=med2d.encode(med2d.preprocess(case)))


def prompts(spec):
    box, point = torch.tensor([[spec['box']]]), torch.tensor([[[spec['pt']]]])
    mask = 4*np.random.Generator(np.random.PCG64(spec['mask'])).standard_normal((16, 16)).astype(np.float32).repeat(4, 0).repeat(4, 1)
    mask, one = torch.from_numpy(mask)[None, None], torch.ones(1, 1, 1)
    return dict(box=Prompts(boxes=box), point=Prompts(points=point, labels=one), point_box=Prompts(points=point, labels=one, boxes=box), mask=Prompts(masks=mask),
                posneg_points=Prompts(points=torch.tensor([[spec['pts2']]]), labels=torch.tensor([[[1., 0]]])), box_mask=Prompts(boxes=box, masks=mask))


def close(got, want, atol): np.testing.assert_allclose(got, want, 1e-7, atol)


def test_embedding(embeddings):
    want = np.load(root/'embedding.npz')
    close(embeddings['direct'][0], want['direct_f32'], 1e-4)
    close(embeddings['preprocessed'][0, ::4, ::4, ::4], want['preprocessed_slice_f32'], 1e-4)
    np.testing.assert_allclose(embeddings['preprocessed'][0], want['preprocessed_f16'], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_prompts_and_logits(med2d, spec, embeddings):
    enc, logits = np.load(root/'prompts.npz'), np.load(root/'low_res_logits_f32.npz')
    close(med2d.image_pe()[0, ::4, ::4, ::4], enc['dense_pe_slice_f32'], 1e-5)
    for name, p in prompts(spec).items():
        sparse, dense = med2d.encode_prompts(p)
        close(sparse[0], enc[f'{name}_sparse'], 1e-5)
        close(dense[0, 0, ::4, ::4, ::4], enc[f'{name}_dense_slice'], 1e-5)
        for kind in ('single', 'multi'):
            low, iou = med2d.decode(embeddings['direct'], p, multimask=kind == 'multi')
            close(iou[0, 0], enc[f'direct_{name}_{kind}_iou'], 1e-5)
            close(low[0, 0], logits[f'direct_{name}_{kind}'], 2e-6)


@torch.no_grad()
def test_two_images_at_once_and_refinement(med2d, spec, embeddings):
    enc, logits = np.load(root/'prompts.npz'), np.load(root/'low_res_logits_f32.npz')
    both = torch.cat([embeddings['preprocessed'], embeddings['direct']])
    low, iou = med2d.decode(both, Prompts(boxes=torch.tensor([[spec['box']], [[60., 60, 200, 220]]])), multimask=True)
    close(low[:, 0], logits['forward_batch2_multi_low_res'], 2e-6)
    close(iou[:, 0], enc['forward_batch2_multi_iou'], 1e-5)
    best = low[:1, 0, iou[0, 0].argmax()].sigmoid() # the official loop hands on probabilities where SAM hands on logits
    low, iou = med2d.decode(embeddings['preprocessed'], Prompts(points=torch.tensor([[[spec['pt']]]]), labels=torch.ones(1, 1, 1), masks=best[:, None]), multimask=True)
    close(low[0, 0], logits['refine_from_sigmoid_lowres_point'], 2e-6)
    close(iou[0, 0], enc['refine_from_sigmoid_lowres_point_iou'], 1e-5)


@pytest.mark.slow
def test_official_kind_of_file_loads(med2d, embeddings, spec, tmp_path):
    "A training file of full size: the weights, and an Adam object that has made a step."
    opt = torch.optim.Adam(trainable_parts(med2d, ('mask_decoder',)))
    for p in opt.param_groups[0]['params']: p.grad = torch.zeros_like(p)
    opt.step()
    torch.save(dict(model=med2d.state_dict(), optimizer=opt), tmp_path/'w.pth')
    seg = load_segmenter('sam_med2d_b', checkpoint=tmp_path/'w.pth')
    assert seg.weights_sha256 == sha256_file(tmp_path/'w.pth') and not any(p.requires_grad for p in seg.parameters())
    state = seg.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in med2d.state_dict().items())
