"Preference training as a user meets it: few masks, opinions about the rest, a model file that answers alone."
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from medsam_prompts.data.boxes import tight_box
from medsam_prompts.data.phantoms import phantom

toy = ('--backbone', 'sam_toy', '--quiet')
quick = ('--epochs', 3, '--align-epochs', 2, *toy)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Eight radiographs, masks of all, masks of half of them, and boxes."
    d = tmp_path_factory.mktemp('prefer')
    for sub in ('images', 'masks', 'few'): (d/sub).mkdir()
    rows = ['image,x0,y0,x1,y1']
    for i in range(8):
        p = phantom('chest_xray', i)
        lung = p.labels == 1
        Image.fromarray(p.image).save(d/f'images/p{i}.png')
        Image.fromarray(lung.astype(np.uint8)*255).save(d/f'masks/p{i}.png')
        if i < 4: shutil.copy(d/f'masks/p{i}.png', d/f'few/p{i}.png')
        rows.append(f'p{i}.png,' + ','.join(str(v) for v in tight_box(lung)))
    (d/'boxes.csv').write_text('\n'.join(rows) + '\n')
    (d/'list.txt').write_text(''.join(f'p{i}.png\n' for i in range(4)))
    return d


@pytest.fixture
def here(home, monkeypatch, capsys):
    "The command line in this process, since starting python takes longer than most of what is asked."
    from medsam_prompts.cli import main
    monkeypatch.setenv('MEDSAM_PROMPTS_HOME', str(home))
    monkeypatch.setenv('MEDSAM_PROMPTS_OFFLINE', '1')
    def run(*argv):
        code = main([str(a) for a in argv])
        said = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err)
    return run


def train(folder, *more, masks='few'): return ('train', 'prefer', '--images', folder/'images', '--masks', folder/masks, *more)


def header_of(path):
    with safe_open(path, 'pt') as f: return json.loads(f.metadata()['medsam_prompts'])


def only(path): return [p.name for p in path.parent.glob(f'*{path.stem}*')] == [path.name]


def refused(done, says, out):
    assert done.returncode == 2 and says in done.stderr and done.stderr.strip().count('\n') == 0, done.stderr
    assert not out.exists()


def test_train_predict_info(cli, here, folder, tmp_path):
    "Half are labelled; the rest is compared by the truth; the file alone predicts."
    model = tmp_path/'m.safetensors'
    done = here(*train(folder, '--labelled-fraction', .5, masks='masks'), *quick, '--out', model)
    assert done.returncode == 0 and 'after stage 2' in done.stdout and 'sees the truth' in done.stdout, done.stderr
    header = header_of(model)
    assert header['labelled'] + header['valid'] and set(header['labelled'] + header['valid']) == set(np.random.default_rng(0).choice([f'p{i}' for i in range(8)], 4, replace=False))
    assert header['counts'] == dict(labelled=3, unlabelled=4, valid=1) and header['prompts']['source'] == 'probe' and only(model)
    done = cli('predict', '--model', model, '--images', folder/'images', '--out', tmp_path/'out', '--quiet')
    assert done.returncode == 0 and len(list(csv.DictReader((tmp_path/'out/predictions.csv').open()))) == 8, done.stderr
    assert all(np.array(Image.open(tmp_path/f'out/p{i}.png')).shape == phantom('chest_xray', i).size for i in range(8))
    said = here('info', model)
    assert said.returncode == 0 and all(s in said.stdout for s in ('prefer', 'sam_toy', "'probe'", '3 cases', 'iou')), said.stderr


def test_a_killed_stage_2_resumes_to_the_same_weights(here, folder, tmp_path, home):
    call = (*train(folder, '--labelled', folder/'list.txt', '--annotator', 'agreement', '--epochs', 3, '--align-epochs', 80), *toy, '--out')
    assert here(*call, tmp_path/'whole').returncode == 0
    process = subprocess.Popen([sys.executable, '-c', 'import sys; from medsam_prompts.cli import main; sys.exit(main())', *map(str, call), str(tmp_path/'killed')],
                               env={**os.environ, 'MEDSAM_PROMPTS_HOME': str(home)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state, deadline = tmp_path/'killed.state.align', time.time() + 300
    while not state.exists() and process.poll() is None and time.time() < deadline: time.sleep(.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists() and not (tmp_path/'killed').exists()
    other = here(*call, tmp_path/'killed', '--seed', 3, '--resume')
    assert other.returncode == 2 and 'other settings or data' in other.stderr and other.stderr.strip().count('\n') == 0, other.stderr
    assert here(*call, tmp_path/'killed', '--resume').returncode == 0
    a, b = load_file(tmp_path/'whole'), load_file(tmp_path/'killed')
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) and only(tmp_path/'killed')
    assert header_of(tmp_path/'whole')['log'] == header_of(tmp_path/'killed')['log']


def test_a_person_rates(here, folder, tmp_path):
    "Stage 1 writes what is to be rated; stage 2 starts from its file; what a person cannot have said is refused."
    first, model, table = tmp_path/'s.safetensors', tmp_path/'m.safetensors', tmp_path/'rate/ratings.csv'
    labelled = ('--labelled', folder/'list.txt')
    done = here(*train(folder, *labelled), *quick, '--rate', tmp_path/'rate', '--out', first)
    assert done.returncode == 0 and '4 images to rate' in done.stdout and header_of(first)['annotator'] is None, done.stderr
    lines = table.read_text().splitlines()
    assert lines[0] == 'image,candidate,rating' and len(lines) == 1 + 4*4 and len(list((tmp_path/'rate').glob('p*_*.png'))) == 16
    start = (*train(folder, *labelled), *quick, '--init', first, '--ratings', table, '--out', model)
    refused(here(*start), "line 2: rating is ''", model)
    rated = [lines[0], *(f'{l}{4 - int(l.split(",")[1])}' for l in lines[1:])]
    table.write_text('\n'.join([*rated, 'p77,0,1']))
    refused(here(*start), 'there is no image p77', model)
    table.write_text('\n'.join(rated[:-1]))
    refused(here(*start), 'p7 has 4 candidates, and ratings of 0, 1, 2', model)
    table.write_text('\n'.join(rated))
    done = here(*start)
    assert done.returncode == 0 and 'compared by ratings' in done.stdout and only(model), done.stderr
    refused(here(*start[:-1], tmp_path/'n', '--seed', 3), 'images that validate now', tmp_path/'n')
    prompts = [{k: v for k, v in load_file(p).items() if k.startswith('prompts.')} for p in (first, model)]
    assert prompts[0] and all(torch.equal(v, prompts[1][k]) for k, v in prompts[0].items())


def test_true_boxes_then_drawn_ones(here, folder, tmp_path):
    "A model that was trained with true boxes predicts from drawn ones, and a scorer can move them."
    model, scorer = tmp_path/'m.safetensors', tmp_path/'s.safetensors'
    done = here(*train(folder, '--labelled-fraction', .5, '--prompt', 'box', '--noise', .2, masks='masks'), *quick, '--out', model)
    assert done.returncode == 0 and '(oracle)' in done.stdout and '20% errors' in done.stdout, done.stderr
    call = ('predict', '--model', model, '--images', folder/'images', '--quiet', '--out')
    refused(here(*call, tmp_path/'no'), 'Draw boxes', tmp_path/'no')
    assert here('train', 'scorer', '--images', folder/'images', '--masks', folder/'masks', '--epochs', 1, '--out', scorer, *toy).returncode == 0
    for evolve in ((), ('--evolve', scorer)):
        done = here(*call, tmp_path/f'o{len(evolve)}', '--boxes', folder/'boxes.csv', *evolve)
        assert done.returncode == 0 and len(list((tmp_path/f'o{len(evolve)}').glob('*.png'))) == 8, done.stderr
    done = here(*train(folder, '--labelled', folder/'list.txt', '--annotator', 'scorer', '--scorer', scorer), *quick, '--out', tmp_path/'k')
    assert done.returncode == 0 and '4 of the unlabelled images have the names' in done.stderr, done.stderr
    refused(here('predict', '--model', scorer, '--images', folder/'images', '--quiet', '--out', tmp_path/'no'), 'makes no prompts', tmp_path/'no')


def test_other_files_are_refused(here, folder, tmp_path):
    "Another backbone, an older form, prompts that cannot be made again, a model that makes prompts itself."
    model = tmp_path/'m.safetensors'
    assert here(*train(folder, '--labelled', folder/'list.txt', '--annotator', 'none'), *quick, '--out', model).returncode == 0
    header, state = header_of(model), load_file(model)
    for i, (change, says) in enumerate([(dict(backbone_sha256='0'*64), 'trained on sam_toy with weights 000000000000'), (dict(labelled=...), 'older form'), (dict(prompts=dict(name='probe', oracle=False)), 'older form'), (dict(backbone='sam_vit_x'), 'not known here')]):
        save_file(state, path := tmp_path/f'{i}.safetensors', {'medsam_prompts': json.dumps({k: v for k, v in (header | change).items() if v is not ...})})
        refused(here('predict', '--model', path, '--images', folder/'images', '--quiet', '--out', tmp_path/'no'), says, tmp_path/'no')
    weak = tmp_path/'w.safetensors'
    assert here('train', 'weak', '--images', folder/'images', '--masks', folder/'masks', '--epochs', 1, '--out', weak, '--recipe', 'paper', *toy).returncode == 0
    refused(here('predict', '--model', weak, '--boxes', folder/'boxes.csv', '--images', folder/'images', '--quiet', '--out', tmp_path/'no'), 'exactly one prompt', tmp_path/'no')
    refused(here(*train(folder, '--labelled', folder/'list.txt', '--annotator', 'agreement', '--init', weak), *quick, '--out', tmp_path/'no'), 'holds no tuned backbone', tmp_path/'no')


def wrong_calls(folder, d):
    "name -> (options, what the message must say)"
    few, listed = ('--masks', folder/'few'), ('--labelled', folder/'list.txt')
    text = lambda name, content: (d/name).write_text(content) and d/name
    yield 'nobody labelled', few, 'Give one of --labelled-fraction and --labelled'
    yield 'two ways', (*few, *listed, '--labelled-fraction', .5), 'Give one of --labelled-fraction and --labelled'
    yield 'no masks for the truth', (*few, *listed), '4 unlabelled images have none (first: p4)'
    yield 'no masks for the box', (*few, *listed, '--prompt', 'box', '--annotator', 'agreement'), 'the prompt box is taken from them'
    yield 'share too large', (*few, '--labelled-fraction', .9), 'and 4 have masks'
    yield 'no share', (*few, '--labelled-fraction', 1.5), 'this is not a share'
    yield 'nobody validates', (*few, '--labelled', text('one.txt', 'p0\n'), '--annotator', 'agreement'), 'another one has to validate'
    yield 'unknown image', (*few, '--labelled', text('q.txt', 'p0\nq.png\n')), 'line 2: there is no image q'
    yield 'image without mask', (*few, '--labelled', text('five.txt', 'p5\n')), 'line 1: p5 has no mask'
    yield 'no list', (*few, '--labelled', d/'nowhere.txt'), 'there is no such file'
    yield 'no ratings', (*few, *listed, '--ratings', d/'nowhere.csv'), 'there is no such file'
    yield 'ratings of labelled ones', (*few, *listed, '--ratings', text('r.csv', 'image,candidate,rating\np0,0,1\n')), 'rates none of the unlabelled'
    yield 'two who compare', (*few, *listed, '--ratings', d/'r.csv', '--annotator', 'iou'), 'does not go with --annotator'
    yield 'scorer that nobody asks', (*few, *listed, '--scorer', d/'s'), 'Give --annotator scorer'
    yield 'no scorer', (*few, *listed, '--annotator', 'scorer', '--scorer', d/'s'), 'there is no such file'
    yield 'no such label', (*few, *listed, '--label', 7, '--annotator', 'agreement'), 'no labelled image shows the target'
    yield 'no start', (*few, *listed, '--init', d/'s'), 'there is no such file'
    yield 'noise', ('--masks', folder/'masks', *listed, '--noise', 3), 'this is not a share'
    yield 'text without clip', (*few, *listed, '--text', 'lung', '--prompt', 'probe'), 'reads no text'
    yield 'no text', (*few, *listed, '--prompt', 'clip', '--annotator', 'agreement'), 'Give --text'
    yield 'bank of two', (*few, *listed, '--text', text('b.yaml', 'liver:\n  phrase: liver\nspleen:\n  phrase: spleen\n'), '--annotator', 'agreement'), 'Leave the one'
    yield 'no module', (*few, *listed, '--prompt', 'learned', '--annotator', 'agreement'), 'Give --model'
    yield 'module without use', (*few, *listed, '--prompt', 'probe', '--model', d/'s', '--annotator', 'agreement'), 'needs no prompt module'
    yield 'no such module', (*few, *listed, '--model', d/'s', '--annotator', 'agreement'), 'there is no such file'
    yield 'no judge', (*few, *listed, '--annotator', 'another-model'), 'Give both, or none'
    yield 'judge that nobody asks', (*few, *listed, '--annotator', 'agreement', '--judge', d/'s'), 'Give both, or none'
    yield 'recipe', (*few, *listed, '--recipe', 'magic'), 'Choose one of'
    yield 'adapters', (*few, *listed, '--recipe', 'paper', '--annotator', 'agreement'), 'it has no adapters'


def test_bad_input(here, folder, tmp_path):
    for name, args, says in wrong_calls(folder, tmp_path):
        out = tmp_path/'never.safetensors'
        refused(here('train', 'prefer', '--images', folder/'images', *args, *quick, '--out', out), says, out)
        assert not list(tmp_path.glob('never*')), name


def test_a_text_and_the_own_masks(here, folder, tmp_path):
    "Prompts from a text with a tower that knows no words, described in a file; and from the backbone's own masks."
    (tmp_path/'lung.yaml').write_text('left lung:\n  phrase: left lung in a radiograph\n')
    for source in (('--text', tmp_path/'lung.yaml', '--clip', 'tiny'), ('--prompt', 'own-masks')):
        model = tmp_path/f'{len(source)}.safetensors'
        done = here(*train(folder, '--labelled', folder/'list.txt', '--annotator', 'predicted-iou', *source), *quick, '--out', model)
        assert done.returncode == 0, done.stderr
        done = here('predict', '--model', model, '--images', folder/'images', '--out', tmp_path/f'o{len(source)}', '--quiet')
        assert done.returncode == 0 and len(list((tmp_path/f'o{len(source)}').glob('*.png'))) == 8, done.stderr


def test_ten_boxes_then_few_masks(here, folder, tmp_path):
    "Prompts from a module that boxes taught; the model file holds it, so the file of the module is no longer needed. A model that makes no prompts is refused."
    weak, model, again = (tmp_path/f'{n}.safetensors' for n in ('weak', 'm', 'again'))
    assert here('train', 'weak', '--images', folder/'images', '--boxes', folder/'boxes.csv', '--epochs', 2, '--recipe', 'paper', *toy, '--out', weak).returncode == 0
    call = (*train(folder, '--labelled', folder/'list.txt', '--annotator', 'predicted-iou'), '--epochs', 3, '--align-epochs', 2, '--quiet')
    done = here(*call, '--model', weak, '--out', model)
    assert done.returncode == 0 and 'prompts: learned' in done.stdout, done.stdout + done.stderr
    weak.unlink()
    done = here('predict', '--model', model, '--images', folder/'images', '--out', tmp_path/'o', '--quiet')
    assert done.returncode == 0 and len(list((tmp_path/'o').glob('*.png'))) == 8, done.stderr
    refused(here(*call, '--model', model, '--out', again), 'makes no prompts', again)


def test_a_module_compares(here, folder, tmp_path):
    "What boxes taught judges masks of images without any."
    weak, model = tmp_path/'weak.safetensors', tmp_path/'m.safetensors'
    assert here('train', 'weak', '--images', folder/'images', '--boxes', folder/'boxes.csv', '--epochs', 2, '--recipe', 'paper', *toy, '--out', weak).returncode == 0
    done = here(*train(folder, '--labelled', folder/'list.txt', '--annotator', 'another-model', '--judge', weak), *quick, '--out', model)
    assert done.returncode == 0 and 'compared by another model' in done.stdout, done.stdout + done.stderr
    assert header_of(model)['annotator']['sees_truth'] is False
