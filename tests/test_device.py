"What is computed on the processor leaves GPUs alone."
import os
import subprocess
import sys

train = '''
import os, sys, tempfile, torch
from medsam_prompts.core import hide_gpus
if sys.argv[1] == 'hidden': hide_gpus('cpu')

def broken(*_): raise RuntimeError('the driver is broken')
torch.cuda.current_device = broken
torch.cuda.is_available = lambda: os.environ.get('CUDA_VISIBLE_DEVICES') != ''

from medsam_prompts.all import EmbeddingCache, fit_weak, load_segmenter, load_task, tight_boxes, weak_learner, weak_recipe, weak_training_set
toy, few, recipe = load_segmenter('sam_toy'), load_task('phantom_left_lung')['train'][:2], weak_recipe('paper', epochs=1)
with tempfile.TemporaryDirectory() as d:
    emb, boxes = weak_training_set(toy, EmbeddingCache(toy, folder=d), few, tight_boxes(few))
    fit_weak(weak_learner(toy, emb, boxes, recipe), recipe, f'{d}/state')
'''


def run(word): return subprocess.run([sys.executable, '-c', train, word], capture_output=True, text=True, env={**os.environ, 'CUDA_VISIBLE_DEVICES': '0'})


def test_training_with_a_broken_driver():
    assert 'the driver is broken' in run('visible').stderr
    done = run('hidden')
    assert done.returncode == 0, done.stderr
