"The documentation site: links resolve, figures show, definitions are found."
import json
import shutil
import subprocess
import sys

import pytest

from conftest import repo
from links import Page, dead_links


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp('docs')
    subprocess.run([sys.executable, repo/'tests/build_docs.py', out], check=True)
    return out


def test_quarto_finds_its_settings():
    "Quarto looks beside the notebooks, people look at the top; both are the same."
    assert (repo/'nbs/_quarto.yml').read_text() == (repo/'_quarto.yml').read_text(), 'cp _quarto.yml nbs/'


@pytest.mark.slow
def test_pages(site):
    pages = sorted(site.rglob('*.html'))
    assert {p.relative_to(site).with_suffix('.ipynb') for p in pages} == {p.relative_to(repo/'nbs') for p in (repo/'nbs').rglob('*.ipynb')}
    assert dead_links(pages, site) == []
    assert sum(len(Page(p.read_text()).pictures) for p in pages) > 50
    assert 'Every band of rows' in (site/'41_losses.box.html').read_text() and 'XYXY inclusive pixels</td>' in (site/'41_losses.box.html').read_text()


@pytest.mark.slow
def test_search(site):
    entries = json.loads((site/'search.js').read_text().removeprefix('const entries = '))
    assert {'tightness_loss', 'Segmenter.decode', 'losses.box', 'Why a cell runs'} <= {e['name'] for e in entries}
    read = {}
    for e in entries:
        path, _, anchor = e['url'].partition('#')
        if path not in read: read[path] = Page((site/path).read_text())
        assert not anchor or anchor in read[path].ids, e
    browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if browser is None: pytest.skip('no chromium here')
    call = [browser, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={site}/.profile', '--dump-dom', f'{(site/"index.html").as_uri()}?q=tight+loss']
    shown = subprocess.run(call, capture_output=True, text=True, timeout=180).stdout
    assert '41_losses.box.html#tightness_loss' in shown.split('id="found"')[1].split('</div>')[0]
