"A run that is killed while it waits for an answer has lost that answer and nothing else."
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

key = 'sk-secret-0123456789'
run = '''
import sys
import numpy as np
from medsam_prompts.prompts.answers import *
image = np.arange(64).reshape(8, 8)
provider = Cached(ChatAnswers(sys.argv[1], 'demo-1', timeout=60))
for i in range(5): print(provider.answer(image, f'Question {i}?'), flush=True)
'''


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers['Content-Length'])))['messages'][0]['content'][0]['text']
        self.server.asked.append(question)
        if len(self.server.asked) == self.server.hangs_at: self.server.wait.wait(60); return
        self.send_response(200); self.end_headers()
        self.wfile.write(json.dumps({'choices': [{'message': {'content': f'yes, {question}'}}]}).encode())

    def log_message(self, *args): pass


@pytest.fixture
def server():
    s = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    s.asked, s.hangs_at, s.wait, s.daemon_threads = [], 3, threading.Event(), True
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield s
    s.wait.set(); s.shutdown(); s.server_close()


def start(server, home):
    env = {**os.environ, 'MEDSAM_PROMPTS_HOME': str(home), 'MEDSAM_PROMPTS_CHAT_KEY': key, 'MEDSAM_PROMPTS_OFFLINE': '0', 'no_proxy': '127.0.0.1'}
    return subprocess.Popen([sys.executable, '-c', run, f'http://127.0.0.1:{server.server_port}/v1'], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_run_resumes(server, tmp_path):
    first = start(server, tmp_path)
    for _ in range(600):
        if len(server.asked) == 3: break
        time.sleep(.1)
    first.kill(); killed = first.communicate()
    assert server.asked == [f'Question {i}?' for i in range(3)]
    assert len(list(tmp_path.rglob('*.json'))) == 2
    second = start(server, tmp_path); out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert out.splitlines() == [f'yes, Question {i}?' for i in range(5)] and server.asked[3:] == [f'Question {i}?' for i in range(2, 5)]
    third = start(server, tmp_path); assert third.communicate(timeout=120)[0] == out and len(server.asked) == 6
    kept = [p.read_text() for p in tmp_path.rglob('*') if p.is_file()]
    assert len(kept) == 5 and not any(key in text for text in (*kept, *killed, out, err))
