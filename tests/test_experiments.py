"Notebooks that only gather rows, on made-up rows with a known answer."
import math

import matplotlib
import numpy as np
import pandas as pd
import pytest

from medsam_prompts.results import write_rows
from medsam_prompts.core import experiments_folder
from medsam_prompts.workflow import _sources, declaration

hard = np.random.default_rng(0).normal(.8, .05, 12)


def run(folder, task, method, dice, shots=10, changes='', subset=0, fit_seconds=100.):
    "A folder as a run leaves it; Dice is that of the case plus a constant."
    path = folder/f'run-{len(list(folder.glob("run-*")))}'
    path.mkdir()
    fixed = dict(task=task, backbone='lite_medsam', method=method, shots=shots, subset=subset, seed=0, changes=changes, fit_seconds=fit_seconds, outside_bounds=.25 if method == 'weak' else None)
    write_rows(path/'rows.csv', [dict(**fixed, case=f'c{i}', dice=h + dice) for i, h in enumerate(hard)])
    return str(path)


def execute(name, runs, out, **given):
    matplotlib.use('Agg')
    exec(_sources(name)[1], {**declaration(name)[0], **given, 'runs': runs, 'out': str(out)})
    matplotlib.pyplot.close('all')
    return {p.name for p in out.iterdir() if p.is_file()}


@pytest.mark.parametrize('name', sorted(p.stem for p in experiments_folder().glob('*.ipynb')))
def test_no_parameter_is_hidden(name):
    "The package is imported after the parameters are set."
    import medsam_prompts.all as everything
    assert not {*declaration(name)[0], 'outputs'} & set(vars(everything))


def test_ablation(tmp_path):
    runs = [run(tmp_path, t, 'weak', d, changes=c) for t in ('hc18', 'phantom_head') for c, d in [('epochs 50', 0), ('epochs 50, tight_weight 0', -.03), ('epochs 50, jitter 0.1', .01)]]
    made = execute('weak_ablation', runs + [run(tmp_path, 'hc18', 'weak_ours', .02)], tmp_path)
    assert {'table.html', 'differences.png', 'jitter.png', 'summary.md'} <= made
    t = pd.read_csv(tmp_path/'table.csv')
    assert t.change.tolist() == ['unchanged', 'tight_weight 0', 'jitter 0.1', 'unchanged', 'unchanged', 'tight_weight 0', 'jitter 0.1']
    np.testing.assert_allclose(t.difference, [0, -.03, .01, 0, 0, -.03, .01], atol=1e-9)
    page = (tmp_path/'table.html').read_text()
    assert page.count('<td>base</td>') == 3 and 'outside bounds†' in page


def test_shots(tmp_path):
    runs = [run(tmp_path, t, 'tight_box', .15, None) for t in ('hc18', 'phantom_head')]
    runs += [run(tmp_path, t, 'weak_ours', .01*n, n, subset=s) for t in ('hc18', 'phantom_head') for n in (10, 2, 5) for s in (0, 1)]
    runs += [run(tmp_path, 'hc18', 'weak', .13, None)]
    assert {'table.html', 'curve.png', 'curve.md'} <= execute('weak_shots', runs, tmp_path)
    t = pd.read_csv(tmp_path/'table.csv', dtype=dict(shots=str)).query('task == "hc18"').set_index(['method', 'shots'])
    assert t.reported['weak_ours', '10'] == pytest.approx(.8523) and t.reported['weak', 'all'] == pytest.approx(.9288) and math.isnan(t.reported['weak_ours', '5'])


def test_claims(tmp_path, monkeypatch):
    monkeypatch.setenv('MEDSAM_PROMPTS_DATA', str(tmp_path/'no_data'))
    runs = [run(tmp_path, 'hc18', 'weak', .1, None), run(tmp_path, 'hc18', 'unet', .04, None, 'epochs 50'), run(tmp_path, 'hc18', 'weak', 0, 10, 'epochs 50', fit_seconds=100.),
            run(tmp_path, 'hc18', 'weak', 0, 10, 'epochs 50', 1, fit_seconds=200.), run(tmp_path, 'hc18', 'autosam', 0, 10, 'epochs 5, start random', fit_seconds=30.)]
    assert {'claims.html', 'figure1.png'} <= execute('weak_claims', runs, tmp_path)
    c = pd.read_csv(tmp_path/'claims.csv').set_index('claim')
    assert c.ours['parameters while training'] == pytest.approx((4_058_340 + 2_433_984)/1e6) and c.verdict['parameters of the whole model'] == 'holds'
    assert c.ours['training time of AutoSAM over ours'] == pytest.approx(3) and c.verdict['training time of AutoSAM over ours'] == 'holds'
    assert c.ours['all boxes minus UNet on all masks, HC'] == pytest.approx(6) and c.gap['all boxes minus UNet on all masks, HC'] == pytest.approx(-.35)
    assert c.verdict['all boxes minus UNet on all masks, CAMUS-LA'] == 'cannot be checked here'
    shares = c[c.index.str.startswith('share')]
    assert shares.verdict.tolist() == ['cannot be checked here']*2 + ['holds'] and shares.n.astype(int).tolist() == [762, 507, 350]
    small = tmp_path/'small'
    small.mkdir()
    execute('weak_claims', runs[:-1] + [run(tmp_path, 'hc18', 'autosam', 0, 10, 'epochs 1, size 64, start random', fit_seconds=3.)], small)
    assert pd.read_csv(small/'claims.csv').set_index('claim').verdict['training time of AutoSAM over ours'] == 'cannot be checked here'


def test_table1_joins_the_seeds(tmp_path, monkeypatch):
    "Three runs with one member each, and the line of the model that they make."
    runs = [run(tmp_path, 'phantom_head', 'tight_box', .15, None)]
    for seed, gain in enumerate((0, .02, .04)):
        runs.append(run(tmp_path, 'phantom_head', 'weak_ours', gain, changes='members 1'))
        rows = pd.read_csv(f'{runs[-1]}/rows.csv').assign(seed=seed, score=[.9 if (i + seed) % 3 == 0 else .1 for i in range(12)])
        write_rows(f'{runs[-1]}/rows.csv', rows)
    pd.read_csv(f'{runs[0]}/rows.csv').assign(score=.9).to_csv(f'{runs[0]}/rows.csv', index=False)
    source = _sources('weak_table1')[1].split('def same(')[0] # the figure wants masks of real cases
    names = dict(runs=runs, out=str(tmp_path))
    exec(source, names)
    t = names['table'].set_index('changes').query('method == "weak_ours"')
    assert t['mean'].tolist() == pytest.approx([hard.mean() + .02]*2) and t.runs.tolist() == [3, 1] and t.index.tolist() == ['members 1', '']
    by_case = names['rows'].query('method == "weak_ours" and changes == ""').set_index('case').dice
    assert by_case['c0'] == pytest.approx(hard[0]) and by_case['c1'] == pytest.approx(hard[1] + .04) and by_case['c2'] == pytest.approx(hard[2] + .02)


def evolved(folder, task, gain, seed=0):
    "A folder as evolve_run leaves it."
    path = folder/f'evolve-{task}-{seed}'
    path.mkdir()
    fixed = dict(task=task, backbone='mobile_sam', start='centroid', shots=40, subset=0, seed=seed, seconds=1.)
    rows = [dict(**fixed, way=way, case=f'c{i}', dice=h + up*(i < 6), score=h, predicted_iou=1 - h if way == 'start' else None, moved=3., calls=calls, fired='area margin' if 'safeguards' in way and i < 3 else '', setting='margin 0.1' if 'validation' in way else '')
            for way, up, calls in [('start', 0, 1), ('evolved', gain, 51), ('evolved, safeguards', 0, 51), ('evolved, our scorer', gain, 51), ('evolved, chosen on validation', 0, 51), ('evolved, lowest of three scorers', gain/2, 51), ('evolved on the true Dice', .15, 51)] for i, h in enumerate(hard)]
    write_rows(path/'rows.csv', rows)
    write_rows(path/'samples.csv', [dict(scorer=n, case=f'c{i}', kind=k, dice=d, predicted=.5*d*sign) for n, sign in [('paper', 1), ('ours', -1)] for i in range(4) for k, d in [('level', .2), ('level', .9), ('band', .5)]])
    return str(path)


def test_evolution(tmp_path):
    runs = [evolved(tmp_path, 'phantom_head', .12, s) for s in (0, 1)] + [evolved(tmp_path, 'hc18', -.02)]
    assert {'table.html', 'claims.csv', 'summary.md'} <= execute('evolve_table', runs, tmp_path)
    t = pd.read_csv(tmp_path/'table.csv').set_index(['task', 'way'])
    assert t.failures['hc18', 'evolved'] == 0 and t.worst['hc18', 'evolved'] == pytest.approx(-.02)
    head, lost = t.loc['phantom_head', 'evolved'], t.loc['hc18', 'evolved']
    assert head.difference == pytest.approx(.06) and head.improved == head.much_improved == .5 and head.worse == 0 and head.calls == 51 and head.runs == 2
    assert lost.improved == 0 and lost.worse == .5 and t.difference['hc18', 'start'] == 0
    c = pd.read_csv(tmp_path/'claims.csv').set_index(['task', 'claim'])
    assert c.ours['hc18', 'regressor on centroid masks (53)'] == pytest.approx(1) and c.ours['hc18', 'SAM confidence (53)'] == pytest.approx(-1)
    assert c.reported['hc18', 'improved by evolution'] == pytest.approx(38/53) and c.ours['phantom_head', 'improved by evolution'] == .5
    page = (tmp_path/'table.html').read_text()
    forms = pd.read_csv(tmp_path/'scorers.csv').set_index(['task', 'scorer'])
    assert forms.unseen.tolist() == pytest.approx([1, -1, -1]*2) and forms.change.tolist() == pytest.approx([.06, .06, .03, -.01, -.01, -.005])
    assert page.count('class=oracle') == 14 and 'evolved on the true Dice†' in page
    both = tmp_path/'both'; both.mkdir(); execute('evolve_table', runs, both, earlier='real'); own = ['hc18', 'phantom_head']
    t, old = pd.read_csv(both/'table.csv'), pd.read_csv(experiments_folder()/'results/real/evolve_table/table.csv')
    assert t[(t.task == 'hc18') & (t.backbone == 'mobile_sam')].way.tolist() == pd.read_csv(tmp_path/'table.csv').query('task == "hc18"').way.tolist()
    assert len(t[~t.task.isin(own)]) == len(old[~old.task.isin(own)]) and set(pd.read_csv(both/'claims.csv').task) == {'phantom_head', 'hc18', 'cxr_left_lung', 'busi'}
    assert {'figure.png', 'figure.csv'} <= execute('evolve_fig4', runs, tmp_path)
    assert pd.read_csv(tmp_path/'figure.csv').r.tolist() == pytest.approx([1, 1, -1]*2)


def preferred(folder, task, subset, ranking, free, share='rest', fraction=.1):
    "A folder as prefer_run leaves it."
    path = folder/f'prefer-{task}-{subset}-{share}-{fraction}'
    path.mkdir()
    fixed = dict(task=task, backbone='lite_medsam', method='probe', fraction=fraction, share=share, subset=subset, seed=subset, words='', changes='')
    ways = [('prompts alone', -.3, 0, None, 0), ('labelled part', -.2, 0, None, .5), ('all labelled', 0, 0, None, .8), ('ranking', ranking, 9, 'iou', .6), ('more candidates', ranking - .05, 9, 'iou', .55),
            ('agree', free, 9, 'agreement', .7), ('predicted', free - .1, 9, 'predicted iou', .4), ('noise 30%', ranking - .01, 9, 'iou, 30% errors', .3)]
    write_rows(path/'rows.csv', [dict(**fixed, way=w, labelled=1, rated=n, annotator=a, best=best, case=f'c{i}', dice=h + d, fit_seconds=1.) for w, d, n, a, best in ways for i, h in enumerate(hard)])
    write_rows(path/'log.csv', [dict(**fixed, way='labelled part', epoch=0, dice=.5)] + [dict(**fixed, way='ranking', epoch=1, margin=1., told=.5, differing=.1, changed=.2, drift=3., dice=.6)])
    write_rows(path/'knows.csv', [dict(**fixed, annotator=a, candidates='thresholds', images=9, pairs=p + .1*subset, best=0.) for a, p in (('iou', 1.), ('agreement', .4))])
    return str(path)


def test_preference(tmp_path):
    runs = [preferred(tmp_path, 'busi', s, -.1, -.15) for s in (0, 1)] + [preferred(tmp_path, 'hc18', 0, -.2, -.25)]
    plain = run(tmp_path, 'busi', 'unet', -.4)
    assert {'table.html', 'choice.csv', 'table_20.html'} <= execute('prefer_main', [*runs, plain], tmp_path)
    t = pd.read_csv(tmp_path/'table.csv').set_index(['task', 'way'])
    assert t.closed['busi', 'ranking'] == pytest.approx(.5) and t.closed['busi', 'agree'] == pytest.approx(.25) and t.closed['hc18', 'ranking'] == pytest.approx(0)
    assert t.runs['busi', 'ranking'] == 2 and t.difference_low['busi', 'ranking'] == pytest.approx(.1)
    c = pd.read_csv(tmp_path/'choice.csv').set_index(['task', 'way'])
    assert c.kept['busi', 'no truth, chosen'] == pytest.approx(.5) and c.difference['busi', 'rated, chosen'] == pytest.approx(.1) and math.isnan(c.kept['hc18', 'no truth, chosen'])
    assert pd.read_csv(tmp_path/'knows.csv').set_index(['task', 'annotator']).pairs['busi', 'agreement'] == pytest.approx(.45)
    assert 'ranking‡' in (tmp_path/'table.html').read_text() and '57.4' in (tmp_path/'table_20.html').read_text()
    assert {'growth.png'} <= execute('prefer_growth', [preferred(tmp_path, 'busi', 0, g, -.2, s) for s, g in ((.1, -.15), (.4, -.05))], tmp_path)
    t = pd.read_csv(tmp_path/'table.csv').query('way == "ranking"')
    assert t.reported.tolist()[1:] == pytest.approx([.8815]) and t.closed.tolist() == pytest.approx([.25, .75])
    execute('prefer_noise', runs, tmp_path)
    assert pd.read_csv(tmp_path/'table.csv').query('task == "busi"').set_index('way').reported.dropna().to_dict() == pytest.approx({'ranking': .7588, 'noise 30%': .7568})
