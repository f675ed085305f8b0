"README.md from nbs/index.ipynb: its text and what its cells show, with links that work from the top folder."
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

repo = Path(__file__).parent.parent


def output_alone(cell):
    "A cell that shows its output but not its code."
    return nbformat.v4.new_markdown_cell(cell.outputs[0]['data']['text/markdown']) if cell.source.startswith('#| echo: false') else cell


def readme():
    nb = nbformat.read(repo/'nbs/index.ipynb', 4)
    nb.cells, nb.metadata.language_info = [output_alone(c) for c in nb.cells], {'name': 'python'}
    text, _ = MarkdownExporter().from_notebook_node(nb)
    return re.sub(r'\]\((?!https?:|#)', '](nbs/', text).strip() + '\n'


if __name__ == '__main__': (repo/'README.md').write_text(readme(), encoding='utf-8')
