"PerSAM step by step against the official code, on weights from a formula."
import json

import numpy as np
import pytest
import torch

from medsam_prompts.all import (Case, Encoded, GuidedTransformer, extremes, guided, load_segmenter, persam, reference_cells, similarity,
                                target_embedding)
from medsam_prompts.baselines.persam import _as_sam, _call
from conftest import formula_weights, parity

root = parity('persam')
pytestmark = [pytest.mark.skipif(root is None, reason='no parity data here'), pytest.mark.slow]


def picture(spec, which):
    h, w, cell = spec['H'], spec['W'], spec['cell']
    u = np.random.Generator(np.random.PCG64(spec[f'{which}_seed'])).random((-(-h//cell), -(-w//cell), 3)).repeat(cell, 0).repeat(cell, 1)[:h, :w]
    cy, cx, ry, rx = spec[f'{which}_ellipse']
    y, x = np.mgrid[:h, :w]
    inside = ((y - cy)/ry)**2 + ((x - cx)/rx)**2 <= 1
    return Case(np.where(inside[..., None], np.floor(160 + 95*u), np.floor(110*u)).astype(np.uint8), which, 'yxc', labels=inside.astype(np.uint8))


@pytest.fixture(scope='module')
def scene():
    spec, want = json.loads((root/'persam.json').read_text()), np.load(root/'persam.npz')
    sam = formula_weights(load_segmenter('sam_vit_b', checkpoint=False))
    with torch.no_grad(): ref, test = (Encoded(c, sam.frames(c), sam.encode(sam.preprocess(c))) for c in (picture(spec, 'ref'), picture(spec, 'test')))
    return sam, ref, test, target_embedding(ref.embedding, reference_cells(ref.case.labels > 0, ref.frames, 64)), spec, want


def test_target(scene):
    sam, ref, _, target, spec, want = scene
    assert reference_cells(ref.case.labels > 0, ref.frames, 64).sum() == spec['ref_mask64_positive']
    np.testing.assert_allclose(target, want['target_embedding'].ravel(), atol=1e-4)


@torch.no_grad()
def test_similarity_and_points(scene):
    _, ref, test, target, spec, want = scene
    for e, which in ((ref, 'on_ref'), (test, 'on_test')):
        sim = similarity(target, e.embedding, e.frames)
        np.testing.assert_allclose(sim[::10, ::10], want[f'{which}_sim_slice_f32'], atol=1e-5)
        assert extremes(sim).tolist() == spec[f'{which}_topk_xy'] + spec[f'{which}_last_xy']


@torch.no_grad()
def test_three_steps(scene):
    sam, _, test, target, spec, want = scene
    for name, step in zip(('first', 'refine1', 'refine2'), persam(sam, test, target)):
        np.testing.assert_allclose(step.logits, want[f'on_test_{name}_low_res_f32'], atol=2e-6)
        np.testing.assert_allclose(step.scores, spec[f'on_test_{name}_scores'], atol=1e-5)
        assert step.best == spec[f'on_test_{name}_best']
        masks = test.frames.masks(step.logits[None], 'lowres', 'original')[0].numpy() > 0
        shape = spec[f'on_test_{name}_masks_shape']
        assert (masks != np.unpackbits(want[f'on_test_{name}_masks'])[:np.prod(shape)].reshape(shape)).mean() < 1e-3


@torch.no_grad()
def test_each_half_of_the_guidance(scene):
    sam, _, test, target, spec, want = scene
    sim = similarity(target, test.embedding, test.frames)
    points, g = _as_sam(test.frames, extremes(sim)), guided(sam, sim, target)
    np.testing.assert_allclose(g.where.view(64, 64), want['on_test_first_attn_sim'], atol=1e-5)
    only_where = GuidedTransformer(g.transformer, g.where, torch.zeros(256))
    only_target = GuidedTransformer(g.transformer, None, target)
    for name, tr in dict(attn_sim_only=only_where, target_embedding_only=only_target).items():
        step = _call(sam, test.embedding, points, multimask=False, transformer=tr)
        np.testing.assert_allclose(step.logits, want[f'on_test_first_{name}_low_res_f32'], atol=2e-6)
        np.testing.assert_allclose(step.scores, spec[f'on_test_first_{name}_score'], atol=1e-5)
