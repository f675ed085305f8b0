"Every name that a module uses is there, also where a notebook has it from a hidden cell."
import ast
import builtins
import importlib
import subprocess
import sys
import symtable
from pathlib import Path

import pytest

import medsam_prompts

package = Path(medsam_prompts.__file__).parent
modules = sorted(p for p in package.rglob('*.py') if 'experiments' not in p.parts)
given = {*dir(builtins), '__file__', '__name__', '__path__', '__doc__', '__spec__'}


def tables(table):
    "A symbol table and all below it."
    yield table
    for below in table.get_children(): yield from tables(below)


def exported(name):
    "What `from module import *` brings: its `__all__`, read without importing the modules of the package."
    if not name.startswith('medsam_prompts'):
        module = importlib.import_module(name)
        return set(getattr(module, '__all__', [n for n in dir(module) if not n.startswith('_')]))
    path = package.parent.joinpath(*name.split('.')).with_suffix('.py')
    tree = ast.parse(path.read_text(encoding='utf-8'))
    return next(set(ast.literal_eval(node.value)) for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == '__all__')


def undefined(source, parts):
    "Names that code in a module (as parts of its dotted name) uses and that nothing brings there."
    stars = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.names[0].name == '*']
    full = lambda node: '.'.join([*parts[:-node.level], node.module] if node.level else [node.module])
    top = symtable.symtable(source, '.'.join(parts), 'exec')
    own = {s.get_name() for t in tables(top) for s in t.get_symbols() if (t is top or s.is_declared_global()) and (s.is_assigned() or s.is_imported() or s.is_namespace())}
    known = own.union(given, *(exported(full(node)) for node in stars))
    return sorted({s.get_name() for t in tables(top) for s in t.get_symbols() if s.is_referenced() and s.is_global() and s.get_name() not in known})


@pytest.mark.parametrize('path', modules, ids=lambda p: str(p.relative_to(package)))
def test_modules_use_only_what_they_have(path):
    assert undefined(path.read_text(encoding='utf-8'), path.relative_to(package.parent).with_suffix('').parts) == []


@pytest.mark.parametrize('source', ['lost', 'def f(): return lost', 'f = lambda: [lost for _ in range(3)]', 'class A:\n    x: int = lost'])
def test_a_lost_name_is_found(source): assert undefined(source, ('medsam_prompts', 'core')) == ['lost']


def test_names_are_known_that_a_star_brings(): assert undefined('from .core import *\nfrom os.path import *\nhome(join("a"), InputError)', ('medsam_prompts', 'methods')) == []


def test_import_without_modules_of_unix():
    "As on Windows, which lacks them."
    code = 'import sys; sys.modules.update(dict.fromkeys(["fcntl", "resource", "pwd", "grp", "termios"])); import medsam_prompts.all'
    subprocess.run([sys.executable, '-c', code], check=True)
