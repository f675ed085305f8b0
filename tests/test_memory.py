"Reading many cases takes no more memory than reading some."
import gc
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medsam_prompts.all import folder_cases, phantom, phantom_looks, read_medsam_npz

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith('linux'), reason='asks /proc for the memory in use')]


def resident_mb():
    gc.collect()
    return int(Path('/proc/self/statm').read_text().split()[1])*4096/1e6


def growth(cases, start):
    "MB that are in use after all cases, more than after the first `start`."
    for i, case in enumerate(cases):
        assert case.image.size and case.labels.shape == case.size and case.window('percentile')
        if i + 1 == start: before = resident_mb()
    return resident_mb() - before


def test_a_thousand_pictures(tmp_path):
    p = phantom('chest_xray', 0)
    for sub, a in (('images', p.image), ('masks', p.labels)):
        (tmp_path/sub).mkdir()
        Image.fromarray(a).save(tmp_path/sub/'c0000.png')
        for i in range(1, 1000): shutil.copy(tmp_path/sub/'c0000.png', tmp_path/sub/f'c{i:04d}.png')
    cases = folder_cases(tmp_path/'images', tmp_path/'masks')
    assert len(cases) == 1000 and growth(cases, 200) < 10


def volume(z=25, side=128): return np.random.default_rng(0).integers(0, 900, (side, side, z), dtype=np.int16)


def test_a_thousand_slices_of_volumes(tmp_path):
    a = volume()
    for sub, v in (('images', a), ('masks', (a > 500).astype(np.uint8))):
        (tmp_path/sub).mkdir()
        for i in range(40): nib.save(nib.Nifti1Image(v, np.diag([-1., -1, 3, 1])), tmp_path/sub/f'v{i:02d}.nii')
    cases = folder_cases(tmp_path/'images', tmp_path/'masks')
    assert len(cases) == 1000 and growth(cases, 200) < 10


def test_a_thousand_slices_of_packed_volumes(tmp_path):
    a = volume().transpose(2, 0, 1)
    for i in range(40): np.savez(tmp_path/f'CT_v{i:02d}.npz', imgs=a, gts=(a > 500).astype(np.uint8), spacing=(1., 1., 3.))
    cases = read_medsam_npz(tmp_path)
    assert len(cases) == 1000 and growth(cases, 200) < 10


def test_a_thousand_phantoms(monkeypatch):
    "The last 256 are kept; more take no more. What draws them is replaced by something quick."
    blank = dict(draw=lambda rng: (255*rng.random((128, 128)), np.ones((128, 128), int)), modality='US', spacing_mm=(1., 1.))
    monkeypatch.setitem(phantom_looks, 'blank', blank)
    assert growth((phantom('blank', i) for i in range(1000)), 300) < 10
