"The command line as a user meets it: in a process of its own, on files."
import csv
import json
import pickle
import shutil
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import write_phantoms
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from medsam_prompts.data.boxes import tight_box
from medsam_prompts.data.phantoms import phantom

toy = ('--backbone', 'sam_toy', '--quiet')
paper = ('--recipe', 'paper', *toy) # one module and no views: quick


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Six radiographs with masks of one lung and a boxes file."
    d = tmp_path_factory.mktemp('data')
    for sub in ('images', 'masks'): (d/sub).mkdir()
    rows = ['image,x0,y0,x1,y1']
    for i in range(6):
        p = phantom('chest_xray', i)
        lung = p.labels == 1
        Image.fromarray(p.image).save(d/f'images/p{i}.png')
        Image.fromarray(lung.astype(np.uint8)*255).save(d/f'masks/p{i}.png')
        rows.append(f'p{i}.png,' + ','.join(str(v) for v in tight_box(lung)))
    (d/'boxes.csv').write_text('\n'.join(rows) + '\n')
    return d


def nothing_left(path): return not path.exists() and not list(path.parent.glob('.part-*')) and not list(path.parent.glob('*.state'))


def test_train_predict_evaluate(cli, folder, tmp_path):
    model = tmp_path/'m.safetensors'
    done = cli('train', 'weak', '--images', folder/'images', '--masks', folder/'masks', '--shots', 4, '--subset-seed', 1, '--epochs', 2, '--out', model, *paper)
    assert done.returncode == 0, done.stderr
    with safe_open(model, 'pt') as f: header = json.loads(f.metadata()['medsam_prompts'])
    assert header['training_set']['cases'] == sorted(np.random.default_rng(1).choice([f'p{i}' for i in range(6)], 4, replace=False).tolist())
    assert {'method', 'backbone', 'backbone_sha256', 'prep', 'targets', 'package_version'} <= set(header)
    done = cli('predict', '--model', model, '--images', folder/'images', '--out', tmp_path/'pred', '--quiet')
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path/'pred/predictions.csv').open()))
    assert list(rows[0]) == 'case,label,score,x0,y0,x1,y1,flags,seconds'.split(',') and len(rows) == 6
    for i in range(6):
        mask = np.array(Image.open(tmp_path/f'pred/p{i}.png'))
        assert mask.shape == phantom('chest_xray', i).size and set(np.unique(mask)) <= {0, 255}
    done = cli('evaluate', '--pred', tmp_path/'pred', '--truth', folder/'masks', '--out', tmp_path/'cases.csv', '--spacing', '1.1,1.1', '--quiet')
    assert done.returncode == 0 and '95%' in done.stdout, done.stderr
    cases = list(csv.DictReader((tmp_path/'cases.csv').open()))
    assert list(cases[0]) == 'case,label,dice,iou,hd95,hd95_unit,nsd,empty_truth,empty_pred'.split(',') and cases[0]['hd95_unit'] == 'mm'


def test_boxes_and_masks_teach_the_same(cli, folder, tmp_path):
    for name, source in dict(a=('--masks', folder/'masks'), b=('--boxes', folder/'boxes.csv')).items():
        assert cli('train', 'weak', '--images', folder/'images', *source, '--epochs', 2, '--out', tmp_path/name, *paper).returncode == 0
    a, b = load_file(tmp_path/'a'), load_file(tmp_path/'b')
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_killed_training_resumes_to_the_same_weights(cli, folder, tmp_path, home):
    call = ('train', 'weak', '--images', folder/'images', '--masks', folder/'masks', '--epochs', 80, *paper, '--out')
    assert cli(*call, tmp_path/'whole').returncode == 0
    code = 'import sys; from medsam_prompts.cli import main; sys.exit(main())'
    process = subprocess.Popen([sys.executable, '-c', code, *map(str, call), str(tmp_path/'killed')],
                               env={**__import__('os').environ, 'MEDSAM_PROMPTS_HOME': str(home)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = tmp_path/'killed.state'
    deadline = time.time() + 300
    while not state.exists() and process.poll() is None and time.time() < deadline: time.sleep(.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists() and not (tmp_path/'killed').exists()
    other = cli(*call, tmp_path/'killed', '--seed', 3, '--resume')
    assert other.returncode == 2 and 'other settings or data' in other.stderr and other.stderr.strip().count('\n') == 0, other.stderr
    whole = state.read_bytes()
    state.write_bytes(whole[:1000])
    cut = cli(*call, tmp_path/'killed', '--resume')
    assert cut.returncode == 2 and 'cannot be read' in cut.stderr and cut.stderr.strip().count('\n') == 0, cut.stderr
    state.write_bytes(whole)
    assert cli(*call, tmp_path/'killed', '--resume').returncode == 0
    a, b = load_file(tmp_path/'whole'), load_file(tmp_path/'killed')
    assert all(torch.equal(a[k], b[k]) for k in a) and not state.exists()


def test_drawn_boxes_points_and_a_volume(cli, folder, tmp_path):
    (tmp_path/'points.csv').write_text('image,x,y,positive\n' + ''.join(f'p{i},200,150,1\n' for i in range(6)))
    for kind, path in dict(boxes=folder/'boxes.csv', points=tmp_path/'points.csv').items():
        done = cli('predict', *toy, f'--{kind}', path, '--images', folder/'images', '--out', tmp_path/kind)
        assert done.returncode == 0 and len(list((tmp_path/kind).glob('*.png'))) == 6, done.stderr
    (tmp_path/'v').mkdir()
    affine = np.array([[0, 2., 0, 1], [0, 0, 3., 2], [-1.5, 0, 0, 3], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(20, 22, 5)), affine), tmp_path/'v/a.nii.gz')
    (tmp_path/'b.csv').write_text('image,x0,y0,x1,y1,label,slice\na.nii.gz,2,3,12,15,4,1\na.nii.gz,2,3,12,15,7,2\n')
    assert cli('predict', *toy, '--boxes', tmp_path/'b.csv', '--images', tmp_path/'v', '--out', tmp_path/'vo').returncode == 0
    out = nib.load(tmp_path/'vo/a.nii.gz')
    assert out.shape == (20, 22, 5) and np.allclose(out.affine, affine) and set(np.unique(np.asarray(out.dataobj))) <= {0, 4, 7}


def test_prompts_from_a_text(cli, folder, tmp_path):
    call = ('predict', '--text', 'left lung', '--backbone', 'sam_toy', '--images', folder/'images', '--quiet')
    done = cli(*call, '--clip', 'tiny', '--out', tmp_path/'out')
    assert done.returncode == 0 and len(list((tmp_path/'out').glob('*.png'))) == 6, done.stderr
    write(tmp_path/'bank.yaml', 'left lung:\n  phrase: [1, 2]\n')
    for wrong, says in [((), 'the model is not here'), (('--clip', 'tiny', '--bank', tmp_path/'bank.yaml'), 'bank.yaml, left lung, phrase'), (('--clip', 'vit'), 'no such CLIP model'), (('--boxes', folder/'boxes.csv'), 'exactly one prompt')]:
        done = cli(*call, *wrong, '--out', tmp_path/'no')
        assert done.returncode == 2 and says in done.stderr and done.stderr.strip().count('\n') == 0 and not (tmp_path/'no').exists(), done.stderr


def test_scorer_and_evolution(cli, folder, tmp_path):
    "A scorer moves drawn points and learned prompts, and each model is refused where the other belongs."
    data, scorer, model = ('--images', folder/'images', '--masks', folder/'masks'), tmp_path/'s.safetensors', tmp_path/'m.safetensors'
    done = cli('train', 'scorer', *data, '--epochs', 2, '--recipe', 'ours', '--out', scorer, *toy)
    assert done.returncode == 0 and 'r =' in done.stdout and nothing_left(tmp_path/'x'), done.stderr
    assert 'or are too few to show it: predict --evolve will move none of: points, boxes' in done.stderr # one subject was held out
    assert cli('train', 'weak', *data, '--epochs', 1, '--recipe', 'ours', '--members', 2, '--out', model, *toy).returncode == 0
    write(tmp_path/'points.csv', 'image,x,y,positive\n' + ''.join(f'p{i},200,150,1\n' for i in range(6)))
    ways = dict(start=(), still=('--evolve', scorer), moved=('--evolve', scorer, '--evolve-margin', 0), three=('--evolve', scorer, '--evolve-masks', 3))
    for i, (prompt, told) in enumerate(((('--points', tmp_path/'points.csv', *toy), ways), (('--model', model, '--quiet'), ('start', 'moved')))):
        masks, rows = {}, {}
        for k in told:
            done = cli('predict', *prompt, '--images', folder/'images', *ways[k], '--out', tmp_path/f'{k}{i}')
            assert done.returncode == 0 and ('nothing is moved' in done.stderr) == (k == 'still'), done.stderr
            masks[k], rows[k] = np.stack([np.array(Image.open(tmp_path/f'{k}{i}/p{j}.png')) for j in range(6)]), list(csv.DictReader((tmp_path/f'{k}{i}/predictions.csv').open()))
        same = {k: (m == masks['start']).all() for k, m in masks.items()}
        assert same.get('still', True) and not same.get('three') and (not same['moved'] or 'safeguard_' in str(rows['moved'])), same
    done = cli('predict', '--points', tmp_path/'points.csv', '--images', folder/'images', '--evolve-masks', 3, '--out', tmp_path/'no', *toy)
    assert done.returncode == 2 and 'Give --evolve SCORER too' in done.stderr, done.stderr
    done = cli('train', 'scorer', *data, '--epochs', 1, '--model', model, '--out', tmp_path/'tried.safetensors', '--quiet') # brings its backbone
    with safe_open(tmp_path/'tried.safetensors', 'pt') as f: header = json.loads(f.metadata()['medsam_prompts'])
    assert header['backbone'] == 'sam_toy' and header['settings']['learned']['margin'] == 1 and header['settings']['points'] == dict(margin=.01, three=False, starts=1, steps=50, overlap=.3) and 'will move none of: learned' in done.stderr and 'points: one mask, moved for a gain of more than 0.01' in done.stdout
    done = cli('train', 'weak', *data, '--recipe', 'teacher', '--members', 2, '--out', tmp_path/'no', *toy)
    assert done.returncode == 2 and 'looks at all modules at once' in done.stderr and done.stderr.strip().count('\n') == 0, done.stderr
    for wrong, says in [(('--model', scorer), 'makes no prompts'), (('--model', model, '--evolve', model), 'judges no masks'), (('--points', tmp_path/'points.csv', '--evolve', scorer), 'trained on sam_toy')]:
        done = cli('predict', *wrong, '--images', folder/'images', '--out', tmp_path/'no', '--quiet')
        assert done.returncode == 2 and says in done.stderr and done.stderr.strip().count('\n') == 0 and not (tmp_path/'no').exists(), done.stderr


def test_embed_then_looking_around(cli, folder):
    first, second = (cli('embed', '--images', folder/'images', *toy) for _ in range(2))
    assert first.returncode == 0 and second.stdout.startswith('0 embedded, 6 in all')
    for command in (('info',), ('checkpoints', 'list'), ('datasets', 'list'), ('datasets', 'show', 'hc18'), ('reproduce', '--list')):
        assert cli(*command).returncode == 0
    assert all(n in cli('checkpoints', 'list').stdout for n in ('lite_medsam', 'mobile_sam', 'sam_vit_h')) and 'hc18_official' in cli('datasets', 'list').stdout


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    return path


def bad_training(d, images, masks):
    "name -> (arguments, what the message must say)"
    png = (images/'p0.png').read_bytes()
    yield 'empty masks', ('--images', one(d/'e', images), '--masks', blank(d/'em')), 'no image shows the target'
    yield 'corrupt image', ('--images', write(d/'c/p0.png', png[:200]).parent, '--masks', one(d/'cm', masks)), 'p0.png: the file is corrupt or cut off'
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((20, 20, 9)), np.eye(4)), d/'whole.nii.gz')
    yield 'truncated volume', ('--images', write(d/'t/p0.nii.gz', (d/'whole.nii.gz').read_bytes()[:9000]).parent, '--masks', one(d/'tm', masks)), 'p0.nii.gz: the file is corrupt'
    yield 'mask of another size', ('--images', one(d/'s', images), '--masks', blank(d/'sm', (9, 9))), 'the mask has 9 x 9 pixels'
    yield 'no such label', ('--images', images, '--masks', masks, '--label', 7), 'label 7'
    yield 'no folder', ('--images', d/'nowhere', '--masks', masks), 'there is no such folder'
    yield 'too many shots', ('--images', images, '--masks', masks, '--shots', 99), 'Use at most 6'
    yield 'unknown recipe', ('--images', images, '--masks', masks, '--recipe', 'magic'), 'Choose one of'
    yield 'several parts', ('--images', one(d/'p', images), '--masks', parts(d/'pm')), '--components largest'
    yield 'label 0', ('--images', images, '--masks', masks, '--label', 0), 'labels from 1 to 255'
    yield 'negative subset', ('--images', images, '--masks', masks, '--subset-seed', -1), 'at least 0'
    yield 'unknown device', ('--images', images, '--masks', masks, '--device', 'cpux'), 'unknown device'
    yield 'bounds upside down', ('--images', images, '--masks', masks, '--bounds', '.9,.5'), 'not shares of a box'
    yield 'bounds of two', ('--images', images, '--masks', masks, '--bounds', '.5,.9', '.2,.9'), 'Give a pair for each of them'
    yield 'no such image', ('--images', images, '--boxes', write(d/'typo.csv', 'image,x0,y0,x1,y1\ntypo,1,2,3,4\n')), 'there is no image typo in the folder'
    for name, lines, says in [('inverted box', 'p0,9,2,3,4', 'is inverted'), ('outside box', 'p0,9000,2,9003,4', 'lies outside p0'),
                              ('text for numbers', 'p0,a,2,3,4', "x0 is 'a', not a number")]:
        yield name, ('--images', images, '--boxes', write(d/f'{name}.csv', f'image,x0,y0,x1,y1\n{lines}\n')), says


def one(folder, source):
    folder.mkdir(parents=True)
    (folder/'p0.png').write_bytes((source/'p0.png').read_bytes())
    return folder


def blank(folder, size=None):
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros(size or phantom('chest_xray', 0).size, np.uint8)).save(folder/'p0.png')
    return folder


def parts(folder):
    folder.mkdir(parents=True)
    p = phantom('chest_xray', 0)
    Image.fromarray(np.isin(p.labels, (1, 2)).astype(np.uint8)).save(folder/'p0.png')
    return folder


def test_bad_training_input(folder, tmp_path, monkeypatch, capsys, home):
    "In one process, since starting python takes longer than failing."
    from medsam_prompts.cli import main
    monkeypatch.setenv('MEDSAM_PROMPTS_HOME', str(home))
    for name, args, says in bad_training(tmp_path, folder/'images', folder/'masks'):
        out = tmp_path/'never.safetensors'
        assert main(['train', 'weak', *paper, *map(str, args), '--epochs', '1', '--out', str(out)]) == 2, name
        err = capsys.readouterr().err.strip()
        assert says in err and '\n' not in err and 'Traceback' not in err, (name, err)
        assert nothing_left(out), name


def test_bad_models_and_weights(cli, folder, tmp_path):
    "Wrong weights, pickles and web pages are refused and named."
    model = tmp_path/'m.safetensors'
    assert cli('train', 'weak', '--images', folder/'images', '--masks', folder/'masks', '--shots', 2, '--epochs', 1, '--out', model, *paper).returncode == 0
    with safe_open(model, 'pt') as f: header, state = json.loads(f.metadata()['medsam_prompts']), {k: f.get_tensor(k) for k in f.keys()}
    from safetensors.torch import save_file
    save_file(state, tmp_path/'other.safetensors', {'medsam_prompts': json.dumps({**header, 'backbone_sha256': '0'*64})})
    for path, says in [(tmp_path/'other.safetensors', 'trained on sam_toy with weights 000000000000'), (write(tmp_path/'p.safetensors', pickle.dumps(dict(a=1))), 'not a safetensors file'),
                       (write(tmp_path/'h.safetensors', '<html></html>'), 'not a safetensors file'), (tmp_path/'none', 'no such file')]:
        done = cli('predict', '--model', path, '--images', folder/'images', '--out', tmp_path/'o', '--quiet')
        assert done.returncode == 2 and says in done.stderr and done.stderr.strip().count('\n') == 0, done.stderr
        assert not (tmp_path/'o').exists()


def test_wrong_weights_are_named(tmp_path, monkeypatch):
    "A damaged file in the home is refused, whatever its name says."
    from medsam_prompts.all import InputError, fetch_checkpoint, load_segmenter
    monkeypatch.setenv('MEDSAM_PROMPTS_HOME', str(tmp_path)); monkeypatch.setenv('MEDSAM_PROMPTS_OFFLINE', '1')
    write(tmp_path/'checkpoints/sam_vit_b_01ec64.pth', '<html>moved</html>')
    with pytest.raises(InputError, match='this is a web page'): load_segmenter('sam_vit_b')
    with pytest.raises(InputError, match='OFFLINE is set'): fetch_checkpoint('sam_vit_b')


def test_bad_prediction_input_leaves_nothing(cli, folder, tmp_path):
    "Everything is looked at before the first mask is written."
    model = tmp_path/'m.safetensors'
    assert cli('train', 'weak', '--images', folder/'images', '--masks', folder/'masks', '--shots', 2, '--epochs', 1, '--out', model, *paper).returncode == 0
    images = tmp_path/'images'
    shutil.copytree(folder/'images', images)
    write(images/'z.png', (images/'p0.png').read_bytes()[:200])
    outside = write(tmp_path/'b.csv', (folder/'boxes.csv').read_text().replace('p5.png,', 'p5.png,9') )
    (tmp_path/'file').write_text('')
    for args, says in [(('--model', model, '--images', images, '--out', tmp_path/'o'), 'z.png: the file is corrupt'),
                       (('--boxes', outside, '--images', folder/'images', '--out', tmp_path/'o', '--backbone', 'sam_toy'), 'b.csv: line 7'),
                       (('--model', model, '--images', folder/'images', '--out', folder/'images'), 'would overwrite'),
                       (('--model', model, '--images', folder/'images', '--out', tmp_path/'file'), 'file of this name'),
                       (('--model', folder, '--images', folder/'images', '--out', tmp_path/'o'), 'no such file')]:
        done = cli('predict', *args, '--quiet')
        assert done.returncode == 2 and says in done.stderr and done.stderr.strip().count('\n') == 0, done.stderr
        assert not (tmp_path/'o').exists()


def test_two_structures_at_once(cli, tmp_path):
    "Boxes of two structures train two modules in one model, which writes label maps."
    write_phantoms(tmp_path, (1, 2), 'p{}')
    model = tmp_path/'m.safetensors'
    done = cli('train', 'weak', '--images', tmp_path/'images', '--boxes', tmp_path/'boxes.csv', '--bounds', '.5,.9', '.3,.8', '--epochs', 2, '--out', model, *paper)
    assert done.returncode == 0, done.stderr
    assert cli('predict', '--model', model, '--images', tmp_path/'images', '--out', tmp_path/'out', '--quiet').returncode == 0
    assert {r['label'] for r in csv.DictReader((tmp_path/'out/predictions.csv').open())} == {'1', '2'}
    assert set(np.unique(np.array(Image.open(tmp_path/'out/p0.png')))) <= {0, 1, 2}


def test_one_label_of_a_label_map(cli, tmp_path):
    "Trained on one label of label maps, predicted as 0/255, evaluated against that label."
    for sub in ('images', 'maps', 'pred'): (tmp_path/sub).mkdir()
    for i in range(3):
        p = phantom('chest_xray', i)
        Image.fromarray(p.image).save(tmp_path/f'images/p{i}.png')
        Image.fromarray(p.labels).save(tmp_path/f'maps/p{i}.png')
        Image.fromarray((p.labels == 2).astype(np.uint8)*255).save(tmp_path/f'pred/p{i}.png')
    model = tmp_path/'m.safetensors'
    assert cli('train', 'weak', '--images', tmp_path/'images', '--masks', tmp_path/'maps', '--label', 2, '--epochs', 1, '--out', model, *paper).returncode == 0
    assert cli('predict', '--model', model, '--images', tmp_path/'images', '--out', tmp_path/'out', '--quiet').returncode == 0
    assert set(np.unique(np.array(Image.open(tmp_path/'out/p0.png')))) <= {0, 255}
    done = cli('evaluate', '--pred', tmp_path/'pred', '--truth', tmp_path/'maps', '--label', 2, '--out', tmp_path/'c.csv', '--quiet')
    assert done.returncode == 0 and {r['dice'] for r in csv.DictReader((tmp_path/'c.csv').open())} == {'1.0'}, done.stderr
    unsaid = cli('evaluate', '--pred', tmp_path/'pred', '--truth', tmp_path/'maps', '--out', tmp_path/'d.csv', '--quiet')
    assert unsaid.returncode == 2 and '--label' in unsaid.stderr and not (tmp_path/'d.csv').exists()
