import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

os.environ.setdefault('HF_HUB_OFFLINE', '1')

from medsam_prompts.data.boxes import tight_box
from medsam_prompts.data.phantoms import phantom

repo = Path(__file__).parent.parent


def parity(topic):
    "Folder with the parity data of a topic, or None where they are not here."
    root = Path(os.environ.get('MEDSAM_PROMPTS_PARITY', repo.parent/'shared/parity/public'))/topic
    return root if root.is_dir() else None


def formula_weights(module, variance_kept=False):
    "Weights that the parity data were made with: drawn from a seed that each name gives; small (formula A), or such that activations keep their size (formula B)."
    def value(key, shape):
        if key.endswith('num_batches_tracked'): return np.int64(0)
        n = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape).astype(np.float32)
        if key.endswith('positional_encoding_gaussian_matrix'): return n
        if variance_kept and key.endswith('attention_biases'): return n
        if variance_kept and key.endswith('weight') and len(shape) > 1: return n*np.float32((2/np.prod(shape[1:]))**.5)
        if key.endswith('running_var'): return 1 + np.float32(.1)*np.abs(n)
        small = np.float32(.02)*n
        return 1 + small if key.endswith('weight') and len(shape) == 1 else small
    module.load_state_dict({k: torch.from_numpy(np.asarray(value(k, tuple(v.shape)))) for k, v in module.state_dict().items()})
    return module


def image(seed, low=128, rep=8):
    "A picture from a seed, in large pixels."
    u = np.random.Generator(np.random.PCG64(seed)).random((3, low, low)).astype(np.float32)
    return u.repeat(rep, 1).repeat(rep, 2)


def write_phantoms(folder, labels, name='p{}.png'):
    "Three chest phantoms and a line of boxes.csv for each structure."
    (folder/'images').mkdir()
    lines = ['image,x0,y0,x1,y1,label']
    for i in range(3):
        p = phantom('chest_xray', i)
        Image.fromarray(p.image).save(folder/f'images/p{i}.png')
        lines += [f'{name.format(i)},{",".join(map(str, tight_box(p.labels == k)))},{k}' for k in labels]
    (folder/'boxes.csv').write_text('\n'.join(lines) + '\n')


def pytest_addoption(parser): parser.addoption('--slow', action='store_true', help='also the checks that take minutes')


def pytest_configure(config): config.addinivalue_line('markers', 'slow: takes minutes')


def pytest_collection_modifyitems(config, items):
    if config.getoption('--slow'): return
    for item in items:
        if 'slow' in item.keywords: item.add_marker(pytest.mark.skip(reason='slow: run with --slow'))


@pytest.fixture(scope='session')
def home(tmp_path_factory): return tmp_path_factory.mktemp('home')


@pytest.fixture(scope='session')
def cli(home):
    "Run the command line in a process of its own."
    def run(*argv, **kw):
        env = {**os.environ, 'MEDSAM_PROMPTS_HOME': str(home), 'MEDSAM_PROMPTS_OFFLINE': '1', **kw.pop('env', {})}
        return subprocess.run([sys.executable, '-c', 'import sys; from medsam_prompts.cli import main; sys.exit(main())', *map(str, argv)],
                              capture_output=True, text=True, env=env, **kw)
    return run
