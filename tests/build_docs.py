"Notebooks as a site: `python tests/build_docs.py FOLDER`. The sidebar is that of _quarto.yml; below each exported cell stand its API tables; one box searches titles, headings and definitions."
import ast
import html
import json
import re
import shutil
import sys
import warnings
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import nbformat
import yaml
from nbconvert import HTMLExporter
from nbdev.showdoc import DocmentTbl
from pygments.formatters import HtmlFormatter

warnings.filterwarnings('ignore')
repo = Path(__file__).parent.parent
nbs = repo/'nbs'
settings = ConfigParser(delimiters=['='])
settings.read(repo/'settings.ini')
git_url = f'{settings["DEFAULT"]["git_url"]}/blob/{settings["DEFAULT"]["branch"]}'

style = '''body{margin:0;font:16px/1.55 system-ui,sans-serif;color:#222;display:grid;grid-template-columns:17rem minmax(0,58rem)}
aside{position:sticky;top:0;height:100vh;overflow-y:auto;padding:1rem;box-sizing:border-box;background:#f6f7f9;font-size:14px}aside a{display:block;color:#333;text-decoration:none;padding:.1rem 0}
aside a.here{font-weight:600;color:#0b57d0}aside h4{margin:.9rem 0 .2rem}main{padding:1rem 2.5rem;min-width:0}input{width:100%;box-sizing:border-box;padding:.4rem}#found a{border-bottom:1px solid #ddd;padding:.3rem 0}#found small{color:#777}
pre{overflow-x:auto;font-size:13px;line-height:1.4}.jp-InputArea pre{background:#f6f7f9;padding:.6rem .8rem}.jp-InputPrompt,.jp-OutputPrompt,.anchor-link{display:none}.jp-OutputArea-output pre{padding:.2rem .8rem;color:#444;margin:0}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto;margin:.8rem 0}td,th{border-bottom:1px solid #ddd;padding:.25rem .6rem;text-align:left;vertical-align:top}tr.oracle{color:#888}img{max-width:100%}blockquote{color:#555;margin-left:0}
.api{border-left:3px solid #0b57d0;padding-left:.9rem;margin:1rem 0}'''

script = '''const box = document.querySelector('#search'), found = document.querySelector('#found')
box.oninput = () => {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean)
  const rank = e => e.name.toLowerCase().startsWith(words[0]) ? 0 : e.name.toLowerCase().includes(words[0]) ? 1 : 2
  const hits = words.length ? entries.filter(e => words.every(w => (e.name + ' ' + e.says).toLowerCase().includes(w))).sort((a, b) => rank(a) - rank(b)).slice(0, 25) : []
  found.replaceChildren(...hits.map(e => { const a = document.createElement('a'); a.href = root + e.url; a.append(e.name); const s = document.createElement('small'); s.append(' ' + e.says); a.append(s); return a }))
}
box.value = new URLSearchParams(location.search).get('q') || ''
box.oninput()'''


def contents():
    "Sections of the sidebar: (title, notebooks)."
    files = lambda patterns: [p for pattern in patterns for p in sorted(nbs.glob(pattern))]
    for c in yaml.safe_load((repo/'_quarto.yml').read_text())['website']['sidebar']['contents']:
        yield ('', files([c])) if isinstance(c, str) else (c['section'], files(c['contents']))


def directives(cell): return [line[2:].strip() for line in cell.source.splitlines() if line.startswith('#|')]


def exported(source, module):
    "(name, object) of the public definitions of a cell; patched methods under the name of their class."
    for node in ast.parse(source).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith('_'): continue
        patched = any(ast.unparse(d).startswith('patch') for d in node.decorator_list)
        owners = re.findall(r'\w+', ast.unparse(node.args.args[0].annotation)) if patched else [None]
        for owner in owners:
            where = getattr(module, owner) if owner else module
            yield (f'{owner}.{node.name}' if owner else node.name), getattr(where, node.name)


def api_cell(name, obj):
    "What it does and what it takes."
    try: table = DocmentTbl(obj)._repr_markdown_() if callable(obj) else ''
    except (NameError, TypeError, ValueError): table = ''  # a builtin, or an annotation that cannot be resolved
    says = (getattr(obj, '__doc__', None) or '').strip()
    return nbformat.v4.new_markdown_cell(f'<div class="api" id="{name}">\n\n**`{name}`**{": " if says else ""}{says}\n\n{table}\n\n</div>'), dict(name=name, says=says.split('\n')[0])


def prepared(path):
    "The notebook as readers see it, and what can be found in it."
    nb = nbformat.read(path, 4)
    place = next((d.split()[1] for c in nb.cells for d in directives(c) if d.startswith('default_exp')), None)
    module, cells, entries = place and import_module(f'medsam_prompts.{place}'), [], []
    for c in nb.cells:
        says = directives(c) if c.cell_type == 'code' else []
        if 'hide' in says or any(d.startswith('default_exp') for d in says) or re.fullmatch(r'(- \w+: \w+\s*)+', c.source): continue
        if c.cell_type == 'code': c.source = '\n'.join(l for l in c.source.splitlines() if not l.startswith('#|'))
        c.source = re.sub(r'\n- skip_exec: true\s*$', '', c.source)
        if c.source.strip(): cells.append(c)
        if c.cell_type == 'markdown': entries += [dict(name=t.strip('` '), says='', anchor=re.sub(r'\s', '-', t.replace('`', ''))) for t in re.findall(r'^#{2,4} (.+)$', c.source, re.M)]
        if 'export' in says:
            for name, obj in exported(c.source, module):
                cell, entry = api_cell(name, obj)
                cells.append(cell)
                entries.append({**entry, 'anchor': name})
    nb.cells = cells
    first = next(c.source for c in cells if c.cell_type == 'markdown').strip().splitlines()
    about = next((l[1:].strip() for l in first if l.startswith('>')), '')
    return nb, first[0].lstrip('# '), about, entries


def rewrite(link, path):
    "Notebooks are pages here; what else lies in the repository is linked there."
    target, _, part = link.partition('#')
    if not target or re.match(r'[a-z]+:', link): return link
    file = (path.parent/target).resolve()
    if file.suffix == '.ipynb' and file.is_relative_to(nbs): return f'{target.removesuffix(".ipynb")}.html' + (f'#{part}' if part else '')
    return f'{git_url}/{file.relative_to(repo)}' if file.exists() else link


def page(path, title, body, sections):
    here = path.relative_to(nbs)
    root = '../'*(len(here.parts) - 1)
    def item(p, t): return f'<a{" class=here" if p == path else ""} href="{root}{p.relative_to(nbs).with_suffix(".html").as_posix()}">{html.escape(t)}</a>'
    side = ''.join((f'<h4>{html.escape(s)}</h4>' if s else '') + ''.join(item(p, t) for p, t in pages) for s, pages in sections)
    return f'''<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}{HtmlFormatter(style='default').get_style_defs('.highlight')}</style></head>
<body><aside><input id="search" type="search" placeholder="Search" aria-label="Search"><div id="found"></div>{side}</aside><main>{body}</main>
<script src="{root}search.js"></script><script>const root = "{root}"\n{script}</script></body></html>'''


def build(out):
    out, exporter = Path(out), HTMLExporter(template_name='lab', template_file='base.html.j2')
    layout = list(contents())
    read = {p: prepared(p) for _, pages in layout for p in pages}
    sections, entries = [(s, [(p, read[p][1]) for p in pages]) for s, pages in layout], []
    for path, (nb, title, about, found) in read.items():
        url = path.relative_to(nbs).with_suffix('.html').as_posix()
        body, _ = exporter.from_notebook_node(nb)
        body = re.sub(r'(<a [^>]*?href=")([^"]+)"', lambda m: f'{m[1]}{rewrite(html.unescape(m[2]), path)}"', body)
        for picture in re.findall(r'<img [^>]*?src="(?!data:|https?:)([^"]+)"', body):
            (target := out/url).parent.joinpath(picture).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path.parent/picture, target.parent/picture)
        entries += [dict(name=title, says=about, url=url), *(dict(name=e['name'], says=e['says'] or title, url=f'{url}#{e["anchor"]}') for e in found)]
        (out/url).parent.mkdir(parents=True, exist_ok=True)
        (out/url).write_text(page(path, title, body, sections), encoding='utf-8')
    (out/'search.js').write_text(f'const entries = {json.dumps(entries)}', encoding='utf-8')
    return len(read)


if __name__ == '__main__': print(f'{build(sys.argv[1])} pages: {Path(sys.argv[1]).resolve()/"index.html"}')
