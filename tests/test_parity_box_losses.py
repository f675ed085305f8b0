"The box losses equal the public implementations on every case of the parity data."
import json

import numpy as np
import pytest
import torch

from conftest import parity
from medsam_prompts.losses.box import emptiness_loss, log_barrier, size_loss, tightness_loss

root = parity('box_losses')
spec = json.loads((root/'losses.json').read_text()) if root else dict(cases=[])
maps = np.load(root/'maps_and_bands.npz') if root else None
pytestmark = pytest.mark.skipif(root is None, reason='parity data are not here (MEDSAM_PROMPTS_PARITY)')


def inputs(case):
    p = torch.from_numpy(maps[f"map{case['case']:02d}"].astype(np.float32))[None, None].requires_grad_()
    return p, torch.tensor([case['box_xyxy_inclusive']], dtype=torch.float32)


@pytest.mark.parametrize('t', [1, 5, 10])
def test_barrier_and_its_slope(t):
    z = np.load(root/'psi.npz')
    x = torch.from_numpy(z['z']).double().requires_grad_()
    v = log_barrier(x, t)
    g, = torch.autograd.grad(v.sum(), x)
    want_slope = np.nan_to_num(z[f'minimel_dpsi_t{t}_f64'], nan=t)  # theirs is NaN at exactly zero
    np.testing.assert_allclose(v.detach(), z[f'minimel_psi_t{t}_f64'], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(g, want_slope, rtol=1e-5, atol=1e-5)
    v32 = log_barrier(torch.from_numpy(z['z']), t)
    np.testing.assert_allclose(v32, z[f'kervadec_psi_t{t}_f32'], rtol=1e-5, atol=7e-5)


@pytest.mark.parametrize('case', spec['cases'], ids=lambda c: c['tag'])
def test_emptiness_and_size(case):
    p, box = inputs(case)
    grads = np.load(root/'grad_emptiness_size.npz')
    loss = emptiness_loss(p, box)
    np.testing.assert_allclose(loss.item(), case['minimel_emptiness'], rtol=1e-5, atol=1e-5)
    g, = torch.autograd.grad(loss, p)
    np.testing.assert_allclose(g[0, 0], grads[f"minimel_emptiness_grad{case['case']:02d}"], rtol=1e-4, atol=1e-7)
    for lo, hi in [(.5, .9), (.7, .9)]:
        for t in (1, 5, 10):
            np.testing.assert_allclose(size_loss(p, box, lo, hi, t).item(), case[f'minimel_size_{lo}_{hi}_t{t}'], rtol=1e-5, atol=1e-5)
        g, = torch.autograd.grad(size_loss(p, box, lo, hi), p)
        np.testing.assert_allclose(g.unique().numpy(), grads[f"minimel_size_{lo}_{hi}_t5_grad{case['case']:02d}"], rtol=1e-4)


@pytest.mark.parametrize('how', ['minimel', 'kervadec'])
@pytest.mark.parametrize('case', spec['cases'], ids=lambda c: c['tag'])
def test_tightness(case, how):
    grads, compared = np.load(root/'grad_tight.npz'), 0
    for width in (1, 3, 5):
        for t in (1, 5, 10):
            key = f'{how}_tight_w{width}_t{t}'
            if key not in case: continue
            p, box = inputs(case)
            loss = tightness_loss(p, box, width, t, how)
            np.testing.assert_allclose(loss.item(), case[key], rtol=1e-5, atol=1e-3 if width == 1 else 1e-4)
            compared += 1
            name = f"{how}_tight_w{width}_grad{case['case']:02d}"
            if t == 5 and name in grads and np.isfinite(grads[name]).all():
                np.testing.assert_allclose(torch.autograd.grad(loss, p)[0][0, 0], grads[name], rtol=1e-4, atol=1e-6)
    assert compared


def test_batch():
    b, cases = spec['batch3'], spec['cases']
    p = torch.cat([inputs(cases[int(name[3:])])[0] for _, name, _ in b['members']])
    boxes = torch.cat([inputs(cases[int(which.split()[-1])])[1] for _, _, which in b['members']])
    np.testing.assert_allclose(emptiness_loss(p, boxes).item(), b['emptiness'], rtol=1e-5)
    np.testing.assert_allclose(size_loss(p, boxes).item(), b['size'], rtol=1e-5)
    np.testing.assert_allclose(tightness_loss(p, boxes, bands='minimel').item(), b['tight_w5'], rtol=1e-5)
    np.testing.assert_allclose(3*tightness_loss(p, boxes, bands='kervadec').item(), b['kervadec_tight_w5'], rtol=1e-5)
