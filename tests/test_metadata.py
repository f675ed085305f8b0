"settings.ini is the only source of the metadata; where a value has to stand twice, both are equal."
import re
import tomllib
from configparser import ConfigParser
from importlib.metadata import metadata, version

from build_readme import readme
from conftest import repo

parser = ConfigParser(delimiters=['='])
parser.read(repo/'settings.ini')
cfg = parser['DEFAULT']


def test_version_is_one():
    assert re.search(r'__version__ = "(.+)"', (repo/'medsam_prompts/__init__.py').read_text()).group(1) == cfg['version']
    assert re.search(r'^version: (.+)$', (repo/'CITATION.cff').read_text(), re.M).group(1) == cfg['version']
    assert f'## {cfg["version"]}' in (repo/'CHANGELOG.md').read_text()


def test_pyproject_says_only_what_nbdev_needs():
    project = tomllib.loads((repo/'pyproject.toml').read_text())['project']
    assert set(project) == {'name', 'dynamic'} and project['name'] == cfg['lib_name']


def test_installed_metadata_comes_from_settings():
    meta = metadata('medsam_prompts')
    assert version('medsam_prompts') == cfg['version'] and meta['Summary'] == cfg['description']
    required = {re.split(r'[<>=! ;]', r)[0].lower() for r in meta.get_all('Requires-Dist') if 'extra' not in r}
    assert required == {re.split(r'[<>=]', r)[0].lower() for r in cfg['requirements'].split()}


def test_constraints_cover_the_requirements():
    pinned = {line.split('==')[0].lower().replace('_', '-') for line in (repo/'constraints.txt').read_text().splitlines() if '==' in line}
    wanted = {re.split(r'[<>=]', r)[0].lower().replace('_', '-') for r in ' '.join(v for k, v in cfg.items() if k.endswith('requirements')).split()}
    assert wanted <= pinned, wanted - pinned


def test_readme_is_what_the_index_says(): assert (repo/'README.md').read_text(encoding='utf-8') == readme()
