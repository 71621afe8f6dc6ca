"""Several machines: processes that know each other by an address alone, and a run that goes on elsewhere."""

import shutil
import socket
import subprocess
import sys

import pytest
from test_training import ROOT, difference, environment
from tiny_base import logged

from mmdiff_core import MMDiffError
from mmdiff_core.training import start
from mmdiff_core.training.config import read_config
from mmdiff_core.training.state import read_state


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def machines(path, **more):
    """Two launches of one process each, as two machines start them; what the second one gets, and both exit codes."""
    port, started = free_port(), []
    for rank in range(2):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", str(rank)]
        command += ["--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", port]
        command += ["-m", "mmdiff_core", "train", "--config", str(path)]
        env = environment(**(more if rank else {}))
        started.append(subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True))
    said = [one.communicate()[1] for one in started]
    return [one.returncode for one in started], said


def test_a_run_killed_on_two_machines_goes_on_on_a_third(run, write, tmp_path):
    """One of the two dies where it is asked for step 5, which is when step 2 is saved. The third one does alone, in two
    turns a step, what the two did at once."""
    sections = {"train": {"steps": 6, "batch": 1}, "save": {"every": 2}, "loss": {"text": 1.0, "image": 1.0}}
    codes, said = machines(write("two", **sections, data={"workers": 1}), KILLED_AT="9")
    assert all(codes) and len(logged(tmp_path / "two")) >= 2, said
    shutil.copytree(tmp_path / "two", tmp_path / "third")
    alone = {**sections, "train": {**sections["train"], "accumulation": 2}}
    found = run("third", resume=True, **alone)
    assert difference(run("whole", **alone), found) <= 1e-5


def test_a_step_sees_as_many_samples_wherever_it_goes_on(run, write, tmp_path):
    run(train={"steps": 1, "accumulation": 4})
    state = tmp_path / "run" / "state.safetensors"
    assert read_state(state, read_config(write(train={"steps": 1, "accumulation": 2})), processes=2).step == 1
    for accumulation, processes, wanted in ((4, 2, "2 is wanted"), (1, 3, "none that fits is wanted")):
        config = read_config(write(train={"steps": 1, "accumulation": accumulation}))
        with pytest.raises(MMDiffError, match=f"had 1 processes and train.accumulation 4.*{wanted}"):
            read_state(state, config, processes)


def test_machines_that_see_other_runs_say_so(write, monkeypatch):
    monkeypatch.setattr(start, "gather_object", lambda own: [*own, 500])
    with pytest.raises(MMDiffError, match="the processes find 0, 500 steps done.*a folder that all see"):
        start.train(read_config(write()), resume=False)
