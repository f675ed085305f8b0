"What the command line says and does by default: words on the way, defaults, full disks, files that a user has."
import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import write_phantoms
from PIL import Image
from safetensors import safe_open

from medsam_prompts.cli import main

toy = ('--backbone', 'sam_toy')
code = 'import sys; from medsam_prompts.cli import main; sys.exit(main())'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Three radiographs with boxes of one lung."
    d = tmp_path_factory.mktemp('data')
    write_phantoms(d, (1,))
    return d


@pytest.fixture(scope='module')
def trained(folder, cli, tmp_path_factory):
    "A model trained with what is the default, and what was said meanwhile."
    path = tmp_path_factory.mktemp('model')/'m.safetensors'
    done = cli('train', 'weak', '--images', folder/'images', '--boxes', folder/'boxes.csv', '--epochs', 2, '--window', 'ct', '--out', path, *toy)
    assert done.returncode == 0, done.stderr
    return path, done


@pytest.fixture
def here(monkeypatch, home):
    "Run a command in this process."
    monkeypatch.setenv('MEDSAM_PROMPTS_HOME', str(home))
    return lambda *argv: main([str(o) for o in argv])


def header_of(path):
    with safe_open(path, 'pt') as f: return json.loads(f.metadata()['medsam_prompts'])


def test_defaults_are_what_is_best_here(trained):
    "Recipe ours, the fastest encoding that agrees with float32; scores and shape of the target are kept."
    from medsam_prompts.core import has_bfloat16
    header = header_of(trained[0])
    assert header['recipe']['members'] == 3 and header['recipe']['views'] == 7
    assert header['encode']['prepared'] and (header['encode']['precision'] == 'bfloat16') == has_bfloat16(torch.device('cpu'))
    assert header['one_part'] == {'1': True} and header['scores']['1']['n'] == 3 and header['prep']['window'] == 'ct'


def test_a_log_says_how_far_it_is(trained):
    lines = trained[1].stderr.splitlines()
    assert lines[0] == 'loading sam_toy' and lines[-1] == f'next: medsam-prompts predict --model {trained[0]} --images DIR --out masks'
    assert [line.split()[1] for line in lines if line.startswith('epoch')] == ['1/2', '2/2']


def test_the_first_line_comes_at_once(folder, tmp_path, home):
    env = {**os.environ, 'MEDSAM_PROMPTS_HOME': str(home)}
    call = [sys.executable, '-c', code, 'embed', '--images', str(folder/'images'), *toy]
    before = time.perf_counter()
    process = subprocess.Popen(call, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env)
    assert process.stderr.readline() == 'loading sam_toy\n' and time.perf_counter() - before < 10 # a second, where nothing else runs
    process.communicate()


def test_predict_as_trained(trained, folder, here, tmp_path, capsys):
    "The window of the model holds; the largest part is kept unless all is asked for; low scores are those below the training images."
    call = ('predict', '--model', trained[0], '--images', folder/'images', '--quiet', '--out')
    assert here(*call, tmp_path/'no', '--window', '-100,100') == 2
    err = capsys.readouterr().err
    assert '--window -100,100' in err and 'trained with the window ct' in err and not (tmp_path/'no').exists()
    parts = {}
    for name, words in dict(usual=(), all=('--clean', 'none'), largest=('--clean', 'largest'), holes=('--clean', 'holes')).items():
        assert here(*call, tmp_path/name, *words) == 0
        parts[name] = [np.array(Image.open(p)) for p in sorted((tmp_path/name).glob('*.png'))]
    assert all((a == b).all() for a, b in zip(parts['usual'], parts['largest']))
    assert all((a <= b).all() for a, b in zip(parts['largest'], parts['all'])) and all((a <= b).all() for a, b in zip(parts['largest'], parts['holes']))
    rows = list(csv.DictReader((tmp_path/'all/predictions.csv').open()))
    lowest = header_of(trained[0])['scores']['1']['p5']
    assert all(('low_score' in r['flags']) == (float(r['score']) < lowest) for r in rows if 'empty' not in r['flags'])


def test_volume_steps_are_not_for_pictures(folder, here, tmp_path, capsys):
    call = ('predict', *toy, '--boxes', folder/'boxes.csv', '--images', folder/'images', '--out', tmp_path/'o', '--quiet')
    assert here(*call, '--volume', 'largest') == 2
    assert '--clean largest' in capsys.readouterr().err and not (tmp_path/'o').exists()


def fails_after(monkeypatch, n):
    "The disk takes so many files, then no more."
    left, whole = [n], os.fsync

    def fsync(fd):
        left[0] -= 1
        if left[0] < 0: raise OSError(errno.ENOSPC, 'No space left on device')
        whole(fd)
    monkeypatch.setattr(os, 'fsync', fsync)


def test_a_full_disk(folder, here, tmp_path, capsys, monkeypatch):
    "One line that names the file, nothing left, and the next call goes on: outputs, training state, cache."
    calls = dict(out=('predict', *toy, '--boxes', folder/'boxes.csv', '--images', folder/'images', '--out', tmp_path/'out'),
                 state=('train', 'weak', *toy, '--boxes', folder/'boxes.csv', '--images', folder/'images', '--epochs', 1, '--recipe', 'paper', '--out', tmp_path/'m'),
                 cache=('embed', *toy, '--images', folder/'images'))
    for call in calls.values(): assert here(*call, '--quiet') == 0 # embeddings are there
    for path in tmp_path.iterdir(): shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, says in dict(out='out/p1.png: it could not be written: No space left', state='m.state: it could not be written').items():
        with monkeypatch.context() as m:
            fails_after(m, 1 if name == 'out' else 0)
            assert here(*calls[name], '--quiet') == 2
        err = capsys.readouterr().err.strip()
        assert says in err and '\n' not in err and '--out' in err and not list(tmp_path.iterdir()), (name, err)
        assert here(*calls[name], '--quiet') == 0
        for path in tmp_path.iterdir(): shutil.rmtree(path) if path.is_dir() else path.unlink()
    with monkeypatch.context() as m:
        m.setenv('MEDSAM_PROMPTS_HOME', str(tmp_path/'home'))
        fails_after(m, 0)
        assert main([str(o) for o in (*calls['cache'], '--encode', 'plain', '--quiet')]) == 2
    err = capsys.readouterr().err.strip()
    assert 'embeddings' in err and 'MEDSAM_PROMPTS_HOME' in err and '\n' not in err, err


def test_interrupted(folder, tmp_path, home):
    "Ctrl-C says whether --resume goes on."
    call = ('train', 'weak', '--images', folder/'images', '--boxes', folder/'boxes.csv', '--recipe', 'paper', '--epochs', 5000, *toy, '--out', tmp_path/'m')
    process = subprocess.Popen([sys.executable, '-c', code, *map(str, call)], env={**os.environ, 'MEDSAM_PROMPTS_HOME': str(home)}, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 300
    while not (tmp_path/'m.state').exists() and time.time() < deadline: time.sleep(.1)
    process.send_signal(signal.SIGINT)
    err = process.communicate()[1]
    assert process.returncode == 130 and err.splitlines()[-1] == 'medsam-prompts: interrupted. The same command with --resume goes on.', err[-300:]


def test_a_reader_that_has_seen_enough(home):
    call = f'{sys.executable} -c "{code}" datasets | head -2'
    done = subprocess.run(['bash', '-c', f'set -o pipefail; {call}'], capture_output=True, text=True, env={**os.environ, 'MEDSAM_PROMPTS_HOME': str(home)})
    assert done.returncode == 0 and done.stderr == '' and len(done.stdout.splitlines()) == 2, done.stderr


def test_evaluate_says_what_it_left_out_and_its_units(here, tmp_path, capsys):
    for sub in ('pred', 'truth'): (tmp_path/sub).mkdir()
    mask = np.zeros((20, 20), np.uint8)
    mask[5:15, 5:15] = 255
    for name in 'abc': Image.fromarray(mask).save(tmp_path/f'pred/{name}.png')
    Image.fromarray(mask).save(tmp_path/'truth/a.png')
    call = ('evaluate', '--pred', tmp_path/'pred', '--truth', tmp_path/'truth', '--out', tmp_path/'c.csv', '--quiet')
    for words, unit in (((), 'hd95 px'), (('--spacing', '.5,.5'), 'hd95 mm')):
        assert here(*call, *words) == 0
        said = capsys.readouterr()
        assert unit in said.out and '2 predictions have no truth and are left out (first: b)' in said.err


def test_a_file_that_the_user_has(folder, tmp_path, monkeypatch, capsys):
    "Random weights of a real backbone are taken, listed, used, and damaged ones refused."
    from medsam_prompts.all import load_segmenter
    monkeypatch.setenv('MEDSAM_PROMPTS_HOME', str(tmp_path/'home'))
    monkeypatch.setenv('MEDSAM_PROMPTS_OFFLINE', '1')
    run = lambda *argv: main([str(o) for o in argv])
    predict = ('predict', '--boxes', folder/'boxes.csv', '--images', folder/'images', '--out', tmp_path/'o', '--quiet', '--backbone')
    assert run(*predict, 'medsam_vit_b') == 2
    assert 'checkpoints add medsam_vit_b FILE' in capsys.readouterr().err
    torch.manual_seed(0)
    mine = tmp_path/'mine.pth'
    torch.save(load_segmenter('mobile_sam', False).state_dict(), mine)
    for wrong, says in [(('lite_medsam', mine), 'not the weights of this model'), (('mobile_sam', mine, '--sha256', 'a'*64), 'its sha256 is'), (('mobile_sam', tmp_path/'no.pth'), 'no such file')]:
        assert run('checkpoints', 'add', *wrong, '--quiet') == 2
        assert says in capsys.readouterr().err
    assert run('checkpoints', 'add', 'mobile_sam', mine, '--quiet') == 0
    said = capsys.readouterr()
    assert 'not the official file of mobile_sam' in said.err and 'sha256' in said.out
    mine.unlink()
    assert run('checkpoints', 'list') == 0
    assert 'mobile_sam       added' in capsys.readouterr().out
    assert run(*predict, 'mobile_sam') == 0 and len(list((tmp_path/'o').glob('*.png'))) == 3
    added = tmp_path/'home/checkpoints/added/mobile_sam.pth'
    added.write_bytes(added.read_bytes()[:-9])
    assert run(*predict, 'mobile_sam') == 2
    assert 'Add the file again' in capsys.readouterr().err
