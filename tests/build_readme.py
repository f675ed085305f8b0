"README.md from nbs/index.ipynb: its text and what its cells show, with links that work from the top folder."
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

repo = Path(__file__).parent.parent


def readme():
    text, _ = MarkdownExporter().from_notebook_node(nbformat.read(repo/'nbs/index.ipynb', 4))
    return re.sub(r'\]\((?!https?:|#)', '](nbs/', text).strip() + '\n'


if __name__ == '__main__': (repo/'README.md').write_text(readme(), encoding='utf-8')
