"The workflow end to end on the toy backbone: plan, interruption, reuse, report."
import base64
import csv
import json
import os
import shutil
import subprocess
import sys

import pytest

from medsam_prompts.core import InputError
from conftest import repo
from interrupt import check_files, code, finish, tables
from links import dead_links, is_external, Page
from one_node_slurm import missing

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
def done(cli, tmp_path_factory):
    "A folder with a profile and what it gave when run once, in `out`."
    d = tmp_path_factory.mktemp('run')
    (d/'mini.yaml').write_text(profile)
    first = cli('reproduce', '--profile', d/'mini.yaml', '--jobs', 2, '--out', d/'out')
    assert first.returncode == 0 and 'report: ' in first.stdout, first.stdout + first.stderr
    return d


def test_reproduce_and_reuse(cli, done):
    call = ('reproduce', '--profile', done/'mini.yaml', '--jobs', 2, '--out', done/'out')
    page = (done/'out/report.html').read_text()
    assert page.count('data:image/png') == 2 and 'tight box†' in page and 'src="http' not in page
    cells = {p.parent.name: json.loads(p.read_text()) for p in (done/'out/cells').glob('*/done.json')}
    assert len(cells) == 7 and all(c['seconds'] > 0 and c['versions']['torch'] for c in cells.values())
    again = cli(*call)
    assert '7 cells, 0 to run' in again.stdout
    victim = next(done.glob('out/cells/run-*weak*-0-0-*'))
    before = (victim/'rows.csv').read_text()
    for f in ('done.json', 'rows.csv'): (victim/f).unlink()
    assert '1 to run' in cli(*call).stdout
    drop = lambda text: [{k: v for k, v in r.items() if k not in ('seconds', 'fit_seconds')} for r in csv.DictReader(text.splitlines())]
    assert drop((victim/'rows.csv').read_text()) == drop(before)


def test_report_leads_somewhere(done):
    "Links of the site resolve inside it, pictures show, nothing comes from elsewhere."
    pages = [done/'out/report.html', *sorted((done/'out/report').rglob('*.html'))]
    assert [p.name for p in pages[1:]] == [f'phantom_head-{r}.html' for r in ('best', 'median', 'worst')]
    assert dead_links(pages, done/'out') == []
    seen = [Page(p.read_text()) for p in pages]
    assert not any(is_external(l) for p in seen for l in p.links) and [len(p.pictures) for p in seen] == [2, 1, 1, 1]
    assert sum(l.endswith('/notebook.ipynb') for l in seen[0].links) == 2*4
    table = list(csv.DictReader((done/'out/report/weak_table1-table.csv').open()))
    assert {'task', 'method', 'ours', 'reported', 'gap', 'provenance', 'n', '95 % interval'} <= set(table[0]) and len(table) == 2
    assert (done/'out/report/weak_table1-table.tex').read_text().startswith(r'\begin{tabular}')


def test_sorting_in_a_browser(done, tmp_path):
    browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if browser is None: pytest.skip('no chromium here')
    click = "<script>const heads = [...document.querySelector('table').querySelectorAll('th')]; const n = heads.findIndex(h => h.textContent == 'ours'); heads[n].click();" \
            "document.title = [...document.querySelector('tbody').rows].map(r => parseFloat(r.cells[n].textContent)).join(' ')</script>"
    (tmp_path/'page.html').write_text((done/'out/report.html').read_text() + click)
    shown = subprocess.run([browser, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={tmp_path}/profile', '--dump-dom', (tmp_path/'page.html').as_uri()], capture_output=True, text=True, timeout=120).stdout
    numbers = [float(v) for v in shown.split('<title>')[1].split('</title>')[0].split()]
    assert numbers == sorted(numbers) and len(numbers) == 2


def test_interrupted_three_times(done, tmp_path, home):
    "Killed with all its processes while cells run, the same call ends with the same tables; no finished cell runs again."
    call = ('reproduce', '--profile', done/'mini.yaml', '--jobs', 2, '--out', tmp_path/'out')
    assert finish(call, tmp_path/'out', home, kills=3, longest=4) == 3
    check_files(tmp_path/'out')
    assert tables(tmp_path/'out') == tables(done/'out') != {}


def test_killed_after_the_last_word(cli, done, tmp_path):
    "A cell that had written done.json when Snakemake was killed is done, though Snakemake does not know that."
    out = shutil.copytree(done/'out', tmp_path/'out')
    lost, kept = (next(out.glob(f'cells/run-*weak-4-{subset}-0-*/done.json')) for subset in (0, 1))
    marks, name = out/'.snakemake/incomplete', str(kept.relative_to(out))
    (marks/base64.b64encode(name.encode()).decode()).touch()
    lost.unlink()
    before = kept.stat().st_mtime_ns
    assert cli('reproduce', '--profile', done/'mini.yaml', '--out', out).returncode == 0
    assert lost.is_file() and kept.stat().st_mtime_ns == before


def test_dry_run_says_what_a_changed_loss_runs_again(cli, done, tmp_path):
    "In a copy of the package, on results of the package as it is."
    shutil.copytree(repo/'medsam_prompts', tmp_path/'medsam_prompts')
    shutil.copytree(repo/'nbs/experiments', tmp_path/'nbs/experiments')
    call = dict(cwd=tmp_path, env=dict(PYTHONPATH=str(tmp_path)))
    def dry(): return cli('reproduce', '--profile', done/'mini.yaml', '--out', done/'out', '--dry-run', **call).stdout.splitlines()
    def edit(module, old, new):
        path = tmp_path/'medsam_prompts'/module
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    before = {p: p.stat().st_mtime_ns for p in (done/'out').rglob('*')}
    assert dry()[-1].startswith('0 of 7 cells would run, 7 are reused')
    edit('losses/preference.py', 'F.softplus(-margin/temperature)', 'F.softplus(-margin)') # nothing here uses it
    assert dry()[-1].startswith('0 of 7')
    edit('losses/box.py', 'return total/len(p)', 'return total')
    *lines, last = dry()
    assert last.startswith('5 of 7 cells would run, 2 are reused; about') and not any('tight_box' in l.split()[0] or l.startswith('embed') for l in lines)
    assert sum(l.startswith('run-phantom_head-weak-') and l.endswith('code: losses.box.tightness_loss') for l in lines) == 2
    assert sum(l.startswith(('weak_table1', 'weak_fig2', 'case_pages')) and 'after run-phantom_head-weak-' in l for l in lines) == 3
    assert {p: p.stat().st_mtime_ns for p in (done/'out').rglob('*')} == before


@pytest.mark.slow
def test_slurm(done, tmp_path, home):
    "The same plan through a real Slurm of one node ends with the same tables."
    if says := missing(): pytest.skip(f'no Slurm here: {says}')
    pytest.importorskip('snakemake_executor_plugin_slurm', reason='the extra [slurm] is not installed')
    call = [sys.executable, repo/'tests/one_node_slurm.py', sys.executable, '-c', code, 'reproduce', '--profile', done/'mini.yaml', '--jobs', 2, '--executor', 'slurm', '--out', tmp_path/'out']
    ran = subprocess.run(list(map(str, call)), env={**os.environ, 'MEDSAM_PROMPTS_HOME': str(home), 'PYTHONPATH': str(repo)}, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert tables(tmp_path/'out') == tables(done/'out')


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
