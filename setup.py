"Package metadata: settings.ini is its only source."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']

setup(
    version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], license=cfg['license'],
    url=cfg['git_url'], project_urls={'Documentation': cfg['doc_url'], 'Repository': cfg['git_url']},
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    python_requires=f">={cfg['min_python']}", install_requires=cfg['requirements'].split(),
    extras_require={k.removesuffix('_requirements'): v.split() for k, v in cfg.items() if k.endswith('_requirements')},
    packages=[*find_packages(include=['medsam_prompts', 'medsam_prompts.*']), 'medsam_prompts.experiments'],
    package_dir={'medsam_prompts.experiments': 'nbs/experiments'},
    package_data={'medsam_prompts': ['bank.yaml'], 'medsam_prompts.experiments': ['*.ipynb', 'Snakefile', 'profiles/*', 'reported/*.csv', 'reported/splits/*', 'results/**/*.csv']},
    entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': ['medsam_prompts=medsam_prompts._modidx:d']},
    classifiers=['Development Status :: 4 - Beta', 'Intended Audience :: Science/Research', 'Programming Language :: Python :: 3',
                 'Topic :: Scientific/Engineering :: Medical Science Apps.'],
)
