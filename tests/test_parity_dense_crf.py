"The dense CRF against pydensecrf's stored results: the lattice to rounding, exact sums as far as the lattice is off."
import json

import numpy as np
import pytest

from medsam_prompts.prompts.crf import crf_unary, dense_crf
from conftest import parity

root = parity('dense_crf')
pytestmark = pytest.mark.skipif(root is None, reason='no parity data here')
configs = ('g3_b60_5', 'g3_b60_3', 'g3_b5_5', 'g3_b5_3')


@pytest.fixture(scope='module')
def data(): return {k: dict(np.load(root/f'{k}.npz')) for k in ('inputs', 'q_fg', 'medclipsam')}


def kernels(name):
    "Arguments of `dense_crf` for a stored configuration."
    parts = json.loads((root/'cases.json').read_text())['configs']
    c = parts.get(name, parts['g3_b60_5'])
    gauss, bilateral = (c['gauss_sxy'], c['gauss_compat']), (c['bil_sxy'], c['bil_srgb'], c['bil_compat'])
    return dict(gauss=None if name in ('bilateral_only', 'unary_only') else gauss, bilateral=None if name in ('gauss_only', 'unary_only') else bilateral)


def field(data, case, name, steps, backend='pydensecrf'):
    inputs = data['inputs']
    return dense_crf(inputs[f'image{case}'], inputs[f'prob{case}'], None, **kernels(name), steps=steps, backend=backend)


@pytest.mark.parametrize('case', range(3))
@pytest.mark.parametrize('name, steps', [*((c, n) for c in configs for n in (1, 5, 10)), *((c, 1) for c in ('gauss_only', 'bilateral_only', 'unary_only'))])
def test_lattice(data, case, name, steps): np.testing.assert_allclose(field(data, case, name, steps), data['q_fg'][f'Q{case}_{name}_n{steps}'], atol=1e-6)


@pytest.mark.parametrize('case', range(3))
def test_public_recipe(data, case):
    image, want = data['inputs'][f'image{case}'], data['medclipsam']
    p = np.floor(255*data['inputs'][f'prob{case}'])/255
    np.testing.assert_allclose(crf_unary(p), want[f'medclipsam{case}_unary'], rtol=1e-6)
    q = dense_crf(image[..., ::-1], p)
    np.testing.assert_allclose(q, want[f'medclipsam{case}_Q1'], atol=1e-6)
    assert ((q > .5).ravel() == np.unpackbits(want[f'medclipsam{case}_map'])[:q.size]).all()


@pytest.mark.parametrize('case, name, steps', [(0, 'g3_b60_5', 1), (0, 'g3_b5_3', 5), (1, 'g3_b60_3', 10), (2, 'g3_b60_5', 10), (2, 'gauss_only', 1), (2, 'bilateral_only', 1)])
def test_exact_sums(data, case, name, steps):
    q, want = field(data, case, name, steps, 'torch'), data['q_fg'][f'Q{case}_{name}_n{steps}']
    assert np.abs(q - want).mean() < .005 and ((q > .5) != (want > .5)).mean() < .005
