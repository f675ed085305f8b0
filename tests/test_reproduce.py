"The workflow end to end on the toy backbone: plan, interruption, reuse, report."
import csv
import json
import shutil

import pytest

from medsam_prompts.core import InputError
from conftest import repo

profile = '''
experiments:
  weak_table1: &weak
    tasks: [phantom_head]
    rows:
      - {method: tight_box, backbone: sam_toy}
      - {method: weak, backbone: sam_toy, shots: 4, changes: {epochs: 1}, subset: [0, 1]}
  weak_fig2: *weak
'''


@pytest.fixture(scope='module')
def done(tmp_path_factory):
    d = tmp_path_factory.mktemp('run')
    (d/'mini.yaml').write_text(profile)
    return d


def test_reproduce_and_reuse(cli, done):
    call = ('reproduce', '--profile', done/'mini.yaml', '--jobs', 2, '--out', done/'out')
    first = cli(*call)
    assert first.returncode == 0 and 'report: ' in first.stdout, first.stdout + first.stderr
    page = (done/'out/report.html').read_text()
    assert page.count('data:image/png') == 2 and 'tight box†' in page and 'src="http' not in page
    cells = {p.parent.name: json.loads(p.read_text()) for p in (done/'out/cells').glob('*/done.json')}
    assert len(cells) == 6 and all(c['seconds'] > 0 and c['versions']['torch'] for c in cells.values())
    again = cli(*call)
    assert '6 cells, 0 to run' in again.stdout
    victim = next(done.glob('out/cells/run-*weak*-0-0-*'))
    before = (victim/'rows.csv').read_text()
    for f in ('done.json', 'rows.csv'): (victim/f).unlink()
    assert '1 to run' in cli(*call).stdout
    drop = lambda text: [{k: v for k, v in r.items() if k not in ('seconds', 'fit_seconds')} for r in csv.DictReader(text.splitlines())]
    assert drop((victim/'rows.csv').read_text()) == drop(before)


def test_wrong_parameters_are_refused_before_anything_runs(cli, tmp_path):
    (tmp_path/'bad.yaml').write_text('experiments:\n  weak_table1:\n    tasks: [phantom_head]\n    rows: [{method: weak, epoch: 3}]\n')
    bad = cli('reproduce', '--profile', tmp_path/'bad.yaml', '--out', tmp_path/'out')
    assert bad.returncode == 2 and 'no parameter epoch' in bad.stderr and not (tmp_path/'out').exists()
    assert cli('reproduce', 'fig_99').returncode == 2


def test_adopt(done, tmp_path, monkeypatch):
    "Results and executed outputs go into (a copy of) the repository."
    import medsam_prompts.workflow as workflow
    shutil.copytree(repo/'nbs/experiments', tmp_path/'experiments')
    monkeypatch.setattr(workflow, 'experiments_folder', lambda: tmp_path/'experiments')
    workflow.adopt(done/'out', 'mini')
    made = json.loads((tmp_path/'experiments/results/mini/weak_table1/made.json').read_text())
    assert made['cells'] == 4 and 'weak_table1 --profile mini' in made['command']
    assert len(list(csv.DictReader((tmp_path/'experiments/results/mini/weak_table1/cases.csv').open()))) == 3*12
    nb = json.loads((tmp_path/'experiments/run.ipynb').read_text())
    assert any(c.get('outputs') for c in nb['cells']) and not any('injected-parameters' in c['metadata'].get('tags', []) for c in nb['cells'])
    nb['cells'][-1]['source'] = ['1']
    (tmp_path/'experiments/run.ipynb').write_text(json.dumps(nb))
    with pytest.raises(InputError, match='has changed since'): workflow.adopt(done/'out', 'mini')


def test_a_failing_cell_is_told_in_a_line_and_stops_no_other(cli, tmp_path):
    (tmp_path/'p.yaml').write_text('experiments:\n  weak_table1:\n    tasks: [phantom_head]\n    rows:\n      - {method: tight_box, backbone: sam_toy}\n'
                                   '      - {method: weak, backbone: sam_toy, shots: 4, changes: {epochs: 1, width: 0}}\n')
    res = cli('reproduce', '--profile', tmp_path/'p.yaml', '--out', tmp_path/'out')
    assert res.returncode == 1 and 'Traceback' not in res.stderr, res.stderr
    assert 'failed: run-phantom_head-weak' in res.stderr and 'cells failed; their notebooks lie in' in res.stderr
    assert len(list((tmp_path/'out/cells').glob('run-*tight_box*/done.json'))) == 1
