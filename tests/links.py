"What leads nowhere in a folder of HTML pages."
import base64
import io
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

from PIL import Image


class Page(HTMLParser):
    "Anchors, links and pictures of a page."
    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.pictures = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {a[k] for k in ('id', 'name') if a.get(k)}
        self.links += [a[k] for t, k in (('a', 'href'), ('link', 'href'), ('script', 'src'), ('iframe', 'src')) if t == tag and a.get(k)]
        if tag == 'img': self.pictures.append(a.get('src', ''))


def shows(picture):
    "Whether a picture that a page carries can be decoded."
    head, _, data = picture.partition('base64,')
    if head.startswith('data:image/svg'): return bool(data)
    try: Image.open(io.BytesIO(base64.b64decode(data))).load()
    except OSError: return False
    return True


def is_external(link): return urlsplit(link).scheme in ('http', 'https', 'mailto')


def dead_links(pages, root):
    "(page, link) for each that leads nowhere, or out of `root`; pictures have to show."
    read = {p.resolve(): Page(p.read_text(encoding='utf-8')) for p in pages}

    def leads(path, link):
        part = urlsplit(link)
        target = (path.parent/unquote(part.path)).resolve() if part.path else path
        return target.is_relative_to(root.resolve()) and target.is_file() and (not part.fragment or target not in read or unquote(part.fragment) in read[target].ids)

    return [(p.name, link[:90]) for p, page in read.items() for link in page.links if not link.startswith('data:') and not is_external(link) and not leads(p, link)] + \
           [(p.name, s[:90]) for p, page in read.items() for s in page.pictures if not (shows(s) if s.startswith('data:') else is_external(s) or leads(p, s))]
