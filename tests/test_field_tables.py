"Tables and boxes as users bring them: read right, or refused in one line that says why."
import csv
import os
import time
import unicodedata

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medsam_prompts.cli import main

header = 'image,x0,y0,x1,y1'
true_box = (60, 27, 135, 78)


def picture(path, size=(160, 128), box=true_box):
    "An ellipse in a box, on noise."
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    (x0, y0, x1, y1), noise = box, np.random.default_rng(0).normal(60, 8, size[::-1])
    inside = ((x - (x0 + x1)/2)/((x1 - x0)/2))**2 + ((y - (y0 + y1)/2)/((y1 - y0)/2))**2 <= 1
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((noise + 90*inside).clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path, monkeypatch, home):
    "Two pictures in a folder."
    monkeypatch.setenv('MEDSAM_PROMPTS_HOME', str(home))
    monkeypatch.setenv('MEDSAM_PROMPTS_OFFLINE', '1')
    monkeypatch.chdir(tmp_path)
    for name in ('p0', 'p1'): picture(tmp_path/f'images/{name}.png')
    return tmp_path


def predict(folder, table, kind='boxes', images='images'):
    if isinstance(table, str): table = table.encode()
    (folder/f'{kind}.csv').write_bytes(table)
    what = [f'--{kind}', f'{kind}.csv', '--images', images, '--out', 'out']
    return main(['predict', '--backbone', 'sam_toy', *what, '--quiet'])


def train(folder, table):
    (folder/'boxes.csv').write_bytes(table if isinstance(table, bytes) else table.encode())
    what = ['--boxes', 'boxes.csv', '--images', 'images', '--out', 'm.safetensors', '--epochs', '1']
    return main(['train', 'weak', '--backbone', 'sam_toy', *what, '--quiet'])


def refused(code, capsys, folder, *says):
    err = capsys.readouterr().err.strip()
    assert code == 2 and '\n' not in err and 'Traceback' not in err, err
    assert all(s in err for s in says), (says, err)
    assert not (folder/'out').exists() and not (folder/'m.safetensors').exists()


def predictions(folder):
    with (folder/'out/predictions.csv').open() as f: rows = list(csv.DictReader(f))
    return [{k: v for k, v in r.items() if k != 'seconds'} for r in rows]


rows = [('p0.png', 60.5, 27, 135, 78.5), ('p1.png', 60.5, 27, 135, 78.5)]
plain = '\n'.join([header, *(','.join(map(str, r)) for r in rows)])
german = plain.replace(',', ';').replace('.5', ',5').replace('\n', '\r\n') + '\r\n'
good = dict(
    semicolons=german,
    bom=b'\xef\xbb\xbf' + german.encode(),
    excel_unicode=german.replace(';', '\t').encode('utf-16'),
    utf_16_be=plain.encode('utf-16-be'),
    tabs=plain.replace(',', '\t'),
    old_mac=plain.replace('\n', '\r'),
    dos_end=plain + '\x1a',
    sep_line='sep=;\r\n' + german,
    quoted='\n'.join(','.join(f'"{v}"' for v in line.split(',')) for line in plain.splitlines()),
    capitals=plain.replace(header, ' Image , X0,Y0 , X1,Y1 ').replace(',', ' , '),
    empty_rows='\n\n' + plain.replace('\n', '\n\n ,,,,\n') + '\n,,,,\n',
    more_columns='\n'.join(line + more for line, more in zip(plain.splitlines(), (',note,', ',"a, ""b""",', ''))),
    cp1252=plain.replace('\n', ',größer\n').encode('cp1252'),
)


def test_tables_that_spreadsheets_write(folder, capsys):
    assert predict(folder, plain) == 0
    want = predictions(folder)
    assert len(want) == 2
    for name, table in good.items():
        assert predict(folder, table) == 0, (name, capsys.readouterr().err)
        assert predictions(folder) == want, name


bad = dict(
    no_header=('p0.png,60,27,135,78\np1.png,60,27,135,78', "no column image: its first line 'p0.png,", 'is no header'),
    other_columns=('file;xmin\na;1', "'file;xmin' names none of the columns"),
    one_lost=('image;x0;y0;x1\np0;1;2;3', 'no column y1', 'separated by semicolons'),
    blanks=('image x0 y0 x1 y1\np0 1 2 3 4', 'separated by blanks'),
    comma_in_commas=(header + '\n\np0,60,5,27,5,135,5,78,5', 'line 3 has 9 fields', 'decimal comma'),
    mixed=(header.replace(',', ';') + '\np0;60,5;27;135;78\np1;60.5;27;135;78', 'a decimal comma and line 3 a'),
    empty=('', 'no rows'),
    only_header=(header + '\n\n', 'no rows'),
    workbook=(b'PK\x03\x04' + bytes(80), 'spreadsheet'),
    noise=(bytes(range(256)), 'not text'),
    label=(header + ',label\np0,60,27,135,78,tumour', "line 2: label is 'tumour'", 'whole number from 1 to 255'),
    quote=(header + '\np0,1,2,30,40\n"p1,1,2,3,4\n', 'after line 2', 'quotation marks'),
    lines_of_file=(header + '\n\n\np0,60,27,135,78\np1,60,x,135,78', "line 5: y0 is 'x', not a number"),
    infinite=(header + '\np0,60,27,inf,78', "x1 is 'inf', not a number"),
    no_name=(header + '\n ,60,27,135,78', 'line 2 names no image'),
)


def test_tables_that_cannot_be_read(folder, capsys):
    for table, *says in bad.values():
        refused(predict(folder, table), capsys, folder, 'boxes.csv', *says)
        refused(train(folder, table), capsys, folder, 'boxes.csv', *says)


def test_names(folder, capsys):
    for name in ('1.2.840.png', 'scan.v2.png', unicodedata.normalize('NFD', 'Müller.png')): picture(folder/'odd'/name)
    written = (r'C:\Users\me\1.2.840.PNG', 'set/scan.v2', unicodedata.normalize('NFC', 'Müller.png'))
    table = '\n'.join([header, *(f'{n},60,27,135,78' for n in written)])
    assert predict(folder, table, images='odd') == 0
    assert {unicodedata.normalize('NFC', r['case']) for r in predictions(folder)} == {'1.2.840', 'scan.v2', 'Müller'}


def test_names_below_a_folder(folder, capsys):
    for name in ('a', 'b'): picture(folder/f'deep/{name}/p0.png')
    code = predict(folder, f'{header}\na/p0.png,60,27,135,78\nb/p0,60,27,175,78', images='deep')
    refused(code, capsys, folder, 'line 3: (60, 27, 175, 78) reaches beyond')
    assert predict(folder, f'{header}\na/p0.png,60,27,135,78\ndeep\\b\\p0.png,60,27,135,78', images='deep') == 0
    assert [r['case'] for r in predictions(folder)] == ['a_p0', 'b_p0']


def test_names_of_no_image(folder, capsys):
    (folder/'images/p2.xcf').write_bytes(b'gimp xcf')
    os.symlink('nowhere', folder/'images/p3.png')
    lost = {'p00.png': 'no image p00.png, but p0', 'P1.png': 'no image P1.png, but p1',
            'other': 'no image other in the folder', 'p2.xcf': 'p2.xcf: this type of file is not read',
            'p3': 'p3.png: a link that leads nowhere'}
    for name, says in lost.items():
        table = f'{header}\np0,60,27,135,78\n{name},60,27,135,78'
        for run in (predict, train): refused(run(folder, table), capsys, folder, 'boxes.csv', 'line 3', says)
    table = f'{header}\nbefore/p0.png,60,27,135,78\nafter/p0.png,60,27,135,78'
    refused(predict(folder, table), capsys, folder, 'line 2 names before/p0.png and line 3 names after/p0.png')
    refused(predict(folder, f'{header}\np0.png,60,27,135,78'), capsys, folder, 'no line for p1')


def lines(*boxes): return '\n'.join([header, *(f'p{i},{",".join(map(str, b))}' for i, b in enumerate(boxes))])


misfits = dict(
    normalised=([(.375, .2109, .8438, .6094)]*2, 'between 0 and 1'),
    yolo=([(.61, .41, .47, .4)]*2, 'between 0 and 1'),
    whole_image=([(0, 0, 1, 1)]*2, 'between 0 and 1'),
    width_height=([(90, 60, 40, 50), (60, 27, 75, 51)], 'line 2', 'read as x,y,width,height, all 2 lines fit'),
    left=([(-8, 27, 60, 78), true_box], 'line 2', 'reaches beyond p0 (160 x 128 pixels)'),
    outside=([true_box, (200, 27, 230, 78)], 'line 3', 'lies outside p1'),
    beyond_by_two=([true_box, (60, 27, 162, 78)], 'line 3', 'reaches beyond'),
    resized=([(384, 270, 864, 624)]*2, 'fit a copy that is 5.4 times as large, such as one of 1024 pixels'),
    thin=([true_box, (60, 27, 60, 78)], 'line 3', 'less than 2 pixels'),
    inverted=([(135, 110, 60, 27), true_box], 'inverted'),
    order=([(60, 135, 27, 78)]*2, 'read as x0,x1,y0,y1'),
)


def test_boxes_that_do_not_fit(folder, capsys):
    for boxes, *says in misfits.values():
        for run in (predict, train): refused(run(folder, lines(*boxes)), capsys, folder, 'boxes.csv', *says)
    for name in ('p0', 'p1'): picture(folder/f'tall/{name}.png', (96, 160), (29, 57, 86, 135))
    code = predict(folder, lines(*[(57, 29, 135, 86)]*2), images='tall')
    refused(code, capsys, folder, 'line 2', 'read as y before x')


def test_exclusive_edge_is_accepted(folder, capsys):
    assert predict(folder, lines((81, 27, 160, 79), (60, 60, 135, 128))) == 0
    assert not capsys.readouterr().err


def test_boxes_that_fit_and_are_probably_wrong(folder, capsys):
    for name in ('p0', 'p1'): picture(folder/f'large/{name}.png', (640, 512), (97, 77, 287, 230))
    for boxes, images, says in (((60, 27, 75, 51), 'images', 'look like x,y,width,height'),
                                ((155, 123, 459, 368), 'large', 'a copy whose longer side has 1024')):
        assert predict(folder, lines(boxes, boxes), images=images) == 0
        err = capsys.readouterr().err
        assert says in err and 'Line 2' in err and err.count('\n') == 1
    for boxes in (true_box, (5, 6, 30, 24), (50, 20, 145, 85)):
        assert predict(folder, lines(boxes, boxes)) == 0
        assert not capsys.readouterr().err


def test_points(folder, capsys):
    wrong = {'0.5,0.4': 'between 0 and 1', '500,300': 'such as one of 512 pixels', '170,30': 'lies outside p0',
             '30,140': 'read as y before x', '-4,30': 'lies outside p0'}
    for numbers, says in wrong.items():
        table = f'image,x,y,positive\np0,{numbers},1\np1,{numbers},1'
        refused(predict(folder, table, 'points'), capsys, folder, 'points.csv', 'line 2', says)
    assert predict(folder, 'image;x;y;positive\np0;90,5;50;1\np1;90,5;50;1', 'points') == 0


def test_boxes_of_volumes_are_judged_in_the_pixels_of_the_file(folder, capsys):
    turned = np.array([[0, 0, -4., 0], [1.1, 0, 0, 0], [0, -.9, 0, 0], [0, 0, 0, 1]])
    voxels = np.random.default_rng(0).integers(0, 200, (40, 100, 4)).astype(np.int16)
    (folder/'vol').mkdir()
    nib.save(nib.Nifti1Image(voxels, turned), folder/'vol/v.nii.gz')
    def run(box): return predict(folder, f'{header},slice\nv.nii.gz,{box}', images='vol')
    for box, says in (('20,45,50,95,1', 'reaches beyond v (40 x 100 pixels)'), ('45,20,95,39,1', 'read as y before x'),
                      ('20,45,39,95,4', 'v has no slice 4')):
        refused(run(box), capsys, folder, says)
    assert run('20,45,39,95,1') == 0


def test_lists_and_ratings(folder, capsys):
    from medsam_prompts.all import folder_cases, read_labelled, read_ratings
    from medsam_prompts.core import InputError
    cases = folder_cases(folder/'images')
    (folder/'list.txt').write_bytes('"p0.png"\r\n'.encode('utf-16'))
    assert read_labelled(folder/'list.txt', cases, {'p0', 'p1'}) == {'p0'}
    (folder/'list.txt').write_bytes(b'\nP0.png\n')
    with pytest.raises(InputError, match='line 2: there is no image P0.png, but p0'):
        read_labelled(folder/'list.txt', cases, {'p0'})
    (folder/'r.csv').write_bytes('Image;Candidate;Rating\r\np0.png;0;1,5\r\np0.png;1;2\r\n'.encode('utf-16'))
    assert read_ratings(folder/'r.csv', cases, cases).rated == {'p0': {0: 1.5, 1: 2.}}
    (folder/'r.csv').write_bytes(b'image,candidate,rating\np0.png,0,1\np9.png,0,1\n')
    with pytest.raises(InputError, match='line 3: there is no image p9.png'):
        read_ratings(folder/'r.csv', cases, cases)


def test_a_thousand_lines_take_no_time(folder):
    from medsam_prompts.data.boxes import read_boxes
    (folder/'boxes.csv').write_text(header + '\n' + '\n'.join(f'p{i}.png,60,27,135,78' for i in range(1000)))
    start = time.perf_counter()
    assert len(read_boxes(folder/'boxes.csv')) == 1000
    assert time.perf_counter() - start < .5
