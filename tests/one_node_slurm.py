"A real Slurm of one node on this machine: `python tests/one_node_slurm.py COMMAND ...` starts it in namespaces of its own, runs the command with it and stops it."
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

apart = ('unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc')
daemons = ('munged', 'slurmctld', 'slurmd')
places = os.pathsep.join(['/usr/sbin', os.environ.get('PATH', '')])
conf = '''ClusterName=one
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={d}/munge.socket
StateSaveLocation={d}/state
SlurmdSpoolDir={d}/spool
SlurmctldPidFile={d}/slurmctld.pid
SlurmdPidFile={d}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
MinJobAge=300
NodeName={host} CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName=one Nodes=ALL Default=YES MaxTime=INFINITE State=UP
'''
profile = '''slurm-status-command: squeue
slurm-init-seconds-before-status-checks: 5
slurm-no-account: true
seconds-between-status-checks: 5
'''  # there is no accounting here for sacct to ask


def missing():
    "Why no Slurm can be started here; empty where one can."
    if lost := [d for d in daemons if shutil.which(d, path=places) is None]: return f'{", ".join(lost)} not found: apt-get install slurm-wlm munge'
    if os.geteuid() != 0: return 'Slurm starts jobs for users, so its daemons want root'
    return '' if subprocess.run([*apart, 'true'], capture_output=True).returncode == 0 else 'no namespaces: the daemons would not be kept apart from other processes'


def reap_orphans():
    "Goes on in a child of process 1, which takes in what jobs leave behind: a dead process that nobody asks for counts as one that Slurm could not kill, and the node drains."
    child = os.fork()
    while child:
        pid, status = os.wait()
        if pid == child: os._exit(os.waitstatus_to_exitcode(status) & 255)


def free_ports(n):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets: s.bind(('', 0))
        return [s.getsockname()[1] for s in sockets]


def wait_for(says, what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end: raise RuntimeError(f'{says} did not come up')
        time.sleep(.2)


@contextmanager
def daemon(d, name, *options):
    with open(d/f'{name}.log', 'w') as log: process = subprocess.Popen([shutil.which(name, path=places), *map(str, options)], stdout=log, stderr=log)
    try: yield process
    finally:
        process.terminate()
        try: process.wait(20)
        except subprocess.TimeoutExpired: process.kill()


@contextmanager
def one_node_slurm():
    "As long as it lasts, sbatch finds it; yields an environment with a profile for Snakemake. Wants namespaces of its own."
    host, memory = socket.gethostname().split('.')[0], os.sysconf('SC_PHYS_PAGES')*os.sysconf('SC_PAGE_SIZE')//2**20
    with tempfile.TemporaryDirectory(prefix='slurm-', ignore_cleanup_errors=True) as tmp, ExitStack() as stack:
        d = Path(tmp)
        d.chmod(0o755)
        for part in ('state', 'spool', 'profile'): (d/part).mkdir()
        (d/'profile/config.yaml').write_text(profile)
        (d/'munge.key').write_bytes(os.urandom(1024))
        (d/'munge.key').chmod(0o400)
        (d/'slurm.conf').write_text(conf.format(host=host, d=d, user='root', cores=os.cpu_count(), memory=int(.9*memory), ports=free_ports(2)))
        etc = Path('/etc/slurm')
        etc.mkdir(exist_ok=True)
        subprocess.run(['mount', '--bind', d, etc], check=True)  # in a namespace of our own; jobs are not told of SLURM_CONF
        stack.callback(subprocess.run, ['umount', etc])
        stack.enter_context(daemon(d, 'munged', '--foreground', '--force', *(f'--{k}={d}/munge.{e}' for k, e in {'key-file': 'key', 'socket': 'socket', 'pid-file': 'pid', 'log-file': 'messages', 'seed-file': 'seed'}.items())))
        wait_for('munged', (d/'munge.socket').exists)
        for name in ('slurmctld', 'slurmd'): stack.enter_context(daemon(d, name, '-D'))
        ready = lambda: subprocess.run(['sinfo', '-h', '-o', '%T'], capture_output=True, text=True).stdout.strip() == 'idle'
        try: wait_for('Slurm', ready)
        except RuntimeError as e: raise RuntimeError('\n'.join([str(e), *((d/f'{n}.log').read_text()[-1500:] for n in daemons)])) from None
        yield {**os.environ, 'SNAKEMAKE_PROFILE': str(d/'profile')}


if __name__ == '__main__':
    if says := missing(): sys.exit(f'no Slurm here: {says}')
    if os.getpid() != 1: sys.exit(subprocess.run([*apart, sys.executable, *sys.argv]).returncode)
    reap_orphans()
    with one_node_slurm() as env: sys.exit(subprocess.run(sys.argv[1:], env=env).returncode)
