"A notebook imports only notebooks with lower numbers."
import ast
import json
import re

import pytest

from conftest import repo

notebooks = sorted((repo/'nbs').glob('[0-9]*.ipynb'))


def source(path, code=('code',)): return [''.join(c['source']) for c in json.loads(path.read_text())['cells'] if c['cell_type'] in code]


def module(path): return next(m.group(1) for s in source(path) if (m := re.search(r'#\|\s*default_exp\s+(\S+)', s)))


place = {module(p): i for i, p in enumerate(notebooks)}


def imports(path):
    for cell in source(path):
        tree = ast.parse(re.sub(r'^\s*[%!].*$', 'pass', cell, flags=re.M))
        for node in ast.walk(tree):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names] if isinstance(node, ast.Import) else []
            yield from (n.removeprefix('medsam_prompts.') for n in names if n and n.startswith('medsam_prompts.'))


lazy = {'cli'}  # imports its commands' modules when they are called


@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_imports_only_lower_numbers(path):
    later = [m for m in imports(path) if place[m] >= place[module(path)] and module(path) not in lazy | {'all'}]
    assert not later, f'{path.name} imports {later}'


def test_every_module_has_a_notebook_and_is_handed_on():
    modules = {'.'.join(p.relative_to(repo/'medsam_prompts').with_suffix('').parts) for p in (repo/'medsam_prompts').rglob('*.py') if not p.name.startswith('_')}
    assert modules == set(place)
    assert set(imports(repo/'nbs/85_all.ipynb')) - {'all'} == modules - {'all', 'cli'}


@pytest.mark.parametrize('path', sorted((repo/'nbs').rglob('*.ipynb')), ids=lambda p: p.stem)
def test_committed_notebooks_were_executed_without_error(path):
    outputs = [o for c in json.loads(path.read_text())['cells'] for o in c.get('outputs', [])]
    assert outputs, f'{path.name} carries no outputs'
    assert not [o for o in outputs if o['output_type'] == 'error'], f'{path.name} carries an error'
